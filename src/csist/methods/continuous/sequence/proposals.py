"""Prior and Metropolis steps of chains of a group that moves, shaped by the Fisher information of all frames."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, types

from csist._compiled import calling, fused, inner, linked
from csist.methods.continuous.lanes import PRIOR_INFORMATION, accepts, factorise, invert
from csist.methods.continuous.model import SINGLE_CUBE, SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.population import uniform
from csist.methods.continuous.sequence.likelihood import (
    factorise_flicker,
    fill_fluxes,
    fill_overlaps,
    fill_places,
    fill_profiles_at,
    fill_responses,
    is_separable,
)
from csist.methods.continuous.sequence.model import (
    LANES,
    PATH_POSTERIOR,
    PATH_SCRATCH,
    MotionLaw,
    PathPosterior,
    PathScratch,
    Random,
    first_of,
)

DISC_INFORMATION = 4.0
"""Of one coordinate of a point uniform in a disc of radius 1: one over its variance."""


@fused
def fill_log_priors(posterior: PathPosterior, state: SingleArray, prior: SingleArray) -> None:
    """Fill `prior` (chains,) with the log prior of each chain up to a constant, -1e30 where it is zero."""
    law, count = posterior.law, posterior.targets
    for chain in range(LANES):
        prior[chain] = np.float32(_log_prior(law, count, state, chain))


@inner
def _log_prior(law: MotionLaw, count: int, state: SingleArray, chain: int) -> float:
    """The log prior of one chain."""
    total = 0.0
    for m in range(1, law.common):
        x, y = state[2 * m - 2, chain], state[2 * m - 1, chain]
        square = (x * x + y * y) / (law.width[0, m] * law.width[0, m])
        if law.normal[m] > 0.0:
            total -= 0.5 * square
        elif square > 1.0:
            return -1e30
    for k in range(count):
        first = first_of(law, k)
        x, y, flux = state[first, chain], state[first + 1, chain], state[first + 2 * law.own, chain]
        if x < law.area[0] or y < law.area[1] or x > law.area[2] or y > law.area[3]:
            return -1e30
        if flux < law.flux[0] or flux > law.flux[1]:
            return -1e30
        for m in range(1, law.own):
            u, v = state[first + 2 * m, chain], state[first + 2 * m + 1, chain]
            if u * u + v * v > law.width[1, m] * law.width[1, m]:
                return -1e30
        for other in range(k):
            o = first_of(law, other)
            dx, dy = state[o, chain] - x, state[o + 1, chain] - y
            if dx * dx + dy * dy < law.least_square:
                return -1e30
            if law.one_pixel and (
                math.floor(state[o, chain] + 0.5) != math.floor(x + 0.5)
                or math.floor(state[o + 1, chain] + 0.5) != math.floor(y + 0.5)
            ):
                return -1e30
    return total


@fused
def _fill_frame_information(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """Fill the lower triangle of `scratch.frame` with the information of x, y and flux of all targets in frame t.

    Rows are flux_1, ..., x_1, ..., y_1, ...; `scratch.response` holds responses and slopes, already times the flux
    where the derivative is by a position or by the logarithm of the flux.
    """
    film, response, frame = posterior.film, scratch.response, scratch.frame
    side, rows, weighted = film.data.shape[1], 3 * posterior.targets, scratch.weighted
    frame[:] = np.float32(0.0)
    for i in range(side):
        for j in range(side):
            w = film.weight[t, i, j]
            if w == np.float32(0.0):
                continue
            for a in range(rows):
                one = response[a, i, j]
                for chain in range(LANES):
                    weighted[chain] = w * one[chain]
                for b in range(a + 1):
                    out, two = frame[a, b], response[b, i, j]
                    for chain in range(LANES):
                        out[chain] += weighted[chain] * two[chain]


@fused
def _fill_separable_information(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """As `_fill_frame_information` with `_scale_slopes`, where `is_separable`."""
    count, frame, flux, log_flux = posterior.targets, scratch.frame, scratch.flux, posterior.law.log_flux
    w = posterior.film.even[t]
    fill_overlaps(posterior, t, int64(2), scratch)
    for a in range(3 * count):
        row_y, row_x = a % count + count * (a // count == 2), a % count + count * (a // count == 1)
        for b in range(a + 1):
            column_y, column_x = b % count + count * (b // count == 2), b % count + count * (b // count == 1)
            one = scratch.overlaps[0, max(row_y, column_y), min(row_y, column_y)]
            two = scratch.overlaps[1, max(row_x, column_x), min(row_x, column_x)]
            out = frame[a, b]
            for chain in range(LANES):
                out[chain] = w * one[chain] * two[chain]
            if a >= count or log_flux:
                f = flux[a % count]
                for chain in range(LANES):
                    out[chain] *= f[chain]
            if b >= count or log_flux:
                f = flux[b % count]
                for chain in range(LANES):
                    out[chain] *= f[chain]


@fused
def _fill_half(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Fill `scratch.half` (targets, rows, chains) with S^-1/2 D^1/2 A_F^T, S factorised in `scratch.gram`."""
    count, gram, frame, flux, half = posterior.targets, scratch.gram, scratch.frame, scratch.flux, scratch.half
    share, log_flux = np.float32(posterior.law.scintillation), posterior.law.log_flux
    for a in range(3 * count):
        for k in range(count):
            one, out, pivot = frame[max(a, k), min(a, k)], half[k, a], gram[k, k]
            for chain in range(LANES):
                out[chain] = one[chain] * (share if log_flux else share * flux[k, chain])
            for other in range(k):
                mixed, two = gram[k, other], half[other, a]
                for chain in range(LANES):
                    out[chain] -= mixed[chain] * two[chain]
            for chain in range(LANES):
                out[chain] /= pivot[chain]


@fused
def _subtract_flicker(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Take from `scratch.frame` what scintillation hides: A -= A_F D^1/2 S^-1 D^1/2 A_F^T."""
    count, gram, frame, flux, half = posterior.targets, scratch.gram, scratch.frame, scratch.flux, scratch.half
    for k in range(count):
        for other in range(k + 1):
            out, one = gram[k, other], frame[k, other]
            for chain in range(LANES):
                scale = flux[k, chain] * flux[other, chain] if posterior.law.log_flux else np.float32(1.0)
                out[chain] = one[chain] / scale
    factorise_flicker(count, posterior.law.scintillation, scratch)
    _fill_half(posterior, scratch)
    for a in range(3 * count):
        for b in range(a + 1):
            out = frame[a, b]
            for k in range(count):
                one, two = half[k, a], half[k, b]
                for chain in range(LANES):
                    out[chain] -= one[chain] * two[chain]


@fused
def _scale_slopes(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Turn `scratch.response` into derivatives by the chains' parameters in this frame: times the flux."""
    count, response, flux = posterior.targets, scratch.response, scratch.flux
    side = response.shape[1]
    for a in range(0 if posterior.law.log_flux else count, 3 * count):
        f = flux[a % count]
        for i in range(side):
            for j in range(side):
                out = response[a, i, j]
                for chain in range(LANES):
                    out[chain] *= f[chain]


@fused
def _add_moments(law: MotionLaw, t: int, scratch: PathScratch) -> None:
    """Add the information of frame t to its sums over time, weighted by each pair of the functions of time."""
    functions, rows = law.basis.shape[0], scratch.frame.shape[0]
    for m in range(functions):
        for n in range(m + 1):
            factor, total = law.basis[m, t] * law.basis[n, t], scratch.moments[m * functions + n]
            for a in range(rows):
                for b in range(a + 1):
                    out, one = total[a, b], scratch.frame[a, b]
                    for chain in range(LANES):
                        out[chain] += factor * one[chain]


@inner
def _describe(law: MotionLaw, count: int, p: int) -> tuple[int, int, int, float]:
    """Which rows of a frame's information parameter p moves.

    Returns:
        the first row, the row after the last, the function of time, and the prior's information.
    """
    shared = 2 * (law.common - 1)
    if p < shared:
        m, axis = p // 2 + 1, p % 2
        unit = 1.0 if law.normal[m] > 0.0 else DISC_INFORMATION
        return (1 + axis) * count, (2 + axis) * count, m, unit / law.width[0, m] ** 2
    k, own = (p - shared) // (2 * law.own + 1), (p - shared) % (2 * law.own + 1)
    if own == 2 * law.own:
        return k, k + 1, 0, PRIOR_INFORMATION / (law.flux[1] - law.flux[0]) ** 2
    m, axis = own // 2, own % 2
    row = (1 + axis) * count + k
    if m > 0:
        return row, row + 1, m, DISC_INFORMATION / law.width[1, m] ** 2
    extent = 1.0 if law.one_pixel else law.area[2 + axis] - law.area[axis]
    return row, row + 1, 0, PRIOR_INFORMATION / extent**2


@fused
def _assemble(posterior: PathPosterior, power: float, floor: SingleArray, scratch: PathScratch) -> None:
    """Fill the lower triangle of `scratch.information` from the sums over time, and add the prior's times `floor`.

    The prior's part is kept in `scratch.trial`, as the lower bound of what single precision leaves of a weak direction.
    """
    least, law, count, information = scratch.trial, posterior.law, posterior.targets, scratch.information
    functions = law.basis.shape[0]
    for p in range(information.shape[0]):
        p_first, p_last, m, prior = _describe(law, count, p)
        for q in range(p + 1):
            q_first, q_last, n, _ = _describe(law, count, q)
            out, place = information[p, q], max(m, n) * functions + min(m, n)
            out[:] = np.float32(0.0)
            for a in range(p_first, p_last):
                for b in range(q_first, q_last):
                    one = scratch.moments[place, max(a, b), min(a, b)]
                    for chain in range(LANES):
                        out[chain] += one[chain]
            for chain in range(LANES):
                out[chain] *= np.float32(power)
        diagonal = information[p, p]
        for chain in range(LANES):
            least[p, chain] = floor[chain] * np.float32(prior)
            diagonal[chain] = diagonal[chain] * np.float32(1.00001) + least[p, chain]


@linked(types.none(PATH_POSTERIOR, SINGLE_MATRIX, float64, SINGLE_VECTOR, SINGLE_CUBE, PATH_SCRATCH))
def shape_path_proposals(
    posterior: PathPosterior,
    state: SingleArray,
    power: float,
    floor: SingleArray,
    root: SingleArray,
    scratch: PathScratch,
) -> None:
    """Fill `root` (size, size, chains) with the inverse Cholesky factor of the information at each chain's state.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        power: inverse temperature.
        floor: (chains,) factor on the prior's information.
        root: filled.
        scratch: arrays to work in.
    """
    scratch.moments[:] = np.float32(0.0)
    fill_fluxes(posterior, state, scratch)
    for t in range(posterior.film.data.shape[0]):
        fill_places(posterior, state, t, scratch)
        if is_separable(posterior, t):
            fill_profiles_at(posterior, 0, int64(4), scratch)
            _fill_separable_information(posterior, t, scratch)
        else:
            fill_responses(posterior, int64(1), scratch)
            _scale_slopes(posterior, scratch)
            _fill_frame_information(posterior, t, scratch)
        if posterior.law.scintillation > 0.0:
            _subtract_flicker(posterior, scratch)
        _add_moments(posterior.law, t, scratch)
    _assemble(posterior, power, floor, scratch)
    factorise(scratch.information, scratch.trial)
    invert(scratch.information, root)


@inner
def accept(
    state: SingleArray, value: SingleArray, prior: SingleArray, power: SingleArray, random: Random, scratch: PathScratch
) -> None:
    """Accept or reject `scratch.trial` in each chain; `scratch.accepted` is 1 where accepted, else 0."""
    uniform(random, scratch.draw)
    for chain in range(LANES):
        scratch.accepted[chain] = np.float32(0.0)
        if scratch.trial_prior[chain] > -1e29:
            gain = (
                (scratch.trial_value[chain] - value[chain]) * power[chain] + scratch.trial_prior[chain] - prior[chain]
            )
            if accepts(gain, scratch.draw[chain]):
                scratch.accepted[chain] = np.float32(1.0)
                value[chain], prior[chain] = scratch.trial_value[chain], scratch.trial_prior[chain]
                for p in range(state.shape[0]):
                    state[p, chain] = scratch.trial[p, chain]


call_shape_path_proposals = calling(shape_path_proposals)
