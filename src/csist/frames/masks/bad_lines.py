"""Rows and columns of a frame that differ from their neighbours along their whole length: dead, hot, offset ones.

Such a line is narrow and complete. The scatter of all lines about their neighbours is the scale, so that the stripes
of an uncooled sensor are not bad lines, and the edge of a thing in the scene, on whose sides lines differ, is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from csist._types import BoolArray, FloatArray
from csist.frames.medians import row_medians, side_medians

MOST_SAMPLES = 128
"""Pixels of a line that are looked at, spread evenly."""
NEIGHBOURS = 4
"""Lines on either side whose median a line is compared with."""
WIDEST = 3
"""Largest number of adjacent bad lines; more are a thing in the scene."""
OUTLYING = 12.0
"""Least excess of a bad line's median in units of the scatter of all lines."""
ALONG = 0.95
"""Least share of its pixels that differ from the neighbouring lines in the same sense."""
FEWEST_LINES = 16


def bad_lines(frame: FloatArray) -> BoolArray:
    """Pixels (H, W) of rows and columns that differ from their neighbours along their whole length.

    Args:
        frame: (H, W) in counts, NaN where there is nothing to look at.
    """
    bad = np.zeros(frame.shape, dtype=bool)
    columns, rows = _bad_columns(frame), _bad_columns(frame.T)
    if columns.any() or rows.any():
        bad[:, columns] = True
        bad[rows] = True
    return bad


def _bad_columns(frame: FloatArray) -> BoolArray:
    """Which columns (W,) differ from their neighbours along their whole length."""
    none = np.zeros(frame.shape[1], dtype=bool)
    if frame.shape[1] < FEWEST_LINES or frame.shape[0] < FEWEST_LINES:
        return none
    part = frame[:: -(-frame.shape[0] // MOST_SAMPLES)]
    empty = np.isnan(part)
    seen = ~none
    if empty.any():
        seen = empty.mean(axis=0) < 0.5
        if not seen.any():
            return none
        part = part[empty[:, seen].mean(axis=1) < 0.5]
        empty = np.isnan(part)
        seen &= ~empty.all(axis=0)
    if seen.sum() < FEWEST_LINES or len(part) < FEWEST_LINES // 2:
        return none
    lines = np.ascontiguousarray((part if seen.all() else part[:, seen]).T)
    excess = _excess(row_medians(lines))
    scatter = 1.4826 * float(np.median(np.abs(excess)))
    if not (np.abs(excess) > OUTLYING * scatter).any():
        return none
    texture = float(np.nanmedian(row_medians(np.abs(np.diff(part, axis=1)))))
    odd = np.abs(excess) > OUTLYING * max(scatter, 1.2 * texture / len(part) ** 0.5)
    if not odd.any():
        return none
    candidates, columns = none.copy(), np.flatnonzero(seen)
    candidates[columns[odd]] = True
    runs, count = ndimage.label(candidates)
    good = columns[~odd]
    for number in range(1, count + 1):
        members = np.flatnonzero(runs == number)
        near = good[np.argsort(np.abs(good - members.mean()), kind="stable")[: 2 * NEIGHBOURS]]
        if len(members) > WIDEST or len(near) < 2:
            candidates[members] = False
            continue
        rows = ~empty[:, near].all(axis=1)
        beside = np.nanmedian(part[rows][:, near], axis=1)
        for column in members:
            difference = part[rows, column] - beside
            difference = difference[np.isfinite(difference)]
            alike = (np.sign(difference) == np.sign(np.median(difference))).mean() if difference.size else 0.0
            candidates[column] = alike >= ALONG
    return candidates


def _excess(levels: NDArray[np.floating]) -> NDArray[np.floating]:
    """By how much each level (n,) lies outside the range between the medians of its neighbours on either side."""
    before, after = side_medians(levels, NEIGHBOURS)
    return np.asarray(levels - np.clip(levels, np.minimum(before, after), np.maximum(before, after)))
