"""The likelihood of chains that step together: their images and log likelihoods."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import int64, types

from csist._compiled import calling, fused, linked, tuple_type
from csist._vectors import WIDTH, Row, floor_of, largest_of, least_of, put, spread, take, where_equal
from csist.methods.continuous.likelihood import log_likelihood
from csist.methods.continuous.model import SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.population import POSTERIOR, SCRATCH, Posterior, Scratch


class Kernels(NamedTuple):
    """Addresses of the kernels that both samplers call; see `csist.methods.continuous.kernels`."""

    render: int
    log_likelihoods: int
    shape_proposals: int
    move: int
    weigh_by_rounding: int


KERNELS = tuple_type(Kernels, *(int64,) * 5)


@fused
def fill_profile(
    polynomial: SingleArray, place: Row, span: tuple[int, int], k: int, scattered: SingleArray, out: SingleArray
) -> None:
    """Profile, or its derivative, of target k of every chain along one axis.

    A profile that is even or odd, which its middle tells, is evaluated on one side: the other has the same powers.

    Args:
        polynomial: (offsets, powers), lowest power first, of odd degree.
        place: in px from the window's first pixel.
        span: first pixel that is filled, and the one after the last.
        k: target.
        scattered: (offsets, chains) to work in.
        out: (pixels, targets, chains), filled at the target.
    """
    offsets, half, highest, (begin, end) = polynomial.shape[0], polynomial.shape[0] // 2, polynomial.shape[1] - 1, span
    nearest = floor_of(place + np.float32(0.5))
    phase = place - nearest
    square = phase * phase
    # Only profiles that reach these pixels count.
    low, high = max(least_of(nearest), begin - half), min(largest_of(nearest), end - 1 + half)
    first, last = max(0, begin + half - high), min(offsets, end + half - low)
    is_even, is_odd = polynomial[half, 1] == np.float32(0.0), polynomial[half, 0] == np.float32(0.0)
    for o in range(first, last):
        mirrored = 2 * half - o
        if (is_even or is_odd) and first <= mirrored < o:
            continue
        even, odd = spread(polynomial[o, highest - 1]), spread(polynomial[o, highest])
        for power in range(highest - 3, -1, -2):
            even, odd = even * square + polynomial[o, power], odd * square + polynomial[o, power + 1]
        odd = odd * phase
        put(scattered, (o, 0), even + odd)
        if is_even and o < mirrored < last:
            put(scattered, (mirrored, 0), even - odd)
        elif is_odd and o < mirrored < last:
            put(scattered, (mirrored, 0), odd - even)
    for i in range(begin, end):
        value = spread(0.0)
        for pixel in range(max(low, i - half), min(high, i + half) + 1):
            value = where_equal(nearest, pixel, take(scattered, (i - pixel + half, 0)), value)
        put(out, (i, k, 0), value)


@fused
def fill_profiles(posterior: Posterior, state: SingleArray, part: int, rank: int, kinds: Any, scratch: Scratch) -> None:
    """Fill `scratch.profiles` with the profiles of every target of `WIDTH` chains along y and x.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        part: first of these chains.
        rank: of the PSF's products.
        kinds: number of profiles as int64: 2 for values along y and x, 4 for their slopes too.
        scratch: `profiles` (4, side, targets, chains) gets values along y, along x, slopes along y, along x.
    """
    count = posterior.targets
    for n in range(kinds):
        axis = n % 2
        polynomial, size = posterior.polynomials[n // 2, axis, rank], scratch.image.shape[axis]
        for k in range(count):
            place = take(state, ((1 - axis) * count + k, part))
            fill_profile(polynomial, place, (0, size), k, scratch.scattered, scratch.profiles[n])


@fused
def _fill_fluxes(posterior: Posterior, state: SingleArray, flux: SingleArray) -> None:
    """Fill `flux` (targets, chains) with the targets' fluxes in counts."""
    for k in range(posterior.targets):
        values, out = state[2 * posterior.targets + k], flux[k]
        for chain in range(values.shape[0]):
            out[chain] = math.exp(values[chain]) if posterior.log_flux else values[chain]


@fused
def _render_part(posterior: Posterior, state: SingleArray, part: int, is_kept: bool, scratch: Scratch) -> Row:
    """Squared residuals of `WIDTH` chains, times the pixels' weights; `scratch.image` gets their light if `is_kept`."""
    count, image, profiles, lit = posterior.targets, scratch.image, scratch.profiles, scratch.lit
    data, weight, ranks = posterior.window.data, posterior.window.weight, posterior.polynomials.shape[2]
    total = spread(0.0)
    for rank in range(ranks):
        fill_profiles(posterior, state, part, rank, int64(2), scratch)
        for i in range(image.shape[0]):
            for k in range(count):
                put(lit, (k, 0), take(profiles, (0, i, k, 0)) * take(scratch.flux, (k, part)))
            for j in range(image.shape[1]):
                light = spread(0.0) if rank == 0 else take(image, (i, j, part))
                if rank == 0:
                    for term in range(posterior.basis.shape[0]):
                        light += posterior.basis[term, i, j] * take(state, (3 * count + term, part))
                for k in range(count):
                    light += take(lit, (k, 0)) * take(profiles, (1, j, k, 0))
                if is_kept or rank < ranks - 1:
                    put(image, (i, j, part), light)
                else:
                    rest = np.float32(data[i, j]) - light
                    total += np.float32(weight[i, j]) * rest * rest
    return total


@fused
def _fill_image(posterior: Posterior, state: SingleArray, scratch: Scratch) -> None:
    """Fill `scratch.image` (h, w, chains) with what the parameters `state` (size, chains) of each chain expect."""
    _fill_fluxes(posterior, state, scratch.flux)
    for part in range(0, state.shape[1], WIDTH):
        _render_part(posterior, state, part, True, scratch)


@fused
def fill_log_likelihoods(posterior: Posterior, state: SingleArray, scratch: Scratch, value: SingleArray) -> None:
    """Fill `value` (chains,) with the log likelihood of the parameters `state` (size, chains) of each chain."""
    image, noise = scratch.image, posterior.noise
    if posterior.is_plain:
        factor = np.float32(-0.5 / noise.variance)
        _fill_fluxes(posterior, state, scratch.flux)
        for part in range(0, state.shape[1], WIDTH):
            put(value, (part,), factor * _render_part(posterior, state, part, False, scratch))
        return
    _fill_image(posterior, state, scratch)
    for chain in range(image.shape[2]):
        for i in range(image.shape[0]):
            for j in range(image.shape[1]):
                scratch.one[i, j] = image[i, j, chain]
        value[chain] = log_likelihood(scratch.one, posterior.window, noise)


@linked(types.none(POSTERIOR, SINGLE_MATRIX, SCRATCH), is_lean=True)
def render_chains(posterior: Posterior, state: SingleArray, scratch: Scratch) -> None:
    """Fill `scratch.image` (h, w, chains) with what the parameters `state` (size, chains) of each chain expect."""
    _fill_image(posterior, state, scratch)


@linked(types.none(POSTERIOR, SINGLE_MATRIX, SCRATCH, SINGLE_VECTOR), is_lean=True)
def log_likelihoods(posterior: Posterior, state: SingleArray, scratch: Scratch, value: SingleArray) -> None:
    """The same as `fill_log_likelihoods`."""
    fill_log_likelihoods(posterior, state, scratch, value)


call_render, call_log_likelihoods = calling(render_chains), calling(log_likelihoods)
