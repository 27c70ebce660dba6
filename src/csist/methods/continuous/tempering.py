"""Parallel tempering: chains at rising temperatures that exchange states (Geyer 1991; Earl & Deem 2005).

For groups whose targets may lie anywhere, and, long and started from the truth, as the check on `annealing`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import calling, compiled, fused, inlined
from csist._types import FloatArray, IntArray
from csist.methods.continuous.chain_likelihood import Kernels, call_log_likelihoods
from csist.methods.continuous.cooling import Cloud
from csist.methods.continuous.diagnostics import compare_chains
from csist.methods.continuous.lanes import PRIOR_INFORMATION, TARGET_ACCEPTANCE, WIDEST_STEP, accepts
from csist.methods.continuous.metropolis import call_move, call_shape_proposals, scatter
from csist.methods.continuous.model import Bounds, Noise, SingleArray, Stack, cut
from csist.methods.continuous.population import (
    Chains,
    Posterior,
    Scratch,
    from_chain,
    make_scratch,
    pose,
    seed_chains,
    to_chain,
    uniform,
)
from csist.methods.continuous.posterior import Draws
from csist.methods.continuous.rounding import weigh_by_rounding

call_weigh_by_rounding = calling(weigh_by_rounding)

REFRESH_SWEEPS = 40
"""Sweeps after which the proposals are shaped anew."""
BURN_IN = 0.2
"""Fraction of sweeps discarded as burn-in where chains start near all the modes that matter."""

START_MARGIN = 1e-4
"""Least distance of a start from the bounds, as a share of the prior's range."""

LEAST_ACCEPTANCE, TURNS = 0.05, 3
"""Share of accepted steps below which chains are run again, and how often at most: samples that hardly differ say
nothing of an error."""
SHORTER, LEAST_SWEEPS = 30.0, 120
"""Factor on the information that is added to the proposals of each further turn, and its least sweeps: two targets at
their smallest separation, or where their sum alone is known, have a curved valley that long steps leave."""

SEED_CELLS = 256
"""Cells of a pixel, along each axis, whose groups share their random numbers."""


class Ladder(NamedTuple):
    """Chains at rising temperatures.

    Args:
        temperatures: (levels,) rising from 1; their number divides `chains`.
        single_levels: how many of them serve a single target, which has no other mode to cross to.
        chains: number of chains at all temperatures together.
        sweeps: (n,) sweeps for 1, 2, ..., n and more targets.
        burn_in: fraction of sweeps discarded, in which proposal scales are adapted.
        seed: of the chains' random numbers, with the position of the group.
        is_scattered: whether chains start around their starts, spread as Laplace's approximation, or on them.
        turns: how often chains are run, each time with shorter steps and scattered again, until they move.
    """

    temperatures: FloatArray
    single_levels: int
    chains: int
    sweeps: IntArray
    burn_in: float
    seed: int
    is_scattered: bool
    turns: int


class Pace(NamedTuple):
    """One turn of tempered chains.

    Args:
        sweeps: steps of every chain.
        burn_in: of these, discarded.
        levels: temperatures.
        replicas: chains at each.
        wanted: records of the states at temperature 1.
        is_scattered: whether the chains are spread around their states first.
        floor: (chains,) information added to their proposals, of a prior of width 1.
    """

    sweeps: int
    burn_in: int
    levels: int
    replicas: int
    wanted: int
    is_scattered: bool
    floor: SingleArray


class Groups(NamedTuple):
    """Groups to be sampled, one in each window of a stack.

    Args:
        counts: (N,) number of targets; 0 is left out.
        regions: (N, 4) patch of the window that a group is fitted in; see `csist.methods.continuous.model.cut`.
        starts: (N, m, parameters) x, y, flux of each target, then background terms; the chains start there in turn.
        number: (N,) how many starts there are.
        low: (N, parameters) bounds.
        high: (N, parameters) likewise.
        variance: (N,) noise of a pixel.
        inverse_gain: (N,) counts per electron.
    """

    counts: IntArray
    regions: IntArray
    starts: FloatArray
    number: IntArray
    low: FloatArray
    high: FloatArray
    variance: FloatArray
    inverse_gain: FloatArray


class Laws(NamedTuple):
    """What all groups share.

    Args:
        polynomials: of `Optics`.
        log_flux: whether the prior is uniform in the logarithm of the flux.
        min_separation: smallest distance in px of two targets.
        before_rounding: see `Noise`.
    """

    polynomials: SingleArray
    log_flux: bool
    min_separation: float
    before_rounding: float


@inlined
def _push_apart(theta: FloatArray, count: int, bounds: Bounds) -> None:
    """Move targets that are too close, or sit on a bound, just inside what the prior allows."""
    for _ in range(60):
        clear = True
        for a in range(count):
            for b in range(a):
                dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
                d = math.sqrt(dx * dx + dy * dy)
                if d < bounds.min_separation * 1.0001:
                    clear = False
                    ux, uy = (dx / d, dy / d) if d > 1e-9 else (1.0, 0.0)
                    shift = 0.5 * (bounds.min_separation * 1.002 - d)
                    theta[3 * a] += shift * ux
                    theta[3 * a + 1] += shift * uy
                    theta[3 * b] -= shift * ux
                    theta[3 * b + 1] -= shift * uy
        for p in range(theta.shape[0]):
            low, high = bounds.low[p], bounds.high[p]
            if bounds.log_flux and p < 3 * count and p % 3 == 2:
                # A share of the linear range, which spans orders of magnitude, would be more than a faint target.
                inside = (high / low) ** START_MARGIN
                theta[p] = min(max(theta[p], low * inside), high / inside)
            else:
                margin = START_MARGIN * (high - low)
                theta[p] = min(max(theta[p], low + margin), high - margin)
        if clear:
            break


@inlined
def _admit(starts: FloatArray, count: int, bounds: Bounds) -> float:
    """Move all starts inside what the prior allows; returns the square of the separation that they all keep."""
    least_square = bounds.min_separation * bounds.min_separation
    for s in range(starts.shape[0]):
        theta = starts[s]
        _push_apart(theta, count, bounds)
        for a in range(count):
            for b in range(a):
                dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
                least_square = min(least_square, (dx * dx + dy * dy) * (1.0 - 1e-5))
    return least_square


@inlined
def _seed_of(start: FloatArray, ladder: Ladder) -> int:
    """Seed of a group, from the position of its first target.

    The same numbers for all groups would give all of them the same error of few and short chains, which no average over
    many targets removes. The position is the group's own, in any batch and in any unit of the values.
    """
    column, row = math.floor(SEED_CELLS * start[0]), math.floor(SEED_CELLS * start[1])
    return int(ladder.seed + 65_537 * column + row)


@inlined
def _start_chains(posterior: Posterior, starts: FloatArray, ladder: Ladder, levels: int) -> Chains:
    """Chain i at starts[i % n], at the temperature i % levels."""
    size, chains = posterior.low.shape[0], ladder.chains
    state, f32 = np.empty((size, chains), np.float32), np.float32
    power, scale = np.empty(chains, f32), np.empty(chains, f32)
    for chain in range(chains):
        theta = starts[chain % starts.shape[0]]
        to_chain(theta, posterior.targets, posterior.log_flux, posterior.window, state, chain)
        power[chain] = 1.0 / ladder.temperatures[chain % levels]
    scale[:] = f32(1.8 / math.sqrt(max(size, 1)))
    return Chains(
        state, np.empty(chains, f32), np.zeros((size, size, chains), f32), power, scale,
        seed_chains(_seed_of(starts[0], ladder), 1, chains)[0],
    )  # fmt: skip


@fused
def _exchange(chains: Chains, levels: int, parity: int, draw: SingleArray) -> None:
    """Let neighbouring temperatures exchange states; even and odd pairs take turns."""
    state, value, power = chains.state, chains.value, chains.power
    uniform(chains.random, draw)
    for chain in range(value.shape[0] - 1):
        level, other = chain % levels, chain + 1
        if level + 1 < levels and level % 2 == parity:
            gain = (power[chain] - power[other]) * (value[other] - value[chain])
            if accepts(gain, draw[chain]):
                value[chain], value[other] = value[other], value[chain]
                for p in range(state.shape[0]):
                    state[p, chain], state[p, other] = state[p, other], state[p, chain]


@fused
def _adapt(scale: SingleArray, accepted: SingleArray) -> None:
    """Lengthen the proposals of chains whose step was accepted, shorten those of the others."""
    longer, shorter = math.exp(0.1 * (1.0 - TARGET_ACCEPTANCE)), math.exp(-0.1 * TARGET_ACCEPTANCE)
    for chain in range(scale.shape[0]):
        factor = longer if accepted[chain] > np.float32(0.0) else shorter
        scale[chain] = min(scale[chain] * factor, WIDEST_STEP)


@inlined
def _sweep(
    call: Kernels,
    posterior: Posterior,
    chains: Chains,
    pace: Pace,
    scratch: Scratch,
    cloud: Cloud,
) -> tuple[int, float]:
    """Move the chains so many sweeps; `cloud` gets the states at temperature 1, evenly spaced after burn-in.

    Returns:
        the number of samples, and the share of the steps at temperature 1 that were accepted.
    """
    kept, taken, accepted = 0, 0, 0.0
    for sweep in range(pace.sweeps):
        if sweep % REFRESH_SWEEPS == 0:
            call_shape_proposals(call.shape_proposals, call, posterior, chains, pace.floor, scratch)
        if sweep == 0 and pace.is_scattered:
            scatter(call, posterior, chains, scratch)
        call_move(call.move, posterior, chains, scratch)
        if sweep < pace.burn_in:
            _adapt(chains.scale, scratch.accepted)
        else:
            for replica in range(pace.replicas):
                accepted += scratch.accepted[replica * pace.levels]
        _exchange(chains, pace.levels, sweep % 2, scratch.draw)
        done, length = sweep - pace.burn_in + 1, pace.sweeps - pace.burn_in
        if done > 0 and done * pace.wanted // length > taken:
            taken += 1
            for replica in range(min(pace.replicas, cloud.theta.shape[0] - kept)):
                from_chain(posterior, chains.state, replica * pace.levels, cloud.theta[kept, : posterior.low.shape[0]])
                cloud.value[kept] = chains.value[replica * pace.levels]
                kept += 1
    return kept, accepted / max((pace.sweeps - pace.burn_in) * pace.replicas, 1)


@inlined
def temper(
    call: Kernels, posterior: Posterior, starts: FloatArray, ladder: Ladder, theta: FloatArray, values: FloatArray
) -> tuple[int, FloatArray]:
    """Sample a posterior; the states at temperature 1 are kept, evenly spaced after burn-in.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        starts: (n, size) parameters that the posterior allows.
        ladder: temperatures and sweeps.
        theta: filled, (m, size or more) samples.
        values: filled, (m,) their log likelihoods.

    Returns:
        the number of samples, and (4,) effective sample size, acceptance, temperatures, potential scale reduction.
    """
    size, count = posterior.low.shape[0], posterior.targets
    levels = ladder.single_levels if count == 1 else ladder.temperatures.shape[0]
    sweeps = ladder.sweeps[min(max(count, 1), ladder.sweeps.shape[0]) - 1]
    replicas = ladder.chains // levels
    chains, scratch = _start_chains(posterior, starts, ladder, levels), make_scratch(posterior, ladder.chains)
    floor = np.empty(ladder.chains, np.float32)
    floor[:] = np.float32(PRIOR_INFORMATION)
    call_log_likelihoods(call.log_likelihoods, posterior, chains.state, scratch, chains.value)
    wanted, kept, acceptance = max(theta.shape[0] // replicas, 1), 0, 0.0
    for turn in range(ladder.turns):
        if turn > 0:
            floor *= np.float32(SHORTER)
            chains.scale[:] = np.float32(1.8 / math.sqrt(max(size, 1)))
            sweeps = max(sweeps, LEAST_SWEEPS)
        is_scattered = ladder.is_scattered or turn > 0
        pace = Pace(sweeps, int(ladder.burn_in * sweeps), levels, replicas, wanted, is_scattered, floor)
        kept, acceptance = _sweep(call, posterior, chains, pace, scratch, Cloud(theta, values))
        if acceptance >= LEAST_ACCEPTANCE:
            break
    quality = np.empty(4)
    quality[0], quality[3] = compare_chains(theta[:kept], values[:kept], count, min(replicas, kept))
    if posterior.noise.before_rounding >= 0.0:
        _, share = call_weigh_by_rounding(call.weigh_by_rounding, call, posterior, theta[:kept], values[:kept], scratch)
        quality[0] *= share
    quality[1], quality[2] = acceptance, levels
    return kept, quality


@compiled
def temper_stack(call: Kernels, stack: Stack, groups: Groups, laws: Laws, ladder: Ladder, draws: Draws) -> None:
    """Sample the posterior of the group in each window of a stack.

    Args:
        call: addresses of kernels.
        stack: the windows.
        groups: what is known of each group.
        laws: what they share.
        ladder: temperatures and sweeps.
        draws: filled.
    """
    terms = stack.basis.shape[0]
    for n in range(groups.counts.shape[0]):
        count = groups.counts[n]
        if count == 0:
            continue
        size = 3 * count + terms
        bounds = Bounds(groups.low[n, :size], groups.high[n, :size], laws.log_flux, laws.min_separation)
        noise = Noise(groups.variance[n], groups.inverse_gain[n], laws.before_rounding)
        starts = groups.starts[n, : groups.number[n], :size].copy()
        least_square = _admit(starts, count, bounds)
        posterior = pose(bounds, least_square, laws.polynomials, cut(stack, n, groups.regions[n]), noise)
        draws.kept[n], draws.quality[n] = temper(call, posterior, starts, ladder, draws.theta[n], draws.value[n])
