"""The physical limit on a benchmark: what the exact posterior would score, count and pixel known."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.datasets.scenes import ScenePrior, flux_bounds
from csist.methods.continuous.bank import build_bank
from csist.methods.continuous.likelihood import compiled, profile_tables
from csist.methods.continuous.method import pixel_codes
from csist.methods.continuous.posterior import summarise
from csist.methods.continuous.solvers import (
    EFFORTS,
    TEMPERATURE_RATIO,
    PixelSolver,
    inverse_gain,
    sample_in_pixel,
)
from csist.physics.sensor import Sensor
from csist.targets import Targets

FloatArray = NDArray[np.float64]

SAMPLES = 1000


@compiled
def _sample_one(
    data: FloatArray,
    code: NDArray[np.int8],
    tables: FloatArray,
    variance: float,
    inverse_of_gain: float,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: NDArray[np.float32],
    steps: int,
    temperature_ratio: float,
    truth: FloatArray,
    from_truth: bool,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
) -> None:
    count = truth.shape[0]
    row, column = int(np.floor(truth[0, 1] + 0.5)), int(np.floor(truth[0, 0] + 0.5))
    starts = 16
    modes, misfits = np.empty((starts, 3 * bank_positions.shape[2])), np.empty(bank_positions.shape[1])
    samples, values = np.empty((SAMPLES, 3 * count)), np.empty(SAMPLES)
    start = truth.copy().reshape(3 * count) if from_truth else np.empty(0)
    kept, _ = sample_in_pixel(
        data, code, tables, variance, inverse_of_gain, count, row, column, flux, log_flux, min_separation,
        bank_positions, bank_images, starts, steps, temperature_ratio, 16, start, 2 if from_truth else 3, modes,
        misfits, samples, values,
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

    One set starts at the truth, the other at modes found from the image; both cross between modes by tempering.
    Where they score alike the limit is that score, else it lies between (REFERENCE: a chain that starts at the
    truth and does not move flatters).

    Args:
        images: (N, H, W) in counts.
        truths: true targets of each image, all inside one pixel.
        sensor: gives PSF, noise and clipping.
        prior: single-pixel scene prior.
        steps: sampling steps for each image and set.
        bank_size: configurations that feed the hottest chain.
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
    flux, tables = np.array(flux_bounds(prior, sensor)), profile_tables(sensor.psf)

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
                data[0] - sensor.background, codes[0], tables, variance, inverse_gain(sensor), flux,
                prior.intensity_law == "log-uniform", prior.min_separation_px, bank.positions, bank.images, steps,
                TEMPERATURE_RATIO, scene, from_truth, estimate, deviation, score,
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
