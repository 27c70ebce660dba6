"""Parallel tempering: chains at rising temperatures that exchange states (Geyer 1991; Earl & Deem 2005).

For groups whose targets may lie anywhere, and, long and started from the truth, as the check on `annealing`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.lanes import (
    PRIOR_INFORMATION,
    WIDEST_STEP,
    accepts,
    from_lane,
    log_likelihoods,
    make_work,
    move,
    pose,
    seed_lanes,
    slopes,
    step_shapes,
    to_lane,
    uniform,
)
from csist.methods.continuous.likelihood import compiled
from csist.methods.continuous.rounding import draw_by_rounding

FloatArray = NDArray[np.float64]
LaneArray = NDArray[np.float32]

REFRESH_SWEEPS = 40
TARGET_ACCEPTANCE = 0.25
BURN_SHARE = 0.2
"""Of the sweeps, where chains start near all the modes that matter."""


@compiled
def push_apart(theta: FloatArray, count: int, low: FloatArray, high: FloatArray, min_separation: float) -> None:
    """Move targets that are too close, or sit on a bound, just inside what the prior allows."""
    for _ in range(60):
        clear = True
        for a in range(count):
            for b in range(a):
                dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
                d = math.sqrt(dx * dx + dy * dy)
                if d < min_separation * 1.0001:
                    clear = False
                    ux, uy = (dx / d, dy / d) if d > 1e-9 else (1.0, 0.0)
                    shift = 0.5 * (min_separation * 1.002 - d)
                    theta[3 * a] += shift * ux
                    theta[3 * a + 1] += shift * uy
                    theta[3 * b] -= shift * ux
                    theta[3 * b + 1] -= shift * uy
        for p in range(theta.shape[0]):
            margin = 1e-4 * (high[p] - low[p])
            theta[p] = min(max(theta[p], low[p] + margin), high[p] - margin)
        if clear:
            break


@compiled
def _smallest_square(theta: FloatArray, count: int) -> float:
    smallest = np.inf
    for a in range(count):
        for b in range(a):
            dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
            smallest = min(smallest, dx * dx + dy * dy)
    return smallest


@compiled
def temper(
    starts: FloatArray,
    count: int,
    low: FloatArray,
    high: FloatArray,
    log_flux: bool,
    min_separation: float,
    polynomials: LaneArray,
    row: int,
    column: int,
    basis: FloatArray,
    data: FloatArray,
    code: Any,
    variance: float,
    inverse_gain: float,
    rounded: float,
    temperatures: FloatArray,
    lanes: int,
    sweeps: int,
    burn_share: float,
    samples: FloatArray,
    values: FloatArray,
    seed: int,
) -> int:
    """Fill `samples` (m, parameters) and their log likelihoods `values` (m,) from the posterior; returns how many.

    Lane i starts at starts[i % len(starts)] and sees the likelihood to the power 1 / temperatures[i % levels];
    the first temperature is 1 and only its states are kept, evenly spaced after the first sweeps.

    Args:
        starts: (n, parameters) x, y, flux of each target, then background terms; in frame coordinates.
        low: (parameters,) bounds, likewise; `high` too.
        polynomials: of `profile_polynomials`.
        row, column: frame coordinates of the window's first pixel.
        basis: background terms (terms, h, w).
        rounded: noise in counts before rounding, for `draw_by_rounding`.
        temperatures: rising; their number divides `lanes`.
        burn_share: of the sweeps, before states are kept; step lengths settle then.
    """
    size, levels = starts.shape[1], temperatures.shape[0]
    replicas = lanes // levels
    state, value = np.empty((size, lanes), np.float32), np.empty(lanes, np.float32)
    theta = np.empty(size)
    least_square = min_separation * min_separation
    for lane in range(lanes):
        theta[:] = starts[lane % starts.shape[0]]
        push_apart(theta, count, low, high, min_separation)
        least_square = min(least_square, _smallest_square(theta, count) * (1.0 - 1e-5))
        to_lane(theta, count, log_flux, row, column, state, lane)
    problem = pose(
        count, low, high, log_flux, least_square, polynomials, row, column, basis, data, code, variance, inverse_gain
    )
    work, random, derived = make_work(problem, lanes), seed_lanes(seed, lanes), slopes(polynomials)
    root = np.zeros((size, size, lanes), np.float32)
    power, scale = np.empty(lanes, np.float32), np.full(lanes, np.float32(1.8 / math.sqrt(max(size, 1))), np.float32)
    for lane in range(lanes):
        power[lane] = 1.0 / temperatures[lane % levels]
    floor = np.full(lanes, np.float32(PRIOR_INFORMATION), np.float32)
    longer, shorter = math.exp(0.1 * (1.0 - TARGET_ACCEPTANCE)), math.exp(-0.1 * TARGET_ACCEPTANCE)
    log_likelihoods(problem, state, work, value)
    burn = int(burn_share * sweeps)
    wanted = max(samples.shape[0] // replicas, 1)
    kept, taken = 0, 0
    for sweep in range(sweeps):
        if sweep % REFRESH_SWEEPS == 0:
            step_shapes(problem, derived, state, power, floor, work, root)
        move(problem, state, value, power, scale, root, random, work)
        if sweep < burn:
            for lane in range(lanes):
                factor = longer if work.allowed[lane] > np.float32(0.0) else shorter
                scale[lane] = min(scale[lane] * factor, WIDEST_STEP)
        # even and odd pairs of neighbouring levels take turns
        uniform(random, work.draw)
        for lane in range(lanes - 1):
            level, other = lane % levels, lane + 1
            if level + 1 < levels and level % 2 == sweep % 2:
                gain = (power[lane] - power[other]) * (value[other] - value[lane])
                if accepts(gain, work.draw[lane]):
                    value[lane], value[other] = value[other], value[lane]
                    for p in range(size):
                        state[p, lane], state[p, other] = state[p, other], state[p, lane]
        if sweep >= burn and (sweep - burn + 1) * wanted // (sweeps - burn) > taken:
            taken += 1
            for replica in range(replicas):
                if kept < samples.shape[0]:
                    from_lane(state, replica * levels, count, log_flux, row, column, samples[kept])
                    values[kept] = value[replica * levels]
                    kept += 1
    draw_by_rounding(problem, rounded, samples[:kept], values[:kept], row, column, state, value, work)
    return kept
