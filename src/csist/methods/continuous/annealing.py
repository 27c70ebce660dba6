"""Annealing: a population of chains led from the prior to the posterior.

With four or five targets inside a pixel the likelihood has a curved, nearly flat valley (fluxes trade
against positions) and more than one basin, so one mode and its curvature say little. A sequential Monte Carlo
sampler (Del Moral, Doucet & Jasra 2006) starts from the configurations of a bank, weighed at a temperature at
which many of them count, and cools: at each stage the population is resampled by the likelihood that the
lower temperature adds, then moved. Every chain ends as a sample, and the weights give the evidence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.lanes import (
    PRIOR_INFORMATION,
    WIDEST_STEP,
    from_lane,
    log_likelihoods,
    make_work,
    move,
    pose,
    seed_lanes,
    slopes,
    step_shapes,
    uniform,
)
from csist.methods.continuous.likelihood import compiled
from csist.methods.continuous.rounding import draw_by_rounding

FloatArray = NDArray[np.float64]
LaneArray = NDArray[np.float32]

LANES = 64
"""Chains that step together; the population consists of such blocks."""

HIGHEST_POWER = 40
"""The hottest temperature is at most 2 to this power."""

STRIDE = 1.0
"""Each stage adds so much to the inverse temperature, in units of 1 / (spread of the log likelihood)."""

REFRESH_STAGES = 2
TARGET_ACCEPTANCE = 0.25

KINDS = 4
"""Kinds of steps, from those as long as the prior allows to those that are short in open directions."""
FLOOR_RATIO = 5.0
"""Of the information that is added, from one kind to the next."""


@compiled
def reservoir_shares(misfits: FloatArray, variance: float, effective: float, shares: FloatArray) -> float:
    """Fill `shares` with the running sum of the configurations' tempered likelihoods; returns the temperature.

    It is the lowest temperature, a power of two, at which at least `effective` configurations count.
    """
    lowest = misfits.min()
    below, above = -1, HIGHEST_POWER  # the answer lies in (below, above]: more temperature, more that count
    while True:
        power = (below + above) // 2 if above - below > 1 else above
        scale = -0.5 / (variance * 2.0**power)
        total, squares = 0.0, 0.0
        for m in range(misfits.shape[0]):
            share = math.exp(scale * (misfits[m] - lowest))
            total += share
            squares += share * share
            shares[m] = total
        if above - below <= 1:
            return float(2.0**power)
        if total * total >= effective * squares:
            above = power
        else:
            below = power


@compiled
def _resample(weight: FloatArray, start: float, chosen: Any) -> float:
    """Fill `chosen` by systematic resampling of the weights; returns their sum."""
    total = float(weight.sum())
    step = total / chosen.shape[0]
    running, source = weight[0], 0
    for n in range(chosen.shape[0]):
        target = (n + start) * step
        while running < target and source + 1 < weight.shape[0]:
            source += 1
            running += weight[source]
        chosen[n] = source
    return total


@compiled
def anneal(
    count: int,
    low: FloatArray,
    high: FloatArray,
    log_flux: bool,
    min_separation: float,
    polynomials: LaneArray,
    row: int,
    column: int,
    data: FloatArray,
    code: Any,
    variance: float,
    inverse_gain: float,
    rounded: float,
    bank: FloatArray,
    shares: FloatArray,
    hottest: float,
    blocks: int,
    moves: int,
    last_moves: int,
    samples: FloatArray,
    values: FloatArray,
    seed: int,
) -> float:
    """Fill `samples` (records * blocks * LANES, parameters) and their log likelihoods from the posterior.

    Args:
        low: (parameters,) bounds of x, y, flux of each target, in frame coordinates; `high` too.
        polynomials: of `profile_polynomials`.
        row, column: frame coordinates of the window's first pixel.
        rounded: noise in counts before rounding, for `draw_by_rounding`.
        bank: (m, 2 count) positions x, y drawn from the prior.
        shares: (m,) running sum of their shares at the temperature `hottest`; see `reservoir_shares`.
        moves: steps of every chain after each stage; `last_moves` after the last, over which the records of the
            population are spread.

    Returns:
        the log evidence.
    """
    size, total_lanes = 3 * count, blocks * LANES
    h, w = data.shape
    problem = pose(
        count, low, high, log_flux, min_separation * min_separation * (1.0 - 1e-5), polynomials, row, column,
        np.zeros((0, h, w)), data, code, variance, inverse_gain,
    )  # fmt: skip
    work, derived = make_work(problem, LANES), slopes(polynomials)
    random = seed_lanes(seed, total_lanes).reshape(blocks, LANES)
    state, other_state = np.empty((blocks, size, LANES), np.float32), np.empty((blocks, size, LANES), np.float32)
    value, other_value = np.empty((blocks, LANES), np.float32), np.empty((blocks, LANES), np.float32)
    root, other_root = (
        np.zeros((blocks, size, size, LANES), np.float32),
        np.zeros((blocks, size, size, LANES), np.float32),
    )
    power, scale = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    weight, chosen = np.empty(total_lanes), np.empty(total_lanes, np.int64)
    draw = work.draw
    records, record = samples.shape[0] // total_lanes, 0
    inverse = 1.0 / hottest
    # the population at the hottest temperature: positions from the bank, fluxes from the prior
    uniform(random[0], draw)
    step, m = shares[-1] / total_lanes, 0
    for n in range(total_lanes):
        block, lane = n // LANES, n % LANES
        while shares[m] < (n + draw[0]) * step and m + 1 < shares.shape[0]:
            m += 1
        share = shares[m] - (shares[m - 1] if m > 0 else 0.0)
        weight[n] = -math.log(share / shares[-1] * shares.shape[0] + 1e-300)
        for k in range(count):
            state[block, k, lane] = bank[m, 2 * k] - column
            state[block, count + k, lane] = bank[m, 2 * k + 1] - row
    for block in range(blocks):
        for p in range(2 * count, size):
            uniform(random[block], draw)
            for lane in range(LANES):
                state[block, p, lane] = problem.low[p] + draw[lane] * (problem.high[p] - problem.low[p])
        log_likelihoods(problem, state[block], work, value[block])
        for lane in range(LANES):
            weight[block * LANES + lane] += inverse * value[block, lane]
    log_evidence, stage, shaped_at = 0.0, 0, inverse
    width, accepted, tried = np.full(KINDS, 1.8 / math.sqrt(size)), np.empty(KINDS), np.empty(KINDS)
    floor, kind = np.empty(LANES, np.float32), np.empty(total_lanes, np.int64)
    other_kind = np.empty(total_lanes, np.int64)
    for lane in range(LANES):
        floor[lane] = PRIOR_INFORMATION * FLOOR_RATIO ** (lane % KINDS)
    while True:
        highest = float(weight.max())
        for n in range(total_lanes):
            weight[n] = math.exp(weight[n] - highest)
        uniform(random[0], draw)
        log_evidence += highest + math.log(_resample(weight, draw[0], chosen) / total_lanes)
        for n in range(total_lanes):
            block, lane = n // LANES, n % LANES
            from_block, from_one = chosen[n] // LANES, chosen[n] % LANES
            other_value[block, lane] = value[from_block, from_one]
            other_kind[n] = kind[chosen[n]] if stage % REFRESH_STAGES != 0 else lane % KINDS
            for p in range(size):
                other_state[block, p, lane] = state[from_block, p, from_one]
                if stage % REFRESH_STAGES != 0:
                    for c in range(p + 1):
                        other_root[block, p, c, lane] = root[from_block, p, c, from_one]
        state, other_state = other_state, state
        value, other_value, kind, other_kind = other_value, value, other_kind, kind
        if stage % REFRESH_STAGES != 0:
            root, other_root = other_root, root
        for lane in range(LANES):
            power[lane] = inverse
        if stage % REFRESH_STAGES == 0:
            shaped_at = inverse
            for block in range(blocks):
                step_shapes(problem, derived, state[block], power, floor, work, root[block])
        number = last_moves if inverse >= 1.0 else moves
        for turn in range(number):
            accepted[:], tried[:] = 0.0, 1e-9
            for block in range(blocks):
                # steps of mixed lengths, since the local shape is not the shape along the whole valley
                uniform(random[block], draw)
                for lane in range(LANES):
                    scale[lane] = (
                        width[kind[block * LANES + lane]] * math.sqrt(shaped_at / inverse) * (0.4 + 1.2 * draw[lane])
                    )
                move(problem, state[block], value[block], power, scale, root[block], random[block], work)
                for lane in range(LANES):
                    accepted[kind[block * LANES + lane]] += work.allowed[lane]
                    tried[kind[block * LANES + lane]] += 1.0
            for k in range(KINDS):
                if tried[k] > 0.5:
                    width[k] = min(width[k] * math.exp(accepted[k] / tried[k] - TARGET_ACCEPTANCE), WIDEST_STEP)
            if inverse >= 1.0 and (turn + 1) * records // number > record:
                for n in range(total_lanes):
                    kept = record * total_lanes + n
                    from_lane(state[n // LANES], n % LANES, count, log_flux, row, column, samples[kept])
                    values[kept] = value[n // LANES, n % LANES]
                record += 1
        if inverse >= 1.0:
            break
        mean, square = 0.0, 0.0
        for block in range(blocks):
            for lane in range(LANES):
                mean += value[block, lane]
                square += float(value[block, lane]) ** 2
        spread = math.sqrt(max(square / total_lanes - (mean / total_lanes) ** 2, 1e-12))
        rise = min(STRIDE / spread, 1.0 - inverse)
        inverse = min(inverse + rise, 1.0) if rise < 1.0 - inverse else 1.0
        for n in range(total_lanes):
            weight[n] = rise * value[n // LANES, n % LANES]
        stage += 1
    return log_evidence + draw_by_rounding(
        problem, rounded, samples, values, row, column, other_state[0], other_value[0], work
    )
