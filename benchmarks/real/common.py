"""Helpers of the parts: folders, one-to-one matching, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from csist.checks import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Progress = Callable[[str, float, float], None]
"""Callback with a description, the amount done and the total amount."""

RESAMPLES = 1000
LEVEL = 0.95


def folder_of(data: Path, name: str) -> Path:
    """Return a sub-folder of the data.

    Raises:
        InputError: if it is missing.
    """
    folder = data / name
    if not folder.is_dir():
        raise InputError(f"no folder {name} in {data}: put the data there, or leave its part out (--part)")
    return folder


def match(
    found: FloatArray,
    truth: FloatArray,
    rank: FloatArray,
    radius_px: float,
    flux_factor: float = np.inf,
) -> IntArray:
    """Match detections to true targets one to one, highest rank first; return the index (n,) of each target, or -1.

    A detection is matched to the nearest free target within the radius whose flux is within the factor.

    Args:
        found: (n, 2 or 3) x, y in px and flux of the detections.
        truth: (m, 2 or 3) the same for the true targets.
        rank: (n,) rank of the detections, highest first.
        radius_px: largest distance in px.
        flux_factor: largest ratio of the fluxes, in either direction.

    >>> match(np.array([[0.0, 0.0], [0.4, 0.0]]), np.array([[0.3, 0.0]]), np.array([1.0, 2.0]), 0.5).tolist()
    [-1, 0]
    """
    taken = np.full(len(found), -1, dtype=np.int64)
    if not len(truth) or not len(found):
        return taken
    near = KDTree(truth[:, :2]).query_ball_point(found[:, :2], radius_px)
    free = np.ones(len(truth), dtype=bool)
    for k in np.argsort(-rank, kind="stable"):
        places = np.array([m for m in near[k] if free[m]], dtype=np.int64)
        if np.isfinite(flux_factor):
            ratio = found[k, 2] / truth[places, 2]
            places = places[(ratio <= flux_factor) & (ratio >= 1.0 / flux_factor)]
        if places.size:
            chosen = places[np.hypot(*(truth[places, :2] - found[k, :2]).T).argmin()]
            taken[k], free[chosen] = chosen, False
    return taken


def interval(values: FloatArray, level: float = LEVEL) -> list[float]:
    """Return the ends of the central interval of resampled values; NaN is left out."""
    values = values[np.isfinite(values)]
    if not values.size:
        return [float("nan")] * 2
    return [float(end) for end in np.quantile(values, [0.5 - 0.5 * level, 0.5 + 0.5 * level])]


def with_interval(
    values: FloatArray, statistic: Callable[[FloatArray], Any], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return a statistic of some values with its bootstrap interval."""
    if not values.size:
        return {"value": float("nan"), "interval": interval(values)}
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.choice(values, values.size)) for _ in range(resamples)])
    return {"value": float(statistic(values)), "interval": interval(drawn)}


def share(right: Sequence[bool] | NDArray[np.bool_], seed: int = 0) -> dict[str, Any]:
    """Return the fraction of true cases, 0 to 1, with its bootstrap interval and the number of cases."""
    cases = np.asarray(right, dtype=np.float64)
    if not cases.size:
        return {"value": float("nan"), "interval": [float("nan")] * 2, "cases": 0}
    drawn = np.random.default_rng(seed).binomial(cases.size, cases.mean(), RESAMPLES) / cases.size
    return {"value": float(cases.mean()), "interval": interval(drawn), "cases": int(cases.size)}
