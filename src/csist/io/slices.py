"""Some consecutive images of a file, read without the rest of it where the format allows.

NPY files and stores are read at the place; of an NPZ file what comes before is read too, but not kept. Other files
are read whole; the last one stays in memory, because its other images are mostly asked for next.
"""

from __future__ import annotations

import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import check_stack
from csist.files import reading
from csist.io import ImageStack, ReadOptions, npy_header, npz_member, read_image


def read_slice(path: Path, start: int, stop: int, options: ReadOptions | None = None) -> FloatArray:
    """Images `start` to `stop` - 1 of a file, (n, H, W): the same as `read_image(path, options=options)[start:stop]`.

    Raises:
        InputError: if the file cannot be read.
    """
    with reading(path):
        # Of a mapped file or a buffer one may not write to, a copy: torch does not take it otherwise.
        return np.require(
            check_stack(_stored(path, start, stop, options or ReadOptions()), str(path)), requirements="W"
        )


def read_error_slice(path: Path, start: int, stop: int, options: ReadOptions) -> FloatArray | None:
    """Standard deviation of the pixels of images `start` to `stop` - 1, (n, H, W); None where no map is named.

    Raises:
        InputError: if the file cannot be read.
    """
    if not options.has_noise:
        return None
    state = path.stat()
    return _whole(path, state.st_mtime_ns, state.st_size, options).errors(slice(start, stop))


def _stored(path: Path, start: int, stop: int, options: ReadOptions) -> NDArray[Any]:
    """The images as stored, pixels that the file declares bad as NaN."""
    with path.open("rb") as file:
        magic = file.read(8)
    if options.whole and options.plain and magic == b"\x89HDF\r\n\x1a\n":
        from csist.io.store import load

        return load(path)["test"][start:stop].counts
    if options.whole and options.plain and magic[:2] == b"PK":
        return _of_archive(path, start, stop, options)
    if magic[:6] == b"\x93NUMPY":
        return read_image(path, options=options)[start:stop]
    state = path.stat()
    return _whole(path, state.st_mtime_ns, state.st_size, options)[start:stop]


@lru_cache(maxsize=1)
def _whole(path: Path, changed_ns: int, size: int, options: ReadOptions) -> ImageStack:
    """All images of a file; when it was changed and how large it is tell one state of it from the next."""
    return read_image(path, options=options)


def _of_archive(path: Path, start: int, stop: int, options: ReadOptions) -> NDArray[Any]:
    """Images of an NPZ file; those before them go through memory piece by piece."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        with archive.open(f"{npz_member(path, names)}.npy") as file:
            shape, by_column, dtype = npy_header(file)
            if len(shape) == 3 and not by_column:
                size = math.prod(shape[1:]) * dtype.itemsize
                stop = min(stop, shape[0])
                file.seek(start * size, 1)
                return np.frombuffer(file.read((stop - start) * size), dtype).reshape(-1, *shape[1:])
    return read_image(path, options=options)[start:stop]
