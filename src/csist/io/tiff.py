"""TIFF by tifffile: pages and series, the axes of microscopes' files, values that stand for nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import reading
from csist.io.formats import Content, ReadOptions, check_pixels
from csist.io.headers import Header
from csist.io.ome import is_ome_set, own_planes, times_of_series
from csist.io.pictures import grey

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

GDAL_NODATA = 42113
DISTINCT_AXES = {"C": "channel", "Z": "plane"}
"""Axes along which the images are not a sequence, and the option that chooses one."""


@dataclass(frozen=True, eq=False)
class Pages:
    """Grey pages of a TIFF file as a stack (N, H, W) that is read as it is indexed.

    Args:
        path: the file.
        pages: of tifffile; its file is closed between readings.
        shape: (N, H, W).
        dtype: of the values that come out.
        values: turns a page as stored into those values.
        region: rows and columns that are read.
    """

    path: Path
    pages: Sequence[Any] = field(repr=False)
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    values: Callable[[NDArray[Any]], NDArray[Any]] = field(repr=False)
    region: tuple[slice, slice] = (slice(None), slice(None))

    @property
    def ndim(self) -> int:
        """Always 3."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> NDArray[Any]:
        if isinstance(key, slice):
            read = [self._page(page) for page in self.pages[key]]
            return np.stack(read) if read else np.empty((0, *self.shape[1:]), self.dtype)
        return self._page(self.pages[key])

    def _page(self, page: Any) -> NDArray[Any]:
        handle = page.parent.filehandle
        with reading(self.path), _listening("tifffile"):
            handle.open()
            try:
                return np.asarray(self.values(np.asarray(page.asarray())).astype(self.dtype, copy=False)[self.region])
            finally:
                handle.close()

    def part(self, frames: slice, region: tuple[slice, slice]) -> Pages:
        """Some of the images, and of these a region."""
        rows, columns = (len(range(*s.indices(n))) for s, n in zip(region, self.shape[1:], strict=True))
        pages = self.pages[frames]
        return Pages(self.path, pages, (len(pages), rows, columns), self.dtype, self.values, region)


@contextmanager
def _listening(logger_name: str) -> Iterator[list[str]]:
    """Collect what a library logs as a warning or worse, instead of printing it."""
    heard: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(" ".join(record.getMessage().split()))

    logger, collector = logging.getLogger(logger_name), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def read_tiff(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The images of a TIFF file; grey ones are read as they are used.

    Raises:
        InputError: if the file is damaged, holds no image, or one of several channels or planes has to be chosen.
    """
    with _listening("tifffile") as heard:
        try:
            found = _opened(path, options, notes)
        except InputError as error:
            _check_heard(heard, path)  # what was heard is the reason of what was found wrong
            if path.name in str(error):
                raise
            raise InputError(f"cannot read {path}: {error}") from error
    _check_heard(heard, path)
    notes += [said[:200] for said in heard if "GDAL_NODATA" not in said]  # a text that is no number leaves nothing out
    return found


def _opened(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The images of a file, what it says of the instrument, of their times and of pixels without a value."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        apart = is_ome_set(tiff, path)
    # The planes that an OME set's other files hold are read with these files.
    with tifffile.TiffFile(path, is_ome=False if apart else None) as tiff:
        data, times = _stack(tiff, path, options, notes, apart)
        mask = None if apart or options.page is not None else _own_mask(tiff, data.shape, path, options, notes)
        return Content(data, _header(tiff.pages[options.page or 0]), mask=mask, times=times)


def _own_mask(
    tiff: TiffFile, shape: tuple[int, int, int], path: Path, options: ReadOptions, notes: list[str]
) -> NDArray[np.bool_] | None:
    """Where a page of transparency says that pixels of all images have no value; None where there is no such page."""
    masks = [series for series in tiff.series if series.keyframe.is_mask and not series.keyframe.is_reduced]
    fitting = [series.pages[0] for series in masks if series.keyframe.shape == shape[1:]]
    if len(fitting) != 1:
        return None
    tiff.filehandle.open()  # images of several series were read, which closes it
    mask = _images(fitting, path, options, [])[0] == 0
    notes.append(f"{int(mask.sum())} pixels are left out by the file's own mask")
    return np.broadcast_to(mask, shape)


def _check_heard(heard: list[str], path: Path) -> None:
    """Check that the library has not logged damage: pages out of reach are left out with no other sign.

    Raises:
        InputError: if it has.
    """
    for said in heard:
        if "GDAL_NODATA" not in said and ("invalid" in said or "corrupt" in said or "failed" in said):
            raise InputError(f"cannot read {path}: it is cut short or damaged ({said[:120]})")


def _stack(
    tiff: TiffFile, path: Path, options: ReadOptions, notes: list[str], apart: bool
) -> tuple[Any, FloatArray | None]:
    if options.page is not None:
        if options.page >= len(tiff.pages):
            raise InputError(f"{path} has {len(tiff.pages)} pages, numbered from 0: there is no page {options.page}")
        return _images([tiff.pages[options.page]], path, options, notes), None
    if apart:
        pages, times = own_planes(tiff, path, options, notes)
        return _images(pages, path, options, notes), times
    stacks, times = [], None
    for series in tiff.series:
        if not (series.keyframe.is_reduced or series.keyframe.is_mask):
            data, places = _of_series(series, path, options, notes)
            stacks.append(data)
            times = times_of_series(tiff, series, places)
    if not stacks:
        raise InputError(f"{path} holds no image")
    shapes = {stack.shape[1:] for stack in stacks}
    if len(shapes) > 1:
        sizes = ", ".join(map(str, sorted(shapes)))
        raise InputError(f"the pages of {path} differ in size, {sizes}: choose one with --page, or split the file")
    if len(stacks) == 1:
        return stacks[0], times
    check_pixels((sum(map(len, stacks)), *stacks[0].shape[1:]), path, options)
    return np.concatenate([stack[:] for stack in stacks]), None


def _of_series(
    series: TiffPageSeries, path: Path, options: ReadOptions, notes: list[str]
) -> tuple[Any, list[dict[str, int]]]:
    """The images of a series with the channel and plane asked for, and the place of each along the named axes."""
    axes, shape = series.axes, series.shape
    inner = len(series.keyframe.axes)
    outer = len(axes) - inner if axes.endswith(series.keyframe.axes) else None
    pages = list(series.pages)
    if outer is None or len(pages) != math.prod(shape[:outer]):
        # All images behind one directory entry, as ImageJ writes large files.
        outer = len(axes) - 2
        if not axes.endswith("YX"):
            raise InputError(f"its axes {axes} are not understood, save it as images (N, H, W)")
        chosen = _choose(series, outer, options, notes)
        return _contiguous(series, path, options)[chosen], _places(series, outer, chosen)
    chosen = _choose(series, outer, options, notes)
    return _images([pages[index] for index in chosen], path, options, notes), _places(series, outer, chosen)


def _places(series: TiffPageSeries, outer: int, chosen: list[int]) -> list[dict[str, int]]:
    """Place along each axis before those of a page, of images by their numbers in file order."""
    axes, shape = series.axes[:outer], series.shape[:outer]
    return [dict(zip(axes, map(int, np.unravel_index(number, shape)), strict=True)) for number in chosen]


def _contiguous(series: TiffPageSeries, path: Path, options: ReadOptions) -> NDArray[Any]:
    """The values (N, H, W) of a series that lie one behind the other in the file."""
    page = series.keyframe
    shape = (math.prod(series.shape[:-2]), *series.shape[-2:])
    if series.dataoffset is None or page.dtype is None or page.photometric != 1 or not page.is_final:
        raise InputError("its pages are stored in an unusual way, save it as plain pages")
    count = math.prod(shape) * page.dtype.itemsize
    if series.dataoffset + count > path.stat().st_size:
        raise InputError(f"cannot read {path}: it is cut short")
    check_pixels(shape[1:], path, options)
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    return np.memmap(path, dtype, "r", series.dataoffset, shape)


def _choose(series: TiffPageSeries, outer: int, options: ReadOptions, notes: list[str]) -> list[int]:
    """Numbers, in file order, of the images with the channel and plane asked for; the others are a sequence.

    Args:
        series: of pages.
        outer: number of axes before those of a page.
        options: with the channel and plane.
        notes: gets what the user should know.

    Raises:
        InputError: if a choice is needed, impossible, or the axes are no sequence.
    """
    axes, shape = series.axes[:outer], series.shape[:outer]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    long = [axis for axis, length in zip(axes, shape, strict=True) if length > 1]
    described = f"axes {axes}YX, {' x '.join(map(str, shape))}"
    for axis, name in DISTINCT_AXES.items():
        wanted = getattr(options, name)
        if axis not in axes:
            # A page's own samples are channels, too.
            if wanted is not None and (axis == "Z" or series.keyframe.samplesperpixel == 1):
                raise InputError(f"it has no {name}s: leave out --{name}")
            continue
        place = axes.index(axis)
        length = shape[place]
        if wanted is not None:
            if wanted >= length:
                raise InputError(f"it has {length} {name}s, numbered from 0: there is no {name} {wanted}")
            numbers = np.take(numbers, [wanted], axis=place)
        elif length > 1 and (long != [axis] or (axis == "C" and series.kind != "imagej")):
            raise InputError(f"it has {length} {name}s ({described}): choose one with --{name} 0 to {length - 1}")
        elif length > 1 and (axis, series.kind) != ("Z", "imagej"):  # ImageJ calls the images of any plain stack so
            notes.append(f"its {length} {name}s are taken as images, one after the other; --{name} chooses one")
    rest = [length for axis, length in zip(axes, shape, strict=True) if axis not in DISTINCT_AXES and length > 1]
    if len(rest) > 1:
        raise InputError(f"it has several axes of images ({described}): choose an image with --page, or split the file")
    return [int(number) for number in numbers.ravel()]


def _images(pages: Sequence[Any], path: Path, options: ReadOptions, notes: list[str]) -> Any:
    """Pages as a stack: grey ones read as they are used, colour turned into grey here."""
    import tifffile

    if not pages:
        raise InputError(f"{path} holds no image")
    size = path.stat().st_size
    for page in pages:
        # Pages whose data lies beyond the end would come out as zeros.
        if page is None or any(
            offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            raise InputError(f"cannot read {path}: it is cut short")
    first = pages[0].keyframe
    shape = (first.imagelength, first.imagewidth)
    check_pixels(shape, path, options)
    if any((page.keyframe.imagelength, page.keyframe.imagewidth) != shape for page in pages):
        raise InputError(f"the pages of {path} differ in size: choose one with --page, or split the file")
    plain = first.samplesperpixel == 1 and first.photometric in (
        tifffile.PHOTOMETRIC.MINISBLACK,
        tifffile.PHOTOMETRIC.MINISWHITE,
    )
    if plain and first.imagedepth == 1:
        dtype, values = _grey_values(first, notes)
        return Pages(path, pages, (len(pages), *shape), dtype, values)
    depth = first.imagedepth * (first.samplesperpixel if options.channel is None else 1)
    check_pixels((len(pages), depth, *shape), path, options)
    frames = [np.atleast_3d(_page(page, options, notes).T).T for page in pages]
    return np.concatenate(frames)


def _grey_values(page: TiffPage, notes: list[str]) -> tuple[np.dtype[Any], Callable[[NDArray[Any]], NDArray[Any]]]:
    """Type and values of a grey page from what is stored: black and white as usual, NaN where there is nothing."""
    import tifffile

    stored = np.dtype(page.dtype).newbyteorder("=")
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if stored.kind != "u":
            raise InputError("black and white are swapped (MINISWHITE), save it as ordinary grey")
        notes.append("black and white were swapped (MINISWHITE), inverted")
        top = 2**page.bitspersample - 1
        return stored, lambda values: np.asarray(top - values)
    nothing = _nodata(page, notes)
    if nothing is None:
        return stored, lambda values: values
    return _wide(stored), lambda values: _left_out(values, nothing)


def _nodata(page: TiffPage, notes: list[str]) -> float | None:
    """The value that stands for nothing (GDAL_NODATA); None where there is none, or it is NaN anyway."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        nothing = float("" if tag is None else str(tag.value).strip("\0 "))
    except ValueError:
        return None
    if np.isnan(nothing):
        return None
    notes.append(f"pixels of the value {nothing:g} (GDAL_NODATA) are left out")
    return nothing


def _wide(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type of floating point that holds the values of a type, and NaN."""
    return np.dtype(np.float32 if stored.itemsize <= 2 or stored == np.float32 else np.float64)


def _is_nothing(values: NDArray[Any], nothing: float) -> NDArray[np.bool_]:
    """Where values are the one that stands for nothing, whose text may have more digits than their type."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            nothing = float(values.dtype.type(nothing))
    return np.asarray(values == nothing)


def _left_out(values: NDArray[Any], nothing: float | None) -> NDArray[Any]:
    """The values, NaN where there is nothing."""
    if nothing is None:
        return values
    return np.where(_is_nothing(values, nothing), np.nan, values.astype(_wide(values.dtype)))


def _page(page: Any, options: ReadOptions, notes: list[str]) -> NDArray[Any]:
    """One page (H, W), or (N, H, W) of a volume; a channel of several, or colour turned into grey."""
    import tifffile

    frame = page.keyframe
    try:
        values = np.asarray(page.asarray())
    except ValueError as error:
        if "imagecodecs" in str(error):
            method = tifffile.COMPRESSION(frame.compression).name
            raise InputError(f"{method} compression needs the package imagecodecs: pip install imagecodecs") from error
        raise
    if frame.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return grey(np.moveaxis(np.asarray(frame.colormap)[:, values], 0, -1), notes)
    nothing = _nodata(frame, notes)
    if frame.samplesperpixel == 1:
        return _left_out(values, nothing)
    if frame.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        values = np.moveaxis(values, 0, -1)
    samples = frame.samplesperpixel
    if options.channel is not None:
        if options.channel >= samples:
            raise InputError(f"it has {samples} channels, numbered from 0: there is no channel {options.channel}")
        return _left_out(values[..., options.channel], nothing)
    if samples in (3, 4) and frame.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR):
        shade = grey(values, notes)
        # A colour that has the value in one channel alone is a colour.
        empty = False if nothing is None else _is_nothing(values[..., :3], nothing).all(axis=-1)
        return np.where(empty, np.nan, shade) if np.any(empty) else shade
    if samples == 2 and frame.extrasamples:
        notes.append("transparency ignored")
        return _left_out(values[..., 0], nothing)
    colours = tifffile.PHOTOMETRIC(frame.photometric).name
    raise InputError(f"it has {samples} channels per pixel ({colours}): choose one with --channel 0 to {samples - 1}")


def _header(page: Any) -> Header:
    """Saturation where a pixel has fewer bits than its type."""
    frame = page.keyframe
    bits = frame.bitspersample
    if np.dtype(frame.dtype or "u1").kind != "u" or not isinstance(bits, int) or bits in (8, 16, 32, 64) or bits < 8:
        return Header()
    top = float(2**bits - 1)
    return Header(saturation=top, sources={"saturation": f"{bits} bits a pixel"})
