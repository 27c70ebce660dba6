"""What a population of chains does while it cools, whatever it samples: proposal scales, temperatures, resampling.

Groups in one frame (`annealing`) and in many (`sequence.annealing`) share it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from csist._compiled import inlined, inner
from csist._types import FloatArray, IntArray
from csist._vectors import WIDTH, put, spread, sum_of, take, where_equal
from csist.methods.continuous.lanes import TARGET_ACCEPTANCE, WIDEST_STEP
from csist.methods.continuous.model import SingleArray
from csist.methods.continuous.population import resample, seed_chains, uniform

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
        blocks: population, in blocks of chains.
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


class Population(NamedTuple):
    """All chains, in blocks.

    Args:
        state: (blocks, size, chains) parameters.
        value: (blocks, chains) log likelihoods.
        root: (blocks, size, size, chains) shapes of the proposals.
        kind: (blocks, chains) number of the kind of the proposals, in single precision.
    """

    state: SingleArray
    value: SingleArray
    root: SingleArray
    kind: SingleArray


class Steps(NamedTuple):
    """Proposals of a population and their adaptation.

    Args:
        power: (chains,) inverse temperature, the same for all.
        scale: (chains,) of the proposals, drawn anew for each step.
        floor: (chains,) information added to the Fisher information.
        width: (kinds,) mean proposal scale.
        accepted: (kinds,) accepted steps of one turn.
        tried: (kinds,) steps of one turn.
        random: (blocks, 2, chains) states of `uniform`.
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
def make_population(blocks: int, size: int, chains: int) -> Population:
    """Arrays for so many blocks of chains of `size` parameters."""
    return Population(
        np.empty((blocks, size, chains), np.float32), np.empty((blocks, chains), np.float32),
        np.zeros((blocks, size, size, chains), np.float32), np.zeros((blocks, chains), np.float32),
    )  # fmt: skip


@inner
def make_steps(population: Population, least_floor: float, seed: int) -> Steps:
    """Proposals of a population; the information added is `least_floor` for the longest kind."""
    blocks, size, chains = population.state.shape
    floor, width = np.empty(chains, np.float32), np.empty(KINDS)
    for chain in range(chains):
        floor[chain] = least_floor * FLOOR_RATIO ** (chain % KINDS)
    width[:] = 1.8 / math.sqrt(size)
    return Steps(
        np.empty(chains, np.float32), np.empty(chains, np.float32), floor, width, np.empty(KINDS), np.empty(KINDS),
        seed_chains(seed, blocks, chains),
    )  # fmt: skip


@inlined
def choose_chains(weight: FloatArray, offset: float, chosen: IntArray) -> float:
    """Fill `chosen` (n,) with the chains that go on, by their log weights (n,), which are changed.

    Args:
        weight: log weights.
        offset: of the systematic resampling, in [0, 1).
        chosen: filled.

    Returns:
        log of the mean weight.
    """
    highest = weight.max()
    for n in range(weight.shape[0]):
        weight[n] = math.exp(weight[n] - highest)
    return float(highest) + math.log(resample(weight, offset, chosen) / weight.shape[0])


@inlined
def copy_chains(chosen: IntArray, shapes_stay: bool, population: Population, resampled: Population) -> None:
    """Fill `resampled` with the chosen chains of `population`.

    Args:
        chosen: (blocks * chains,) numbers of chains.
        shapes_stay: whether proposals keep their shape and kind; else they are to be shaped anew.
        population: chains before.
        resampled: chains after.
    """
    _, size, chains = population.state.shape
    for n in range(chosen.shape[0]):
        block, chain = n // chains, n % chains
        from_block, one = chosen[n] // chains, chosen[n] % chains
        resampled.value[block, chain] = population.value[from_block, one]
        resampled.kind[block, chain] = population.kind[from_block, one] if shapes_stay else chain % KINDS
        for p in range(size):
            resampled.state[block, p, chain] = population.state[from_block, p, one]
            if shapes_stay:
                for c in range(p + 1):
                    resampled.root[block, p, c, chain] = population.root[from_block, p, c, one]


@inlined
def begin_turn(steps: Steps) -> None:
    """Forget the steps of the turn before."""
    steps.accepted[:] = 0.0
    steps.tried[:] = 1e-9


@inlined
def draw_scales(steps: Steps, kind: SingleArray, stretch: float, random: Any, draw: SingleArray) -> None:
    """Fill `steps.scale` for one step of a block: of mixed lengths, since no local shape is that of a whole valley."""
    uniform(random, draw)
    for part in range(0, kind.shape[0], WIDTH):
        width = spread(0.0)
        for k in range(KINDS):
            width = where_equal(take(kind, (part,)), k, spread(steps.width[k] * stretch), width)
        put(steps.scale, (part,), width * (take(draw, (part,)) * np.float32(1.2) + np.float32(0.4)))


@inlined
def count_steps(steps: Steps, kind: SingleArray, accepted: SingleArray) -> float:
    """Count the steps of a block by their kind; returns the number of accepted ones."""
    total = 0.0
    for k in range(KINDS):
        taken, tried = spread(0.0), spread(0.0)
        for part in range(0, kind.shape[0], WIDTH):
            of = take(kind, (part,))
            taken += where_equal(of, k, take(accepted, (part,)), spread(0.0))
            tried += where_equal(of, k, spread(1.0), spread(0.0))
        number = sum_of(taken)
        steps.accepted[k] += number
        steps.tried[k] += sum_of(tried)
        total += number
    return total


@inlined
def adapt_scales(steps: Steps) -> None:
    """Bring the acceptance of each kind of step nearer to `TARGET_ACCEPTANCE`."""
    for k in range(KINDS):
        if steps.tried[k] > 0.5:
            grown = steps.width[k] * math.exp(steps.accepted[k] / steps.tried[k] - TARGET_ACCEPTANCE)
            steps.width[k] = min(grown, WIDEST_STEP)


@inlined
def next_inverse_temperature(value: SingleArray, inverse: float, weight: FloatArray) -> float:
    """The inverse temperature of the next stage, from the log likelihoods (blocks, chains).

    `weight` (blocks * chains,) gets the log weights that it adds.
    """
    blocks, chains = value.shape
    mean, square, number = 0.0, 0.0, blocks * chains
    for block in range(blocks):
        for chain in range(chains):
            mean += value[block, chain] / number
    for block in range(blocks):
        for chain in range(chains):
            square += (value[block, chain] - mean) ** 2 / number
    rise = min(STRIDE / math.sqrt(max(square, 1e-12)), 1.0 - inverse)
    for n in range(number):
        weight[n] = rise * value[n // chains, n % chains]
    return min(inverse + rise, 1.0) if rise < 1.0 - inverse else 1.0
