"""Prior and Metropolis steps of chains of a group that moves, shaped by the Fisher information of all frames."""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, types

from csist._compiled import calling, fused, lean, linked
from csist._types import BoolArray
from csist._vectors import WIDTH, put, spread, take, where_above
from csist.methods.continuous.lanes import PRIOR_INFORMATION, adopt, chance_of, factorise, invert
from csist.methods.continuous.model import SINGLE_CUBE, SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.population import uniform
from csist.methods.continuous.sequence.likelihood import (
    factorise_flicker,
    fill_fluxes,
    fill_overlaps,
    fill_profiles,
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

IMPOSSIBLE = -1e30
"""Log prior where the prior is zero; finite, so that arithmetic stays fast."""
DISC_INFORMATION = 4.0
"""Of one coordinate of a point uniform in a disc of radius 1: one over its variance."""


@fused
def fill_log_priors(posterior: PathPosterior, state: SingleArray, prior: SingleArray) -> None:
    """Fill `prior` (chains,) with the log prior of each chain up to a constant, `IMPOSSIBLE` where it is zero."""
    law, count = posterior.law, posterior.targets
    for chain in range(LANES):
        prior[chain] = np.float32(_log_prior(law, count, state, chain))


@lean
def mark_possible(law: MotionLaw, count: int, state: SingleArray, possible: BoolArray) -> None:
    """Mark in `possible` (chains,) where the prior of the state (size, chains) of so many targets is not zero."""
    for chain in range(possible.shape[0]):
        possible[chain] = _log_prior(law, count, state, chain) > IMPOSSIBLE


@lean
def _log_prior(law: MotionLaw, count: int, state: SingleArray, chain: int) -> float:
    """The log prior of one chain."""
    total = 0.0
    for m in range(1, law.common):
        x, y = state[2 * m - 2, chain], state[2 * m - 1, chain]
        square = (x * x + y * y) / (law.width[0, m] * law.width[0, m])
        if law.normal[m] > 0.0:
            total -= 0.5 * square
        elif square > 1.0:
            return IMPOSSIBLE
    for k in range(count):
        first = first_of(law, k)
        x, y, flux = state[first, chain], state[first + 1, chain], state[first + 2 * law.own, chain]
        if x < law.area[0] or y < law.area[1] or x > law.area[2] or y > law.area[3]:
            return IMPOSSIBLE
        if flux < law.flux[0] or flux > law.flux[1]:
            return IMPOSSIBLE
        for m in range(1, law.own):
            u, v = state[first + 2 * m, chain], state[first + 2 * m + 1, chain]
            if u * u + v * v > law.width[1, m] * law.width[1, m]:
                return IMPOSSIBLE
        for other in range(k):
            o = first_of(law, other)
            dx, dy = state[o, chain] - x, state[o + 1, chain] - y
            if dx * dx + dy * dy < law.least_square:
                return IMPOSSIBLE
            if law.one_pixel and (
                math.floor(state[o, chain] + 0.5) != math.floor(x + 0.5)
                or math.floor(state[o + 1, chain] + 0.5) != math.floor(y + 0.5)
            ):
                return IMPOSSIBLE
    return total


@fused
def _fill_frame_information(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """Fill the lower triangle of `scratch.frame` with the information of x, y and flux of all targets in frame t.

    Rows are flux_1, ..., x_1, ..., y_1, ...; `scratch.response` holds responses and slopes.
    """
    film, response, frame = posterior.film, scratch.response, scratch.frame
    inside = film.inside[t]
    for a in range(3 * posterior.targets):
        for b in range(a + 1):
            total = spread(0.0)
            for i in range(inside[0], inside[1]):
                for j in range(inside[2], inside[3]):
                    w = film.weight[t, i, j]
                    total += w * take(response, (a, i, j, 0)) * take(response, (b, i, j, 0))
            put(frame, (a, b, 0), total)


@fused
def _fill_separable_information(posterior: PathPosterior, t: int, scratch: PathScratch) -> None:
    """As `_fill_frame_information`, from profiles and their slopes, where `is_separable`."""
    count, w, overlaps = posterior.targets, posterior.film.even[t], scratch.overlaps
    fill_overlaps(posterior, t, int64(2), scratch)
    for a in range(3 * count):
        row_y, row_x = a % count + count * (a // count == 2), a % count + count * (a // count == 1)
        for b in range(a + 1):
            column_y, column_x = b % count + count * (b // count == 2), b % count + count * (b // count == 1)
            along_y = take(overlaps, (0, max(row_y, column_y), min(row_y, column_y), 0))
            along_x = take(overlaps, (1, max(row_x, column_x), min(row_x, column_x), 0))
            put(scratch.frame, (a, b, 0), w * along_y * along_x)


@fused
def _scale_frame(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Turn `scratch.frame` into the information of the chains' parameters: derivatives times the flux."""
    count, frame, flux = posterior.targets, scratch.frame, scratch.flux
    for a in range(3 * count):
        for b in range(a + 1):
            one = take(frame, (a, b, 0))
            if a >= count or posterior.law.log_flux:
                one *= take(flux, (a % count, 0))
            if b >= count or posterior.law.log_flux:
                one *= take(flux, (b % count, 0))
            put(frame, (a, b, 0), one)


@fused
def _fill_half(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Fill `scratch.half` (targets, rows, chains) with S^-1/2 D^1/2 A_F^T, S factorised in `scratch.gram`."""
    gram, half, share = scratch.gram, scratch.half, np.float32(posterior.law.scintillation)
    for a in range(3 * posterior.targets):
        for k in range(posterior.targets):
            one = share * take(scratch.frame, (max(a, k), min(a, k), 0))
            if not posterior.law.log_flux:
                one *= take(scratch.flux, (k, 0))
            for other in range(k):
                one -= take(gram, (k, other, 0)) * take(half, (other, a, 0))
            put(half, (k, a, 0), one / take(gram, (k, k, 0)))


@fused
def _subtract_flicker(posterior: PathPosterior, scratch: PathScratch) -> None:
    """Take from `scratch.frame` what scintillation hides: A -= A_F D^1/2 S^-1 D^1/2 A_F^T."""
    count, frame, flux, half = posterior.targets, scratch.frame, scratch.flux, scratch.half
    for k in range(count):
        for other in range(k + 1):
            one = take(frame, (k, other, 0))
            if posterior.law.log_flux:
                one /= take(flux, (k, 0)) * take(flux, (other, 0))
            put(scratch.gram, (k, other, 0), one)
    factorise_flicker(count, posterior.law.scintillation, scratch)
    _fill_half(posterior, scratch)
    for a in range(3 * count):
        for b in range(a + 1):
            one = take(frame, (a, b, 0))
            for k in range(count):
                one -= take(half, (k, a, 0)) * take(half, (k, b, 0))
            put(frame, (a, b, 0), one)


@fused
def _add_moments(law: MotionLaw, t: int, scratch: PathScratch) -> None:
    """Add the information of frame t to its sums over time, weighted by each pair of the functions of time."""
    functions, rows, moments = law.basis.shape[0], scratch.frame.shape[0], scratch.moments
    for a in range(rows):
        for b in range(a + 1):
            one = take(scratch.frame, (a, b, 0))
            for m in range(functions):
                for n in range(m + 1):
                    place = (m * functions + n, a, b, 0)
                    put(moments, place, take(moments, place) + law.basis[m, t] * law.basis[n, t] * one)


@lean
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
def _assemble(posterior: PathPosterior, power: float, floor: SingleArray, part: int, scratch: PathScratch) -> None:
    """Fill the lower triangle of `scratch.information` from the sums over time, and add the prior's times `floor`.

    The prior's part is kept in `scratch.trial`, as the lower bound of what single precision leaves of a weak direction.
    """
    law, count, information = posterior.law, posterior.targets, scratch.information
    functions = law.basis.shape[0]
    for p in range(information.shape[0]):
        p_first, p_last, m, prior = _describe(law, count, p)
        for q in range(p + 1):
            q_first, q_last, n, _ = _describe(law, count, q)
            place, total = max(m, n) * functions + min(m, n), spread(0.0)
            for a in range(p_first, p_last):
                for b in range(q_first, q_last):
                    total += take(scratch.moments, (place, max(a, b), min(a, b), 0))
            put(information, (p, q, part), np.float32(power) * total)
        least = np.float32(prior) * take(floor, (part,))
        put(scratch.trial, (p, part), least)
        put(information, (p, p, part), take(information, (p, p, part)) * np.float32(1.00001) + least)


@linked(types.none(PATH_POSTERIOR, SINGLE_MATRIX, float64, SINGLE_VECTOR, SINGLE_CUBE, PATH_SCRATCH), is_lean=True)
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
    for part in range(0, LANES, WIDTH):
        scratch.moments[:] = np.float32(0.0)
        fill_fluxes(posterior, state, part, scratch)
        for t in range(posterior.film.data.shape[0]):
            if is_separable(posterior, t):
                fill_profiles(posterior, state, (part, t), 0, int64(4), scratch)
                _fill_separable_information(posterior, t, scratch)
            else:
                fill_responses(posterior, state, part, t, int64(1), scratch)
                _fill_frame_information(posterior, t, scratch)
            _scale_frame(posterior, scratch)
            if posterior.law.scintillation > 0.0:
                _subtract_flicker(posterior, scratch)
            _add_moments(posterior.law, t, scratch)
        _assemble(posterior, power, floor, part, scratch)
    factorise(scratch.information, scratch.trial)
    invert(scratch.information, root)


@lean
def accept(
    state: SingleArray, value: SingleArray, prior: SingleArray, power: SingleArray, random: Random, scratch: PathScratch
) -> None:
    """Accept or reject `scratch.trial` in each chain; `scratch.accepted` is 1 where accepted, else 0."""
    uniform(random, scratch.draw)
    for part in range(0, LANES, WIDTH):
        at, drawn, trial_prior = (part,), take(scratch.draw, (part,)), take(scratch.trial_prior, (part,))
        gain = (take(scratch.trial_value, at) - take(value, at)) * take(power, at) + trial_prior - take(prior, at)
        chance = where_above(trial_prior, spread(IMPOSSIBLE), chance_of(gain), spread(0.0))
        put(scratch.accepted, at, where_above(chance, drawn, spread(1.0), spread(0.0)))
        adopt(value, scratch.trial_value, at, chance, drawn)
        adopt(prior, scratch.trial_prior, at, chance, drawn)
        for p in range(state.shape[0]):
            adopt(state, scratch.trial, (p, part), chance, drawn)


call_shape_path_proposals = calling(shape_path_proposals)
