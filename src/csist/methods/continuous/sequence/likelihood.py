"""The likelihood of a group in all frames, for chains that step together.

The flux of target k in frame t is F_k (1 + s e_kt) with normal e_kt (scintillation). It enters linearly, so e_kt is
integrated out exactly: with weights W, responses P and D = (s F)^2 the frame's log likelihood is
-1/2 [r^T W r - b^T S^-1 b + log det S], r = z - P F, b = D^1/2 P^T W r, S = 1 + D^1/2 P^T W P D^1/2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import int64, types

from csist._compiled import calling, fused, inner, linked
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

AWAY_PX = -1000.0
"""Place of a target that is not there, in px from a patch."""
LOGARITHM_FRAMES = 4
"""Frames whose determinants are multiplied before the logarithm is taken."""


@inner
def lanes_of(k: int) -> Any:
    """Where the chains of target k are in an array that holds those of all targets one after the other."""
    return slice(k * LANES, (k + 1) * LANES)


@fused
def add_product(one: SingleArray, two: SingleArray, out: SingleArray) -> None:
    """Add the product of two rows of chains to a third."""
    for chain in range(LANES):
        out[chain] += one[chain] * two[chain]


@fused
def subtract_product(one: SingleArray, two: SingleArray, out: SingleArray) -> None:
    """Subtract the product of two rows of chains from a third."""
    for chain in range(LANES):
        out[chain] -= one[chain] * two[chain]


@fused
def fill_fluxes(posterior: PathPosterior, state: SingleArray, scratch: PathScratch) -> None:
    """Fill `scratch.flux` (targets, chains) with the mean fluxes in counts."""
    for k in range(posterior.targets):
        values, out = state[first_of(posterior.law, k) + 2 * posterior.law.own], scratch.flux[k]
        for chain in range(LANES):
            out[chain] = math.exp(values[chain]) if posterior.law.log_flux else values[chain]


@fused
def fill_positions(law: MotionLaw, state: SingleArray, count: int, t: int, position: SingleArray) -> None:
    """Fill `position` (2, targets * chains) with x and y of all targets in frame t."""
    for axis in range(2):
        for k in range(count):
            first = first_of(law, k)
            out = position[axis, k * LANES : (k + 1) * LANES]
            out[:] = np.float32(0.0)
            for m in range(law.own):
                factor, values = law.basis[m, t], state[first + 2 * m + axis]
                for chain in range(LANES):
                    out[chain] += factor * values[chain]
            for m in range(1, law.common):
                factor, values = law.basis[m, t], state[2 * (m - 1) + axis]
                for chain in range(LANES):
                    out[chain] += factor * values[chain]


@fused
def _add_responses(count: int, scratch: PathScratch, slopes: Any) -> None:
    """Add one product of profiles to `scratch.response`; its derivatives by x and y too where `slopes` is 1."""
    side, response, profiles = scratch.profiles.shape[1], scratch.response, scratch.profiles
    for k in range(count):
        lanes = slice(k * LANES, (k + 1) * LANES)
        for i in range(side):
            along_y, slope_y = profiles[0, i, lanes], profiles[2, i, lanes]
            for j in range(side):
                along_x, slope_x = profiles[1, j, lanes], profiles[3, j, lanes]
                out = response[k, i, j]
                for chain in range(LANES):
                    out[chain] += along_y[chain] * along_x[chain]
                if slopes > 0:
                    by_x, by_y = response[count + k, i, j], response[2 * count + k, i, j]
                    for chain in range(LANES):
                        by_x[chain] += along_y[chain] * slope_x[chain]
                        by_y[chain] += slope_y[chain] * along_x[chain]


@fused
def fill_places(posterior: PathPosterior, state: SingleArray, t: int, scratch: PathScratch) -> None:
    """Fill `scratch.position` with x and y of all targets in frame t, in px from the first pixel of its patch.

    A target that is not there is put where no light of it reaches the patch.
    """
    fill_positions(posterior.law, state, posterior.targets, t, scratch.position)
    for axis in range(2):
        row, start = scratch.position[axis], np.float32(posterior.film.origin[t, 1 - axis])
        for j in range(row.shape[0]):
            row[j] -= start
    for k in range(posterior.targets):
        if posterior.present[k, t] == np.float32(0.0):
            scratch.position[:, k * LANES : (k + 1) * LANES] = np.float32(AWAY_PX)


@fused
def fill_profiles_at(posterior: PathPosterior, rank: int, kinds: Any, scratch: PathScratch) -> None:
    """Fill `scratch.profiles` along y and x at `scratch.position`; `kinds` as int64: 4 for their slopes too, else 2."""
    for n in range(kinds):
        axis = n % 2  # 0 is y here
        fill_profile(
            posterior.polynomials[n // 2, axis, rank], scratch.position[1 - axis], -1, scratch, scratch.profiles[n]
        )


@fused
def fill_responses(posterior: PathPosterior, slopes: Any, scratch: PathScratch) -> None:
    """Fill `scratch.response` with each target's image of unit flux at `scratch.position`.

    Args:
        posterior: what is sampled.
        slopes: as int64: 1 for the derivatives by x and y too, in the rows after the responses; else 0.
        scratch: arrays to work in.
    """
    count = posterior.targets
    scratch.response[: count * (1 + 2 * slopes)] = np.float32(0.0)
    for rank in range(posterior.polynomials.shape[2]):
        fill_profiles_at(posterior, rank, 2 + 2 * slopes, scratch)
        _add_responses(count, scratch, slopes)


@inner
def is_separable(posterior: PathPosterior, t: int) -> bool:
    """Whether all sums over the pixels of frame t are products of sums over rows and over columns."""
    return bool(posterior.film.even[t] > np.float32(0.0) and posterior.polynomials.shape[2] == 1)


@fused
def _add_pixels(posterior: PathPosterior, t: int, scratch: PathScratch, value: SingleArray) -> None:
    """Add -1/2 r^T W r of frame t to `value`; fill `scratch.gram` with P^T W P and `scratch.slope` with P^T W r."""
    film, count, flux = posterior.film, posterior.targets, scratch.flux
    side, response, rest, weighted = film.data.shape[1], scratch.response, scratch.rest, scratch.weighted
    flickers = posterior.law.scintillation > 0.0
    scratch.gram[:] = np.float32(0.0)
    scratch.slope[:] = np.float32(0.0)
    for i in range(side):
        for j in range(side):
            w = film.weight[t, i, j]
            if w == np.float32(0.0):
                continue
            rest[:] = film.data[t, i, j]
            for k in range(count):
                light, f = response[k, i, j], flux[k]
                for chain in range(LANES):
                    rest[chain] -= light[chain] * f[chain]
            half = np.float32(-0.5) * w
            for chain in range(LANES):
                value[chain] += half * rest[chain] * rest[chain]
            if flickers:
                for k in range(count):
                    light, out = response[k, i, j], scratch.slope[k]
                    for chain in range(LANES):
                        weighted[chain] = w * light[chain]
                        out[chain] += weighted[chain] * rest[chain]
                    for other in range(k + 1):
                        out, light = scratch.gram[k, other], response[other, i, j]
                        for chain in range(LANES):
                            out[chain] += weighted[chain] * light[chain]


@fused
def _add_rows(posterior: PathPosterior, t: int, scratch: PathScratch, value: SingleArray) -> None:
    """As `_add_pixels` without `scratch.gram`, where `is_separable`: sums along a row first."""
    film, count, profiles, along = posterior.film, posterior.targets, scratch.profiles, scratch.along
    scratch.square[:] = np.float32(0.0)
    scratch.slope[:] = np.float32(0.0)
    for i in range(film.inside[t, 0], film.inside[t, 1]):
        along[:] = np.float32(0.0)
        for k in range(count):
            scratch.lit[k] = np.float32(0.0)
            add_product(profiles[0, i, lanes_of(k)], scratch.flux[k], scratch.lit[k])
        for j in range(film.inside[t, 2], film.inside[t, 3]):
            scratch.rest[:] = film.data[t, i, j]
            for k in range(count):
                subtract_product(scratch.lit[k], profiles[1, j, lanes_of(k)], scratch.rest)
            add_product(scratch.rest, scratch.rest, scratch.square)
            if posterior.law.scintillation > 0.0:
                for k in range(count):
                    add_product(scratch.rest, profiles[1, j, lanes_of(k)], along[k])
        for k in range(count):
            add_product(profiles[0, i, lanes_of(k)], along[k], scratch.slope[k])
    w = film.even[t]
    for chain in range(LANES):
        value[chain] -= np.float32(0.5) * w * scratch.square[chain]
    for k in range(count):
        scratch.slope[k] *= w


@fused
def fill_overlaps(posterior: PathPosterior, t: int, kinds: Any, scratch: PathScratch) -> None:
    """Fill the lower triangles of `scratch.overlaps` (2, rows, rows, chains): sums of products of profiles.

    Args:
        posterior: what is sampled.
        t: the frame, which `is_separable`.
        kinds: as int64: 2 for the slopes too, in the rows after the profiles; else 1.
        scratch: its `profiles` are read.
    """
    count, inside, profiles = posterior.targets, posterior.film.inside, scratch.profiles
    for axis in range(2):
        for a in range(kinds * count):
            for b in range(a + 1):
                out, row, column = scratch.overlaps[axis, a, b], axis + 2 * (a // count), axis + 2 * (b // count)
                out[:] = np.float32(0.0)
                for i in range(inside[t, 2 * axis], inside[t, 2 * axis + 1]):
                    add_product(profiles[row, i, lanes_of(a % count)], profiles[column, i, lanes_of(b % count)], out)


@fused
def _fill_gram(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """Fill `scratch.gram` with P^T W P of frame t, which `is_separable`."""
    w = posterior.film.even[t]
    fill_overlaps(posterior, t, int64(1), scratch)
    for k in range(posterior.targets):
        for other in range(k + 1):
            out, one, two = scratch.gram[k, other], scratch.overlaps[0, k, other], scratch.overlaps[1, k, other]
            for chain in range(LANES):
                out[chain] = w * one[chain] * two[chain]


@fused
def factorise_flicker(count: int, scintillation: float, scratch: PathScratch) -> None:
    """Replace the lower triangle of `scratch.gram` by the Cholesky factor of S = 1 + D^1/2 P^T W P D^1/2."""
    gram, flux, square = scratch.gram, scratch.flux, np.float32(scintillation * scintillation)
    for k in range(count):
        for other in range(k + 1):
            total, f, g = gram[k, other], flux[k], flux[other]
            for chain in range(LANES):
                total[chain] *= square * f[chain] * g[chain]
        diagonal = gram[k, k]
        for chain in range(LANES):
            diagonal[chain] += np.float32(1.0)
    factorise(gram, scratch.ones)


@fused
def _add_flicker(posterior: PathPosterior, scratch: PathScratch, value: SingleArray) -> None:
    """Add 1/2 b^T S^-1 b to `value`; multiply `scratch.volume` by the root of det S."""
    count, gram, slope, flux = posterior.targets, scratch.gram, scratch.slope, scratch.flux
    share, volume = np.float32(posterior.law.scintillation), scratch.volume
    factorise_flicker(count, posterior.law.scintillation, scratch)
    for k in range(count):
        b, f, pivot = slope[k], flux[k], gram[k, k]
        for chain in range(LANES):
            b[chain] *= share * f[chain]
        for other in range(k):
            one, two = gram[k, other], slope[other]
            for chain in range(LANES):
                b[chain] -= one[chain] * two[chain]
        for chain in range(LANES):
            b[chain] /= pivot[chain]
            value[chain] += np.float32(0.5) * b[chain] * b[chain]
            volume[chain] *= pivot[chain]


@linked(types.none(PATH_POSTERIOR, SINGLE_MATRIX, PATH_SCRATCH, SINGLE_VECTOR))
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
    value[:] = np.float32(0.0)
    frames, flickers = posterior.film.data.shape[0], posterior.law.scintillation > 0.0
    scratch.volume[:] = 1.0
    fill_fluxes(posterior, state, scratch)
    for t in range(frames):
        fill_places(posterior, state, t, scratch)
        if is_separable(posterior, t):
            fill_profiles_at(posterior, 0, int64(2), scratch)
            _add_rows(posterior, t, scratch, value)
            if flickers:
                _fill_gram(posterior, t, scratch)
        else:
            fill_responses(posterior, int64(0), scratch)
            _add_pixels(posterior, t, scratch, value)
        if flickers:
            _add_flicker(posterior, scratch, value)
            if t % LOGARITHM_FRAMES == LOGARITHM_FRAMES - 1 or t == frames - 1:
                for chain in range(LANES):
                    value[chain] -= math.log(scratch.volume[chain])
                scratch.volume[:] = 1.0


call_path_log_likelihoods = calling(path_log_likelihoods)
