"""PNG, JPEG and BMP by Pillow: grey as it is, colour as luminance; of a thermal camera the raw counts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.io.formats import Content, ReadOptions, check_pixels
from csist.io.thermal import camera_of, read_raw_counts

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""

_PNG_GREY = 0


def grey(colour: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """(..., 3 or 4) -> (...): the common value if the channels are equal, else the luminance, with a note."""
    if colour.shape[-1] == 4 and (colour[..., 3] != colour[..., 3].max()).any():
        notes.append("transparency ignored")
    red, green, blue = (colour[..., k] for k in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    notes.append("colour turned into luminance, 0.299 R + 0.587 G + 0.114 B")
    return np.asarray(colour[..., :3].astype(np.float64) @ np.array(LUMINANCE))


def read_png(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The image of a PNG file of 1 to 16 bits.

    Raises:
        InputError: if it is damaged, too large, has 16 bits and colour, or not the channel asked for.
    """
    with path.open("rb") as file:
        header = file.read(29)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 29:
        raise InputError(f"cannot read {path}: it is {'empty' if not header else 'not a PNG file or cut short'}")
    from PIL import Image

    columns, rows = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    check_pixels((rows, columns), path, options)
    if Image.MAX_IMAGE_PIXELS is not None and rows * columns > 2 * Image.MAX_IMAGE_PIXELS:  # where Pillow refuses
        raise InputError(f"cannot read {path}: {rows} x {columns} px are too many for a PNG, save it as TIFF or NPY")
    depth, colour_type = header[24], header[25]
    if depth == 16 and colour_type != _PNG_GREY:
        # Pillow would drop the lower eight bits without a word.
        raise InputError(f"cannot read {path}: a 16-bit PNG must be grey, save it without colour and transparency")
    if depth < 8 and colour_type == _PNG_GREY:
        notes.append(f"{depth}-bit grey scaled to 0-255")
    return Content(_read(path, "PNG", options, notes))


def read_jpeg(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The picture of a JPEG file, with a note on what its compression costs, or a thermal camera's raw counts in it.

    Raises:
        InputError: if it is damaged or too large, holds a thermal camera's measurement that cannot be read, or has not
            the channel asked for.
    """
    camera = camera_of(path)
    if camera is not None:
        return Content(read_raw_counts(path, camera, options, notes))
    notes.append("JPEG is lossy: positions, fluxes and their errors are less sure than stated, use a lossless format")
    return Content(_read(path, "JPEG", options, notes))


def read_bmp(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The picture of a BMP file.

    Raises:
        InputError: if it is damaged, too large, or has not the channel asked for.
    """
    return Content(_read(path, "BMP", options, notes))


def _read(path: Path, kind: str, options: ReadOptions, notes: list[str]) -> NDArray[Any]:
    """The values (H, W) of a picture."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # truncated or odd metadata
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, below
        try:
            opened = Image.open(path, formats=[kind])
        except Image.DecompressionBombError as error:
            raise InputError(
                f"cannot read {path}: it has more pixels than can be read of a {kind}, save it as TIFF or NPY"
            ) from error
        with opened as image:
            check_pixels((image.height, image.width), path, options)
            if getattr(image, "n_frames", 1) > 1:
                notes.append(f"animated {kind}, only its first frame is read")
            if image.mode in ("P", "PA"):
                plain = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
            elif image.mode in ("1", "CMYK", "YCbCr"):
                plain = image.convert("L" if image.mode == "1" else "RGB")
            else:
                plain = image
            values = np.array(plain)
    if options.channel is not None:
        channels = 1 if values.ndim == 2 else values.shape[2]
        if options.channel >= channels:
            held = f"{channels} channels, numbered from 0" if channels > 1 else "no channels"
            raise InputError(f"{path} has {held}: there is no channel {options.channel}")
        return np.asarray(np.atleast_3d(values)[..., options.channel])
    if values.ndim == 2:
        return values
    if values.shape[2] == 2:
        if (values[..., 1] != 255).any():
            notes.append("transparency ignored")
        return np.asarray(values[..., 0])
    return grey(values, notes)
