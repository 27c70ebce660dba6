"""Arrays of numpy: NPY, mapped and not loaded, and NPZ."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from csist.checks import InputError
from csist.io.formats import Content, ReadOptions, check_pixels


def npz_member(path: Path, names: Sequence[str]) -> str:
    """Which of the arrays of an NPZ file holds its images.

    Raises:
        InputError: if that is not clear.
    """
    chosen = names if len(names) == 1 else [name for name in ("images", "image") if name in names]
    if not chosen:
        held = ", ".join(repr(name)[1:-1] for name in names) or "nothing"
        raise InputError(f"{path} must hold one array, or one called image or images; it holds {held[:200]}")
    return chosen[0]


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and type of the array that follows."""
    version = npy_format.read_magic(file)
    return npy_format.read_array_header_1_0(file) if version == (1, 0) else npy_format.read_array_header_2_0(file)


def read_npy(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The array of an NPY file, or the one of an NPZ archive that holds images.

    Raises:
        InputError: if the file is damaged or too large, or an archive does not say which array it is.
    """
    del notes  # an array tells nothing but its values
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # what a zip archive begins with
            return Content(np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False)))
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            member = npz_member(path, names)
            inside = archive.namelist()[names.index(member)]
            with archive.open(inside) as packed:
                shape, _, dtype = npy_header(packed)
                check_pixels(shape, path, options)
            # Text and structures are reported by their type, not by unpacking them.
            if dtype.itemsize > 16 or dtype.hasobject:
                raise InputError(f"{path} must hold real numbers, got dtype {str(dtype)[:60]}")
            with archive.open(inside) as packed:
                return Content(np.asarray(npy_format.read_array(packed, allow_pickle=False)))
