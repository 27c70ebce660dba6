"""What all readers share: formats by suffix, what of a file to read, and what a file was found to hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.io.headers import Header
from csist.physics.sensor import Sensor

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_FITS_SUFFIXES = (".fits", ".fit", ".fts")
_PACKED_SUFFIXES = (".gz", ".bz2", ".fz")
_KINDS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
    **{f"{suffix}{packed}": "fits" for suffix in _FITS_SUFFIXES for packed in ("", *_PACKED_SUFFIXES)},
    ".fz": "fits",
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "store",
    ".hdf5": "store",
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
}
FORMATS = "PNG, TIFF, FITS, JPEG, BMP, NPY, NPZ, HDF5 stores and video"

MOST_PIXELS = 2**28
"""Pixels that one file may bring into memory unless the user allows more: 2 GiB as float64."""

Roi = tuple[tuple[int, int], tuple[int, int]]
"""((x0, x1), (y0, y1)) in px, ends excluded."""


def image_kind(path: str | Path) -> str | None:
    """The format that a file's suffix says: png, jpeg, bmp, tiff, fits, npy, npz, store or video; None for others."""
    name = split_selector(path)[0].name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


def suffixes_of(*kinds: str) -> tuple[str, ...]:
    """The suffixes of formats, as `image_kind` names them."""
    return tuple(suffix for suffix, kind in _KINDS.items() if kind in kinds)


def split_selector(path: str | Path) -> tuple[Path, str | None]:
    """A path and the FITS unit chosen in brackets behind it; None where there is none or a file has that very name.

    >>> split_selector("night.fits[SCI]")[1], split_selector("night.fits")[1]
    ('SCI', None)
    """
    path = Path(path)
    found = re.fullmatch(r"(.+)\[([^\[\]]+)\]", path.name, re.DOTALL)
    if found is None or path.exists():
        return path, None
    return path.with_name(found[1]), found[2].strip()


@dataclass(frozen=True)
class ReadOptions:
    """What of a file is read.

    Args:
        hdu: FITS unit, its name ("SCI", "SCI,2" with the version) or number from 0; None for the first image.
        channel: channel of a microscope's or colour TIFF file, from 0.
        plane: z plane of a microscope's TIFF file, from 0.
        page: page of a TIFF file, from 0; None for all.
        frames: (first, end) of the images of a stack, video or sequence, the end left out; end None for the last.
        roi: ((x0, x1), (y0, y1)), ends excluded; None for the whole image.
        max_pixels: pixels that one file may bring into memory.
        error: standard deviation of each pixel: a file, or the name of a unit of the same FITS file.
        weight: the same as inverse variance.
        mask: pixels to leave out are not 0, likewise.
        dark: frame to be subtracted, likewise.
        flat: sensitivity of each pixel to be divided by, likewise.
        saturation: level in counts at which the sensor clips before dark and flat are applied; None where not known.

    Raises:
        InputError: if a number is out of range, or error and weight are both given.
    """

    hdu: str | None = None
    channel: int | None = None
    plane: int | None = None
    page: int | None = None
    frames: tuple[int, int | None] = (0, None)
    roi: Roi | None = None
    max_pixels: int = MOST_PIXELS
    error: str | None = None
    weight: str | None = None
    mask: str | None = None
    dark: str | None = None
    flat: str | None = None
    saturation: float | None = None

    def __post_init__(self) -> None:
        if self.error is not None and self.weight is not None:
            raise InputError(f"--error {self.error} and --weight {self.weight} both state the noise: give one of them")
        for name in ("channel", "plane", "page"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} must be a whole number >= 0, got {value}")
        if self.max_pixels < 1:
            raise InputError(f"max_pixels must be a whole number >= 1, got {self.max_pixels}")
        first, end = self.frames
        if first < 0 or (end is not None and end <= first):
            raise InputError(
                f"frames must be first:end with 0 <= first < end, got {first}:{'' if end is None else end}"
            )
        for low, high in self.roi or ():
            if not 0 <= low < high:
                raise InputError(
                    f"roi must be x0:x1,y0:y1 with 0 <= x0 < x1 and 0 <= y0 < y1, got {roi_text(self.roi)}"
                )

    @property
    def origin(self) -> tuple[int, int, int]:
        """(frame, x, y) in the file of the first pixel that is read."""
        x, y = (0, 0) if self.roi is None else (self.roi[0][0], self.roi[1][0])
        return self.frames[0], x, y

    @property
    def whole(self) -> bool:
        """Whether all images are read, and all of each."""
        return self.frames == (0, None) and self.roi is None

    @property
    def corrects(self) -> bool:
        """Whether a dark frame or a flat field is applied."""
        return self.dark is not None or self.flat is not None

    @property
    def has_noise(self) -> bool:
        """Whether a map of the noise is asked for."""
        return self.error is not None or self.weight is not None

    @property
    def plain(self) -> bool:
        """Whether the values are read as they are stored, without maps."""
        return not (self.corrects or self.has_noise or self.mask is not None)

    @property
    def masks(self) -> bool:
        """Whether maps can leave pixels out."""
        return not self.plain

    def with_hdu(self, hdu: str | None) -> ReadOptions:
        """The same with the FITS unit that stands in brackets behind a file's name.

        Raises:
            InputError: if another one was chosen already.
        """
        if hdu is None:
            return self
        if self.hdu is not None and self.hdu != hdu:
            raise InputError(f"the unit [{hdu}] behind the name and --hdu {self.hdu} differ: give one of them")
        return replace(self, hdu=hdu)

    def cut_frames(self, count: int, path: Path) -> slice:
        """The images that are read of so many.

        Raises:
            InputError: if there are none.
        """
        first, end = self.frames
        if first >= count:
            raise InputError(f"{path} has {count} images, numbered from 0: frames {first}:{end or ''} are outside")
        return slice(first, count if end is None else min(end, count))

    def cut_pixels(self, shape: tuple[int, int], path: Path) -> tuple[slice, slice]:
        """The rows and columns that are read of an image (H, W).

        Raises:
            InputError: if the region of interest does not lie within it.
        """
        if self.roi is None:
            return slice(None), slice(None)
        (x0, x1), (y0, y1) = self.roi
        if x1 > shape[1] or y1 > shape[0]:
            size = f"{shape[1]} columns and {shape[0]} rows"
            raise InputError(f"roi {roi_text(self.roi)} is not within {path}, which has {size}")
        return slice(y0, y1), slice(x0, x1)


def roi_text(roi: Roi | None) -> str:
    """The region as an option states it, x0:x1,y0:y1."""
    return "" if roi is None else ",".join(f"{low}:{high}" for low, high in roi)


def parse_range(name: str, text: str) -> tuple[int, int | None]:
    """(first, end) of "first:end", either may be left out.

    Raises:
        InputError: if the text is no such range.
    """
    found = re.fullmatch(r"\s*(\d{0,12})\s*:\s*(\d{0,12})\s*", text)
    if found is None or not (found[1] or found[2]):
        raise InputError(f"{name} must be first:end, whole numbers from 0 with the end left out, got {text!r}")
    return int(found[1] or 0), int(found[2]) if found[2] else None


def parse_roi(text: str) -> Roi:
    """The region of "x0:x1,y0:y1".

    Raises:
        InputError: if the text is no such region.
    """
    ranges = [parse_range("roi", part) for part in text.split(",")] if text.count(",") == 1 else []
    if len(ranges) != 2 or any(end is None for _, end in ranges):
        raise InputError(f"roi must be x0:x1,y0:y1 in px, ends excluded, got {text!r}")
    (x0, x1), (y0, y1) = ranges
    return (x0, x1 or 0), (y0, y1 or 0)


CHOICES = {"hdu": ("fits",), "channel": ("tiff", "png", "jpeg", "bmp"), "plane": ("tiff",), "page": ("tiff",)}
"""Options that choose a part of a file, and the formats that have such parts."""


def check_choices(kind: str, path: Path, options: ReadOptions) -> None:
    """Check that no part is chosen that files of this format do not have.

    Raises:
        InputError: if one is.
    """
    for name, kinds in CHOICES.items():
        value = getattr(options, name)
        if value is not None and kind not in kinds:
            formats = ", ".join(each.upper() for each in kinds)
            raise InputError(f"--{name} {value} is for {formats} files, {path} is none: leave it out")


class TooManyPixelsError(InputError):
    """A file that brings more pixels into memory than `max_pixels`.

    Args:
        message: of the error.
        path: the file; None if it is not known. Like any error, it can be made from its message alone.
        pixels: that it holds; None where more than are allowed were not counted.
    """

    def __init__(self, message: str, path: Path | None = None, pixels: int | None = None) -> None:
        super().__init__(message)
        self.path, self.pixels = path, pixels


def check_pixels(shape: Sequence[int], path: Path, options: ReadOptions) -> None:
    """Check that an array fits into the memory that a file may take, before any of it is read.

    Raises:
        TooManyPixelsError: if it does not.
    """
    pixels = 1
    for side in shape:
        pixels *= int(side)
    if pixels > options.max_pixels:
        sides = " x ".join(str(int(side)) for side in shape)
        raise TooManyPixelsError(
            f"cannot read {path}: {sides} = {pixels} pixels are more than {options.max_pixels}; "
            "if that is meant, raise --max-pixels",
            path,
            pixels,
        )


@dataclass(frozen=True, eq=False)
class Content:
    """What a reader found in a file.

    Args:
        data: values as stored, (H, W) or (N, H, W): an array, or something that is read as it is indexed.
        header: what the file says of the instrument.
        error: standard deviation of every pixel, of the data's shape.
        mask: pixels that the file declares bad, of the data's shape.
        quality: bit flags whose meaning is the instrument's, of the data's shape.
        dark: frame to be subtracted, of the data's shape or for all images.
        flat: sensitivity to be divided by, likewise, of mean 1.
        sensor: the sensor that a store states.
        times: (N,) of the images in s from any moment, NaN where one is not known; None where the file states none.
        unit: name and version (EXTNAME, EXTVER) of the FITS unit that was read.
    """

    data: Any
    header: Header = field(default_factory=Header)
    error: FloatArray | None = None
    mask: NDArray[np.bool_] | None = None
    quality: NDArray[Any] | None = None
    dark: FloatArray | None = None
    flat: FloatArray | None = None
    sensor: Sensor | None = None
    times: FloatArray | None = None
    unit: tuple[str, int] = ("", 1)

    def with_maps(self, **maps: Any) -> Content:
        """The same with these maps, spread over all images where they are the same for all."""
        shape = self.data.shape
        spread: dict[str, Any] = {name: None if v is None else np.broadcast_to(v, shape) for name, v in maps.items()}
        return replace(self, **spread)
