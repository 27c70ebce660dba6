"""Annealing: a population of chains led from the prior to the posterior.

With four or five targets inside a pixel the likelihood has a curved, nearly flat valley (fluxes trade
against positions) and more than one basin, so one mode and its curvature say little. A sequential Monte Carlo
sampler (Del Moral, Doucet & Jasra 2006) starts from templates, weighed at a temperature at which many of them count,
and cools: at each stage the population is resampled by the likelihood that the lower temperature adds, then moved.
Every chain ends as a sample, and the weights give the evidence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from csist._compiled import calling, compiled, fused, inlined, inner
from csist._types import FloatArray, IntArray
from csist.methods.continuous.chain_likelihood import Kernels, call_log_likelihoods
from csist.methods.continuous.diagnostics import compare_chains
from csist.methods.continuous.metropolis import (
    PRIOR_INFORMATION,
    TARGET_ACCEPTANCE,
    WIDEST_STEP,
    call_move,
    call_shape_proposals,
)
from csist.methods.continuous.model import Bounds, Noise, SingleArray, Stack, Window, cut, region_around, whole_region
from csist.methods.continuous.population import (
    Chains,
    Posterior,
    Scratch,
    from_chain,
    make_scratch,
    pose,
    resample,
    seed_chains,
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
HIGHEST_POWER = 40
"""The hottest temperature is at most 2 to this power."""

STRIDE = 1.0
"""Each stage adds so much to the inverse temperature, in units of 1 / (spread of the log likelihood)."""

REFRESH_STAGES = 2
"""Stages after which the proposals are shaped anew."""

KINDS = 4
"""Kinds of proposals, from those as long as the prior allows to those that are short in open directions."""
FLOOR_RATIO = 5.0
"""Ratio of the information that is added from one kind to the next."""


class Plan(NamedTuple):
    """How long to anneal.

    Args:
        blocks: population, in `CHAINS_A_BLOCK`.
        moves: steps of every chain at each stage.
        last_moves: steps at the last, over which the records of the population are spread.
        records: times that the population is recorded.
        seed: of the chains' random numbers.
    """

    blocks: int
    moves: int
    last_moves: int
    records: int
    seed: int


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


class Population(NamedTuple):
    """All chains, in blocks.

    Args:
        state: (blocks, size, chains) parameters.
        value: (blocks, chains) log likelihoods.
        root: (blocks, size, size, chains) shapes of the proposals.
        kind: (blocks, chains) kinds of the proposals.
    """

    state: SingleArray
    value: SingleArray
    root: SingleArray
    kind: IntArray


class Steps(NamedTuple):
    """Proposals of a population and their adaptation.

    Args:
        power: (chains,) inverse temperature, the same for all.
        scale: (chains,) of the proposals, drawn anew for each step.
        floor: (chains,) information added to the Fisher information.
        width: (kinds,) mean proposal scale.
        accepted: (kinds,) accepted steps of one turn.
        tried: (kinds,) steps of one turn.
        random: (blocks, chains) states of `uniform`.
    """

    power: SingleArray
    scale: SingleArray
    floor: SingleArray
    width: FloatArray
    accepted: FloatArray
    tried: FloatArray
    random: Any


class Cloud(NamedTuple):
    """Posterior samples of one group.

    Args:
        theta: (m, parameters or more).
        value: (m,) log likelihoods.
    """

    theta: FloatArray
    value: FloatArray


class Outcome(NamedTuple):
    """What annealing says of a group besides its samples; see `csist.methods.continuous.diagnostics.Diagnostics`."""

    log_evidence: float
    effective_sample_size: float
    acceptance: float
    stages: int
    scale_reduction: float


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
            weight[m] = math.exp(scale * (misfits[m] - lowest))
            total += weight[m]
            squares += weight[m] * weight[m]
        if above - below <= 1:
            return float(2.0**power)
        if total * total >= effective * squares:
            above = power
        else:
            below = power


@inner
def _make_population(blocks: int, size: int) -> Population:
    chains = CHAINS_A_BLOCK
    return Population(
        np.empty((blocks, size, chains), np.float32), np.empty((blocks, chains), np.float32),
        np.zeros((blocks, size, size, chains), np.float32), np.zeros((blocks, chains), np.int64),
    )  # fmt: skip


@inlined
def _make_steps(blocks: int, size: int, seed: int) -> Steps:
    floor, width = np.empty(CHAINS_A_BLOCK, np.float32), np.empty(KINDS)
    for chain in range(CHAINS_A_BLOCK):
        floor[chain] = PRIOR_INFORMATION * FLOOR_RATIO ** (chain % KINDS)
    width[:] = 1.8 / math.sqrt(size)
    return Steps(
        np.empty(CHAINS_A_BLOCK, np.float32), np.empty(CHAINS_A_BLOCK, np.float32), floor, width, np.empty(KINDS),
        np.empty(KINDS), seed_chains(seed, blocks * CHAINS_A_BLOCK).reshape(blocks, CHAINS_A_BLOCK),
    )  # fmt: skip


@inner
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


@inlined
def resample_population(
    weight: FloatArray, offset: float, shapes_stay: bool, population: Population, resampled: Population
) -> float:
    """Fill `resampled` with the chains of `population` by their log weights, which are changed.

    Args:
        weight: (blocks * chains,) log weights.
        offset: of the systematic resampling, in [0, 1).
        shapes_stay: whether proposals keep their shape and kind; else they are to be shaped anew.
        population: chains before.
        resampled: chains after.

    Returns:
        log of the mean weight.
    """
    _, size, chains = population.state.shape
    total_chains = weight.shape[0]
    chosen = np.empty(total_chains, np.int64)
    highest = weight.max()
    for n in range(total_chains):
        weight[n] = math.exp(weight[n] - highest)
    total = resample(weight, offset, chosen)
    for n in range(total_chains):
        block, chain = n // chains, n % chains
        from_block, one = chosen[n] // chains, chosen[n] % chains
        resampled.value[block, chain] = population.value[from_block, one]
        resampled.kind[block, chain] = population.kind[from_block, one] if shapes_stay else chain % KINDS
        for p in range(size):
            resampled.state[block, p, chain] = population.state[from_block, p, one]
            if shapes_stay:
                for c in range(p + 1):
                    resampled.root[block, p, c, chain] = population.root[from_block, p, c, one]
    return float(highest) + math.log(total / total_chains)


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
    blocks, chains = population.value.shape
    steps.accepted[:] = 0.0
    steps.tried[:] = 1e-9
    total = 0.0
    for block in range(blocks):
        kind = population.kind[block]
        # steps of mixed lengths, since the local shape is not the shape along the whole valley
        uniform(steps.random[block], scratch.draw)
        for chain in range(chains):
            steps.scale[chain] = steps.width[kind[chain]] * stretch * (0.4 + 1.2 * scratch.draw[chain])
        call_move(call.move, posterior, _chains(population, block, steps), scratch)
        for chain in range(chains):
            steps.accepted[kind[chain]] += scratch.accepted[chain]
            steps.tried[kind[chain]] += 1.0
            total += scratch.accepted[chain]
    for k in range(KINDS):
        if steps.tried[k] > 0.5:
            grown = steps.width[k] * math.exp(steps.accepted[k] / steps.tried[k] - TARGET_ACCEPTANCE)
            steps.width[k] = min(grown, WIDEST_STEP)
    return total


@inlined
def next_inverse_temperature(population: Population, inverse: float, weight: FloatArray) -> float:
    """The inverse temperature of the next stage; `weight` (blocks * chains,) gets the log weights of the chains."""
    blocks, chains = population.value.shape
    mean, square = 0.0, 0.0
    for block in range(blocks):
        for chain in range(chains):
            mean += population.value[block, chain]
            square += float(population.value[block, chain]) ** 2
    number = blocks * chains
    spread = math.sqrt(max(square / number - (mean / number) ** 2, 1e-12))
    rise = min(STRIDE / spread, 1.0 - inverse)
    for n in range(number):
        weight[n] = rise * population.value[n // chains, n % chains]
    return min(inverse + rise, 1.0) if rise < 1.0 - inverse else 1.0


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
    population, spare = _make_population(plan.blocks, size), _make_population(plan.blocks, size)
    steps, scratch = _make_steps(plan.blocks, size, plan.seed), make_scratch(posterior, population.value.shape[1])
    weight = start_population(call, posterior, start, population, steps, scratch)
    inverse = 1.0 / start.temperature
    log_evidence, accepted, stage, shaped_at, record = 0.0, 0.0, 0, inverse, 0
    while True:
        shapes_stay = stage % REFRESH_STAGES != 0
        uniform(steps.random[0], scratch.draw)
        log_evidence += resample_population(weight, np.float64(scratch.draw[0]), shapes_stay, population, spare)
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
        inverse = next_inverse_temperature(population, inverse, weight)
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
