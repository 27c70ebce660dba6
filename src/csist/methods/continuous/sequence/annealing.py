"""Annealing of a population of paths: `csist.methods.continuous.annealing` for a group in many frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import address_of, compiled, inlined, inner
from csist._types import FloatArray
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
from csist.methods.continuous.lanes import propose
from csist.methods.continuous.model import SingleArray
from csist.methods.continuous.population import uniform
from csist.methods.continuous.sequence.likelihood import call_path_log_likelihoods, path_log_likelihoods
from csist.methods.continuous.sequence.model import LANES, PathPosterior, PathScratch, make_path_scratch
from csist.methods.continuous.sequence.proposals import (
    IMPOSSIBLE,
    accept,
    call_shape_path_proposals,
    fill_log_priors,
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
        chains: states, log likelihoods and proposals.
        prior: (blocks, chains) log priors.
    """

    chains: Population
    prior: SingleArray


@inner
def _make_paths(blocks: int, size: int) -> PathPopulation:
    return PathPopulation(make_population(blocks, size, LANES), np.empty((blocks, LANES), np.float32))


@inlined
def _first_inverse(weight: FloatArray, value: FloatArray) -> float:
    """The highest inverse temperature, a power of two, at which a third of the allowed chains count."""
    number, power, allowed = weight.shape[0], 0, 0
    for n in range(number):
        allowed += weight[n] > IMPOSSIBLE
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
    steps: Steps,
    stretch: float,
    scratch: PathScratch,
) -> float:
    """One step of every chain, after which proposal scales are adapted; returns the number of accepted steps.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        paths: all chains.
        steps: their proposals.
        stretch: factor on the proposal scales.
        scratch: arrays to work in.
    """
    total, chains = 0.0, paths.chains
    begin_turn(steps)
    for block in range(chains.value.shape[0]):
        kind, random, state = chains.kind[block], steps.random[block], chains.state[block]
        draw_scales(steps, kind, stretch, random, scratch.draw)
        propose(state, chains.root[block], steps.scale, random, scratch.trial)
        fill_log_priors(posterior, scratch.trial, scratch.trial_prior)
        call_path_log_likelihoods(call.log_likelihoods, posterior, scratch.trial, scratch, scratch.trial_value)
        accept(state, chains.value[block], paths.prior[block], steps.power, random, scratch)
        total += count_steps(steps, kind, scratch.accepted)
    adapt_scales(steps)
    return total


@inlined
def _begin(
    call: PathKernels, posterior: PathPosterior, start: PathStart, paths: PathPopulation, scratch: PathScratch
) -> tuple[FloatArray, float]:
    """Put the chains at their start; returns their log weights and the inverse temperature."""
    state, value, number = paths.chains.state, paths.chains.value, start.weight.shape[0]
    weight, inverse = start.weight.copy(), start.inverse
    state[:] = start.state
    for block in range(state.shape[0]):
        fill_log_priors(posterior, state[block], paths.prior[block])
        call_path_log_likelihoods(call.log_likelihoods, posterior, state[block], scratch, value[block])
    for n in range(number):
        if paths.prior[n // LANES, n % LANES] <= np.float32(IMPOSSIBLE):
            weight[n] = IMPOSSIBLE
    if inverse < 0.0:
        inverse = _first_inverse(weight, value.reshape(number).astype(np.float64))
    for n in range(number):
        weight[n] += inverse * value[n // LANES, n % LANES]
    return weight, inverse


@inlined
def _resample_paths(
    weight: FloatArray, offset: float, shapes_stay: bool, paths: PathPopulation, resampled: PathPopulation
) -> float:
    """Fill `resampled` with the chains of `paths` by their log weights, which are changed; log of the mean weight."""
    number = weight.shape[0]
    chosen = np.empty(number, np.int64)
    gain = choose_chains(weight, offset, chosen)
    copy_chains(chosen, shapes_stay, paths.chains, resampled.chains)
    for n in range(number):
        resampled.prior[n // LANES, n % LANES] = paths.prior[chosen[n] // LANES, chosen[n] % LANES]
    return gain


@inlined
def _record(paths: Population, cloud: Cloud, first: int) -> None:
    """Put all chains into the samples from place `first` on."""
    for n in range(paths.value.size):
        cloud.value[first + n] = paths.value[n // LANES, n % LANES]
        for p in range(paths.state.shape[1]):
            cloud.theta[first + n, p] = paths.state[n // LANES, p, n % LANES]


@inlined
def _fill_covariance(
    call: PathKernels, posterior: PathPosterior, paths: Population, covariance: FloatArray, scratch: PathScratch
) -> None:
    """Fill `covariance` (size, size) with the inverse information of the most probable chain."""
    best = int(np.argmax(paths.value))
    block, chain = best // LANES, best % LANES
    ones = np.ones(LANES, np.float32)
    root = paths.root[block]
    call_shape_path_proposals(call.shape_proposals, posterior, paths.state[block], 1.0, ones, root, scratch)
    for p in range(covariance.shape[0]):
        for q in range(covariance.shape[0]):
            covariance[p, q] = 0.0
            for i in range(max(p, q), covariance.shape[0]):
                covariance[p, q] += root[i, p, chain] * root[i, q, chain]


@compiled
def anneal_paths(
    call: PathKernels, posterior: PathPosterior, start: PathStart, plan: Plan, cloud: Cloud, covariance: FloatArray
) -> Outcome:
    """Sample the posterior of a group that moves.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        start: where the population starts.
        plan: how long to anneal; its blocks are of `LANES` chains.
        cloud: filled with records * blocks * LANES samples in the chains' parameters.
        covariance: (size, size) filled with that of the normal approximation at the most probable chain; of size 0 it
            is not wanted.
    """
    blocks, size, chains = start.state.shape
    number = blocks * chains
    paths, spare = _make_paths(blocks, size), _make_paths(blocks, size)
    steps, scratch = make_steps(paths.chains, 1.0, plan.seed), make_path_scratch(posterior)
    weight, inverse = _begin(call, posterior, start, paths, scratch)
    log_evidence, accepted, stage, shaped_at, record = 0.0, 0.0, 0, inverse, 0
    while True:
        shapes_stay = stage % REFRESH_STAGES != 0
        uniform(steps.random[0], scratch.draw)
        log_evidence += _resample_paths(weight, np.float64(scratch.draw[0]), shapes_stay, paths, spare)
        paths, spare = spare, paths
        steps.power[:] = np.float32(inverse)
        if not shapes_stay:
            shaped_at = inverse
            for block in range(blocks):
                call_shape_path_proposals(
                    call.shape_proposals, posterior, paths.chains.state[block], inverse, steps.floor,
                    paths.chains.root[block], scratch,
                )  # fmt: skip
        is_last = inverse >= 1.0
        turns = plan.last_moves if is_last else plan.moves
        stretch = math.sqrt(shaped_at / inverse)
        for turn in range(turns):
            moved = _move_paths(call, posterior, paths, steps, stretch, scratch)
            if is_last:
                accepted += moved
                if (turn + 1) * plan.records // turns > record:
                    _record(paths.chains, cloud, record * number)
                    record += 1
        if is_last:
            break
        inverse = next_inverse_temperature(paths.chains.value, inverse, weight)
        stage += 1
    effective, reduction = compare_chains(cloud.theta, cloud.value, 0, number)
    if covariance.size > 0:
        _fill_covariance(call, posterior, paths.chains, covariance, scratch)
    return Outcome(log_evidence, effective, accepted / max(plan.last_moves * number, 1), stage + 1, reduction)
