"""Images that a run makes, as one FITS or TIFF file: (H, W) of a single image, else (N, H, W), in single precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from csist._types import FloatArray
from csist._version import package_version
from csist.checks import InputError, check_packages
from csist.files import atomic_path, check_writable, scratch_folder

SUFFIXES = (".fits", ".tif", ".tiff")


class ImageWriter:
    """Writes images as they come; the file is there when the `with` block ends without an error.

    Args:
        path: .fits, .tif or .tiff.
        metadata: of the run, kept in the file.

    Raises:
        InputError: if the file cannot be written.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = check_writable(path, SUFFIXES)
        if path.suffix.lower() == ".fits":
            check_packages("an image .fits", ["astropy"], "astro")
        self._metadata = json.dumps({"csist_version": package_version(), **metadata})
        self._shape: tuple[int, int] | None = None
        self._number = 0
        self.wcs: Any = None
        """Sky coordinates of the images, an `astropy.wcs.WCS`, which a .fits file gets; None for none."""
        self._stack = ExitStack()
        self._raw: BinaryIO | None = None

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(scratch_folder(self.path))
        self._raw = self._stack.enter_context((folder / "images").open("w+b"))
        return self

    def append(self, image: FloatArray) -> None:
        """Add an image (H, W).

        Raises:
            InputError: if it is of another size than those before, or the disk is full.
        """
        if self._shape is None:
            self._shape = (image.shape[0], image.shape[1])
        if image.shape != self._shape or self._raw is None:
            raise InputError(
                f"{self.path} holds images of one size, got {image.shape[0]} x {image.shape[1]} px after "
                f"{self._shape[0]} x {self._shape[1]}: give one file"
            )
        try:
            self._raw.write(np.ascontiguousarray(image, "<f4").tobytes())
            self._raw.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error
        self._number += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None and self._shape is not None and self._raw is not None:
                shape = self._shape if self._number == 1 else (self._number, *self._shape)
                self._write(np.memmap(self._raw, "<f4", "r", shape=shape))

    def _write(self, images: Any) -> None:
        with atomic_path(self.path) as partial:
            if self.path.suffix.lower() == ".fits":
                from astropy.io import fits

                header = fits.Header()
                header["CREATOR"] = f"csist {package_version()}"
                if self.wcs is not None:
                    header.update(self.wcs.to_header(relax=True))
                header.add_comment(self._metadata)
                fits.PrimaryHDU(images, header).writeto(partial, overwrite=True)
            else:
                import tifffile

                tifffile.imwrite(partial, images, description=self._metadata, photometric="minisblack", metadata=None)
