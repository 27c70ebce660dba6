"""The likelihood of a group in all frames, for chains that step together.

The flux of target k in frame t is F_k (1 + s e_kt) with normal e_kt (scintillation). It enters linearly, so e_kt is
integrated out exactly: with weights W, responses P and D = (s F)^2 the frame's log likelihood is
-1/2 [r^T W r - b^T S^-1 b + log det S], r = z - P F, b = D^1/2 P^T W r, S = 1 + D^1/2 P^T W P D^1/2.

Kernels work on `WIDTH` chains at a time, the first of which is `part`; so many have room in `PathScratch`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import int64, types

from csist._compiled import calling, fused, lean, linked
from csist._vectors import WIDTH, Row, put, spread, take
from csist.methods.continuous.chain_likelihood import fill_profile
from csist.methods.continuous.lanes import factorise
from csist.methods.continuous.model import SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.sequence.model import (
    LANES,
    PATH_POSTERIOR,
    PATH_SCRATCH,
    MotionLaw,
    PathPosterior,
    PathScratch,
    first_of,
)

LOGARITHM_FRAMES = 4
"""Frames whose determinants are multiplied before the logarithm is taken."""


@fused
def fill_fluxes(posterior: PathPosterior, state: SingleArray, part: int, scratch: PathScratch) -> None:
    """Fill `scratch.flux` (targets, chains) with the mean fluxes in counts."""
    for k in range(posterior.targets):
        p, flux = first_of(posterior.law, k) + 2 * posterior.law.own, scratch.flux[k]
        if posterior.law.log_flux:
            for chain in range(WIDTH):
                flux[chain] = math.exp(state[p, part + chain])
        else:
            put(flux, (0,), take(state, (p, part)))


@fused
def place_of(law: MotionLaw, state: SingleArray, part: int, k: int, axis: int, t: int) -> Row:
    """Column (`axis` 0) or row (1) of target k in frame t, in px."""
    first = first_of(law, k) + axis
    place = law.basis[0, t] * take(state, (first, part))
    for m in range(1, law.own):
        place += law.basis[m, t] * take(state, (first + 2 * m, part))
    for m in range(1, law.common):
        place += law.basis[m, t] * take(state, (2 * (m - 1) + axis, part))
    return place


@fused
def fill_profiles(
    posterior: PathPosterior, state: SingleArray, at: tuple[int, int], rank: int, kinds: Any, scratch: PathScratch
) -> None:
    """Fill `scratch.profiles` (4, side, targets, chains) of frame t; a target that is not there has none.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        at: first chain, and frame.
        rank: of the PSF's products.
        kinds: as int64: 2 for the values along y and x, 4 for their slopes too.
        scratch: arrays to work in.
    """
    part, t = at
    for n in range(kinds):
        axis, profiles = n % 2, scratch.profiles[n]  # 0 is y here
        polynomial, origin = posterior.polynomials[n // 2, axis, rank], posterior.film.origin[t, axis]
        span = posterior.film.inside[t, 2 * axis], posterior.film.inside[t, 2 * axis + 1]
        for k in range(posterior.targets):
            if posterior.present[k, t] == np.float32(0.0):
                profiles[:, k] = np.float32(0.0)
                continue
            place = place_of(posterior.law, state, part, k, 1 - axis, t) - origin
            fill_profile(polynomial, place, span, k, scratch.scattered, profiles)


@fused
def fill_responses(
    posterior: PathPosterior, state: SingleArray, part: int, t: int, slopes: Any, scratch: PathScratch
) -> None:
    """Fill `scratch.response` with each target's image of unit flux in frame t.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        part: first chain.
        t: frame.
        slopes: as int64: 1 for the derivatives by x and y too, in the rows after the responses; else 0.
        scratch: arrays to work in.
    """
    count, response, profiles, inside = posterior.targets, scratch.response, scratch.profiles, posterior.film.inside[t]
    response[: count * (1 + 2 * slopes)] = np.float32(0.0)
    for rank in range(posterior.polynomials.shape[2]):
        fill_profiles(posterior, state, (part, t), rank, 2 + 2 * slopes, scratch)
        for k in range(count):
            for i in range(inside[0], inside[1]):
                along_y = take(profiles, (0, i, k, 0))
                for j in range(inside[2], inside[3]):
                    along_x = take(profiles, (1, j, k, 0))
                    put(response, (k, i, j, 0), take(response, (k, i, j, 0)) + along_y * along_x)
                    if slopes > 0:
                        by_x, by_y = (count + k, i, j, 0), (2 * count + k, i, j, 0)
                        put(response, by_x, take(response, by_x) + along_y * take(profiles, (3, j, k, 0)))
                        put(response, by_y, take(response, by_y) + take(profiles, (2, i, k, 0)) * along_x)


@lean
def is_separable(posterior: PathPosterior, t: int) -> bool:
    """Whether all sums over the pixels of frame t are products of sums over rows and over columns."""
    return bool(posterior.film.even[t] > np.float32(0.0) and posterior.polynomials.shape[2] == 1)


@fused
def _sum_pixels(posterior: PathPosterior, t: int, scratch: PathScratch) -> Row:
    """-1/2 r^T W r of frame t; fills `scratch.gram` with P^T W P and `scratch.slope` with P^T W r."""
    film, count, response = posterior.film, posterior.targets, scratch.response
    gram, slope, inside = scratch.gram, scratch.slope, film.inside[t]
    gram[:] = np.float32(0.0)
    slope[:] = np.float32(0.0)
    total = spread(0.0)
    for i in range(inside[0], inside[1]):
        for j in range(inside[2], inside[3]):
            w = film.weight[t, i, j]
            if w == np.float32(0.0):
                continue
            rest = spread(film.data[t, i, j])
            for k in range(count):
                rest -= take(response, (k, i, j, 0)) * take(scratch.flux, (k, 0))
            total += w * rest * rest
            if posterior.law.scintillation > 0.0:
                for k in range(count):
                    weighted = w * take(response, (k, i, j, 0))
                    put(slope, (k, 0), take(slope, (k, 0)) + weighted * rest)
                    for other in range(k + 1):
                        light = take(response, (other, i, j, 0))
                        put(gram, (k, other, 0), take(gram, (k, other, 0)) + weighted * light)
    return np.float32(-0.5) * total


@fused
def _sum_rows(posterior: PathPosterior, t: int, scratch: PathScratch) -> Row:
    """As `_sum_pixels` without `scratch.gram`, where `is_separable`: sums along a row first."""
    film, count, profiles, lit, along = posterior.film, posterior.targets, scratch.profiles, scratch.lit, scratch.along
    slope, w = scratch.slope, film.even[t]
    slope[:] = np.float32(0.0)
    total = spread(0.0)
    for i in range(film.inside[t, 0], film.inside[t, 1]):
        along[:] = np.float32(0.0)
        for k in range(count):
            put(lit, (k, 0), take(profiles, (0, i, k, 0)) * take(scratch.flux, (k, 0)))
        for j in range(film.inside[t, 2], film.inside[t, 3]):
            rest = spread(film.data[t, i, j])
            for k in range(count):
                rest -= take(lit, (k, 0)) * take(profiles, (1, j, k, 0))
            total += rest * rest
            if posterior.law.scintillation > 0.0:
                for k in range(count):
                    put(along, (k, 0), take(along, (k, 0)) + rest * take(profiles, (1, j, k, 0)))
        for k in range(count):
            put(slope, (k, 0), take(slope, (k, 0)) + w * take(profiles, (0, i, k, 0)) * take(along, (k, 0)))
    return np.float32(-0.5) * w * total


@fused
def fill_overlaps(posterior: PathPosterior, t: int, kinds: Any, scratch: PathScratch) -> None:
    """Fill the lower triangles of `scratch.overlaps` (2, rows, rows, chains): sums of products of profiles.

    Args:
        posterior: what is sampled.
        t: the frame, which `is_separable`.
        kinds: as int64: 2 for the slopes too, in the rows after the profiles; else 1.
        scratch: its `profiles` are read.
    """
    count, inside, profiles = posterior.targets, posterior.film.inside[t], scratch.profiles
    for axis in range(2):
        for a in range(kinds * count):
            for b in range(a + 1):
                kind, other, total = axis + 2 * (a // count), axis + 2 * (b // count), spread(0.0)
                for i in range(inside[2 * axis], inside[2 * axis + 1]):
                    total += take(profiles, (kind, i, a % count, 0)) * take(profiles, (other, i, b % count, 0))
                put(scratch.overlaps, (axis, a, b, 0), total)


@fused
def _fill_gram(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """Fill `scratch.gram` with P^T W P of frame t, which `is_separable`."""
    w, overlaps = posterior.film.even[t], scratch.overlaps
    fill_overlaps(posterior, t, int64(1), scratch)
    for k in range(posterior.targets):
        for other in range(k + 1):
            both = take(overlaps, (0, k, other, 0)) * take(overlaps, (1, k, other, 0))
            put(scratch.gram, (k, other, 0), w * both)


@fused
def factorise_flicker(count: int, scintillation: float, scratch: PathScratch) -> None:
    """Replace the lower triangle of `scratch.gram` by the Cholesky factor of S = 1 + D^1/2 P^T W P D^1/2."""
    gram, flux, square = scratch.gram, scratch.flux, np.float32(scintillation * scintillation)
    for k in range(count):
        for other in range(k + 1):
            hidden = square * take(flux, (k, 0)) * take(flux, (other, 0)) * take(gram, (k, other, 0))
            put(gram, (k, other, 0), hidden + np.float32(1.0) if other == k else hidden)
    factorise(gram, scratch.ones)


@fused
def _sum_flicker(posterior: PathPosterior, scratch: PathScratch) -> Row:
    """1/2 b^T S^-1 b; multiplies `scratch.volume` by the root of det S."""
    gram, slope, volume, share = scratch.gram, scratch.slope, scratch.volume, np.float32(posterior.law.scintillation)
    factorise_flicker(posterior.targets, posterior.law.scintillation, scratch)
    total = spread(0.0)
    for k in range(posterior.targets):
        b = share * take(slope, (k, 0)) * take(scratch.flux, (k, 0))
        for other in range(k):
            b -= take(gram, (k, other, 0)) * take(slope, (other, 0))
        b /= take(gram, (k, k, 0))
        put(slope, (k, 0), b)
        total += b * b
        for chain in range(WIDTH):
            volume[chain] *= gram[k, k, chain]
    return np.float32(0.5) * total


@fused
def _fill_part(
    posterior: PathPosterior, state: SingleArray, part: int, scratch: PathScratch, value: SingleArray
) -> None:
    """`path_log_likelihoods` of `WIDTH` chains."""
    frames, flickers, logarithm, total = posterior.film.data.shape[0], posterior.law.scintillation > 0.0, 0, spread(0.0)
    scratch.volume[:] = 1.0
    put(value, (part,), total)
    fill_fluxes(posterior, state, part, scratch)
    for t in range(frames):
        if is_separable(posterior, t):
            fill_profiles(posterior, state, (part, t), 0, int64(2), scratch)
            total += _sum_rows(posterior, t, scratch)
            if flickers:
                _fill_gram(posterior, t, scratch)
        else:
            fill_responses(posterior, state, part, t, int64(0), scratch)
            total += _sum_pixels(posterior, t, scratch)
        if flickers:
            total += _sum_flicker(posterior, scratch)
            logarithm += 1
            if logarithm == LOGARITHM_FRAMES or t == frames - 1:
                for chain in range(WIDTH):
                    value[part + chain] -= math.log(scratch.volume[chain])
                scratch.volume[:] = 1.0
                logarithm = 0
    put(value, (part,), take(value, (part,)) + total)


@linked(types.none(PATH_POSTERIOR, SINGLE_MATRIX, PATH_SCRATCH, SINGLE_VECTOR), is_lean=True)
def path_log_likelihoods(
    posterior: PathPosterior, state: SingleArray, scratch: PathScratch, value: SingleArray
) -> None:
    """Fill `value` (chains,) with the log likelihood of each chain's parameters `state` (size, chains).

    Args:
        posterior: what is sampled.
        state: (size, chains).
        scratch: arrays to work in.
        value: filled; a constant that depends on the data alone is left out.
    """
    for part in range(0, LANES, WIDTH):
        _fill_part(posterior, state, part, scratch, value)


call_path_log_likelihoods = calling(path_log_likelihoods)
