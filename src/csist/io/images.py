"""Images of many formats as float64 stacks: a single image is a stack of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError, check_stack
from csist.files import reading
from csist.io.arrays import read_npy
from csist.io.fits import read_fits
from csist.io.formats import FORMATS, Content, ReadOptions, check_choices, image_kind, split_selector
from csist.io.headers import Header
from csist.io.maps import corrected, usable_pixels, with_maps
from csist.io.pictures import read_bmp, read_jpeg, read_png
from csist.io.tiff import Pages, read_tiff
from csist.io.times import increasing
from csist.physics.sensor import Sensor


@dataclass(frozen=True, eq=False)
class ImageStack:
    """The images of one file.

    `stack[i]` is image i, (H, W) float64, `stack[a:b]` is (n, H, W); conversion to float64 happens there, so
    that a file which is mapped or read page by page is read as it is used. NaN is let through, and pixels that the
    file declares bad are NaN.

    Args:
        name: path relative to the input that was given; the file name for a single file.
        path: where the file is.
        kind: "png", "jpeg", "bmp", "tiff", "fits", "npy", "npz" or "store".
        data: values as stored, (N, H, W).
        notes: what the user should know about how the values were read, one line each.
        sensor: the sensor that the file itself states (a store does).
        header: what the file says of the instrument.
        error: standard deviation of every pixel, of the data's shape; None where the file has none.
        mask: pixels that the file declares bad.
        quality: bit flags of every pixel, whose meaning is the instrument's.
        dark: frame that is subtracted from every image, of the data's shape.
        flat: sensitivity that every image is divided by, likewise, of mean 1.
        options: what of the file was read.
        times: (N,) of the images in s since the first one of the file, increasing; None where the file states none.
        interval_s: typical interval between them.

    Raises:
        InputError: if the data is no real-valued image or stack of at least 3 x 3 px, or is empty.
    """

    name: str
    path: Path
    kind: str
    data: NDArray[Any] | Pages = field(repr=False)
    notes: tuple[str, ...] = ()
    sensor: Sensor | None = None
    header: Header = field(default_factory=Header, repr=False)
    error: FloatArray | None = field(default=None, repr=False)
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    quality: NDArray[Any] | None = field(default=None, repr=False)
    dark: FloatArray | None = field(default=None, repr=False)
    flat: FloatArray | None = field(default=None, repr=False)
    options: ReadOptions = field(default_factory=ReadOptions, repr=False)
    times: FloatArray | None = field(default=None, repr=False)
    interval_s: float | None = None

    def __post_init__(self) -> None:
        data = self.data
        if data.size == 0:
            raise InputError(f"{self.path} holds no image: its array has the shape {data.shape}")
        if data.ndim == 3 and data.shape[2] in (3, 4) and min(data.shape[:2]) > 16:
            raise InputError(f"{self.path} looks like a colour image, shape {data.shape}: give one channel or the mean")
        # On no rows at all, so that a memory-mapped file is not read twice; values are checked at their use.
        check_stack(data[:0] if data.ndim == 3 else np.asarray(data), str(self.path))
        for name in ("data", "error", "mask", "quality", "dark", "flat"):
            object.__setattr__(self, name, self._part(getattr(self, name)))
        if self.times is not None:
            object.__setattr__(self, "times", self.times[self.options.cut_frames(len(self.times), self.path)])

    def _part(self, values: Any) -> Any:
        """Values as a stack, (N, H, W), of which the options take some images and a region."""
        if values is None:
            return None
        stack = values[None] if values.ndim == 2 else values
        if self.options.whole:
            return stack
        frames = self.options.cut_frames(len(stack), self.path)
        region = self.options.cut_pixels(stack.shape[1:], self.path)
        return stack.part(frames, region) if isinstance(stack, Pages) else stack[(frames, *region)]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, rows, columns = self.data.shape
        return count, rows, columns

    def __getitem__(self, key: int | slice) -> FloatArray:
        stack = self.applied(check_stack(self.data[key], str(self.path)), key)
        return stack if isinstance(key, slice) else np.asarray(stack[0])

    def applied(self, stack: FloatArray, key: int | slice) -> FloatArray:
        """Images (n, H, W) with dark frame and flat field applied and NaN where maps leave a pixel out.

        Args:
            stack: in counts.
            key: place of these images in the file.
        """
        if self.dark is not None or self.flat is not None:
            dark, flat = (None if each is None else each[key] for each in (self.dark, self.flat))
            level = self.options.saturation if self.options.saturation is not None else self.header.saturation
            stack = corrected(stack, dark, flat, np.inf if level is None else level)
        noise = self._noise
        usable = usable_pixels(None if noise is None else noise[key], None if self.mask is None else self.mask[key])
        if usable is not None and not usable.all():
            stack = np.where(usable, stack, np.nan)
        return stack

    @property
    def _noise(self) -> FloatArray | None:
        """The noise of the pixels if it is asked for."""
        return self.error if self.options.has_noise else None

    def errors(self, key: int | slice) -> FloatArray | None:
        """Standard deviation of the pixels of the same images as `stack[key]`; None where it is not asked for."""
        if self._noise is None:
            return None
        values = np.asarray(self._noise[key], dtype=np.float64)
        return values if self.flat is None else values / self.flat[key]

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))

    def chunks(self, size: int) -> Iterator[tuple[int, FloatArray]]:
        """(index of the first image, images (n, H, W)) with n at most `size`, in order."""
        return ((start, self[start : start + size]) for start in range(0, len(self), size))


def _read_store(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The test split of a store."""
    from csist.io.store import load

    del options, notes
    split = load(path)["test"]
    return Content(split.counts, sensor=split.sensor)


_READERS: dict[str, Callable[[Path, ReadOptions, list[str]], Content]] = {
    "png": read_png,
    "jpeg": read_jpeg,
    "bmp": read_bmp,
    "tiff": read_tiff,
    "fits": read_fits,
    "npy": read_npy,
    "npz": read_npy,
    "store": _read_store,
}


def read_image(path: str | Path, name: str | None = None, options: ReadOptions | None = None) -> ImageStack:
    """The images of one file.

    PNG 8/16-bit (grey, palette, colour), JPEG, BMP, TIFF (pages, a microscope's channels and planes), FITS (the first
    unit with an image, or the one in brackets behind the name, as in `night.fits[SCI]`), NPY and NPZ ((H, W) or
    (N, H, W); of several arrays the one called images or image) and the test split of a store. Rows are in file
    order, so for FITS too row 0 is the first row of the array.

    Args:
        path: the file.
        name: name to give it, the file name if None.
        options: what of it is read; None for all.

    Raises:
        InputError: if the file is missing, of an unknown format, a video (see `csist.io.sequences`), damaged, empty,
            too large, not an image or without what the options ask for.
    """
    given = Path(path)
    path, unit = split_selector(given)
    kind = image_kind(path)
    if not path.is_file():
        raise InputError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    if kind == "video":
        raise InputError(f"cannot read the video {path} as a whole: it is read frame by frame, by `csist unmix`")
    if kind is None:
        raise InputError(f"cannot read {path}: unknown suffix {path.suffix!r}; {FORMATS} can be read")
    if unit is not None and kind != "fits":
        raise InputError(f"cannot read {given}: only FITS files have units to choose in brackets")
    options = (options or ReadOptions()).with_hdu(unit)
    check_choices(kind, path, options)
    notes: list[str] = []
    with reading(path):
        content = _mapped(_READERS[kind](path, options, notes), path, options, notes)
        times, interval_s = (None if content.times is None else increasing(content.times, notes)) or (None, None)
        return ImageStack(
            given.name if name is None else name,
            path,
            kind,
            content.data,
            tuple(dict.fromkeys(notes)),
            sensor=content.sensor,
            header=content.header,
            error=content.error,
            mask=content.mask,
            quality=content.quality,
            dark=content.dark,
            flat=content.flat,
            options=options,
            times=times,
            interval_s=interval_s,
        )


def maps_of_frames(size: tuple[int, int], path: Path, options: ReadOptions, notes: list[str]) -> ImageStack:
    """Stand-in of one image for the frames of a sequence, from which the maps that all of them share can be had.

    Args:
        size: (rows, columns) of a frame.
        path: of the sequence.
        options: name the maps.
        notes: gets what the user should know.

    Raises:
        InputError: if a map cannot be used.
    """
    content = _mapped(Content(np.zeros(size)), path, options, notes)
    maps = {name: getattr(content, name) for name in ("error", "mask", "dark", "flat")}
    return ImageStack(path.name, path, "video", content.data, options=replace(options, frames=(0, None)), **maps)


def _mapped(content: Content, path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """What a file holds, with the maps that the options name."""
    if options.plain:
        return content
    return with_maps(content, path, options, partial(_map_values, max_pixels=options.max_pixels), notes)


def _map_values(path: Path, unit: str | None, *, max_pixels: int) -> Content:
    """A map, (H, W) or (N, H, W); unlike those of an image its values may be infinite.

    Raises:
        InputError: if the file is of another format or holds no image.
    """
    kind = image_kind(path)
    if kind not in _READERS:
        raise InputError(f"cannot read {path}: {FORMATS.removesuffix(' and video')} can be read as a map")
    with reading(path):
        found = _READERS[kind](path, ReadOptions(hdu=unit, max_pixels=max_pixels), [])
        values = np.asarray(found.data[:])
    if values.dtype.kind not in "buif" or values.ndim not in (2, 3):
        raise InputError(f"cannot read {path}: a map is an array (H, W) or (N, H, W) of real numbers")
    return replace(found, data=values)
