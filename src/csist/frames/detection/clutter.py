"""Probability that a spot in clutter is a target: it must beat what is around it, in every direction.

A tree line, a roof's edge, a wire or a step between two codec blocks gives a filter for spots a high response, and yet
is as bright as the spot itself in some direction. The light at a spot is therefore compared with that on a circle
around it, at three scales: its lead over all of sixteen directions, and over all but four, which a neighbouring target
may take, in units of the scatter in a ring. Directions in which another spot of the stated PSF's shape lies do not
count: a target of a group leads over the background, not over the other targets. Glints and hot pixels are sharper than
optics make a target, artefacts of codecs gather in the outermost rows and columns, and where a frame is full of weak
candidates the next one is hardly a target either.

Where the PSF is known, its shape tells most: how like one point source the spot is, and how like one to three
(`csist.frames.detection.likeness`).

All this goes into a logistic regression, one for each case. The coefficients in `clutter.json` are written by
`benchmarks/fit_clutter.py`, from labelled infrared frames of the half of the scenes on which nothing is reported, and
for known PSFs from targets injected into these frames.

The directional lead is that of the local contrast measures (Chen et al., IEEE TGRS 52, 574, 2014; Wei, You and Li,
Pattern Recognition 58, 216, 2016).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import expit

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.detection.peaks import Peaks, keep_strongest
from csist.frames.medians import surroundings
from csist.frames.options import FALSE_ALARM_RATE

SCALES_PX = ((0.8, 3.0), (1.5, 5.0), (2.5, 8.0))
"""Width of the smoothing and radius of the circle, for PSFs up to `USUAL_SIGMA_PX`; both grow with wider ones."""
USUAL_SIGMA_PX = 1.5
RING_PX = (6.0, 16.0)
"""Radii of the ring whose scatter is the unit."""
DIRECTIONS = 16
SPARED = 4
"""Directions that the second lead leaves out."""
TAKEN_SIGMAS = 2.0
"""Distance from a target up to which its light is seen, in widths of the smoothed light."""
BORDER_PX = 5
"""Distance from the frame's edge up to which the edge counts, fully from `BORDER_PX` - 3 px on."""
WEAK = (6.0, 9.0)
"""Strength of a weak candidate, see `_strength`."""
WEAK_APART_PX = 8.0
"""Weak candidates closer than this count once."""
FEATURES = ("log significance", "least lead", "usual lead", "sharpness", "edge", "weak candidates")
SHAPE_FEATURES = ("like one source", "like one to three")
"""Further ones where the PSF is known."""
RATE_EXPONENT = 1.0 / 6.0
"""The least probability falls with this power of the false-alarm rate."""


class ClutterTable(NamedTuple):
    """The fitted regression.

    Args:
        coefficients: (1 + features,) of 1 and of `FEATURES`, then of `SHAPE_FEATURES` where the PSF is known.
        least_probability: that a spot must have at the default false-alarm rate.
    """

    coefficients: FloatArray
    least_probability: float


@lru_cache(maxsize=2)
def clutter_table(*, known_psf: bool) -> ClutterTable:
    """The regression that the package comes with, for frames whose PSF is known or not."""
    text = files("csist.frames.detection").joinpath("clutter.json").read_text(encoding="utf-8")
    table = json.loads(text)["known PSF" if known_psf else "unknown PSF"]
    names = ("constant", *FEATURES, *(SHAPE_FEATURES if known_psf else ()))
    return ClutterTable(np.array([table["coefficients"][name] for name in names]), float(table["least_probability"]))


def least_probability(false_alarm_rate: float, *, known_psf: bool) -> float:
    """Probability that a spot must have, at a stated rate of false alarms per pixel in noise alone.

    >>> round(least_probability(1e-3, known_psf=False) / least_probability(1e-9, known_psf=False), 9)
    0.1
    """
    least = clutter_table(known_psf=known_psf).least_probability
    return float(min(least * (FALSE_ALARM_RATE / false_alarm_rate) ** RATE_EXPONENT, 0.9))


def target_probability(features: FloatArray) -> FloatArray:
    """Probability (n,) of spots to be targets and not clutter.

    Args:
        features: (n, features), those of `clutter_features`, followed by `SHAPE_FEATURES` where the PSF is known.
    """
    coefficients = clutter_table(known_psf=features.shape[1] > len(FEATURES)).coefficients
    return np.asarray(expit(coefficients[0] + features @ coefficients[1:]))


def clutter_features(
    flattened: NDArray[np.floating],
    peaks: Peaks,
    floor: float,
    sigma_px: float | None,
    counted: BoolArray,
    targets: BoolArray,
) -> FloatArray:
    """`FEATURES` (n, features) of the candidates of a frame.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        peaks: n candidates with their significance.
        floor: smallest noise of a pixel in counts.
        sigma_px: of the PSF; None where it is not known.
        counted: (n,) whether each may count as a weak candidate of the frame.
        targets: (n,) whether each looks so much like a target that its light takes no lead from its neighbours.
    """
    if not len(peaks):
        return np.empty((0, len(FEATURES)))
    leads = np.arcsinh(directional_leads(flattened, peaks, floor, sigma_px, targets))
    rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
    border = np.minimum.reduce([rows, columns, flattened.shape[0] - 1 - rows, flattened.shape[1] - 1 - columns])
    significance = np.log(np.maximum(peaks.significance, 1.0))
    weak = _number_of_weak(peaks[counted], _strength(significance, leads)[counted])
    return np.stack(
        [
            significance,
            *leads.T,
            _sharpness(flattened, rows, columns, floor),
            np.clip(BORDER_PX - border, 0, 3) / 3.0,
            np.full(len(peaks), np.log1p(weak)),
        ],
        axis=1,
    )


def _strength(log_significance: FloatArray, leads: FloatArray) -> FloatArray:
    """Strength (n,) of candidates, a sum of their main features."""
    return np.asarray(2.0 * log_significance + leads.sum(axis=1))


def _number_of_weak(peaks: Peaks, strength: FloatArray) -> int:
    """Number of the weak ones of some candidates."""
    order = np.argsort(-strength, kind="stable")
    apart = keep_strongest(replace(peaks, significance=strength)[order], WEAK_APART_PX).significance
    return int(((apart > WEAK[0]) & (apart <= WEAK[1])).sum())


def _sharpness(flattened: NDArray[np.floating], rows: IntArray, columns: IntArray, floor: float) -> FloatArray:
    """Sharpness (n,) of spots: how far the light falls within one pixel, along the axis on which it falls most.

    As a share of the height above the median of a ring, at least the smallest noise of a pixel, `floor`.
    """
    reach = int(RING_PX[1])
    window = np.nan_to_num(surroundings(flattened, rows, columns, reach).astype(np.float64))
    middle = np.median(window[:, _ring(reach, 1.0)], axis=1)
    core = window[:, reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(len(window), 9)
    down, right = np.divmod(core.argmax(axis=1), 3)
    every, i, j = np.arange(len(window)), reach - 1 + down, reach - 1 + right
    top = window[every, i, j]
    vertical = 0.5 * (window[every, i - 1, j] + window[every, i + 1, j])
    horizontal = 0.5 * (window[every, i, j - 1] + window[every, i, j + 1])
    fall = (top - np.minimum(vertical, horizontal)) / np.maximum(top - middle, floor)
    return np.asarray(np.clip(fall, 0.0, 1.5))


def directional_leads(
    flattened: NDArray[np.floating], peaks: Peaks, floor: float, sigma_px: float | None, targets: BoolArray
) -> FloatArray:
    """Lead (n, 2) of each peak over all directions around it, and over all but `SPARED`, in units of the scatter.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        peaks: n spots.
        floor: smallest noise of a pixel in counts, the least scatter.
        sigma_px: of the PSF; None where it is not known.
        targets: (n,) peaks whose light takes no lead from their neighbours.
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
    lead = light[:, :, :9].max(axis=2, keepdims=True) - light[:, :, 9:]
    lead[_taken(peaks.positions, targets, sigma_px or 0.0)] = np.nan
    # NaN is sorted last: a scale at which too few directions are left says nothing.
    best = np.nan_to_num(np.fmax.reduce(np.sort(lead, axis=2)[:, :, [0, SPARED]], axis=1))
    return np.asarray(best / np.maximum(scatter, floor)[:, None])


def _taken(positions: FloatArray, targets: BoolArray, sigma_px: float) -> BoolArray:
    """Places (n, scales, directions) around positions (n, 2) that hold the light of another one that is a target."""
    factor = max(1.0, sigma_px / USUAL_SIGMA_PX)
    angle = 2.0 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    taken = np.zeros((len(positions), len(SCALES_PX), DIRECTIONS), dtype=bool)
    if not targets.any():
        return taken
    # A missing second neighbour has the index behind the last one, and an infinite distance.
    tree, owner = KDTree(positions[targets]), np.append(np.flatnonzero(targets), -1)
    every = np.arange(len(positions))[:, None, None]
    for k, (width, radius) in enumerate(SCALES_PX):
        distance, nearest = tree.query(positions[:, None] + factor * radius * circle, k=2)
        near = distance <= TAKEN_SIGMAS * np.hypot(factor * width, sigma_px)
        taken[:, k] = (near & (owner[nearest] != every)).any(axis=2)
    return taken


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
    return np.array(rows), _ring(reach, factor)


def _ring(reach: int, factor: float) -> BoolArray:
    """Pixels (2 reach + 1, 2 reach + 1) of the ring whose scatter is the unit."""
    along = np.arange(-reach, reach + 1)
    distance = np.hypot(along[:, None], along)
    return np.asarray((distance > factor * RING_PX[0]) & (distance <= factor * RING_PX[1]))
