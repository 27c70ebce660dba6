"""Offsets of rows and columns: the stripes of uncooled sensors, interlacing, the step between two amplifiers.

An offset is the same all along its line, which nothing in a scene is. It is therefore measured in bands of the other
axis, and only what the bands agree on is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.frames.medians import row_medians, side_medians

BANDS = 4
SAMPLES = 32
"""Pixels of a line in a band that are looked at."""
NEIGHBOURS = 4
"""Lines on either side that a line, or a step, is compared with."""
AGREEMENT = 0.7
"""Least mean correlation of the bands' stripes."""
USUAL_SIGMAS = 3.0
"""Excess, in units of the usual one, of a line that has no say in that."""
OUTLYING = 12.0
"""Least height of a step in units of the usual difference of the lines on its sides."""
LASTING = 16
"""Lines beyond the nearest ones over which a step has to last."""
STEP_SCATTER = 0.2
"""Largest deviation of a band's step from the median of all bands, as a share of it."""
FEWEST_LINES = 32


def line_offsets(frame: NDArray[np.floating]) -> tuple[FloatArray, FloatArray] | None:
    """Offsets of the rows (H,) and columns (W,) of a frame in counts; None if it has none.

    Args:
        frame: (H, W) in counts, NaN where masked.
    """
    if min(frame.shape) < FEWEST_LINES:
        return None
    columns, rows = _offsets(frame), _offsets(frame.T)
    if columns is None and rows is None:
        return None
    none_of_rows, none_of_columns = (np.zeros(n) for n in frame.shape)
    return none_of_rows if rows is None else rows, none_of_columns if columns is None else columns


def _offsets(frame: NDArray[np.floating]) -> FloatArray | None:
    """Offsets (W,) of the columns in counts; None if there are none."""
    levels = _levels(frame)
    if levels is None:
        return None
    steps = _steps(levels)
    stripes = _stripes(levels - steps)
    offsets = steps + stripes
    return offsets - np.median(offsets) if offsets.any() else None


def _levels(frame: NDArray[np.floating]) -> FloatArray | None:
    """Medians (bands, W) of the columns in bands of rows, gaps bridged; None if most of a band is masked."""
    step = max(1, frame.shape[0] // (BANDS * SAMPLES))
    taken = frame[::step]
    taken = taken[: len(taken) // BANDS * BANDS].reshape(BANDS, -1, frame.shape[1])
    lines = np.ascontiguousarray(taken.swapaxes(1, 2))
    levels = row_medians(lines).astype(np.float64)
    empty = np.isnan(lines)
    if not empty.any():
        return levels
    few = empty.mean(axis=2) > 0.5
    if (few.mean(axis=1) > 0.5).any():
        return None
    places = np.arange(frame.shape[1])
    for band, gaps in zip(levels, few, strict=True):
        band[gaps] = np.interp(places[gaps], places[~gaps], band[~gaps])
    return levels


def _stripes(levels: FloatArray) -> FloatArray:
    """What all bands agree each line (W,) differs from its neighbours by; 0 everywhere if they do not agree."""
    excess = levels - 0.5 * np.sum(side_medians(levels, NEIGHBOURS), axis=0)
    scale = np.maximum(1.4826 * row_medians(np.abs(excess))[:, None], 1e-300)
    # Single lines that stand out are bad lines or things in the scene: the others have to agree.
    usual = np.abs(row_medians((excess / scale).T)) < USUAL_SIGMAS
    within = np.clip(excess / scale, -USUAL_SIGMAS, USUAL_SIGMAS)[:, usual]
    agreement = np.corrcoef(within)[np.triu_indices(BANDS, 1)].mean() if within.std(axis=1).all() else 0.0
    if agreement < AGREEMENT:
        return np.zeros(levels.shape[1])
    return np.asarray(row_medians(excess.T))


def _steps(levels: FloatArray) -> FloatArray:
    """Level (W,) of the steps between lines that all bands agree on."""
    # A slope rises from each line to the next, which is no step.
    levels = levels - np.median(np.diff(levels, axis=1)) * np.arange(levels.shape[1])
    # Between line k - 1 and line k.
    before, after = side_medians(levels, NEIGHBOURS)
    height = np.zeros(levels.shape)
    height[:, 1:] = after[:, :-1] - before[:, 1:]
    middle = row_medians(height.T)
    usual = float(np.median(np.abs(middle - np.median(middle))))
    far = np.abs(middle) > OUTLYING * max(1.4826 * usual, 1e-300)
    far &= (np.abs(height - middle) <= STEP_SCATTER * np.abs(middle)).all(axis=0)
    far[: 2 * NEIGHBOURS] = far[-2 * NEIGHBOURS :] = False
    result = np.zeros(levels.shape[1])
    jump = np.zeros(levels.shape[1])
    jump[1:] = row_medians(np.diff(levels, axis=1).T)
    places = np.flatnonzero(far)
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if places.size else []:
        k = run[np.abs(jump[run]).argmax()]
        # A bar or a row of targets goes up and down again.
        near, last = NEIGHBOURS, NEIGHBOURS + LASTING
        after_it = np.median(levels[:, k + near : k + last])
        lasts = after_it - np.median(levels[:, max(k - last, 0) : k - near])
        if np.abs(jump[k]) > 0.5 * np.abs(middle[k]) and lasts / middle[k] > 0.5:
            result[k:] += middle[k]
    return result
