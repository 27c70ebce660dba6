"""The physical limit on a benchmark: what the exact posterior would score, count and pixel known."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.datasets.scenes import ScenePrior, flux_bounds
from csist.methods.continuous.annealing import LANES, reservoir_shares
from csist.methods.continuous.bank import build_bank, compare_bank, pixel_bounds
from csist.methods.continuous.likelihood import compiled
from csist.methods.continuous.method import pixel_codes
from csist.methods.continuous.posterior import summarise
from csist.methods.continuous.solvers import (
    EFFORTS,
    RESERVOIR_EFFECTIVE,
    PixelSolver,
    anneal_in_pixel,
    inverse_gain,
)
from csist.methods.continuous.tempering import temper
from csist.physics.sensor import Sensor
from csist.targets import Targets

FloatArray = NDArray[np.float64]

SAMPLES = 2000
LEVELS = 32
"""Temperatures of the chains from the truth."""
HOTTER = 1000.0
"""Their highest temperature beyond the one at which many configurations of the bank count: nearly the prior."""
BLOCKS = 16


@compiled
def _sample_one(
    data: FloatArray,
    code: NDArray[np.int8],
    polynomials: NDArray[np.float32],
    variance: float,
    inverse_of_gain: float,
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
    r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
    c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
    if from_truth:
        misfits, shares = np.empty(size), np.empty(size)
        compare_bank(data, code, count, row, column, flux, bank_images, size, misfits, shares)
        hottest = HOTTER * reservoir_shares(misfits, variance, RESERVOIR_EFFECTIVE, shares)
        low, high = pixel_bounds(count, row, column, flux)
        samples, values = np.empty((SAMPLES, 3 * count)), np.empty(SAMPLES)
        kept = temper(
            truth.copy().reshape(1, 3 * count), count, low, high, log_flux, min_separation, polynomials, r0, c0,
            np.zeros((0, r1 - r0, c1 - c0)), data[r0:r1, c0:c1], code[r0:r1, c0:c1].copy(), variance,
            inverse_of_gain, hottest ** (np.arange(LEVELS) / (LEVELS - 1.0)), LANES, max(steps // LANES, 5), samples,
            values, 2,
        )  # fmt: skip
    else:
        kept = BLOCKS * LANES
        samples, values = np.empty((kept, 3 * count)), np.empty(kept)
        moves = max(steps // (30 * kept), 1)
        anneal_in_pixel(
            data, code, polynomials, variance, inverse_of_gain, count, row, column, flux, log_flux, min_separation,
            bank_positions, bank_images, BLOCKS, moves, 2 * moves, 3, samples, values,
        )  # fmt: skip
    summarise(samples, values, kept, count, estimate, deviation, score)


def posterior_limit(
    images: FloatArray,
    truths: list[Targets],
    sensor: Sensor,
    prior: ScenePrior,
    steps: int = 100_000,
    bank_size: int = 8192,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Targets], list[Targets]]:
    """What the posterior says of each image when count and pixel are known, from two independent sets of chains.

    One set starts at the truth and crosses between modes by parallel tempering up to nearly the prior; the
    other is annealed from the prior, without knowing the truth. Where they score alike the limit is that
    score, else it lies between: a chain that starts at the truth and does not move flatters, a population that
    has lost a mode falls short.

    Args:
        images: (N, H, W) in counts.
        truths: true targets of each image, all inside one pixel.
        sensor: gives PSF, noise and clipping.
        prior: single-pixel scene prior.
        steps: sampling steps for each image and set.
        bank_size: configurations from which the annealing starts.
        workers: threads.
        progress: called with (images done, images in all).

    Returns:
        targets by the chains from the truth, and by those from the found modes.

    Raises:
        InputError: if the prior is not single-pixel, or the numbers of images and scenes differ.
    """
    stack = check_stack(images)
    if not prior.single_pixel:
        raise InputError("the posterior limit is for priors whose group lies inside one pixel, such as csist-100k")
    if len(stack) != len(truths):
        raise InputError(f"{len(stack)} images but {len(truths)} scenes")
    variance = float(sensor.noise_variance(max(sensor.background, 0.0)))
    solver = PixelSolver(sensor, prior, EFFORTS["accurate"], variance)
    bank = build_bank(sensor.psf, prior, solver.bank.images.shape[2] // 2, bank_size)
    flux = np.array(flux_bounds(prior, sensor))

    def one(n: int) -> tuple[Targets, Targets]:
        count = len(truths[n])
        if count == 0:
            return Targets.empty(), Targets.empty()
        data, codes = pixel_codes(stack[n : n + 1], sensor)
        scene = np.stack([truths[n].x, truths[n].y, truths[n].intensity], axis=1)
        found = []
        for from_truth in (True, False):
            estimate, deviation, score = np.empty((count, 3)), np.empty((count, 3)), np.empty(count)
            _sample_one(
                data[0] - sensor.background, codes[0], solver.polynomials, variance, inverse_gain(sensor), flux,
                prior.intensity_law == "log-uniform", prior.min_separation_px, bank.positions, bank.images,
                steps, scene, from_truth, estimate, deviation, score,
            )  # fmt: skip
            x, y, intensity = estimate.T
            found.append(Targets(x, y, intensity, score, *deviation.T))
        return found[0], found[1]

    results = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for result in pool.map(one, range(len(stack))):
            results.append(result)
            if progress is not None:
                progress(len(results), len(stack))
    return [first for first, _ in results], [second for _, second in results]
