"""Annealing of a population of paths: `csist.methods.continuous.annealing` for a group in many frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import address_of, compiled, inlined, inner
from csist._types import FloatArray, IntArray
from csist.methods.continuous.annealing import FLOOR_RATIO, KINDS, REFRESH_STAGES, STRIDE, Cloud, Outcome, Plan
from csist.methods.continuous.diagnostics import compare_chains
from csist.methods.continuous.metropolis import TARGET_ACCEPTANCE, WIDEST_STEP
from csist.methods.continuous.model import SingleArray
from csist.methods.continuous.population import resample, seed_chains, uniform
from csist.methods.continuous.sequence_likelihood import call_path_log_likelihoods, path_log_likelihoods
from csist.methods.continuous.sequence_model import LANES, PathPosterior, PathScratch, Random, make_path_scratch
from csist.methods.continuous.sequence_proposals import (
    accept,
    call_shape_path_proposals,
    fill_log_priors,
    propose,
    shape_path_proposals,
)


class PathKernels(NamedTuple):
    """Addresses of the kernels that the annealing calls."""

    log_likelihoods: int
    shape_proposals: int


def path_kernels() -> PathKernels:
    """The kernels, compiled."""
    return PathKernels(address_of(path_log_likelihoods), address_of(shape_path_proposals))


class PathStart(NamedTuple):
    """Where a population starts.

    Args:
        state: (blocks, size, chains) parameters.
        weight: (blocks * chains,) log weights, without the tempered likelihood.
        inverse: inverse temperature at which they are drawn; negative: the highest at which a third count.
    """

    state: SingleArray
    weight: FloatArray
    inverse: float


class PathPopulation(NamedTuple):
    """All chains, in blocks of `LANES`.

    Args:
        state: (blocks, size, chains) parameters.
        value: (blocks, chains) log likelihoods.
        prior: (blocks, chains) log priors.
        root: (blocks, size, size, chains) shapes of the proposals.
        kind: (blocks, chains) kinds of the proposals.
    """

    state: SingleArray
    value: SingleArray
    prior: SingleArray
    root: SingleArray
    kind: IntArray


class PathSteps(NamedTuple):
    """Proposals of a population and their adaptation.

    Args:
        scale: (chains,) of the proposals, drawn anew for each step.
        floor: (chains,) factor on the prior's information.
        width: (kinds,) mean proposal scale.
        accepted: (kinds,) accepted steps of one turn.
        tried: (kinds,) steps of one turn.
        random: (blocks, chains) states of `uniform`.
    """

    scale: SingleArray
    floor: SingleArray
    width: FloatArray
    accepted: FloatArray
    tried: FloatArray
    random: Random


@inner
def _make_paths(blocks: int, size: int) -> PathPopulation:
    f32 = np.float32
    return PathPopulation(
        np.empty((blocks, size, LANES), f32), np.empty((blocks, LANES), f32), np.empty((blocks, LANES), f32),
        np.zeros((blocks, size, size, LANES), f32), np.zeros((blocks, LANES), np.int64),
    )  # fmt: skip


@inlined
def _make_path_steps(blocks: int, size: int, seed: int) -> PathSteps:
    floor, width = np.empty(LANES, np.float32), np.empty(KINDS)
    for chain in range(LANES):
        floor[chain] = FLOOR_RATIO ** (chain % KINDS)
    width[:] = 1.8 / math.sqrt(size)
    random = seed_chains(seed, blocks * LANES).reshape(blocks, LANES)
    return PathSteps(np.empty(LANES, np.float32), floor, width, np.empty(KINDS), np.empty(KINDS), random)


@inlined
def _resample_paths(
    weight: FloatArray, offset: float, shapes_stay: bool, paths: PathPopulation, resampled: PathPopulation
) -> float:
    """Fill `resampled` with the chains of `paths` by their log weights, which are changed; log of the mean weight."""
    number, size = weight.shape[0], paths.state.shape[1]
    chosen, highest = np.empty(number, np.int64), weight.max()
    for n in range(number):
        weight[n] = math.exp(weight[n] - highest)
    total = resample(weight, offset, chosen)
    for n in range(number):
        block, chain = n // LANES, n % LANES
        source, one = chosen[n] // LANES, chosen[n] % LANES
        resampled.value[block, chain] = paths.value[source, one]
        resampled.prior[block, chain] = paths.prior[source, one]
        resampled.kind[block, chain] = paths.kind[source, one] if shapes_stay else chain % KINDS
        for p in range(size):
            resampled.state[block, p, chain] = paths.state[source, p, one]
            if shapes_stay:
                for c in range(p + 1):
                    resampled.root[block, p, c, chain] = paths.root[source, p, c, one]
    return float(highest) + math.log(total / number)


@inlined
def _rise(paths: PathPopulation, inverse: float, weight: FloatArray) -> float:
    """The next inverse temperature; `weight` gets the log weights that it adds."""
    number, mean, square = weight.shape[0], 0.0, 0.0
    for n in range(number):
        mean += paths.value[n // LANES, n % LANES] / number
    for n in range(number):
        square += (paths.value[n // LANES, n % LANES] - mean) ** 2 / number
    rise = min(STRIDE / math.sqrt(max(square, 1e-12)), 1.0 - inverse)
    for n in range(number):
        weight[n] = rise * paths.value[n // LANES, n % LANES]
    return rise


@inlined
def _first_inverse(weight: FloatArray, value: FloatArray) -> float:
    """The highest inverse temperature, a power of two, at which a third of the allowed chains count."""
    number, power, allowed = weight.shape[0], 0, 0
    for n in range(number):
        allowed += weight[n] > -1e29
    while power > -40:
        highest, total, squares = -np.inf, 0.0, 0.0
        for n in range(number):
            highest = max(highest, weight[n] + 2.0**power * value[n])
        for n in range(number):
            one = math.exp(weight[n] + 2.0**power * value[n] - highest)
            total += one
            squares += one * one
        if 3.0 * total * total > allowed * squares:
            break
        power -= 1
    return float(2.0**power)


@inlined
def _move_paths(
    call: PathKernels,
    posterior: PathPosterior,
    paths: PathPopulation,
    steps: PathSteps,
    tempering: tuple[float, float],
    scratch: PathScratch,
) -> float:
    """One step of every chain, after which proposal scales are adapted; returns the number of accepted steps.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        paths: all chains.
        steps: their proposals.
        tempering: inverse temperature, and the factor that it puts on the proposal scales.
        scratch: arrays to work in.
    """
    power, stretch = tempering
    steps.accepted[:] = 0.0
    steps.tried[:] = 1e-9
    total = 0.0
    for block in range(paths.value.shape[0]):
        kind, random, state = paths.kind[block], steps.random[block], paths.state[block]
        uniform(random, scratch.draw)
        for chain in range(LANES):
            steps.scale[chain] = steps.width[kind[chain]] * stretch * (0.4 + 1.2 * scratch.draw[chain])
        propose(state, paths.root[block], steps.scale, random, scratch)
        fill_log_priors(posterior, scratch.trial, scratch.trial_prior)
        call_path_log_likelihoods(call.log_likelihoods, posterior, scratch.trial, scratch, scratch.trial_value)
        accept(state, paths.value[block], paths.prior[block], power, random, scratch)
        for chain in range(LANES):
            steps.accepted[kind[chain]] += scratch.accepted[chain]
            steps.tried[kind[chain]] += 1.0
            total += scratch.accepted[chain]
    for k in range(KINDS):
        if steps.tried[k] > 0.5:
            grown = steps.width[k] * math.exp(steps.accepted[k] / steps.tried[k] - TARGET_ACCEPTANCE)
            steps.width[k] = min(grown, WIDEST_STEP)
    return total


@inlined
def _begin(
    call: PathKernels, posterior: PathPosterior, start: PathStart, paths: PathPopulation, scratch: PathScratch
) -> tuple[FloatArray, float]:
    """Put the chains at their start; returns their log weights and the inverse temperature."""
    blocks, number, inverse = start.state.shape[0], start.weight.shape[0], start.inverse
    weight = start.weight.copy()
    paths.state[:] = start.state
    for block in range(blocks):
        fill_log_priors(posterior, paths.state[block], paths.prior[block])
        call_path_log_likelihoods(call.log_likelihoods, posterior, paths.state[block], scratch, paths.value[block])
    for n in range(number):
        if paths.prior[n // LANES, n % LANES] < -1e29:
            weight[n] = -1e30
    if inverse < 0.0:
        inverse = _first_inverse(weight, paths.value.reshape(number).astype(np.float64))
    for n in range(number):
        weight[n] += inverse * paths.value[n // LANES, n % LANES]
    return weight, inverse


@inlined
def _record(paths: PathPopulation, cloud: Cloud, first: int) -> None:
    """Put all chains into the samples from place `first` on."""
    for n in range(paths.value.size):
        cloud.value[first + n] = paths.value[n // LANES, n % LANES]
        for p in range(paths.state.shape[1]):
            cloud.theta[first + n, p] = paths.state[n // LANES, p, n % LANES]


@compiled
def anneal_paths(call: PathKernels, posterior: PathPosterior, start: PathStart, plan: Plan, cloud: Cloud) -> Outcome:
    """Sample the posterior of a group that moves.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        start: where the population starts.
        plan: how long to anneal; its blocks are of `LANES` chains.
        cloud: filled with records * blocks * LANES samples in the chains' parameters.
    """
    blocks, size, _ = start.state.shape
    number = blocks * LANES
    paths, spare = _make_paths(blocks, size), _make_paths(blocks, size)
    steps, scratch = _make_path_steps(blocks, size, plan.seed), make_path_scratch(posterior)
    weight, inverse = _begin(call, posterior, start, paths, scratch)
    log_evidence, accepted, stage, shaped_at, record = 0.0, 0.0, 0, inverse, 0
    while True:
        shapes_stay = stage % REFRESH_STAGES != 0
        uniform(steps.random[0], scratch.draw)
        log_evidence += _resample_paths(weight, np.float64(scratch.draw[0]), shapes_stay, paths, spare)
        paths, spare = spare, paths
        if not shapes_stay:
            shaped_at = inverse
            for block in range(blocks):
                call_shape_path_proposals(
                    call.shape_proposals, posterior, paths.state[block], inverse, steps.floor, paths.root[block],
                    scratch,
                )  # fmt: skip
        is_last = inverse >= 1.0
        turns = plan.last_moves if is_last else plan.moves
        for turn in range(turns):
            moved = _move_paths(call, posterior, paths, steps, (inverse, math.sqrt(shaped_at / inverse)), scratch)
            if is_last:
                accepted += moved
                if (turn + 1) * plan.records // turns > record:
                    _record(paths, cloud, record * number)
                    record += 1
        if is_last:
            break
        rise = _rise(paths, inverse, weight)
        inverse = 1.0 if rise >= 1.0 - inverse else inverse + rise
        stage += 1
    effective, reduction = compare_chains(cloud.theta, cloud.value, 0, number)
    return Outcome(log_evidence, effective, accepted / max(plan.last_moves * number, 1), stage + 1, reduction)
