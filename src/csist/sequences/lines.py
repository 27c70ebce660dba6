"""Tracks of targets that were measured in single frames: weighted straight or bent lines through their positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csist._types import FloatArray
from csist.sequences.result import Track
from csist.targets import Targets
from csist.tracks.smooth import START_SPEED_PX, mean_score

LEAST_BENT = 8
"""Fewest positions of a path with an acceleration."""
LEAST_ERROR_PX = 0.02
"""Of a position: a smaller stated one does not rule the fit."""


def line_track(track: int, frames: Sequence[Targets], times: FloatArray) -> Track:
    """The track of one target from its positions in single frames.

    Args:
        track: its number.
        frames: targets of each frame with their tracks.
        times: (T,) of the frames.
    """
    seen = np.array([t for t, targets in enumerate(frames) if (targets.track == track).any()])
    own = Targets.concatenate([frames[t][frames[t].track == track] for t in seen])
    time = times[seen] - times[seen[0]]
    degree = min(2 if len(seen) >= LEAST_BENT else 1, len(seen) - 1)
    state, covariance, bend = np.zeros(5), np.zeros((5, 5)), np.zeros(2)
    for axis, (values, errors) in enumerate(((own.x, own.x_std), (own.y, own.y_std))):
        known, spread = _polynomial(time, values, errors, degree)
        state[axis], state[2 + axis] = known[0], known[1] if degree else 0.0
        places = [axis, 2 + axis][: degree + 1]
        covariance[np.ix_(places, places)] = spread[:2, :2]
        if not degree:
            covariance[2 + axis, 2 + axis] = START_SPEED_PX**2
        bend[axis] = 2.0 * known[2] if degree > 1 else 0.0
    flux = own.intensity[np.isfinite(own.intensity)]
    state[4] = flux.mean() if len(flux) else np.nan
    covariance[4, 4] = flux.var(ddof=1) / len(flux) if len(flux) > 1 else np.nan
    existence = mean_score(own.score)
    return Track(track, int(seen[0]), int(seen[-1]), state, covariance, existence, bend, float(times[seen[0]]))


def _polynomial(time: FloatArray, values: FloatArray, errors: FloatArray, degree: int) -> tuple[FloatArray, FloatArray]:
    """Coefficients of the weighted polynomial and their covariance, at least that of the residuals."""
    stated = np.where(np.isfinite(errors), errors, 1.0)
    root = 1.0 / np.maximum(stated, LEAST_ERROR_PX)
    design = time[:, None] ** np.arange(degree + 1)
    covariance = np.linalg.pinv((design * root[:, None] ** 2).T @ design)
    known = covariance @ ((design * root[:, None] ** 2).T @ values)
    freedom = len(time) - degree - 1
    misfit = float(((root * (values - design @ known)) ** 2).sum()) / freedom if freedom > 0 else 1.0
    return known, np.asarray(covariance * max(misfit, 1.0), dtype=np.float64)
