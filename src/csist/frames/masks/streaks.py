"""Long straight trails, as of a satellite: thin connected light along a line, too long for a target."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from csist._types import BoolArray, FloatArray, IntArray

BRIGHT_SIGMAS = 4.0
"""Least brightness of a trail's pixels in standard deviations of the noise."""
LEAST_SHARE = 0.4
"""Least length in units of the frame's shorter side."""
LEAST_LENGTH_PX = 40.0
WIDEST_PX = 2.5
"""Largest standard deviation across a trail."""
SLIMMEST = 20.0
"""Least ratio of length and that standard deviation."""
UNEVENNESS = 0.2
"""Largest scatter of the brightness along a trail, as a share of it, beside the noise."""
DARK_SIDES = 0.25
"""Largest light beside a trail in units of that in it."""
MARGIN_PX = 3
"""Reach of the faint sides of a trail beyond its bright pixels."""


def streaks(flattened: FloatArray, noise: FloatArray) -> BoolArray | None:
    """Pixels (H, W) of long straight trails with their faint sides; None if there is none.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        noise: (H, W) standard deviation of a pixel in counts.
    """
    with np.errstate(invalid="ignore"):
        bright = flattened > BRIGHT_SIGMAS * noise
    least = max(LEAST_LENGTH_PX, LEAST_SHARE * min(bright.shape))
    # A trail has bright pixels in so many rows, or columns, one after another.
    if max(_longest_run(np.asarray(bright.any(axis=axis))) for axis in (0, 1)) < least / 2.0**0.5:
        return None
    labels, _ = ndimage.label(bright, np.ones((3, 3)))
    found = np.zeros(bright.shape, dtype=bool)
    for number, part in enumerate(ndimage.find_objects(labels), 1):
        if max(part[0].stop - part[0].start, part[1].stop - part[1].start) < least / 2.0**0.5:
            continue
        rows, columns = np.nonzero(labels[part] == number)
        rows, columns = rows + part[0].start, columns + part[1].start
        along, across, normal = _extent(rows, columns)
        slim = along >= least and across <= WIDEST_PX and along >= SLIMMEST * across
        if not slim or not _is_even(
            flattened[rows, columns], rows * normal[1] - columns * normal[0], noise[rows, columns]
        ):
            continue
        if _stands_out(flattened, rows, columns, (3.0 * across + 2.0) * normal):
            found[rows, columns] = True
    return ndimage.binary_dilation(found, iterations=MARGIN_PX) if found.any() else None


def _longest_run(marks: BoolArray) -> int:
    """Length of the longest run of marks (n,)."""
    gaps = np.flatnonzero(~marks)
    return int(np.diff(gaps, prepend=-1, append=len(marks)).max()) - 1


def _extent(rows: IntArray, columns: IntArray) -> tuple[float, float, FloatArray]:
    """Length along the main axis of some pixels, standard deviation across it, in px, and the unit vector across it."""
    places = np.stack([rows - rows.mean(), columns - columns.mean()])
    values, axes = np.linalg.eigh(places @ places.T / len(rows))
    along = axes[:, 1] @ places
    return float(np.ptp(along)) + 1.0, float(max(values[0], 1.0 / 12.0) ** 0.5), np.asarray(axes[:, 0])


def _is_even(light: FloatArray, along: FloatArray, noise: FloatArray) -> bool:
    """Whether a trail is equally bright along its length; a row of targets is not.

    Args:
        light: (n,) of its pixels in counts.
        along: (n,) their places along it in px.
        noise: (n,) standard deviation of the pixels in counts.
    """
    bins = (along - along.min()).astype(int)
    ridge = np.full(bins.max() + 1, -np.inf)
    np.maximum.at(ridge, bins, light)
    ridge = ridge[np.isfinite(ridge)]
    middle = float(np.median(ridge))
    scatter = 1.4826 * float(np.median(np.abs(ridge - middle)))
    return bool(scatter <= float(np.hypot(UNEVENNESS * middle, np.median(noise))))


def _stands_out(flattened: FloatArray, rows: IntArray, columns: IntArray, aside: FloatArray) -> bool:
    """Whether both sides are alike and dark beside a trail; at an edge one of them is not.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        rows: (n,) of the trail's pixels.
        columns: (n,) of them.
        aside: rows and columns from a pixel to its side.
    """
    light = float(np.nanmedian(flattened[rows, columns]))
    for sign in (1.0, -1.0):
        i, j = np.rint(rows + sign * aside[0]).astype(int), np.rint(columns + sign * aside[1]).astype(int)
        inside = (i >= 0) & (i < flattened.shape[0]) & (j >= 0) & (j < flattened.shape[1])
        beside = flattened[i[inside], j[inside]]
        beside = beside[np.isfinite(beside)]
        if not beside.size or abs(float(np.median(beside))) > DARK_SIDES * light:
            return False
    return True
