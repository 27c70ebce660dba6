"""Maps that belong to an image: noise and mask of its pixels, dark frame and flat field."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from csist._types import BoolArray, FloatArray
from csist.checks import InputError
from csist.io.fits import deviation
from csist.io.formats import Content, ReadOptions, image_kind, split_selector

OF_CCD_DATA = ("UNCERT", "UNCERTAINTY")
"""Units whose kind (deviation, variance or inverse variance) is written in their header."""

Reader = Callable[[Path, str | None], Content]
"""What a file holds, (H, W) or (N, H, W), and of the unit with a name where one is given."""


def with_maps(content: Content, path: Path, options: ReadOptions, read: Reader, notes: list[str]) -> Content:
    """What a file holds, with the maps that the options name in the place of its own.

    Args:
        content: of the file.
        path: of the file.
        options: name the maps: files, or units of the same FITS file.
        read: reads a map.
        notes: gets what the user should know.

    Raises:
        InputError: if a map cannot be read, has another shape or holds values that it cannot have.
    """
    shape = content.data.shape
    error, mask, dark, flat = content.error, content.mask, None, None
    if options.error is not None or options.weight is not None:
        error = _read_noise(content, path, options, read)
    if options.mask is not None:
        declared = _read_map("mask", options.mask, path, content, read).data
        bad = np.broadcast_to(np.nan_to_num(np.asarray(declared, np.float64), nan=1.0) != 0.0, shape)
        mask = bad if mask is None else mask | bad
        notes.append(f"{int(np.count_nonzero(bad))} pixels are masked by {options.mask}")
    if options.dark is not None:
        dark = _exposed_alike(_read_map("dark", options.dark, path, content, read), content.header.exposure_s, notes)
    if options.flat is not None:
        flat = unit_flat(
            np.asarray(_read_map("flat", options.flat, path, content, read).data, np.float64), options.flat
        )
    return content.with_maps(error=error, mask=mask, dark=dark, flat=flat)


def _exposed_alike(dark: Content, exposure_s: float | None, notes: list[str]) -> FloatArray:
    """Values of a dark frame, scaled to the exposure time of an image where both files state theirs.

    Args:
        dark: the dark frame.
        exposure_s: of the image in s; None where it is not known.
        notes: gets what the user should know.
    """
    values, own = np.asarray(dark.data, np.float64), dark.header.exposure_s
    if exposure_s is None or own is None or exposure_s == own:
        return values
    notes.append(
        f"the dark frame of {own:g} s is scaled to the image's {exposure_s:g} s: right where it holds no bias level"
    )
    return values * (exposure_s / own)


def unit_flat(flat: FloatArray, name: str) -> FloatArray:
    """A flat field of mean 1 over its positive pixels, NaN in the others, which have no sensitivity.

    Raises:
        InputError: if no pixel is positive.
    """
    seen = np.isfinite(flat) & (flat > 0.0)
    if not seen.any():
        raise InputError(f"flat {name} has no value > 0: it must hold the sensitivity of each pixel")
    return np.where(seen, flat / float(flat[seen].mean()), np.nan)


def corrected(images: FloatArray, dark: FloatArray | None, flat: FloatArray | None, ceiling: float) -> FloatArray:
    """Images (n, H, W) less the dark frame and over the flat field; NaN where they reached the ceiling before.

    Args:
        images: in counts.
        dark: (n, H, W) in counts, or (1, H, W) for all; None for none.
        flat: of mean 1, likewise.
        ceiling: level in counts at which the sensor clips; infinite where not known.
    """
    values = np.where(images >= ceiling, np.nan, images)
    if dark is not None:
        values = values - dark
    return values if flat is None else values / flat


def _read_noise(content: Content, path: Path, options: ReadOptions, read: Reader) -> FloatArray:
    """Standard deviation of each pixel, infinite where it says nothing."""
    kind, text = ("error", options.error) if options.error is not None else ("weight", options.weight or "")
    if kind == "error" and str(text).upper() in OF_CCD_DATA and content.error is not None:
        return content.error
    values = _read_map(kind, str(text), path, content, read)
    numbers = np.asarray(values.data, np.float64)
    if (numbers < 0.0).any():
        what = "standard deviations" if kind == "error" else "inverse variances"
        raise InputError(f"{kind} {text} must hold {what} >= 0, got {float(np.nanmin(numbers)):.6g}")
    found = deviation("WEIGHT" if kind == "weight" else values.unit[0], "", numbers)
    usable = np.isfinite(found) & (found > 0.0)
    if not usable.any():
        raise InputError(f"{kind} {text} has no finite value > 0: no pixel could be used")
    return np.where(usable, found, np.inf)


def _read_map(kind: str, text: str, path: Path, content: Content, read: Reader) -> Content:
    """A map, (H, W) or of the image's shape. A unit of the image's own file is that of the image's version."""
    given, unit = split_selector(text)
    shape = content.data.shape
    if given.is_file():
        found = read(given, unit)
    elif re.fullmatch(r"\w+(,\d+)?", text) and image_kind(path) == "fits":
        found = _read_beside(path, text, content.unit[1], read)
    else:
        raise InputError(f"cannot read {kind} {text}: there is no such file" + (
            ", nor is it the name of a FITS unit" if image_kind(path) == "fits" else ""))  # fmt: skip
    values = found.data
    if values.shape[0] == 1 and values.ndim == 3 and values.shape != shape:
        values = values[0]
    if values.shape not in (shape, shape[-2:]):
        raise InputError(f"{kind} {text} has the shape {values.shape}, {path} has {tuple(shape)}: they must be alike")
    return replace(found, data=values)


def _read_beside(path: Path, name: str, version: int, read: Reader) -> Content:
    """The unit of a file with a name, of this version where there are several."""
    found = read(path, name)
    if found.unit[1] == version or not name.isidentifier():
        return found
    with suppress(InputError):  # one map for all images
        return read(path, f"{name},{version}")
    return found


def usable_pixels(error: FloatArray | None, mask: BoolArray | None) -> BoolArray | None:
    """Where the maps leave a pixel in use; None where they leave all."""
    if error is None:
        return None if mask is None else ~mask
    seen = np.isfinite(error)
    return seen if mask is None else seen & ~mask
