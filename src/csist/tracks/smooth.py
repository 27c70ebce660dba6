"""States of a track from its detections: a Kalman filter of nearly constant velocity, and its smoother.

Rauch, Tung & Striebel, Maximum likelihood estimates of linear dynamic systems, AIAA Journal 1965. The strength of the
white acceleration is the most likely one of a ladder, so that the covariances follow how the target moves. The
existence of a track is the odds of a target against false detections, collected over its frames (Blackman & Popoli,
Design and Analysis of Modern Tracking Systems, 1999, chapter 6).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray, IntArray
from csist.targets import Flag, Targets

ACCELERATIONS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Standard deviations of the change of the velocity in px per frame, from frame to frame."""
START_SPEED_PX = 5.0
"""Standard deviation of the velocity of a new track in px per frame."""
LEAST_STD_PX, UNKNOWN_STD_PX = 0.05, 0.5
"""Of the position of a detection: the smallest, and that of a detection without one."""
BOUND_STD_PX = 1.0
"""Least of a position at a bound: the target is beyond the frame's border, by a part of the PSF."""
DETECTED = 0.9
"""Probability that a target is detected in a frame."""
FALSE_DENSITY = 1e-4
"""False detections a frame and px^2."""
NEW_ODDS = 0.01
"""Odds of a target against a false detection before a track's first one."""
MOST_LOG_ODDS = 30.0


class Smoothed(NamedTuple):
    """States of one track in every frame from its first to its last detection.

    Args:
        frame: (T,) numbers.
        detected: (T,) whether there was a detection.
        state: (T, 4) x, y in px, vx, vy in px per frame.
        covariance: (T, 4, 4).
        acceleration: standard deviation that was used, of `ACCELERATIONS`.
        existence_probability: that the track is a target.
    """

    frame: IntArray
    detected: BoolArray
    state: FloatArray
    covariance: FloatArray
    acceleration: float
    existence_probability: float


class _Filtered(NamedTuple):
    predicted: FloatArray
    predicted_covariance: FloatArray
    state: FloatArray
    covariance: FloatArray
    log_likelihood: FloatArray
    """Of each detection after the first, 0 elsewhere."""


def smooth(frame: IntArray, place: FloatArray, std: FloatArray, score: FloatArray) -> Smoothed:
    """The states of a track.

    Args:
        frame: (n,) numbers of the frames with a detection, increasing.
        place: (n, 2) x, y of the detections in px.
        std: (n, 2) their standard errors in px, NaN where not known.
        score: (n,) their scores, NaN where not known.
    """
    number = np.arange(frame[0], frame[-1] + 1)
    seen = np.isin(number, frame)
    values, variance = np.zeros((len(number), 2)), np.ones((len(number), 2))
    values[seen] = place
    variance[seen] = np.maximum(np.where(np.isfinite(std), std, UNKNOWN_STD_PX), LEAST_STD_PX) ** 2
    runs = [_filter(values, variance, seen, acceleration) for acceleration in ACCELERATIONS]
    best = int(np.argmax([run.log_likelihood.sum() for run in runs]))
    state, covariance = _backwards(runs[best], ACCELERATIONS[best])
    odds = math.log(NEW_ODDS) + float((runs[best].log_likelihood[seen][1:] - math.log(FALSE_DENSITY)).sum())
    odds += (int(seen.sum()) - 1) * math.log(DETECTED) + int((~seen).sum()) * math.log(1.0 - DETECTED)
    exists = 1.0 / (1.0 + math.exp(-min(max(odds, -MOST_LOG_ODDS), MOST_LOG_ODDS)))
    return Smoothed(number, seen, state, covariance, ACCELERATIONS[best], exists * mean_score(score))


def position_std(targets: Targets) -> tuple[FloatArray, FloatArray]:
    """Standard errors of x and of y in px (n,) with which detections of a frame are smoothed; NaN where not known."""
    least = np.where(targets.flags & int(Flag.AT_BOUND), BOUND_STD_PX, 0.0)
    return np.maximum(targets.x_std, least), np.maximum(targets.y_std, least)


def mean_score(score: FloatArray) -> float:
    """Probability that a track is no clutter, from the scores of its detections.

    Clutter that looks like a target in one frame does so in the next: the frames are no independent witnesses, so that
    the mean of the logarithms of what speaks against it counts.

    >>> round(mean_score(np.array([0.9, 0.9])), 3), mean_score(np.array([np.nan]))
    (0.9, 1.0)
    """
    known = score[np.isfinite(score)]
    if not len(known):
        return 1.0
    return 1.0 - float(np.exp(np.log(np.clip(1.0 - known, 1e-12, 1.0)).mean()))


def _model(acceleration: float) -> tuple[FloatArray, FloatArray]:
    """Transition (4, 4) of x, y, vx, vy over one frame, and its noise."""
    step, noise = np.eye(4), np.zeros((4, 4))
    step[0, 2] = step[1, 3] = 1.0
    for axis in range(2):
        noise[axis, axis], noise[2 + axis, 2 + axis] = 1.0 / 3.0, 1.0
        noise[axis, 2 + axis] = noise[2 + axis, axis] = 0.5
    return step, acceleration**2 * noise


def _filter(values: FloatArray, variance: FloatArray, seen: BoolArray, acceleration: float) -> _Filtered:
    """Forwards through all frames (T,)."""
    frames = len(values)
    step, noise = _model(acceleration)
    result = _Filtered(
        np.zeros((frames, 4)), np.zeros((frames, 4, 4)), np.zeros((frames, 4)), np.zeros((frames, 4, 4)),
        np.zeros(frames),
    )  # fmt: skip
    state = np.array([*values[0], 0.0, 0.0])
    covariance = np.diag([*variance[0], START_SPEED_PX**2, START_SPEED_PX**2])
    for t in range(frames):
        if t:
            state, covariance = step @ state, step @ covariance @ step.T + noise
        result.predicted[t], result.predicted_covariance[t] = state, covariance
        if t and seen[t]:
            rest, spread = values[t] - state[:2], covariance[:2, :2] + np.diag(variance[t])
            inverse = np.linalg.inv(spread)
            gain = covariance[:, :2] @ inverse
            state, covariance = state + gain @ rest, covariance - gain @ covariance[:2]
            covariance = 0.5 * (covariance + covariance.T)
            result.log_likelihood[t] = -0.5 * (rest @ inverse @ rest + math.log(np.linalg.det(spread))) - math.log(
                2.0 * math.pi
            )
        result.state[t], result.covariance[t] = state, covariance
    return result


def _backwards(run: _Filtered, acceleration: float) -> tuple[FloatArray, FloatArray]:
    """States (T, 4) and covariances (T, 4, 4) given all detections."""
    step, _ = _model(acceleration)
    state, covariance = run.state.copy(), run.covariance.copy()
    for t in range(len(state) - 2, -1, -1):
        gain = run.covariance[t] @ step.T @ np.linalg.inv(run.predicted_covariance[t + 1])
        state[t] += gain @ (state[t + 1] - run.predicted[t + 1])
        covariance[t] += gain @ (covariance[t + 1] - run.predicted_covariance[t + 1]) @ gain.T
    return state, covariance
