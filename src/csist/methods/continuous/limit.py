"""The physical limit on a benchmark: what the exact posterior would score, count known."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.methods.continuous.annealing import LANES, reservoir_shares
from csist.methods.continuous.bank import compare_bank, pixel_bounds
from csist.methods.continuous.likelihood import compiled
from csist.methods.continuous.method import pixel_codes
from csist.methods.continuous.posterior import summarise
from csist.methods.continuous.rounding import noise_before_rounding
from csist.methods.continuous.search import search_free, window_bounds
from csist.methods.continuous.solvers import (
    EFFORTS,
    RESERVOIR_EFFECTIVE,
    FreeSolver,
    PixelSolver,
    anneal_in_pixel,
    inverse_gain,
)
from csist.methods.continuous.tempering import temper
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets

FloatArray = NDArray[np.float64]

SAMPLES = 2000
LEVELS = 16
"""Temperatures of the chains from the truth."""
HOTTER = 30.0
"""Their highest temperature beyond the one at which many configurations of the bank count: nearly the prior."""
BURN_SHARE = 0.5
"""Of the sweeps, in which the chains from the truth forget it."""
BLOCKS = 8
RECORDS = 4
FREE_TEMPERATURES = np.array([2.0**level for level in range(16)])
"""Where targets may lie anywhere."""
STEPS_A_MOVE = 65_000
"""`steps` for each move a stage and target of the annealing, at which both sets cost about the same."""


@compiled
def _sample_one(
    data: FloatArray,
    code: NDArray[np.int8],
    polynomials: NDArray[np.float32],
    variance: float,
    inverse_of_gain: float,
    rounded: float,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: NDArray[np.float32],
    steps: int,
    truth: FloatArray,
    from_truth: bool,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
) -> None:
    count = truth.shape[0]
    row, column = int(np.floor(truth[0, 1] + 0.5)), int(np.floor(truth[0, 0] + 0.5))
    rows, columns = data.shape
    reach, size = bank_images.shape[2] // 2, bank_images.shape[1]
    low, high = pixel_bounds(count, row, column, flux)
    r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
    c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
    if from_truth:
        misfits, shares = np.empty(size), np.empty(size)
        compare_bank(data, code, count, row, column, flux, bank_images, size, misfits, shares)
        hottest = HOTTER * reservoir_shares(misfits, variance, RESERVOIR_EFFECTIVE, shares)
        samples, values = np.empty((SAMPLES, 3 * count)), np.empty(SAMPLES)
        kept = temper(
            truth.copy().reshape(1, 3 * count), count, low, high, log_flux, min_separation, polynomials, r0, c0,
            np.zeros((0, r1 - r0, c1 - c0)), data[r0:r1, c0:c1], code[r0:r1, c0:c1].copy(), variance,
            inverse_of_gain, rounded, hottest ** (np.arange(LEVELS) / (LEVELS - 1.0)), LANES, max(steps // LANES, 5),
            BURN_SHARE, samples, values, 2,
        )  # fmt: skip
    else:
        kept = RECORDS * BLOCKS * LANES
        samples, values = np.empty((kept, 3 * count)), np.empty(kept)
        moves = max(steps // STEPS_A_MOVE, 1)
        anneal_in_pixel(
            data, code, polynomials, variance, inverse_of_gain, rounded, count, row, column, flux, log_flux,
            min_separation, bank_positions, bank_images, BLOCKS, moves, 10 * moves, 3, samples, values,
        )  # fmt: skip
    summarise(samples, values, kept, count, 1.0, low, high, estimate, deviation, score)


@compiled
def _sample_free(
    data: FloatArray,
    code: NDArray[np.int8],
    tables: FloatArray,
    polynomials: NDArray[np.float32],
    variance: float,
    inverse_of_gain: float,
    rounded: float,
    target_low: FloatArray,
    target_high: FloatArray,
    log_flux: bool,
    min_separation: float,
    split_px: float,
    steps: int,
    truth: FloatArray,
    from_truth: bool,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
) -> None:
    count = truth.shape[0]
    no_basis, no_terms = np.zeros((0, *data.shape)), np.zeros(0)
    start = truth.copy().reshape(3 * count)
    if not from_truth:
        evidence, at_mode = np.empty(count + 1), np.empty(count + 1)
        modes, converged = np.zeros((count + 1, 3 * count)), np.empty(count + 1, np.bool_)
        search_free(
            data, code, tables, variance, inverse_of_gain, no_basis, 0, 0, count, target_low, target_high, no_terms,
            no_terms, log_flux, min_separation, split_px, evidence, modes, at_mode, converged,
        )  # fmt: skip
        if evidence[count] > -np.inf:  # else the search saw no use for so many, and the truth has to start both
            start = modes[count].copy()
    low, high = window_bounds(count, target_low, target_high, no_terms, no_terms)
    samples, values = np.empty((SAMPLES, 3 * count)), np.empty(SAMPLES)
    kept = temper(
        start.reshape(1, 3 * count), count, low, high, log_flux, min_separation, polynomials, 0, 0, no_basis, data,
        code, variance, inverse_of_gain, rounded, FREE_TEMPERATURES, LANES, max(steps // LANES, 5), BURN_SHARE,
        samples,
        values, 2 if from_truth else 3,
    )  # fmt: skip
    summarise(samples, values, kept, count, 1.0, low, high, estimate, deviation, score)


def posterior_limit(
    images: FloatArray,
    truths: list[Targets],
    sensor: Sensor,
    prior: ScenePrior,
    steps: int = 500_000,
    bank_size: int = 8192,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Targets], list[Targets]]:
    """What the posterior says of each image when the count is known, from two independent sets of chains.

    For a group inside one pixel, which is known as well, one set starts at the truth and crosses between modes by
    parallel tempering up to nearly the prior; the other is annealed from the prior, without knowing the truth.
    Where targets may lie anywhere both are tempered, from the truth and from the modes of the search. Where the
    sets score alike the limit is that score, else it lies between: a chain that starts at the truth and does not
    move flatters, one that has lost a mode falls short.

    Args:
        images: (N, H, W) in counts.
        truths: true targets of each image.
        sensor: gives PSF, noise and clipping.
        prior: scene prior.
        steps: sampling steps for each image and set.
        bank_size: configurations from which the annealing starts.
        workers: threads.
        progress: called with (images done, images in all).

    Returns:
        targets by the chains from the truth, and by those from the found modes.

    Raises:
        InputError: if the numbers of images and scenes differ.
    """
    stack = check_stack(images)
    if len(stack) != len(truths):
        raise InputError(f"{len(stack)} images but {len(truths)} scenes")
    variance = float(sensor.noise_variance(max(sensor.background, 0.0)))
    sensor = sensor.with_shape((stack.shape[1], stack.shape[2]))
    rounded = noise_before_rounding(sensor, variance)
    effort, log_flux = EFFORTS["accurate"], prior.intensity_law == "log-uniform"
    sample: Any
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    if prior.single_pixel:
        solver = PixelSolver(sensor, prior, replace(effort, bank=bank_size), variance)
        sample, before = _sample_one, (solver.polynomials, variance, inverse_gain(sensor), rounded, solver.flux)
        after = (solver.bank.positions, solver.bank.images, steps)
    else:
        free = FreeSolver(sensor, prior, effort, variance, 0)
        sample, before = (
            _sample_free,
            (free.tables, free.polynomials, variance, inverse_gain(sensor), rounded, free.low, free.high),
        )
        after = (free.split_px, steps)

    def one(n: int) -> tuple[Targets, Targets]:
        count = len(truths[n])
        if count == 0:
            return Targets.empty(), Targets.empty()
        data, codes = pixel_codes(stack[n : n + 1], sensor)
        scene = np.stack([truths[n].x, truths[n].y, truths[n].intensity], axis=1)
        found = []
        for from_truth in (True, False):
            estimate, deviation, score = np.empty((count, 3)), np.empty((count, 3)), np.empty(count)
            sample(
                data[0] - sensor.background, codes[0], *before, log_flux, prior.min_separation_px, *after, scene,
                from_truth, estimate, deviation, score,
            )  # fmt: skip
            x, y, intensity = estimate.T
            x_std, y_std, intensity_std = deviation.T
            found.append(Targets(x, y, intensity, score, x_std=x_std, y_std=y_std, intensity_std=intensity_std))
        return found[0], found[1]

    results = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for result in pool.map(one, range(len(stack))):
            results.append(result)
            if progress is not None:
                progress(len(results), len(stack))
    return [first for first, _ in results], [second for _, second in results]
