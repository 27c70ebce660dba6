"""Metropolis steps of chains that step together, scaled by the local Fisher information."""

from __future__ import annotations

import math

import numpy as np
from numba import int64, types

from csist._compiled import calling, fused, inlined, linked
from csist._vectors import WIDTH, put, spread, take, where_above
from csist.methods.continuous.chain_likelihood import (
    KERNELS,
    Kernels,
    call_log_likelihoods,
    call_render,
    fill_log_likelihoods,
    fill_profiles,
)
from csist.methods.continuous.lanes import adopt, chance_of, factorise, invert, propose
from csist.methods.continuous.likelihood import pixel_terms
from csist.methods.continuous.model import SINGLE_VECTOR, SingleArray
from csist.methods.continuous.population import CHAINS, POSTERIOR, SCRATCH, Chains, Posterior, Scratch, uniform

UNIFORMS_A_NORMAL = 4
"""Uniform numbers whose sum is taken as a normal one."""
NORMAL_SCALE = math.sqrt(12.0 / UNIFORMS_A_NORMAL)
"""Of that sum, for a variance of 1."""
SCATTER_TRIES, SCATTER_SIGMAS = 4, 3.0
"""Draws of Laplace's approximation that a chain is offered, and how unlikely the one that it takes may be."""


@inlined
def _fill_curvatures(posterior: Posterior, scratch: Scratch) -> None:
    """Fill `scratch.curvature` with the expected -d2 log p / d mu2 of each pixel of `scratch.image`."""
    h, w, chains = scratch.image.shape
    if posterior.is_plain:
        for i in range(h):
            for j in range(w):
                scratch.curvature[i, j] = np.float32(posterior.window.weight[i, j] / posterior.noise.variance)
        return
    for chain in range(chains):
        for i in range(h):
            for j in range(w):
                scratch.one[i, j] = scratch.image[i, j, chain]
        pixel_terms(scratch.one, posterior.window, posterior.noise, scratch.slope, scratch.bend)
        for i in range(h):
            for j in range(w):
                scratch.curvature[i, j, chain] = scratch.bend[i, j]


@inlined
def _add_derivatives(posterior: Posterior, part: int, k: int, scratch: Scratch) -> None:
    """Add the derivatives of one product of profiles of target k to `scratch.jacobian`."""
    jacobian, profiles, count = scratch.jacobian, scratch.profiles, posterior.targets
    f = take(scratch.flux, (k, part))
    for i in range(jacobian.shape[1]):
        along_y, slope_y = take(profiles, (0, i, k, 0)), take(profiles, (2, i, k, 0))
        for j in range(jacobian.shape[2]):
            along_x, slope_x = take(profiles, (1, j, k, 0)), take(profiles, (3, j, k, 0))
            by_x, by_y, by_f = (k, i, j, part), (count + k, i, j, part), (2 * count + k, i, j, part)
            light = along_y * along_x
            put(jacobian, by_x, take(jacobian, by_x) + f * along_y * slope_x)
            put(jacobian, by_y, take(jacobian, by_y) + f * slope_y * along_x)
            put(jacobian, by_f, take(jacobian, by_f) + (f * light if posterior.log_flux else light))


@inlined
def _fill_jacobian(posterior: Posterior, state: SingleArray, scratch: Scratch) -> None:
    """Fill `scratch.jacobian` (size, h, w, chains) with the derivatives of the image by the chains' coordinates.

    `scratch.flux` holds the fluxes, from `render_chains`.
    """
    jacobian = scratch.jacobian
    size, h, w, chains = jacobian.shape
    count = posterior.targets
    jacobian[:] = np.float32(0.0)
    for part in range(0, chains, WIDTH):
        for rank in range(posterior.polynomials.shape[2]):
            fill_profiles(posterior, state, part, rank, int64(4), scratch)
            for k in range(count):
                _add_derivatives(posterior, part, k, scratch)
    for term in range(size - 3 * count):
        for i in range(h):
            for j in range(w):
                jacobian[3 * count + term, i, j] = posterior.basis[term, i, j]


@inlined
def _fill_information(posterior: Posterior, power: SingleArray, floor: SingleArray, scratch: Scratch) -> None:
    """Fill the lower triangle of `scratch.information` with J^T diag(curvature) J power + floor / width^2.

    The last term is kept in `scratch.trial`.
    """
    information, weighted = scratch.information, scratch.weighted
    size, h, w, chains = scratch.jacobian.shape
    flat = scratch.jacobian.reshape(size, h * w, chains)
    bend = scratch.curvature.reshape(h * w, chains)
    for part in range(0, chains, WIDTH):
        for a in range(size):
            for p in range(h * w):
                put(weighted, (p, 0), take(flat, (a, p, part)) * take(bend, (p, part)))
            for b in range(a + 1):
                total = spread(0.0)
                for p in range(h * w):
                    total += take(weighted, (p, 0)) * take(flat, (b, p, part))
                put(information, (a, b, part), total * take(power, (part,)))
            width = posterior.high[a] - posterior.low[a]
            least = take(floor, (part,)) / (width * width)
            put(scratch.trial, (a, part), least)
            put(information, (a, a, part), take(information, (a, a, part)) + least)


@linked(types.none(KERNELS, POSTERIOR, CHAINS, SINGLE_VECTOR, SCRATCH), is_lean=True)
def shape_proposals(call: Kernels, posterior: Posterior, chains: Chains, floor: SingleArray, scratch: Scratch) -> None:
    """Fill `chains.root` with the inverse Cholesky factor of the Fisher information, tempered, at each chain's state.

    Before, floor / width^2 is added. With PRIOR_INFORMATION, that of a uniform prior, no step is much longer than
    the prior; with more, steps are short in the directions that the image leaves open, where long ones would leave
    a curved valley.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        chains: their `root` is filled.
        floor: (chains,).
        scratch: arrays to work in.
    """
    call_render(call.render, posterior, chains.state, scratch)
    _fill_curvatures(posterior, scratch)
    _fill_jacobian(posterior, chains.state, scratch)
    _fill_information(posterior, chains.power, floor, scratch)
    factorise(scratch.information, scratch.trial)
    invert(scratch.information, chains.root)


@fused
def _mark_allowed(posterior: Posterior, state: SingleArray, allowed: SingleArray) -> None:
    """Fill `allowed` (chains,): 1 where all parameters are within bounds and all targets far enough apart, else 0."""
    size, chains = state.shape
    count, least_square = posterior.targets, np.float32(posterior.least_square)
    allowed[:] = np.float32(1.0)
    for p in range(size):
        row, bottom, top = state[p], posterior.low[p], posterior.high[p]
        for chain in range(chains):
            allowed[chain] = allowed[chain] if (row[chain] >= bottom) & (row[chain] <= top) else np.float32(0.0)
    for a in range(count):
        for b in range(a):
            xa, xb, ya, yb = state[a], state[b], state[count + a], state[count + b]
            for chain in range(chains):
                dx, dy = xa[chain] - xb[chain], ya[chain] - yb[chain]
                allowed[chain] = allowed[chain] if dx * dx + dy * dy >= least_square else np.float32(0.0)


@fused
def _fold(posterior: Posterior, state: SingleArray) -> None:
    """Reflect parameters beyond a bound back inside; those further out than the prior is wide stay outside."""
    size, chains = state.shape
    for p in range(size):
        row, bottom, top = state[p], posterior.low[p], posterior.high[p]
        for chain in range(chains):
            inside = bottom + abs(row[chain] - bottom)
            row[chain] = top - abs(top - inside)


@linked(types.none(POSTERIOR, CHAINS, SCRATCH), is_lean=True)
def move(posterior: Posterior, chains: Chains, scratch: Scratch) -> None:
    """One Metropolis step of every chain; `scratch.accepted` is 1 where it was accepted, else 0.

    Args:
        posterior: what is sampled.
        chains: their `state`, `value` and `random` are changed.
        scratch: arrays to work in.
    """
    state, value = chains.state, chains.value
    size, number = state.shape
    trial, draw, accepted = scratch.trial, scratch.draw, scratch.accepted
    propose(state, chains.root, chains.scale, chains.random, trial)
    _mark_allowed(posterior, trial, accepted)
    fill_log_likelihoods(posterior, trial, scratch, scratch.trial_value)
    uniform(chains.random, draw)
    for part in range(0, number, WIDTH):
        at, drawn = (part,), take(draw, (part,))
        gain = (take(scratch.trial_value, at) - take(value, at)) * take(chains.power, at)
        chance = chance_of(gain) * take(accepted, at)
        put(accepted, at, where_above(chance, drawn, spread(1.0), spread(0.0)))
        adopt(value, scratch.trial_value, at, chance, drawn)
        for p in range(size):
            adopt(state, trial, (p, part), chance, drawn)


@inlined
def scatter(call: Kernels, posterior: Posterior, chains: Chains, scratch: Scratch) -> None:
    """Move chains from the mode where they start to draws from Laplace's approximation around it.

    Few steps from a mode do not reach the width of the posterior in all its directions, those of the background
    terms among them. Draws are reflected at the bounds: a mode there, a faint target's in the corner of a window for
    one, would have most of them outside and hold all parameters of the group in place. A draw whose likelihood is lower
    than such a draw's can be is drawn again; where the posterior is far from normal, chains stay.

    Args:
        call: addresses of kernels.
        posterior: what is sampled.
        chains: at their starts, with `root` and `value` filled.
        scratch: arrays to work in.
    """
    state, value = chains.state, chains.value
    size, number = state.shape
    trial, allowed, draw = scratch.trial, scratch.accepted, np.empty(number, np.float32)
    lowest = -0.5 * size - SCATTER_SIGMAS * math.sqrt(0.5 * size)
    moved = np.zeros(number, np.bool_)
    for _ in range(SCATTER_TRIES):
        for p in range(size):
            for chain in range(number):
                trial[p, chain] = state[p, chain]
        for i in range(size):
            draw[:] = np.float32(-0.5 * UNIFORMS_A_NORMAL)
            for _ in range(UNIFORMS_A_NORMAL):
                uniform(chains.random, scratch.draw)
                for chain in range(number):
                    draw[chain] += scratch.draw[chain]
            for c in range(i + 1):
                for chain in range(number):
                    trial[c, chain] += np.float32(NORMAL_SCALE) * draw[chain] * chains.root[i, c, chain]
        _fold(posterior, trial)
        _mark_allowed(posterior, trial, allowed)
        call_log_likelihoods(call.log_likelihoods, posterior, trial, scratch, scratch.trial_value)
        for chain in range(number):
            gain = (scratch.trial_value[chain] - value[chain]) * chains.power[chain]
            if not moved[chain] and allowed[chain] > np.float32(0.0) and gain > lowest:
                moved[chain] = True
                value[chain] = scratch.trial_value[chain]
                for p in range(size):
                    state[p, chain] = trial[p, chain]


call_shape_proposals, call_move = calling(shape_proposals), calling(move)
