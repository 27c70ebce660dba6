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

from csist._compiled import calling, fused, linked
from csist.methods.continuous.chain_likelihood import fill_profile
from csist.methods.continuous.model import SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.sequence_model import (
    LANES,
    PATH_POSTERIOR,
    PATH_SCRATCH,
    MotionLaw,
    PathPosterior,
    PathScratch,
    first_of,
)


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
def fill_responses(posterior: PathPosterior, state: SingleArray, t: int, slopes: Any, scratch: PathScratch) -> None:
    """Fill `scratch.response` with each target's image of unit flux in frame t.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        t: the frame.
        slopes: as int64: 1 for the derivatives by x and y too, in the rows after the responses; else 0.
        scratch: arrays to work in.
    """
    law, film, count = posterior.law, posterior.film, posterior.targets
    fill_positions(law, state, count, t, scratch.position)
    for axis in range(2):
        row, start = scratch.position[axis], np.float32(film.origin[t, 1 - axis])
        for j in range(row.shape[0]):
            row[j] -= start
    scratch.response[: count * (1 + 2 * slopes)] = np.float32(0.0)
    for rank in range(posterior.polynomials.shape[2]):
        for n in range(2 + 2 * slopes):
            axis = n % 2  # 0 is y here
            fill_profile(
                posterior.polynomials[n // 2, axis, rank], scratch.position[1 - axis], -1, scratch, scratch.profiles[n]
            )
        _add_responses(count, scratch, slopes)


@fused
def _add_frame(posterior: PathPosterior, t: int, scratch: PathScratch, value: SingleArray) -> None:
    """Add -1/2 r^T W r of frame t to `value`; fill `scratch.gram` with P^T W P and `scratch.slope` with P^T W r."""
    film, count, flux = posterior.film, posterior.targets, scratch.flux
    side, response, rest, weighted = film.data.shape[1], scratch.response, scratch.residual[0, 0], scratch.weighted
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
def factorise_lanes(matrix: SingleArray, least: Any) -> None:
    """Replace the lower triangle of `matrix` (n, n, chains) by its Cholesky factor.

    Args:
        matrix: changed in place.
        least: (n, chains) lower bounds of the pivots' squares: single precision can lose a weak direction.
    """
    for k in range(matrix.shape[0]):
        for other in range(k + 1):
            total, pivot = matrix[k, other], matrix[other, other]
            for m in range(other):
                one, two = matrix[k, m], matrix[other, m]
                for chain in range(LANES):
                    total[chain] -= one[chain] * two[chain]
            if k == other:
                for chain in range(LANES):
                    total[chain] = math.sqrt(max(total[chain], least[k, chain]))
            else:
                for chain in range(LANES):
                    total[chain] /= pivot[chain]


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
    factorise_lanes(gram, scratch.ones)


@fused
def _add_flicker(posterior: PathPosterior, scratch: PathScratch, value: SingleArray) -> None:
    """Add 1/2 (b^T S^-1 b - log det S) to `value`."""
    count, gram, slope, flux = posterior.targets, scratch.gram, scratch.slope, scratch.flux
    share = np.float32(posterior.law.scintillation)
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
            value[chain] += np.float32(0.5) * b[chain] * b[chain] - math.log(pivot[chain])


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
    fill_fluxes(posterior, state, scratch)
    for t in range(posterior.film.data.shape[0]):
        fill_responses(posterior, state, t, int64(0), scratch)
        _add_frame(posterior, t, scratch, value)
        if posterior.law.scintillation > 0.0:
            _add_flicker(posterior, scratch, value)


call_path_log_likelihoods = calling(path_log_likelihoods)
