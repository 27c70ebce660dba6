"""The search where a group is known to lie inside one pixel.

Templates drawn from the prior are compared with the image at every candidate pixel and count, each at its best common
flux; the best pairs of pixel and count climb to their modes and are weighed by their evidence. The pixel is a nuisance:
where several contend, the evidence of a count is the sum over them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled, inlined, inner, lean
from csist._types import FloatArray, IntArray
from csist.methods.continuous.model import (
    IGNORED,
    MEASURED,
    Bounds,
    Noise,
    Optics,
    SingleArray,
    Stack,
    Window,
    copy_into,
    cut,
    region_around,
    whole_region,
)
from csist.methods.continuous.optimise import Stop
from csist.methods.continuous.search import Climbers, call_log_evidence, call_maximise
from csist.methods.continuous.templates import Templates

STOP = Stop(iterations=40, tolerance=1e-3)
MOST_HYPOTHESES = 24
"""Pairs of pixel and count that are climbed from in one window."""
SURE_HYPOTHESES = 6
"""As many of them are climbed from in any case, others only where their best template fits nearly as well."""
NEARLY = 25.0
"""Misfit, in units of the noise variance, by which these may exceed the best."""
STARTS = 2
"""Starts for each of them."""
QUICK_SHARE = 4
"""Templates compared to choose the starts, in units of those compared for each hypothesis."""
HOPELESS = 6.0
"""Pairs whose best template misses so many times more than the best pair's are not climbed from."""


class PixelPrior(NamedTuple):
    """What is known of a group inside one pixel.

    Args:
        fewest: smallest number of targets.
        most: largest number of targets.
        flux: (2,) bounds in counts.
        log_flux: whether the prior is uniform in the logarithm of the flux.
        min_separation: smallest distance in px of two targets.
    """

    fewest: int
    most: int
    flux: FloatArray
    log_flux: bool
    min_separation: float


class PixelModel(NamedTuple):
    """What the search compares the windows with.

    Args:
        noise: of a pixel.
        optics: the PSF in its two forms.
        prior: what is known of a group.
        templates: configurations drawn from it.
    """

    noise: Noise
    optics: Optics
    prior: PixelPrior
    templates: Templates


class PixelModes(NamedTuple):
    """The hypotheses of each window: no target first, then pairs of pixel and number of targets.

    Args:
        evidence: (N, hypotheses) log evidence; -inf where there is no further hypothesis.
        counts: (N, hypotheses) number of targets.
        places: (N, hypotheses, 2) row and column of the pixel.
        theta: (N, hypotheses, 3 Kmax) the modes; unused parameters are at the end.
    """

    evidence: FloatArray
    counts: IntArray
    places: IntArray
    theta: FloatArray


def empty_pixel_modes(windows: int, most: int) -> PixelModes:
    """Room for the hypotheses of so many windows, of at most so many targets."""
    evidence = np.full((windows, MOST_HYPOTHESES + 1), -np.inf)
    places = np.zeros((*evidence.shape, 2), np.int64)
    return PixelModes(evidence, np.zeros(evidence.shape, np.int64), places, np.zeros((*evidence.shape, 3 * most)))


class Square(NamedTuple):
    """The pixels around a candidate, as many as a template has.

    Args:
        values: (P * P,) in counts times the weight, 0 outside the window and where masked.
        weight: (P * P,) of the pixels, 0 where there is no value.
        is_whole: whether all weights are 1.
        light: sum of the values, in counts.
        power: weighted sum of their squares.
    """

    values: SingleArray
    weight: SingleArray
    is_whole: bool
    light: float
    power: float


@inner
def _cut_square(window: Window, row: int, column: int, side: int) -> Square:
    """The square around the pixel (row, column) of a window."""
    rows, columns = window.data.shape
    values, weight = np.zeros(side * side, np.float32), np.zeros(side * side, np.float32)
    light, power, is_whole = 0.0, np.float32(0.0), True
    for i in range(side):
        for j in range(side):
            r, c = row - side // 2 + i, column - side // 2 + j
            if 0 <= r < rows and 0 <= c < columns and window.code[r, c] != IGNORED:
                value, own = np.float32(window.data[r, c]), np.float32(window.weight[r, c])
                values[i * side + j], weight[i * side + j] = own * value, own
                light += window.data[r, c]
                power += own * value**2
                is_whole = is_whole and own == np.float32(1.0)
            else:
                is_whole = False
    return Square(values, weight, is_whole, light, float(power))


@lean
def _match(square: Square, images: SingleArray, flux: FloatArray, misfits: FloatArray, fluxes: FloatArray) -> None:
    """Compare the first templates with a square, each at its best common flux within the bounds.

    Args:
        square: the pixels.
        images: (m, P, P) of the templates.
        flux: (2,) bounds in counts.
        misfits: filled, (n,) weighted squared residuals; infinite where nothing is seen.
        fluxes: filled, (n,) in counts.
    """
    pixels = square.values.shape[0]
    values, weight, models = square.values, square.weight, images.reshape(images.shape[0], pixels)
    for m in range(misfits.shape[0]):
        model = models[m]
        cross, norm = np.float32(0.0), np.float32(0.0)
        if square.is_whole:
            for p in range(pixels):
                cross += values[p] * model[p]
                norm += model[p] * model[p]
        else:
            for p in range(pixels):
                cross += values[p] * model[p]
                norm += weight[p] * model[p] * model[p]
        misfits[m], fluxes[m] = np.inf, flux[0]
        if norm > np.float32(0.0):
            fluxes[m] = min(max(cross / norm, flux[0]), flux[1])
            misfits[m] = square.power + fluxes[m] * (fluxes[m] * norm - 2.0 * cross)


@inner
def match_templates(
    window: Window, pixel: IntArray, count: int, prior: PixelPrior, templates: Templates, misfits: FloatArray
) -> None:
    """Fill `misfits` with the squared residual of each template of `count` targets, put at a pixel (row, column)."""
    square = _cut_square(window, pixel[0], pixel[1], templates.images.shape[2])
    _match(square, templates.images[count], prior.flux, misfits, np.empty(misfits.shape[0]))


@inlined
def _brightest(window: Window) -> tuple[int, int]:
    """Row and column of the pixel brightest against its own noise, among those that are not masked."""
    top, row, column = -np.inf, 0, 0
    for i in range(window.data.shape[0]):
        for j in range(window.data.shape[1]):
            value = window.data[i, j] * math.sqrt(window.weight[i, j])
            if window.code[i, j] != IGNORED and value > top:
                top, row, column = value, i, j
    return row, column


@inlined
def _insert(ranked: FloatArray, misfit: float, count: int, row: int, column: int) -> None:
    """Put a hypothesis into its place of the list `ranked`, the smallest misfit first; the last one drops out."""
    slot = ranked.shape[0] - 1
    if misfit < ranked[slot, 0]:
        while slot > 0 and misfit < ranked[slot - 1, 0]:
            copy_into(ranked[slot], ranked[slot - 1])
            slot -= 1
        ranked[slot, 0], ranked[slot, 1], ranked[slot, 2], ranked[slot, 3] = misfit, count, row, column


@inlined
def _rank_hypotheses(window: Window, noise: Noise, prior: PixelPrior, templates: Templates, scan: int) -> FloatArray:
    """The best pairs of pixel and count: rows (misfit, count, row, column), infinite misfits last."""
    rows, columns = window.data.shape
    side = templates.images.shape[2]
    ranked = np.full((MOST_HYPOTHESES, 4), np.inf)
    misfits, fluxes = np.empty(scan), np.empty(scan)
    top_row, top_column = _brightest(window)
    for row in range(max(top_row - 1, 0), min(top_row + 2, rows)):
        for column in range(max(top_column - 1, 0), min(top_column + 2, columns)):
            square = _cut_square(window, row, column, side)
            for count in range(max(prior.fewest, 1), prior.most + 1):
                # More light than so many targets give; but the most there can be stay, whatever the light.
                brightest = 1.1 * count * prior.flux[1] + 10.0 * math.sqrt(side * side * noise.variance)
                if count < prior.most and square.light > brightest:
                    continue
                _match(square, templates.images[count], prior.flux, misfits, fluxes)
                _insert(ranked, misfits.min(), count, row, column)
    return ranked


@lean
def empty_outside(window: Window, region: IntArray, variance: float) -> float:
    """Log likelihood of the measured pixels outside a region, where nothing is expected."""
    total = 0.0
    for i in range(window.data.shape[0]):
        for j in range(window.data.shape[1]):
            is_inside = region[0] <= i < region[1] and region[2] <= j < region[3]
            if not is_inside and window.code[i, j] == MEASURED:
                total -= 0.5 * window.data[i, j] ** 2 * window.weight[i, j] / variance
    return total


@inner
def bounds_in_pixel(count: int, row: int, column: int, prior: PixelPrior) -> Bounds:
    """Bounds of all parameters of a group inside the pixel (row, column)."""
    low, high = np.empty(3 * count), np.empty(3 * count)
    for k in range(count):
        low[3 * k], high[3 * k] = column - 0.5, column + 0.5
        low[3 * k + 1], high[3 * k + 1] = row - 0.5, row + 0.5
        low[3 * k + 2], high[3 * k + 2] = prior.flux[0], prior.flux[1]
    return Bounds(low, high, prior.log_flux, prior.min_separation)


@inner
def _choose_starts(
    window: Window, pixel: IntArray, prior: PixelPrior, templates: Templates, size: int, starts: FloatArray
) -> int:
    """Fill `starts` (n, parameters) with the best of the first `size` templates, the best first; returns how many."""
    count, row, column = starts.shape[1] // 3, pixel[0], pixel[1]
    misfits, fluxes = np.empty(size), np.empty(size)
    square = _cut_square(window, row, column, templates.images.shape[2])
    _match(square, templates.images[count], prior.flux, misfits, fluxes)
    for number in range(starts.shape[0]):
        m = int(np.argmin(misfits))
        if misfits[m] == np.inf:
            return number
        misfits[m] = np.inf
        for k in range(count):
            starts[number, 3 * k] = column + templates.positions[count, m, k, 0]
            starts[number, 3 * k + 1] = row + templates.positions[count, m, k, 1]
            starts[number, 3 * k + 2] = fluxes[m]
    return int(starts.shape[0])


@inner
def _climb(
    climb: Climbers, starts: FloatArray, bounds: Bounds, patch: Window, noise: Noise, tables: FloatArray
) -> None:
    """Replace all starts (n, parameters) by their modes, and put the best first."""
    best = -np.inf
    for s in range(starts.shape[0]):
        theta = starts[s].copy()
        value, _ = call_maximise(climb.maximise, theta, bounds, patch, noise, tables, STOP)
        copy_into(starts[s], theta)
        if value > best:
            best = value
            copy_into(starts[s], starts[0])
            copy_into(starts[0], theta)


@inlined
def _weigh(
    climb: Climbers, stack: Stack, place: int, model: PixelModel, hypothesis: FloatArray, scan: int
) -> tuple[float, FloatArray]:
    """Log evidence of a hypothesis over the whole window, and its mode."""
    rows, columns = stack.data.shape[1], stack.data.shape[2]
    count, pixel = int(hypothesis[1]), np.empty(2, np.int64)
    pixel[0], pixel[1] = int(hypothesis[2]), int(hypothesis[3])
    starts = np.empty((STARTS, 3 * count))
    window = cut(stack, place, whole_region(stack))
    size = min(QUICK_SHARE * scan, model.templates.images.shape[1])
    number = _choose_starts(window, pixel, model.prior, model.templates, size, starts)
    if number == 0:
        return -np.inf, starts[0]
    region = region_around(pixel[0], pixel[1], model.templates.images.shape[2] // 2, rows, columns)
    patch, bounds = cut(stack, place, region), bounds_in_pixel(count, pixel[0], pixel[1], model.prior)
    noise, tables = model.noise, model.optics.tables
    _climb(climb, starts[:number], bounds, patch, noise, tables)
    value = call_log_evidence(climb.log_evidence, starts[0].copy(), bounds, patch, noise, tables, False)
    value += empty_outside(window, region, noise.variance) - model.templates.log_allowed[count]
    return value, starts[0]


@compiled
def search_pixels(climb: Climbers, stack: Stack, model: PixelModel, scan: int, found: PixelModes) -> None:
    """Find and weigh the hypotheses of every window of a stack.

    Args:
        climb: addresses of kernels.
        stack: the windows.
        model: noise, optics, prior and templates.
        scan: templates compared at each candidate pixel and count; more where it matters.
        found: filled.
    """
    noise, nothing = model.noise, np.zeros(4, np.int64)
    for n in range(stack.data.shape[0]):
        window = cut(stack, n, whole_region(stack))
        found.evidence[n, 0] = empty_outside(window, nothing, noise.variance)
        ranked = _rank_hypotheses(window, noise, model.prior, model.templates, scan)
        hopeless = HOPELESS * ranked[0, 0] + 20.0 * noise.variance * model.templates.images[0, 0].size
        for slot in range(ranked.shape[0]):
            limit = hopeless if slot < SURE_HYPOTHESES else ranked[0, 0] + NEARLY * noise.variance
            if not ranked[slot, 0] <= limit or ranked[slot, 0] == np.inf:
                break
            value, theta = _weigh(climb, stack, n, model, ranked[slot], scan)
            found.evidence[n, slot + 1], found.counts[n, slot + 1] = value, int(ranked[slot, 1])
            for axis in range(2):
                found.places[n, slot + 1, axis] = int(ranked[slot, 2 + axis])
            copy_into(found.theta[n, slot + 1], theta)


@compiled
def climb_in_pixels(
    climb: Climbers, stack: Stack, model: PixelModel, places: IntArray, counts: IntArray, starts: FloatArray
) -> IntArray:
    """Modes of groups whose pixel and count are known, from the best of all templates.

    Args:
        climb: addresses of kernels.
        stack: the windows.
        model: noise, optics, prior and templates.
        places: (N, 2) row and column of each group's pixel.
        counts: (N,) number of targets; 0 is left out.
        starts: filled, (N, n, parameters) modes, the best first.

    Returns:
        number of modes of each group, (N,).
    """
    rows, columns = stack.data.shape[1], stack.data.shape[2]
    number = np.zeros(counts.shape[0], np.int64)
    for n in range(counts.shape[0]):
        if counts[n] == 0:
            continue
        window = cut(stack, n, whole_region(stack))
        chosen = np.empty((starts.shape[1], 3 * counts[n]))
        size = model.templates.images.shape[1]
        number[n] = _choose_starts(window, places[n], model.prior, model.templates, size, chosen)
        reach, pixel = model.templates.images.shape[2] // 2, places[n]
        patch = cut(stack, n, region_around(pixel[0], pixel[1], reach, rows, columns))
        bounds = bounds_in_pixel(counts[n], pixel[0], pixel[1], model.prior)
        _climb(climb, chosen[: number[n]], bounds, patch, model.noise, model.optics.tables)
        for s in range(number[n]):
            copy_into(starts[n, s], chosen[s])
    return number
