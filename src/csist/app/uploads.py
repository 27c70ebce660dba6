"""Uploaded files: their limits, checked before the images are read into memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csist.checks import InputError
from csist.files import reading
from csist.io import ImageStack, ReadOptions, read_image
from csist.io.formats import VIDEO_SUFFIXES

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".fits", ".fit", ".fts", ".npy")
UPLOAD_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
"""Accepted upload formats, whose headers state the memory that the file needs."""
LARGEST_UPLOAD_MB, LARGEST_UPLOAD_MPX = 64, 32

DECODED = "decoded"
"""Folder beside a video with its decoded frames."""


class TooLargeError(InputError):
    """A file above the limits of the app."""


def open_upload(path: Path, error: Path | None = None, mask: Path | None = None) -> ImageStack:
    """Open an uploaded file, after checking the memory that its images need.

    The frames of a video are decoded once, up to the limit of pixels.

    Args:
        path: the file.
        error: file of the standard deviation of each pixel.
        mask: file that is not 0 where a pixel is left out.

    Raises:
        InputError: if the file has another format, is too large, damaged or not an image. The message names the file
            without the folder, which belongs to the server.
    """
    files = [each for each in (path, error, mask) if each is not None]
    try:
        for each in files:
            _check_size(each)
        options = ReadOptions(error=None if error is None else str(error), mask=None if mask is None else str(mask))
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return _open_video(path, options)
        return read_image(path, options=options)
    except InputError as raised:
        text = str(raised)
        for each in files:
            text = text.replace(str(each), each.name)
        raise type(raised)(text) from raised


def _check_size(path: Path) -> None:
    """Check format, bytes and pixels of a file.

    Raises:
        InputError: if it cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix not in UPLOAD_SUFFIXES:
        raise InputError(f"cannot read {path}: upload a PNG, JPEG, TIFF, FITS or NPY file, or a video")
    if path.stat().st_size > LARGEST_UPLOAD_MB * 2**20:
        raise TooLargeError(f"{path} is larger than {LARGEST_UPLOAD_MB} MB: use the command csist unmix")
    if suffix in VIDEO_SUFFIXES:
        return  # as many frames are decoded as the limit allows
    with reading(path):
        pixels = _COUNTERS[suffix](path)
    if pixels > LARGEST_UPLOAD_MPX * 10**6:
        raise TooLargeError(
            f"{path} holds {pixels / 1e6:.0f} million pixels, above the limit of {LARGEST_UPLOAD_MPX} million: "
            "use the command csist unmix"
        )


def _open_video(path: Path, options: ReadOptions) -> ImageStack:
    """Open a video by its decoded frames, which are kept in a file that is read as it is used."""
    from csist.io.images import maps_of_frames

    frames, notes_file = (path.parent / DECODED / name for name in ("frames.npy", "notes.json"))
    if not frames.is_file():
        _decode(path, frames, notes_file)
    values = np.load(frames, mmap_mode="r", allow_pickle=False)
    notes = json.loads(notes_file.read_text("utf-8"))
    maps = maps_of_frames((values.shape[1], values.shape[2]), path, options, notes)
    error = None if maps.error is None else np.broadcast_to(maps.error, values.shape)
    mask = None if maps.mask is None else np.broadcast_to(maps.mask, values.shape)
    return ImageStack(path.name, path, "video", values, tuple(notes), error=error, mask=mask, options=options)


def _decode(path: Path, frames: Path, notes_file: Path) -> None:
    """Decode the frames of a video, up to the limit of pixels, into a file."""
    from csist.io.sequences import sequence_of_video

    sequence = sequence_of_video(path, options=ReadOptions(max_pixels=LARGEST_UPLOAD_MPX * 10**6))
    _, rows, columns = sequence.shape
    most = max(LARGEST_UPLOAD_MPX * 10**6 // (rows * columns), 1)
    decoded: list[Any] = []
    notes = []
    for _, frame in sequence:
        if len(decoded) == most:
            notes.append(f"only the first {most} frames are used: use the command csist unmix for the whole video")
            break
        decoded.append(np.asarray(frame, dtype=np.float32))
    frames.parent.mkdir()
    np.save(frames, np.stack(decoded))
    notes_file.write_text(json.dumps([*sequence.notes, *notes]), "utf-8")


def _png_pixels(path: Path) -> int:
    from PIL import UnidentifiedImageError

    # Read only the header: Pillow's own check would report a decompression bomb, with a limit that is not the app's.
    header = path.read_bytes()[:24]
    if header[12:16] != b"IHDR":
        raise UnidentifiedImageError("not a PNG file")
    return int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big")


def _jpeg_pixels(path: Path) -> int:
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of the app is reported
        with Image.open(path, formats=["JPEG"]) as image:
            return image.width * image.height


def _tiff_pixels(path: Path) -> int:
    from tifffile import TiffFile

    with TiffFile(path) as file:
        return sum(int(np.prod(page.shape)) for page in file.pages)


def _fits_pixels(path: Path) -> int:
    import warnings

    try:
        from astropy.io import fits
    except ImportError:
        return 0  # reading the file reports the missing package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading the file reports them
        with path.open("rb") as file, fits.open(file, memmap=False) as units:
            return max((int(np.prod(unit.shape)) for unit in units if unit.is_image), default=0)


def _npy_pixels(path: Path) -> int:
    return int(np.load(path, mmap_mode="r", allow_pickle=False).size)


_COUNTERS: dict[str, Callable[[Path], int]] = {
    ".png": _png_pixels,
    ".jpg": _jpeg_pixels,
    ".jpeg": _jpeg_pixels,
    ".tif": _tiff_pixels,
    ".tiff": _tiff_pixels,
    ".fits": _fits_pixels,
    ".fit": _fits_pixels,
    ".fts": _fits_pixels,
    ".npy": _npy_pixels,
}


def describe_upload(stack: ImageStack) -> str:
    """Describe the content of a file in words."""
    count, rows, columns = stack.shape
    noun = "frames" if stack.kind == "video" else "images"
    images = "one image" if count == 1 else f"{count} {noun}"
    return f"{stack.name}: {images} of {columns} x {rows} px"
