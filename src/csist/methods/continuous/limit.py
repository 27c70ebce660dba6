"""The physical limit on a benchmark: what the exact posterior would score, count known."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled
from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_stack
from csist.methods.continuous.annealing import CHAINS_A_BLOCK, START_EFFECTIVE, anneal_in_pixel, temper_templates
from csist.methods.continuous.cooling import Cloud, Plan
from csist.methods.continuous.kernels import kernels
from csist.methods.continuous.model import Noise, Stack, Window, cut, region_around, stack_of, whole_region
from csist.methods.continuous.posterior import Draws, empty_draws, empty_summary, summarise_stack
from csist.methods.continuous.search import bounds_within, climbers, empty_modes, search_stack
from csist.methods.continuous.search_in_pixel import PixelModel, match_templates
from csist.methods.continuous.solvers import EFFORTS, FreeSolver, PixelSolver, groups_of
from csist.methods.continuous.tempering import Ladder, temper_stack
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets

SAMPLES = 2000
LEVELS = 16
"""Temperatures of the chains from the truth."""
HOTTER = 30.0
"""Ratio of their highest temperature to the one at which many templates count: nearly the prior."""
BURN_IN = 0.5
"""Fraction of sweeps discarded as burn-in, in which the chains from the truth forget it."""
BLOCKS = 8
RECORDS = 4
FREE_TEMPERATURES = np.array([2.0**level for level in range(16)])
"""Where targets may lie anywhere."""
STEPS_A_MOVE = 65_000
"""Steps of the tempered chains for each move a stage and target of the annealing: both then cost about the same."""


@compiled
def hottest_temperature(
    window: Window, pixel: IntArray, count: int, noise: Noise, model: PixelModel, misfits: FloatArray
) -> float:
    """The temperature at which enough of the templates of `count` targets count; `misfits` (m,) is scratch."""
    match_templates(window, pixel, count, model.prior, model.templates, misfits)
    return temper_templates(misfits, noise.variance, START_EFFECTIVE, np.empty(misfits.shape[0]))


class _Answer(NamedTuple):
    """What chains say of one group."""

    draws: Draws
    low: FloatArray
    high: FloatArray


def _ladder(temperatures: FloatArray, steps: int, seed: int) -> Ladder:
    """Chains at these temperatures, for so many steps altogether."""
    sweeps = np.array([max(steps // CHAINS_A_BLOCK, 5)])
    return Ladder(temperatures, len(temperatures), CHAINS_A_BLOCK, sweeps, BURN_IN, seed, is_scattered=False, turns=1)


def _temper_one(
    stack: Stack,
    region: IntArray,
    start: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    solver: PixelSolver | FreeSolver,
    ladder: Ladder,
) -> _Answer:
    """Samples of the group in the one window of a stack, from a start (count, 3)."""
    count = len(start)
    draws = empty_draws(1, SAMPLES, 3 * count)
    groups = groups_of(
        np.array([count]), region[None], start.reshape(1, 1, -1).copy(), np.ones(1, np.int64), bounds, solver.noise
    )
    temper_stack(kernels(solver.noise), stack, groups, solver.laws, ladder, draws)
    return _Answer(draws, *bounds)


def _sample_in_pixel(solver: PixelSolver, stack: Stack, truth: FloatArray, steps: int, from_truth: bool) -> _Answer:
    """Chains inside one pixel: tempered from the truth (count, 3), or annealed from the prior."""
    count = len(truth)
    row, column = (int(value) for value in np.floor(truth[0, 1::-1] + 0.5))
    low, high = (bound[:, : 3 * count].copy() for bound in solver.bounds(np.array([[row, column]])))
    if from_truth:
        misfits = np.empty(solver.model.templates.images.shape[1])
        hottest = HOTTER * hottest_temperature(
            cut(stack, 0, whole_region(stack)), np.array([row, column]), count, solver.noise, solver.model, misfits
        )
        ladder = _ladder(hottest ** (np.arange(LEVELS) / (LEVELS - 1.0)), steps, 2)
        region = region_around(row, column, solver.reach, *stack.data.shape[1:])
        return _temper_one(stack, region, truth, (low, high), solver, ladder)
    moves = max(steps // STEPS_A_MOVE, 1)
    plan = Plan(BLOCKS, moves * count, 10 * moves, RECORDS, seed=3)
    draws = empty_draws(1, RECORDS * BLOCKS * CHAINS_A_BLOCK, 3 * count)
    draws.kept[0] = len(draws.value[0])
    anneal_in_pixel(
        kernels(solver.noise), stack, solver.model, plan,
        np.array([0, count, row, column]), Cloud(draws.theta[0], draws.value[0]),
    )  # fmt: skip
    return _Answer(draws, low, high)


def _sample_free(solver: FreeSolver, stack: Stack, truth: FloatArray, steps: int, from_truth: bool) -> _Answer:
    """Tempered chains anywhere in a window, from the truth (count, 3) or from the mode that the search finds."""
    count, start = len(truth), truth
    if not from_truth:
        modes = empty_modes(1, count, 0)
        search_stack(climbers(), stack, solver.noise, solver.optics.tables, solver.space, modes)
        if modes.evidence[0, count] > -np.inf:  # else the search saw no use for so many, and the truth starts both
            start = modes.theta[0, count].reshape(count, 3)
    bounds = bounds_within(count, solver.space)  # the truth may hold more targets than the prior allows
    low, high = bounds.low[None], bounds.high[None]
    ladder = _ladder(FREE_TEMPERATURES, steps, 2 if from_truth else 3)
    return _temper_one(stack, whole_region(stack), start, (low, high), solver, ladder)


def _summarise(answer: _Answer, count: int) -> Targets:
    summary = empty_summary(1, count)
    summarise_stack(answer.draws, np.array([count]), np.ones(1), answer.low, answer.high, summary)
    x, y, intensity = summary.estimate[0].T
    x_std, y_std, intensity_std = summary.deviation[0].T
    return Targets(x, y, intensity, summary.score[0], x_std=x_std, y_std=y_std, intensity_std=intensity_std)


def posterior_limit(
    images: FloatArray,
    truths: list[Targets],
    sensor: Sensor,
    prior: ScenePrior,
    *,
    steps: int = 500_000,
    templates: int = 8192,
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
        templates: templates from which the annealing starts.
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
    effort = replace(EFFORTS["accurate"], templates=templates)
    solver: PixelSolver | FreeSolver
    if prior.single_pixel:
        solver = PixelSolver(sensor, prior, effort, variance)
    else:
        solver = FreeSolver(sensor, prior, effort, variance, 0)

    def one(n: int) -> tuple[Targets, Targets]:
        if not len(truths[n]):
            return Targets.empty(), Targets.empty()
        window = stack_of(stack[n : n + 1], sensor)
        truth = np.stack([truths[n].x, truths[n].y, truths[n].intensity], axis=1)
        found = []
        for from_truth in (True, False):
            if isinstance(solver, PixelSolver):
                answer = _sample_in_pixel(solver, window, truth, steps, from_truth)
            else:
                answer = _sample_free(solver, window, truth, steps, from_truth)
            found.append(_summarise(answer, len(truth)))
        return found[0], found[1]

    results = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for result in pool.map(one, range(len(stack))):
            results.append(result)
            if progress is not None:
                progress(len(results), len(stack))
    return [first for first, _ in results], [second for _, second in results]
