"""Uploaded files and their limits; readers check the pixels before an image is read into memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from csist.checks import InputError
from csist.io import ImageStack, ReadOptions, image_kind, read_image
from csist.io.formats import TooManyPixelsError, suffixes_of

IMAGE_KINDS = ("png", "jpeg", "bmp", "tiff", "fits", "npy", "npz")
UPLOAD_KINDS = (*IMAGE_KINDS, "video")
"""Accepted upload formats, whose headers state the memory that the file needs."""
IMAGE_SUFFIXES, UPLOAD_SUFFIXES = suffixes_of(*IMAGE_KINDS), suffixes_of(*UPLOAD_KINDS)
LARGEST_UPLOAD_MB, LARGEST_UPLOAD_MPX = 64, 32
MOST_PIXELS = LARGEST_UPLOAD_MPX * 10**6

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
    options = ReadOptions(
        error=None if error is None else str(error), mask=None if mask is None else str(mask),
        max_pixels=MOST_PIXELS,
    )  # fmt: skip
    try:
        for each in files:
            _check_file(each)
        stack = _open_video(path, options) if image_kind(path) == "video" else read_image(path, options=options)
    except TooManyPixelsError as raised:
        raise _too_many_pixels(raised.path or path, raised.pixels) from raised
    except InputError as raised:
        text = str(raised)
        for each in files:
            text = text.replace(str(each), each.name)
        raise type(raised)(text) from raised
    pixels = math.prod(stack.shape)
    if pixels > MOST_PIXELS:  # of many images, which are read one by one
        raise _too_many_pixels(path, pixels)
    return stack


def _check_file(path: Path) -> None:
    """Check format and bytes of a file.

    Raises:
        InputError: if it cannot be used.
    """
    if image_kind(path) not in UPLOAD_KINDS:
        raise InputError(f"cannot read {path}: upload a PNG, JPEG, BMP, TIFF, FITS, NPY or NPZ file, or a video")
    if path.stat().st_size > LARGEST_UPLOAD_MB * 2**20:
        raise TooLargeError(f"{path} is larger than {LARGEST_UPLOAD_MB} MB: use the command csist unmix")


def _too_many_pixels(path: Path, pixels: int | None) -> TooLargeError:
    held = f"more than {LARGEST_UPLOAD_MPX}" if pixels is None else f"{pixels / 1e6:.0f}"
    return TooLargeError(
        f"{path.name} holds {held} million pixels, above the limit of {LARGEST_UPLOAD_MPX} million: "
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

    sequence = sequence_of_video(path, options=ReadOptions(max_pixels=MOST_PIXELS))
    _, rows, columns = sequence.shape
    most = max(MOST_PIXELS // (rows * columns), 1)
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


def describe_upload(stack: ImageStack) -> str:
    """Describe the content of a file in words."""
    count, rows, columns = stack.shape
    noun = "frames" if stack.kind == "video" else "images"
    images = "one image" if count == 1 else f"{count} {noun}"
    return f"{stack.name}: {images} of {columns} x {rows} px"
