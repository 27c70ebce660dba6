"""The exact likelihood of rounded and clipped counts, brought in by drawing posterior samples anew.

Where the noise is below a count, rounding is no Gaussian noise: light and noise lie in the interval that rounds to
the count seen. That likelihood has edges, along which chains move badly. So chains take rounding as noise of variance
1/12, and their samples are weighed by the ratio of the exact to that likelihood, which is bounded, and resampled.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.lanes import LaneArray, Problem, Work, render_lanes, to_lane
from csist.methods.continuous.likelihood import AT_CEILING, AT_FLOOR, IGNORED, MEASURED, compiled
from csist.physics.sensor import Sensor

FloatArray = NDArray[np.float64]

NOT_EXACT = -1.0
"""Instead of a noise: rounding stays Gaussian noise, part of the variance."""

DITHERED = 0.5
"""Noise in counts from which rounding is as good as Gaussian noise of variance 1/12."""

SHARP = 0.01
"""Noise in counts below which the ends of the interval are as soft as this: the profiles' own errors are hidden."""

LEAST_EFFECTIVE = 8.0
"""Samples that must count in the end; with fewer the model is wrong by fractions of a count, and stays Gaussian."""


def noise_before_rounding(sensor: Sensor, variance: float) -> float:
    """Noise in counts where it is so low that rounding is no Gaussian noise; else `NOT_EXACT`.

    Args:
        sensor: tells whether counts are rounded.
        variance: of a pixel without shot noise in counts^2, rounding included.
    """
    if not sensor.quantised or sensor.gain is not None:
        return NOT_EXACT
    noise = max(variance - sensor.rounding_variance, 0.0) ** 0.5
    return noise if noise < DITHERED else NOT_EXACT


@compiled
def log_normal_interval(above: float, below: float) -> float:
    """Log of the probability that a normal variable lies less than `above` above and `below` below zero.

    One of them may be negative; their sum is at least 2.
    """
    short, long = min(above, below), max(above, below)
    if short < -30.0:
        return -0.5 * short * short - math.log(-short) - 0.9189385332046727
    if short < 0.0:
        outside = math.erfc(-0.7071067811865476 * short) - math.erfc(0.7071067811865476 * long)
        return math.log(max(0.5 * outside, 1e-300))
    return math.log(0.5 * (math.erf(0.7071067811865476 * long) + math.erf(0.7071067811865476 * short)))


@compiled
def rounded_log_likelihoods(problem: Problem, noise: float, image: LaneArray, value: LaneArray) -> None:
    """Fill `value` (lanes,) with the log probability that light and noise round to the counts seen, or are clipped.

    A measured pixel also has the constant that the Gaussian's logarithm leaves out, so that evidences compare.

    Args:
        noise: before rounding, in counts.
        image: light (h, w, lanes).
    """
    h, w, lanes = image.shape
    constant = 0.5 * math.log(2.0 * math.pi * problem.variance)
    stiffness = np.float32(0.5 / SHARP**2)
    value[:] = np.float32(0.0)
    for i in range(h):
        for j in range(w):
            c, z, model = problem.code[i, j], problem.data[i, j], image[i, j]
            if c == IGNORED:
                continue
            low = np.float32(-1e30 if c == AT_FLOOR else (z if c == AT_CEILING else z - 0.5))
            high = np.float32(1e30 if c == AT_CEILING else (z if c == AT_FLOOR else z + 0.5))
            added = np.float32(constant if c == MEASURED else 0.0)
            if noise < SHARP:
                for lane in range(lanes):
                    outside = max(max(low - model[lane], model[lane] - high), np.float32(0.0))
                    value[lane] += added - stiffness * outside * outside
            else:
                for lane in range(lanes):
                    value[lane] += added + log_normal_interval(
                        (high - model[lane]) / noise, (model[lane] - low) / noise
                    )


@compiled
def draw_by_rounding(
    problem: Problem,
    noise: float,
    samples: FloatArray,
    values: FloatArray,
    row: int,
    column: int,
    state: LaneArray,
    value: LaneArray,
    work: Work,
) -> float:
    """Resample `samples` (m, parameters), `values` (m,) systematically by the exact likelihood of rounded counts.

    Args:
        problem: under which they were drawn, with log likelihoods `values`.
        noise: before rounding, in counts; `NOT_EXACT` leaves all as it is.
        row, column: frame coordinates of the window's first pixel.
        state: (parameters, lanes) scratch, `value` (lanes,) likewise.

    Returns:
        what the exact likelihood adds to the log evidence.
    """
    if noise < 0.0:
        return 0.0
    kept, lanes = samples.shape[0], state.shape[1]
    weight = np.empty(kept)
    for start in range(0, kept, lanes):
        for lane in range(lanes):
            to_lane(samples[min(start + lane, kept - 1)], problem.targets, problem.log_flux, row, column, state, lane)
        render_lanes(problem, state, work)
        rounded_log_likelihoods(problem, noise, work.image, value)
        for m in range(start, min(start + lanes, kept)):
            weight[m] = value[m - start] - values[m]
    highest = weight.max()
    total, squares = 0.0, 0.0
    for m in range(kept):
        weight[m] = math.exp(weight[m] - highest)
        total += weight[m]
        squares += weight[m] * weight[m]
    if total * total < LEAST_EFFECTIVE * squares:
        return 0.0
    old, old_values = samples.copy(), values.copy()
    source, running = 0, weight[0]
    for m in range(kept):
        while running < (m + 0.5) * total / kept and source + 1 < kept:
            source += 1
            running += weight[source]
        samples[m] = old[source]
        values[m] = old_values[source]
    return float(highest) + math.log(total / kept)
