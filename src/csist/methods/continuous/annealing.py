"""Annealing: a population of chains led from the prior to the posterior.

With four or five targets inside a pixel the likelihood has a curved, nearly flat valley (fluxes trade
against positions) and more than one basin, so one mode and its curvature say little. A sequential Monte Carlo
sampler (Del Moral, Doucet & Jasra 2006) starts from templates, weighed at a temperature at which many of them count,
and cools: at each stage the population is resampled by the likelihood that the lower temperature adds, then moved.
Every chain ends as a sample, and the weights give the evidence.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import calling, compiled, fused, inlined, inner
from csist._types import FloatArray, IntArray
from csist.methods.continuous.chain_likelihood import Kernels, call_log_likelihoods
from csist.methods.continuous.cooling import (
    REFRESH_STAGES,
    Cloud,
    Outcome,
    Plan,
    Population,
    Steps,
    adapt_scales,
    begin_turn,
    choose_chains,
    copy_chains,
    count_steps,
    draw_scales,
    make_population,
    make_steps,
    next_inverse_temperature,
)
from csist.methods.continuous.diagnostics import compare_chains
from csist.methods.continuous.lanes import PRIOR_INFORMATION
from csist.methods.continuous.metropolis import call_move, call_shape_proposals
from csist.methods.continuous.model import Bounds, Noise, SingleArray, Stack, Window, cut, region_around, whole_region
from csist.methods.continuous.population import (
    Chains,
    Posterior,
    Scratch,
    from_chain,
    make_scratch,
    pose,
    resample,
    uniform,
)
from csist.methods.continuous.rounding import weigh_by_rounding
from csist.methods.continuous.search_in_pixel import (
    PixelModel,
    bounds_in_pixel,
    empty_outside,
    match_templates,
)

call_weigh_by_rounding = calling(weigh_by_rounding)

CHAINS_A_BLOCK = 64
"""Chains that step together; the population consists of such blocks."""

START_EFFECTIVE = 200.0
"""Effective number of templates at the temperature at which the annealing starts."""
NEGLIGIBLE = -40.0
"""Log weight, relative to the largest, of templates that do not count."""
HIGHEST_POWER = 40
"""The hottest temperature is at most 2 to this power."""


class Start(NamedTuple):
    """Where a population starts.

    Args:
        positions: (m, targets or more, 2) offsets x, y drawn from the prior.
        row, column: what they are offsets from.
        weight: (m,) their tempered likelihoods.
        temperature: of these.
    """

    positions: FloatArray
    row: int
    column: int
    weight: FloatArray
    temperature: float


@inner
def temper_templates(misfits: FloatArray, variance: float, effective: float, weight: FloatArray) -> float:
    """Tempered likelihoods of templates, at the lowest temperature at which enough of them count.

    Args:
        misfits: (m,) squared residuals.
        variance: of a pixel.
        effective: effective number of templates that is enough.
        weight: filled, (m,).

    Returns:
        the temperature, a power of two.
    """
    lowest = misfits.min()
    below, above = -1, HIGHEST_POWER  # the answer lies in (below, above]: more temperature, more that count
    while True:
        power = (below + above) // 2 if above - below > 1 else above
        scale = -0.5 / (variance * 2.0**power)
        total, squares = 0.0, 0.0
        for m in range(misfits.shape[0]):
            power_of_e = scale * (misfits[m] - lowest)
            weight[m] = math.exp(power_of_e) if power_of_e > NEGLIGIBLE else 0.0
            total += weight[m]
            squares += weight[m] * weight[m]
        if above - below <= 1:
            return float(2.0**power)
        if total * total >= effective * squares:
            above = power
        else:
            below = power


@inlined
def _chains(population: Population, block: int, steps: Steps) -> Chains:
    """One block of a population."""
    return Chains(
        population.state[block], population.value[block], population.root[block], steps.power, steps.scale,
        steps.random[block],
    )  # fmt: skip


@inlined
def start_population(
    call: Kernels, posterior: Posterior, start: Start, population: Population, steps: Steps, scratch: Scratch
) -> FloatArray:
    """Draw the population at the hottest temperature: positions from the templates, fluxes from the prior.

    Returns:
        log weights, (blocks * chains,).
    """
    state, draw, count = population.state, scratch.draw, posterior.targets
    blocks, size, chains = state.shape
    weight, chosen = np.empty(blocks * chains), np.empty(blocks * chains, np.int64)
    uniform(steps.random[0], draw)
    total = resample(start.weight, np.float64(draw[0]), chosen)
    for n in range(blocks * chains):
        block, chain, m = n // chains, n % chains, chosen[n]
        weight[n] = -math.log(start.weight[m] / total * start.weight.shape[0] + 1e-300)
        for k in range(count):
            state[block, k, chain] = start.column + start.positions[m, k, 0] - posterior.window.column
            state[block, count + k, chain] = start.row + start.positions[m, k, 1] - posterior.window.row
    for block in range(blocks):
        for p in range(2 * count, size):
            uniform(steps.random[block], draw)
            for chain in range(chains):
                state[block, p, chain] = posterior.low[p] + draw[chain] * (posterior.high[p] - posterior.low[p])
        value = population.value[block]
        call_log_likelihoods(call.log_likelihoods, posterior, state[block], scratch, value)
        for chain in range(chains):
            weight[block * chains + chain] += value[chain] / start.temperature
    return weight


@fused
def move_population(
    call: Kernels, posterior: Posterior, population: Population, steps: Steps, stretch: float, scratch: Scratch
) -> float:
    """One step of every chain, after which the proposal scales are adapted; returns the number of accepted steps.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        population: all chains.
        steps: their proposals.
        stretch: factor on the proposal scales.
        scratch: arrays to work in.
    """
    total = 0.0
    begin_turn(steps)
    for block in range(population.value.shape[0]):
        kind = population.kind[block]
        draw_scales(steps, kind, stretch, steps.random[block], scratch.draw)
        call_move(call.move, posterior, _chains(population, block, steps), scratch)
        total += count_steps(steps, kind, scratch.accepted)
    adapt_scales(steps)
    return total


@inlined
def record_population(posterior: Posterior, population: Population, cloud: Cloud, first: int) -> None:
    """Put all chains into the samples from place `first` on."""
    _, size, chains = population.state.shape
    for n in range(population.value.size):
        block, chain = n // chains, n % chains
        from_chain(posterior, population.state[block], chain, cloud.theta[first + n, :size])
        cloud.value[first + n] = population.value[block, chain]


@inlined
def anneal(call: Kernels, posterior: Posterior, start: Start, plan: Plan, cloud: Cloud) -> Outcome:
    """Sample a posterior.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        start: where the population starts.
        plan: how long to anneal.
        cloud: filled with records * blocks * CHAINS_A_BLOCK samples.
    """
    size, total_chains = posterior.low.shape[0], plan.blocks * CHAINS_A_BLOCK
    population = make_population(plan.blocks, size, CHAINS_A_BLOCK)
    spare, chosen = make_population(plan.blocks, size, CHAINS_A_BLOCK), np.empty(total_chains, np.int64)
    steps = make_steps(population, PRIOR_INFORMATION, plan.seed)
    scratch = make_scratch(posterior, population.value.shape[1])
    weight = start_population(call, posterior, start, population, steps, scratch)
    inverse = 1.0 / start.temperature
    log_evidence, accepted, stage, shaped_at, record = 0.0, 0.0, 0, inverse, 0
    while True:
        shapes_stay = stage % REFRESH_STAGES != 0
        uniform(steps.random[0], scratch.draw)
        log_evidence += choose_chains(weight, np.float64(scratch.draw[0]), chosen)
        copy_chains(chosen, shapes_stay, population, spare)
        population, spare = spare, population
        steps.power[:] = np.float32(inverse)
        if not shapes_stay:
            shaped_at = inverse
            for block in range(plan.blocks):
                chains = _chains(population, block, steps)
                call_shape_proposals(call.shape_proposals, call, posterior, chains, steps.floor, scratch)
        is_last = inverse >= 1.0
        number = plan.last_moves if is_last else plan.moves
        stretch = math.sqrt(shaped_at / inverse)
        for turn in range(number):
            moved = move_population(call, posterior, population, steps, stretch, scratch)
            if is_last:
                accepted += moved
                if (turn + 1) * plan.records // number > record:
                    record_population(posterior, population, cloud, record * total_chains)
                    record += 1
        if is_last:
            break
        inverse = next_inverse_temperature(population.value, inverse, weight)
        stage += 1
    effective, reduction = compare_chains(cloud.theta, cloud.value, posterior.targets, total_chains)
    added, share = 0.0, 1.0
    if posterior.noise.before_rounding >= 0.0:
        added, share = call_weigh_by_rounding(
            call.weigh_by_rounding, call, posterior, cloud.theta, cloud.value, scratch
        )
    acceptance = accepted / max(plan.last_moves * total_chains, 1)
    return Outcome(log_evidence + added, effective * share, acceptance, stage + 1, reduction)


@inlined
def pose_in_pixel(bounds: Bounds, polynomials: SingleArray, patch: Window, noise: Noise) -> Posterior:
    """The posterior of a group inside a pixel; the separation is taken a little smaller, for single precision."""
    return pose(bounds, bounds.min_separation * bounds.min_separation * (1.0 - 1e-5), polynomials, patch, noise)


@compiled
def anneal_in_pixel(
    call: Kernels, stack: Stack, model: PixelModel, plan: Plan, task: IntArray, cloud: Cloud
) -> Outcome:
    """Sample the posterior of a group inside a pixel; the evidence is that of the whole window.

    Args:
        call: addresses of kernels.
        stack: the windows.
        model: noise, optics, prior and templates.
        plan: how long to anneal.
        task: (4,) place of the window in the stack, number of targets, row and column of the pixel.
        cloud: filled.
    """
    place, count, row, column, noise = task[0], task[1], task[2], task[3], model.noise
    rows, columns = stack.data.shape[1], stack.data.shape[2]
    window = cut(stack, place, whole_region(stack))
    region = region_around(row, column, model.templates.images.shape[2] // 2, rows, columns)
    misfits = np.empty(model.templates.images.shape[1])
    match_templates(window, task[2:], count, model.prior, model.templates, misfits)
    weight = np.empty(misfits.shape[0])
    temperature = temper_templates(misfits, noise.variance, START_EFFECTIVE, weight)
    start = Start(model.templates.positions[count], row, column, weight, temperature)
    bounds = bounds_in_pixel(count, row, column, model.prior)
    posterior = pose_in_pixel(bounds, model.optics.polynomials, cut(stack, place, region), noise)
    found = anneal(call, posterior, start, plan, cloud)
    log_evidence = found.log_evidence + empty_outside(window, region, noise.variance)
    return Outcome(log_evidence, found.effective_sample_size, found.acceptance, found.stages, found.scale_reduction)
