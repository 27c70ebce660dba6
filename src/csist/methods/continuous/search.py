"""The search where targets may lie anywhere in a window.

Targets are added one at a time: at the largest residuals, or by splitting one that is there. Each proposal climbs to
its mode, the best is kept for every count, and the counts are weighed by their evidence. Positions that the user names
are proposed beside these: each where no target is yet, and all together where the count is theirs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import address_of, calling, compiled, inlined, lean
from csist._types import BoolArray, FloatArray
from csist.methods.continuous.evidence import log_evidence
from csist.methods.continuous.likelihood import chi_squared, pixel_terms, profile, render
from csist.methods.continuous.model import MEASURED, Bounds, Noise, Stack, Window, copy_into, cut, whole_region
from csist.methods.continuous.optimise import Stop, maximise
from csist.methods.continuous.splits import split_ratios

QUICK, FULL = Stop(iterations=12, tolerance=1e-2), Stop(iterations=60, tolerance=1e-3)
ADDITIONS = 2
"""Largest residuals at which a target is proposed."""
MOST_SPLITS, EXPLAINED_SPLITS = 4, 1
"""Targets, worst explained first, that are tried as two, and the same where the best explains the window."""
GIVE_UP, GIVE_UP_EXPLAINED = 10.0, 6.0
"""Log evidence below the best from which larger counts are not tried, and the same where the best explains the window:
then further targets can only fit the noise, and each costs more evidence than the last."""
FRUITLESS, FRUITLESS_COUNTS = 3.0, 2
"""Log evidence below the best, where that explains the window, of so many counts in a row from which larger ones are
not tried: the faintest targets cost no more evidence, so that all further counts would follow."""
NAMED_PX = 0.5
"""A named position closer than this to a target is taken."""
EXPLAINED_SIGMAS = 2.0
"""Standard deviations by which the chi-squared of a count that explains a window may exceed its degrees of freedom."""

UNDECIDED = 12.0
"""Log likelihood up to which more targets may gain and still be ones that the image cannot tell apart."""
SPLIT_WIDTHS = 2.0
"""Least distance in widths of the PSF of a target that is not one of them."""

call_maximise, call_log_evidence = calling(maximise), calling(log_evidence)
call_split_ratios = calling(split_ratios)


class Climbers(NamedTuple):
    """Addresses of the kernels that both searches call."""

    maximise: int
    log_evidence: int
    split_ratios: int


def climbers() -> Climbers:
    """The kernels, compiled."""
    return Climbers(address_of(maximise), address_of(log_evidence), address_of(split_ratios))


class Space(NamedTuple):
    """Where the targets of a window may lie.

    Args:
        low: (3,) lower bounds of x, y in px and flux in counts.
        high: (3,) upper bounds.
        terms: (terms,) largest absolute coefficient of each background term.
        log_flux: whether the prior is uniform in the logarithm of the flux.
        min_separation: smallest distance in px of two targets.
        split_px: distance at which a target is split in two.
        named: (N, most, 2) positions x, y in px at which targets are tried, for each window; NaN where there are fewer.
        fewest: smallest number of targets of a group; smaller counts are only looked at on the way.
        is_exact: whether the likelihood is that of the image, so that counts are weighed as exactly as they can be; of
            an image that was added up, Laplace's evidence alone gives the counts that are looked at.
    """

    low: FloatArray
    high: FloatArray
    terms: FloatArray
    log_flux: bool
    min_separation: float
    split_px: float
    named: FloatArray
    fewest: int
    is_exact: bool


class Modes(NamedTuple):
    """The best mode of each count, in each window.

    Args:
        evidence: (N, Kmax + 1) log evidence of 0, 1, 2, ... targets; -inf where hopeless.
        theta: (N, Kmax + 1, parameters) the modes; unused parameters are at the end.
        converged: (N, Kmax + 1) whether the climb converged.
    """

    evidence: FloatArray
    theta: FloatArray
    converged: BoolArray


class Camera(NamedTuple):
    """What turns targets into pixel values.

    Args:
        noise: of a pixel.
        tables: of `Optics`.
    """

    noise: Noise
    tables: FloatArray


def empty_modes(windows: int, most: int, terms: int) -> Modes:
    """Room for the modes of so many windows, targets and background terms."""
    evidence = np.full((windows, most + 1), -np.inf)
    return Modes(evidence, np.zeros((windows, most + 1, 3 * most + terms)), np.zeros(evidence.shape, np.bool_))


class Scratch(NamedTuple):
    """Arrays that the search in one window works in."""

    profiles: FloatArray
    image: FloatArray
    slope: FloatArray
    curvature: FloatArray
    taken: BoolArray


@inlined
def _make_scratch(window: Window) -> Scratch:
    h, w = window.data.shape
    return Scratch(
        np.empty((4, max(h, w))), np.empty((h, w)), np.empty((h, w)), np.empty((h, w)), np.empty((h, w), np.bool_)
    )


@compiled
def bounds_within(count: int, space: Space) -> Bounds:
    """Bounds of all parameters of `count` targets and the background terms."""
    terms = space.terms.shape[0]
    low, high = np.empty(3 * count + terms), np.empty(3 * count + terms)
    for k in range(count):
        for p in range(3):
            low[3 * k + p], high[3 * k + p] = space.low[p], space.high[p]
    for term in range(terms):
        low[3 * count + term], high[3 * count + term] = -space.terms[term], space.terms[term]
    separation = space.min_separation if count > 0 else 0.0
    return Bounds(low, high, space.log_flux, separation)


@lean
def _largest_residual(window: Window, tables: FloatArray, scratch: Scratch) -> tuple[float, float, float]:
    """Row, column and flux of the pixel-centred target that would raise the likelihood most; taken pixels are skipped.

    The row is NaN where no target would.
    """
    slope, curvature, profiles = scratch.slope, scratch.curvature, scratch.profiles
    h, w = slope.shape
    best, best_i, best_j, best_flux = 0.0, -1, -1, 0.0
    for i in range(h):
        for j in range(w):
            if scratch.taken[i, j] or slope[i, j] <= 0.0:
                continue
            gain, norm = 0.0, 0.0
            for rank in range(tables.shape[1]):
                profile(tables[0, rank], float(window.row + i), window.row, profiles[0, :h])
                profile(tables[1, rank], float(window.column + j), window.column, profiles[2, :w])
                for a in range(h):
                    if profiles[0, a] != 0.0:
                        for b in range(w):
                            response = profiles[0, a] * profiles[2, b]
                            gain += response * slope[a, b]
                            norm += response * response * curvature[a, b]
            if norm > 0.0 and gain > 0.0 and gain * gain / norm > best:
                best, best_i, best_j, best_flux = gain * gain / norm, i, j, gain / norm
    return float(window.row + best_i) if best_i >= 0 else np.nan, float(window.column + best_j), best_flux


@lean
def _put_last(proposal: FloatArray, previous: FloatArray, x: float, y: float, flux: float, terms: int) -> None:
    """Fill `proposal` with the targets of `previous`, then one more, then the background terms of `previous`."""
    old = previous.shape[0] - terms
    copy_into(proposal, previous[:old])
    proposal[old], proposal[old + 1], proposal[old + 2] = x, y, flux
    copy_into(proposal[old + 3 :], previous[old:])


@inlined
def _propose_additions(
    previous: FloatArray, window: Window, tables: FloatArray, scratch: Scratch, proposals: FloatArray
) -> int:
    """Fill the first rows of `proposals` with one more target each, at the largest residuals; returns how many."""
    h, w = window.data.shape
    number = 0
    scratch.taken[:] = False
    for _ in range(ADDITIONS):
        y, x, flux = _largest_residual(window, tables, scratch)
        if not np.isfinite(y):
            break
        for i in range(h):
            for j in range(w):
                if abs(window.row + i - y) <= 1.0 and abs(window.column + j - x) <= 1.0:
                    scratch.taken[i, j] = True
        _put_last(proposals[number], previous, x, y, flux, window.basis.shape[0])
        number += 1
    return number


@lean
def _residual_around(x: float, y: float, window: Window, radius: float, scratch: Scratch) -> tuple[float, float]:
    """Chi-squared of the pixels around a place, and the angle of the axis along which their residual is stretched."""
    slope, curvature = scratch.slope, scratch.curvature
    total, xx, xy = 0.0, 0.0, 0.0
    for i in range(slope.shape[0]):
        for j in range(slope.shape[1]):
            dx, dy = window.column + j - x, window.row + i - y
            if dx * dx + dy * dy <= radius**2 and curvature[i, j] > 0.0:
                total += slope[i, j] ** 2 / curvature[i, j]
                xx += slope[i, j] * (dx * dx - dy * dy)
                xy += slope[i, j] * 2.0 * dx * dy
    return total, 0.5 * math.atan2(xy, xx)


@inlined
def _propose_splits(
    previous: FloatArray, window: Window, split_px: float, most: int, scratch: Scratch, proposals: FloatArray
) -> int:
    """Fill rows of `proposals` with the worst explained targets, at most so many, split along two axes.

    Returns how many rows.
    """
    terms = window.basis.shape[0]
    count = (previous.shape[0] - terms) // 3
    misfit, axis = np.empty(count), np.empty(count)
    for k in range(count):
        misfit[k], axis[k] = _residual_around(
            previous[3 * k], previous[3 * k + 1], window, 2.0 * split_px + 1.0, scratch
        )
    number = 0
    for _ in range(min(most, count)):
        k = int(np.argmax(misfit))
        misfit[k] = -np.inf
        for turn in range(2):
            angle = axis[k] + turn * 0.5 * math.pi
            ux, uy = 0.5 * split_px * math.cos(angle), 0.5 * split_px * math.sin(angle)
            x, y, half = previous[3 * k], previous[3 * k + 1], 0.5 * previous[3 * k + 2]
            proposal = proposals[number]
            _put_last(proposal, previous, x + ux, y + uy, half, terms)
            proposal[3 * k] -= ux
            proposal[3 * k + 1] -= uy
            proposal[3 * k + 2] *= 0.5
            number += 1
    return number


@lean
def _named_flux(x: float, y: float, window: Window, tables: FloatArray, scratch: Scratch) -> float:
    """Flux of a target at a position that the residual asks for; 0 where it asks for none."""
    h, w = scratch.slope.shape
    gain, norm = 0.0, 0.0
    for rank in range(tables.shape[1]):
        profile(tables[0, rank], y, window.row, scratch.profiles[0, :h])
        profile(tables[1, rank], x, window.column, scratch.profiles[2, :w])
        for a in range(h):
            for b in range(w):
                response = scratch.profiles[0, a] * scratch.profiles[2, b]
                gain += response * scratch.slope[a, b]
                norm += response * response * scratch.curvature[a, b]
    return max(gain / norm, 0.0) if norm > 0.0 else 0.0


@lean
def _count_named(named: FloatArray) -> int:
    """Number of the positions (most, 2) before the first NaN."""
    number = 0
    while number < named.shape[0] and np.isfinite(named[number, 0]):
        number += 1
    return number


@inlined
def _propose_named(
    previous: FloatArray,
    window: Window,
    tables: FloatArray,
    named: FloatArray,
    scratch: Scratch,
    proposals: FloatArray,
) -> int:
    """Fill rows of `proposals` with targets at named positions; returns how many."""
    terms = window.basis.shape[0]
    count = (previous.shape[0] - terms) // 3
    given = _count_named(named)
    number = 0
    for s in range(given):
        taken = False
        for k in range(count):
            taken |= math.hypot(previous[3 * k] - named[s, 0], previous[3 * k + 1] - named[s, 1]) < NAMED_PX
        if not taken:
            flux = _named_flux(named[s, 0], named[s, 1], window, tables, scratch)
            _put_last(proposals[number], previous, named[s, 0], named[s, 1], flux, terms)
            number += 1
    if count + 1 == given:
        total = 0.0
        for k in range(count):
            total += previous[3 * k + 2]
        for s in range(given):
            proposals[number, 3 * s], proposals[number, 3 * s + 1] = named[s, 0], named[s, 1]
            proposals[number, 3 * s + 2] = total / given
        copy_into(proposals[number, 3 * given :], previous[3 * count :])
        number += 1
    return number


@inlined
def _propose(
    previous: FloatArray, window: Window, camera: Camera, splits: tuple[float, int], named: FloatArray, scratch: Scratch
) -> FloatArray:
    """Starts (n, parameters) with one target more than the mode `previous`.

    `splits` is the distance in px at which targets are split, and the most that are.
    """
    render(previous, window, camera.tables, scratch.profiles, scratch.image)
    pixel_terms(scratch.image, window, camera.noise, scratch.slope, scratch.curvature)
    proposals = np.empty((ADDITIONS + 2 * MOST_SPLITS + named.shape[0] + 1, previous.shape[0] + 3))
    number = _propose_additions(previous, window, camera.tables, scratch, proposals)
    number += _propose_splits(previous, window, splits[0], splits[1], scratch, proposals[number:])
    number += _propose_named(previous, window, camera.tables, named, scratch, proposals[number:])
    return proposals[:number]


@inlined
def _is_explained(theta: FloatArray, window: Window, noise: Noise, tables: FloatArray, scratch: Scratch) -> bool:
    """Whether chi-squared of a mode is near its degrees of freedom."""
    measured = 0
    for i in range(window.code.shape[0]):
        for j in range(window.code.shape[1]):
            measured += window.code[i, j] == MEASURED
    render(theta, window, tables, scratch.profiles, scratch.image)
    freedom = max(measured - theta.shape[0], 1)
    limit = freedom + EXPLAINED_SIGMAS * math.sqrt(2.0 * freedom)
    return bool(chi_squared(scratch.image, window, noise) < limit)


@inlined
def _best_start(
    climb: Climbers, proposals: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray
) -> FloatArray:
    """The best of some starts after a few steps of the climb."""
    best, chosen = -np.inf, 0
    for p in range(proposals.shape[0]):
        for a in range(proposals.shape[1]):
            proposals[p, a] = min(max(proposals[p, a], bounds.low[a]), bounds.high[a])
        value, _ = call_maximise(climb.maximise, proposals[p], bounds, window, noise, tables, QUICK)
        if value > best:
            best, chosen = value, p
    start: FloatArray = proposals[chosen]
    return start


@lean
def _closest(theta: FloatArray, count: int) -> float:
    """Smallest distance in px of two targets."""
    least = np.inf
    for a in range(count):
        for b in range(a):
            least = min(least, math.hypot(theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]))
    return least


@inlined
def search_window(climb: Climbers, window: Window, camera: Camera, space: Space, modes: Modes, place: int) -> None:
    """Find the best mode of every count in a window.

    Args:
        climb: addresses of kernels.
        window: the data.
        camera: noise and PSF.
        space: where targets may lie.
        modes: the entries of the window are filled.
        place: of the window in `modes`.
    """
    noise, tables = camera.noise, camera.tables
    scratch = _make_scratch(window)
    named = space.named[place]
    evidence, terms = modes.evidence[place], window.basis.shape[0]
    best, is_explained, fruitless = -np.inf, False, 0
    resolved, height, ratios = 0, -np.inf, np.empty(2)  # the last count whose targets are told apart, and its mode
    for count in range(evidence.shape[0]):
        bounds = bounds_within(count, space)
        theta = np.zeros(terms)
        if count > 0:
            previous = modes.theta[place, count - 1, : 3 * (count - 1) + terms]
            splits = space.split_px, EXPLAINED_SPLITS if is_explained else MOST_SPLITS
            proposals = _propose(previous, window, camera, splits, named, scratch)
            if proposals.shape[0] == 0:
                break
            theta = _best_start(climb, proposals, bounds, window, noise, tables)
        value, modes.converged[place, count] = call_maximise(climb.maximise, theta, bounds, window, noise, tables, FULL)
        copy_into(modes.theta[place, count], theta)
        evidence[count] = call_log_evidence(climb.log_evidence, theta, bounds, window, noise, tables, space.is_exact)
        is_split = False
        if space.is_exact and resolved > 0 and value < height + UNDECIDED:
            added = count - resolved
            if added == 1:
                base, own = modes.theta[place, resolved, : 3 * resolved + terms].copy(), bounds_within(resolved, space)
                ratios[:] = space.split_px
                call_split_ratios(climb.split_ratios, base, own, window, noise, tables, ratios)
            split = evidence[count - 1] + math.log(0.5 * ratios[min(added, 2) - 1] * count / added)
            is_split = _closest(theta, count) < SPLIT_WIDTHS * space.split_px
            if is_split:
                evidence[count] = split
            elif split > evidence[count]:
                evidence[count], is_split = split, True
        if not is_split:
            resolved, height = count, value
        if evidence[count] > best:
            best = evidence[count]
            is_explained = count > 0 and _is_explained(theta, window, noise, tables, scratch)
        fruitless = fruitless + 1 if is_explained and evidence[count] < best - FRUITLESS else 0
        hopeless = evidence[count] < best - (GIVE_UP_EXPLAINED if is_explained else GIVE_UP)
        hopeless |= fruitless == FRUITLESS_COUNTS
        if hopeless and count >= max(_count_named(named), space.fewest):
            break
    # A window without any target is possible whatever the size of a group.
    evidence[1 : space.fewest] = -np.inf


@compiled
def search_stack(climb: Climbers, stack: Stack, noise: Noise, tables: FloatArray, space: Space, modes: Modes) -> None:
    """Find the best mode of every count in each window of a stack.

    Args:
        climb: addresses of kernels.
        stack: the windows.
        noise: of a pixel.
        tables: of `Optics`.
        space: where targets may lie.
        modes: filled.
    """
    whole = whole_region(stack)
    for n in range(stack.data.shape[0]):
        search_window(climb, cut(stack, n, whole), Camera(noise, tables), space, modes, n)
