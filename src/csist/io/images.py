"""Images of many formats as float64 stacks: a single image is a stack of one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError, check_stack
from csist.files import reading
from csist.physics.sensor import Sensor

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""


@dataclass(frozen=True, eq=False)
class ImageStack:
    """The images of one file.

    `stack[i]` is image i, (H, W) float64, `stack[a:b]` is (n, H, W); conversion to float64 happens there, so
    a memory-mapped file is read as it is used. NaN is let through.

    Args:
        name: path relative to the input that was given; the file name for a single file.
        path: where the file is.
        kind: "png", "tiff", "fits", "npy", "npz" or "store".
        data: values as stored, (N, H, W).
        notes: what the user should know about how the values were read, one line each.
        sensor: the sensor that the file itself states (a store does).

    Raises:
        InputError: if the data is no real-valued image or stack of at least 3 x 3 px, or is empty.
    """

    name: str
    path: Path
    kind: str
    data: NDArray[Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    sensor: Sensor | None = None

    def __post_init__(self) -> None:
        data = self.data
        if data.size == 0:
            raise InputError(f"{self.path} holds no image: its array has the shape {data.shape}")
        if data.ndim == 3 and data.shape[2] in (3, 4) and min(data.shape[:2]) > 16:
            raise InputError(f"{self.path} looks like a colour image, shape {data.shape}: give one channel or the mean")
        stack = data[None] if data.ndim == 2 else data
        # On no rows at all, so that a memory-mapped file is not read twice; values are checked at their use.
        check_stack(stack[:0] if stack.ndim == 3 else stack, str(self.path))
        object.__setattr__(self, "data", stack)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, rows, columns = self.data.shape
        return count, rows, columns

    def __getitem__(self, key: int | slice) -> FloatArray:
        if isinstance(key, slice):
            return check_stack(self.data[key], str(self.path))
        return np.asarray(check_stack(self.data[key], str(self.path))[0])

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))

    def chunks(self, size: int) -> Iterator[tuple[int, FloatArray]]:
        """(index of the first image, images (n, H, W)) with n at most `size`, in order."""
        return ((start, self[start : start + size]) for start in range(0, len(self), size))


def _grey(colour: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """(..., 3 or 4) -> (...): the common value if the channels are equal, else the luminance, with a note."""
    if colour.shape[-1] == 4 and (colour[..., 3] != colour[..., 3].max()).any():
        notes.append("transparency ignored")
    red, green, blue = (colour[..., k] for k in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    notes.append("colour turned into luminance, 0.299 R + 0.587 G + 0.114 B")
    return np.asarray(colour[..., :3].astype(np.float64) @ np.array(LUMINANCE))


_PNG_GREY, _PNG_RGB, _PNG_GREY_ALPHA, _PNG_RGBA = 0, 2, 4, 6


def _read_png(path: Path, notes: list[str]) -> NDArray[Any]:
    from PIL import Image

    with path.open("rb") as file:
        header = file.read(29)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 29:
        raise InputError(f"cannot read {path}: it is {'empty' if not header else 'not a PNG file or cut short'}")
    depth, colour_type = header[24], header[25]
    if depth == 16 and colour_type != _PNG_GREY:
        # Pillow would drop the lower eight bits without a word.
        raise InputError(f"cannot read {path}: a 16-bit PNG must be grey, save it without colour and transparency")
    columns, rows = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    if Image.MAX_IMAGE_PIXELS is not None and rows * columns > Image.MAX_IMAGE_PIXELS:
        raise InputError(f"cannot read {path}: {rows} x {columns} px are too many for a PNG, save it as TIFF or NPY")
    if depth < 8 and colour_type == _PNG_GREY:
        notes.append(f"{depth}-bit grey scaled to 0-255")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("error", UserWarning)  # truncated or odd metadata
        with Image.open(path, formats=["PNG"]) as image:
            if getattr(image, "n_frames", 1) > 1:
                notes.append("animated PNG, only its first frame is read")
            if image.mode in ("P", "PA"):
                image_values = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
            elif image.mode == "1":
                image_values = image.convert("L")
            else:
                image_values = image
            values = np.array(image_values)
    if values.ndim == 2:
        return values
    if values.shape[2] == 2:
        if (values[..., 1] != 255).any():
            notes.append("transparency ignored")
        return np.asarray(values[..., 0])
    return _grey(values, notes)


def _tiff_page(page: Any, notes: list[str]) -> NDArray[Any]:
    """One page (H, W), colour turned into grey."""
    import tifffile

    values = np.asarray(page.asarray())
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.PALETTE:
        return _grey(np.moveaxis(np.asarray(page.colormap)[:, values], 0, -1), notes)
    if page.samplesperpixel > 1:
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        if page.samplesperpixel in (3, 4) and photometric == tifffile.PHOTOMETRIC.RGB:
            return _grey(values, notes)
        if page.samplesperpixel == 2 and page.extrasamples:
            notes.append("transparency ignored")
            return np.asarray(values[..., 0])
        colours = tifffile.PHOTOMETRIC(photometric).name
        raise InputError(f"it has {page.samplesperpixel} channels a pixel ({colours}), save it as grey")
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if values.dtype.kind != "u":
            raise InputError("black and white are swapped (MINISWHITE), save it as ordinary grey")
        notes.append("black and white were swapped (MINISWHITE), inverted")
        return np.asarray(2**page.bitspersample - 1 - values)
    return values


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


def _read_tiff(path: Path, notes: list[str]) -> NDArray[Any]:
    import tifffile

    size = path.stat().st_size
    frames: list[NDArray[Any]] = []
    with _listening("tifffile") as heard, tifffile.TiffFile(path) as tiff:
        for series in tiff.series:
            page = series.keyframe
            if page.is_reduced:
                continue  # a thumbnail of another page
            # Pages whose data lies beyond the end would come out as zeros.
            pages = [each for each in series.pages if each is not None]
            spans = [span for each in pages for span in zip(each.dataoffsets, each.databytecounts, strict=True)]
            if any(offset + count > size for offset, count in spans):
                raise InputError(f"cannot read {path}: it is cut short")
            try:
                if page.samplesperpixel == 1 and page.photometric == tifffile.PHOTOMETRIC.MINISBLACK:
                    values = np.asarray(series.asarray())  # also ImageJ's stacks, which have one page only
                    frames.extend(values.reshape(-1, *values.shape[-2:]))
                else:
                    frames.extend(_tiff_page(each, notes) for each in pages)
            except InputError as error:
                raise InputError(f"cannot read {path}: {error}") from error
            except ValueError as error:
                if "imagecodecs" in str(error):
                    way_out = "save it uncompressed, or install the package imagecodecs"
                    method = tifffile.COMPRESSION(page.compression).name
                    raise InputError(f"cannot read {path}: {method} compression; {way_out}") from error
                raise
    for said in heard:
        # Pages that cannot be reached are left out with a log message and nothing else.
        if "invalid" in said or "corrupt" in said or "failed" in said:
            raise InputError(f"cannot read {path}: it is cut short or damaged ({said[:120]})")
        notes.append(said[:200])
    if not frames:
        raise InputError(f"{path} holds no image")
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise InputError(f"the pages of {path} differ in size, {', '.join(map(str, sorted(shapes)))}: split the file")
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _read_fits(path: Path, notes: list[str]) -> NDArray[Any]:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(f"cannot read {path}: FITS needs the extra `astro`, pip install 'csist[astro]'") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Opened here: astropy leaves its own file open where a header is broken.
        with path.open("rb") as file, fits.open(file, memmap=False, lazy_load_hdus=False) as units:
            images = (u.data for u in units if u.is_image and u.header.get("NAXIS", 0) > 0 and u.data is not None)
            values = next(images, None)
    for warning in caught:
        said = " ".join(str(warning.message).split())
        if "truncated" in said.lower():
            raise InputError(f"cannot read {path}: it is cut short")
        notes.append(said[:200])
    if values is None:
        raise InputError(f"{path} holds no image: none of its {len(units)} units has image data")
    values = np.asarray(values)
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]  # degenerate axes (polarisation, frequency) of a single plane
    return values


def npz_member(path: Path, names: Sequence[str]) -> str:
    """Which of the arrays of an NPZ file holds its images.

    Raises:
        InputError: if that is not clear.
    """
    chosen = names if len(names) == 1 else [name for name in ("images", "image") if name in names]
    if not chosen:
        held = ", ".join(names) or "nothing"
        raise InputError(f"{path} must hold one array, or one called image or images; it holds {held}")
    return chosen[0]


def _read_npy(path: Path, notes: list[str]) -> NDArray[Any]:
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # what a zip archive begins with
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive[npz_member(path, list(archive.files))])


_READERS: dict[str, Callable[[Path, list[str]], NDArray[Any]]] = {
    "png": _read_png,
    "tiff": _read_tiff,
    "fits": _read_fits,
    "npy": _read_npy,
    "npz": _read_npy,
}
_KINDS = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".fits.gz": "fits",
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "store",
    ".hdf5": "store",
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
}
FORMATS = "PNG, TIFF, FITS, NPY, NPZ, HDF5 stores and video"


def image_kind(path: str | Path) -> str | None:
    """The format that a file's suffix says: png, tiff, fits, npy, npz, store or video; None for others."""
    name = Path(path).name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


def read_image(path: str | Path, name: str | None = None) -> ImageStack:
    """The images of one file.

    PNG 8/16-bit (grey, palette, colour), TIFF (several pages, integers, floats), FITS (the first unit with an
    image), NPY and NPZ ((H, W) or (N, H, W); of several arrays the one called images or image) and the test
    split of a store. Rows are in file order, so for FITS too row 0 is the first row of the array.

    Args:
        path: the file.
        name: name to give it, the file name if None.

    Raises:
        InputError: if the file is missing, of an unknown format, a video (see `csist.io.sequences`), damaged, empty or
            not an image.
    """
    path = Path(path)
    kind = image_kind(path)
    if not path.is_file():
        raise InputError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    if kind == "video":
        raise InputError(f"cannot read the video {path} as a whole: it is read frame by frame, by `csist unmix`")
    if kind is None:
        raise InputError(f"cannot read {path}: unknown suffix {path.suffix!r}; {FORMATS} can be read")
    name = path.name if name is None else name
    if kind == "store":
        from csist.io.store import load

        split = load(path)["test"]
        return ImageStack(name, path, kind, split.counts, sensor=split.sensor)
    notes: list[str] = []
    with reading(path):
        data = _READERS[kind](path, notes)
    return ImageStack(name, path, kind, data, tuple(dict.fromkeys(notes)))
