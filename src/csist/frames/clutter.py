"""Probability that a spot in clutter is a target: it must beat what is around it, in every direction.

A tree line, a roof's edge, a wire or a step between two codec blocks gives a filter for spots a high response, and yet
is as bright as the spot itself in some direction. The light at a spot is therefore compared with that on a circle
around it, at three scales: its lead over all of sixteen directions, and over all but four, which a neighbouring target
may take, in units of the scatter in a ring. Both and the significance go into a logistic regression, whose
coefficients come from labelled infrared frames (`benchmarks/fit_clutter.py`, on the half of the scenes on which
nothing is reported).

The directional lead is that of the local contrast measures (Chen et al., IEEE TGRS 52, 574, 2014; Wei, You and Li,
Pattern Recognition 58, 216, 2016).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from csist._types import FloatArray
from csist.frames.medians import surroundings
from csist.frames.options import FALSE_ALARM_RATE
from csist.frames.peaks import Peaks

SCALES_PX = ((0.8, 3.0), (1.5, 5.0), (2.5, 8.0))
"""Width of the smoothing and radius of the circle, for PSFs up to `USUAL_SIGMA_PX`; both grow with wider ones."""
USUAL_SIGMA_PX = 1.5
RING_PX = (6.0, 16.0)
"""Radii of the ring whose scatter is the unit."""
DIRECTIONS = 16
SPARED = 4
"""Directions that the second lead leaves out."""
COEFFICIENTS = (-11.54, 2.42, 0.64, 0.90)
"""Of 1, the logarithm of the significance, and the inverse hyperbolic sines of both leads."""
LEAST_PROBABILITY = 0.06
"""Probability that a spot must have at the default false-alarm rate."""
RATE_EXPONENT = 1.0 / 6.0
"""That probability falls with this power of the false-alarm rate."""


def least_probability(false_alarm_rate: float) -> float:
    """Probability that a spot must have, at a stated rate of false alarms per pixel in noise alone.

    >>> least_probability(1e-9), round(least_probability(1e-3), 3)
    (0.06, 0.006)
    """
    return float(min(LEAST_PROBABILITY * (FALSE_ALARM_RATE / false_alarm_rate) ** RATE_EXPONENT, 0.9))


def target_probability(
    flattened: NDArray[np.floating], peaks: Peaks, floor: float, sigma_px: float | None
) -> FloatArray:
    """Probability (n,) that each peak is a target and not clutter.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        peaks: n spots with their significance.
        floor: smallest noise of a pixel in counts.
        sigma_px: of the PSF; None where it is not known.
    """
    leads = np.arcsinh(directional_leads(flattened, peaks, floor, sigma_px))
    one, by_significance, by_all, by_most = COEFFICIENTS
    logit = one + by_significance * np.log(np.maximum(peaks.significance, 1.0))
    return np.asarray(expit(logit + by_all * leads[:, 0] + by_most * leads[:, 1]))


def directional_leads(
    flattened: NDArray[np.floating], peaks: Peaks, floor: float, sigma_px: float | None
) -> FloatArray:
    """Lead (n, 2) of each peak over all directions around it, and over all but `SPARED`, in units of the scatter.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        peaks: n spots.
        floor: smallest noise of a pixel in counts, the least scatter.
        sigma_px: of the PSF; None where it is not known.
    """
    if not len(peaks):
        return np.empty((0, 2))
    probe, ring = _probe(max(1.0, (sigma_px or 0.0) / USUAL_SIGMA_PX))
    reach = ring.shape[0] // 2
    rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
    windows = surroundings(flattened, rows, columns, reach).astype(np.float64)
    beside = windows[:, ring]
    empty = np.isnan(beside)
    beside = (
        np.where(empty & ~empty.all(axis=1, keepdims=True), np.nan, np.nan_to_num(beside)) if empty.any() else beside
    )
    middle = np.nanmedian if empty.any() else np.median
    scatter = 1.4826 * middle(np.abs(beside - middle(beside, axis=1)[:, None]), axis=1)
    light = np.nan_to_num(windows).reshape(len(peaks), -1) @ probe.T
    light = light.reshape(len(peaks), len(SCALES_PX), 9 + DIRECTIONS)
    lead = np.sort(light[:, :, :9].max(axis=2, keepdims=True) - light[:, :, 9:], axis=2)
    best = lead[:, :, [0, SPARED]].max(axis=1)
    return np.asarray(best / np.maximum(scatter, floor)[:, None])


@lru_cache(maxsize=8)
def _probe(factor: float) -> tuple[FloatArray, np.ndarray]:
    """Weights (scales * (9 + directions), side^2) of the smoothed light at the nine middle pixels and around, and ring.

    Args:
        factor: by which all lengths are larger than usual.
    """
    reach = int(np.ceil(max(factor * RING_PX[1], *(factor * (d + 3.0 * s) + 1.0 for s, d in SCALES_PX))))
    along = np.arange(-reach, reach + 1)
    y, x = along[:, None], along[None, :]
    angle = 2.0 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    rows = []
    for width, radius in SCALES_PX:
        middle = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        around = zip(np.rint(factor * radius * np.sin(angle)), np.rint(factor * radius * np.cos(angle)), strict=True)
        for i, j in [*middle, *around]:
            weight = np.exp(-0.5 * ((y - i) ** 2 + (x - j) ** 2) / (factor * width) ** 2)
            rows.append((weight / weight.sum()).ravel())
    distance = np.hypot(y, x)
    ring = (distance > factor * RING_PX[0]) & (distance <= factor * RING_PX[1])
    return np.array(rows), ring
