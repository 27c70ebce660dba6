"""The search where a group is known to lie inside one pixel.

A bank of configurations drawn from the prior is compared with the image at every candidate pixel and count,
each at its best common flux; the best are polished and weighed by their evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.methods.continuous.likelihood import IGNORED, MEASURED, compiled, maximise
from csist.methods.continuous.search import log_evidence
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, draw_separated

FloatArray = NDArray[np.float64]

BANK_SEED = 0x5C1D_BA2C
"""Not a seed anybody picks for a dataset: with the same stream the bank would hold the very scenes it is tested on."""

SYMMETRIES = [
    np.array(turn, dtype=np.float64)
    for turn in ([[1, 0], [0, 1]], [[0, 1], [1, 0]], [[-1, 0], [0, 1]], [[1, 0], [0, -1]],
                 [[-1, 0], [0, -1]], [[0, -1], [-1, 0]], [[0, 1], [-1, 0]], [[0, -1], [1, 0]])
]  # fmt: skip
"""The prior inside a pixel looks the same turned and mirrored, so every draw counts eight times."""

MOST_HYPOTHESES = 6
"""(pixel, count) pairs that are polished in one window."""
POLISHED_TO_COMPARE = 2
"""Starts polished for each of them."""
HOPELESS = 6.0
"""Pairs whose best configuration misses so many times more than the best pair's are not polished."""


@dataclass(frozen=True)
class Bank:
    """Configurations drawn from a single-pixel prior, with their images around the pixel.

    Args:
        positions: (Kmax + 1, configurations, Kmax, 2) offsets (x, y) from the pixel's centre.
        images: (Kmax + 1, configurations, P, P) float32, unit flux a target.
        log_allowed: (Kmax + 1,) log of the share of uniform configurations that keep the separation.
    """

    positions: FloatArray
    images: NDArray[np.float32]
    log_allowed: FloatArray


@lru_cache(maxsize=8)
def _cached_bank(psf: PSF, most: int, min_separation_px: float, reach: int, size: int) -> Bank:
    side = 2 * reach + 1
    sensor = Sensor(psf=psf, shape=(side, side))
    positions = np.zeros((most + 1, size, most, 2))
    images = np.zeros((most + 1, size, side, side), np.float32)
    log_allowed = np.zeros(most + 1)
    draws = size // len(SYMMETRIES)
    for count in range(1, most + 1):
        drawn = np.empty((draws, count, 2))
        rejected = draw_separated(drawn, np.ones(2), min_separation_px, np.random.default_rng((BANK_SEED, count)))
        if rejected < 0:
            raise InputError(f"{count} targets at least {min_separation_px} px apart do not fit into one pixel")
        positions[count, :, :count] = np.concatenate([(drawn - 0.5) @ turn for turn in SYMMETRIES])
        centre = positions[count, :, :count] + reach
        images[count] = sensor.render_stack(centre[..., 0], centre[..., 1], np.ones((size, count)))
        log_allowed[count] = math.log(draws / (draws + rejected))
    # in random order, so that the first few are a fair sample as well
    order = np.random.default_rng(BANK_SEED).permutation(size)
    return Bank(np.ascontiguousarray(positions[:, order]), np.ascontiguousarray(images[:, order]), log_allowed)


def build_bank(psf: PSF, prior: ScenePrior, reach: int, size: int) -> Bank:
    """The bank of a single-pixel prior, made once a process for each set of arguments.

    Args:
        psf: point spread function.
        prior: gives the largest count and the separation.
        reach: pixels kept on each side of the group's pixel.
        size: configurations a count, a multiple of 8.
    """
    return _cached_bank(psf, prior.count_range[1], prior.min_separation_px, reach, size)


@compiled
def search_pixel(
    data: FloatArray,
    code: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    counts: Any,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    log_allowed: FloatArray,
    scan: int,
    iterations: int,
    evidence: FloatArray,
    places: Any,
    modes: FloatArray,
) -> None:
    """Weigh the counts, and find the best pixel of each, for a group inside one pixel of a window.

    Args:
        data: window (H, W), background subtracted.
        counts: (2,) smallest and largest count.
        flux: (2,) flux bounds in counts.
        scan: configurations compared at each candidate pixel and count; the whole bank only where it matters.
        iterations: most iterations of a polish.
        evidence: filled, (Kmax + 1,) log evidence of 0, 1, 2, ... targets; -inf where hopeless.
        places: filled, (Kmax + 1, 2) row and column of the best pixel for each count.
        modes: filled, (Kmax + 1, 3 Kmax) the best mode of each count.
    """
    rows, columns = data.shape
    side = bank_images.shape[2]
    reach = side // 2
    pixels = side * side
    evidence[:] = -np.inf
    polished = np.zeros((POLISHED_TO_COMPARE, modes.shape[1]))
    no_basis = np.zeros((0, rows, columns))
    # brightest pixel, the candidates lie around it
    top, top_row, top_column = -np.inf, 0, 0
    for i in range(rows):
        for j in range(columns):
            if code[i, j] != IGNORED and data[i, j] > top:
                top, top_row, top_column = data[i, j], i, j
    evidence[0] = empty_outside(data, code, 0, 0, 0, 0, variance)
    window = np.empty(pixels, np.float32)
    valid = np.empty(pixels, np.float32)
    ranked = np.full((MOST_HYPOTHESES, 5), np.inf)  # misfit, count, row, column, best configuration
    for pixel_row in range(max(top_row - 1, 0), min(top_row + 2, rows)):
        for pixel_column in range(max(top_column - 1, 0), min(top_column + 2, columns)):
            total, power = 0.0, 0.0
            for i in range(side):
                for j in range(side):
                    r, c = pixel_row - reach + i, pixel_column - reach + j
                    inside = 0 <= r < rows and 0 <= c < columns and code[r, c] != IGNORED
                    window[i * side + j] = np.float32(data[r, c]) if inside else np.float32(0.0)
                    valid[i * side + j] = np.float32(1.0) if inside else np.float32(0.0)
                    if inside:
                        total += data[r, c]
                        power += (data[r, c]) ** 2
            for count in range(max(counts[0], 1), counts[1] + 1):
                # More light than so many targets give; but the most there can be stay, whatever the light.
                if count < counts[1] and total > 1.1 * count * flux[1] + 10.0 * math.sqrt(pixels * variance):
                    continue
                best, best_m = np.inf, -1
                for m in range(scan):
                    cross, norm = np.float32(0.0), np.float32(0.0)
                    flat = bank_images[count, m].reshape(pixels)
                    for p in range(pixels):
                        masked = flat[p] * valid[p]
                        cross += window[p] * masked
                        norm += masked * masked
                    s = min(max(cross / norm, flux[0]), flux[1])
                    misfit = power + s * (s * norm - 2.0 * cross)
                    if misfit < best:
                        best, best_m = misfit, m
                worst = MOST_HYPOTHESES - 1
                if best < ranked[worst, 0]:
                    slot = worst
                    while slot > 0 and best < ranked[slot - 1, 0]:
                        ranked[slot] = ranked[slot - 1]
                        slot -= 1
                    ranked[slot, 0], ranked[slot, 1] = best, count
                    ranked[slot, 2], ranked[slot, 3], ranked[slot, 4] = pixel_row, pixel_column, best_m
    # polish one start of each hypothesis that is not hopeless, weigh by evidence
    for slot in range(MOST_HYPOTHESES):
        if not ranked[slot, 0] <= HOPELESS * ranked[0, 0] + 20.0 * variance * pixels or ranked[slot, 0] == np.inf:
            break
        count, pixel_row, pixel_column = int(ranked[slot, 1]), int(ranked[slot, 2]), int(ranked[slot, 3])
        found, _ = polish_in_pixel(
            data, code, tables, variance, inverse_gain, count, pixel_row, pixel_column, flux, min_separation,
            bank_positions, bank_images, min(4 * scan, bank_images.shape[1]), iterations, polished,
        )  # fmt: skip
        if found == 0:
            continue
        low, high = pixel_bounds(count, pixel_row, pixel_column, flux)
        r0, r1 = max(pixel_row - reach, 0), min(pixel_row + reach + 1, rows)
        c0, c1 = max(pixel_column - reach, 0), min(pixel_column + reach + 1, columns)
        value = log_evidence(
            polished[0, : 3 * count].copy(), count, low, high, log_flux, tables, r0, c0, no_basis[:, r0:r1, c0:c1],
            data[r0:r1, c0:c1], code[r0:r1, c0:c1], variance, inverse_gain,
        )  # fmt: skip
        value += empty_outside(data, code, r0, r1, c0, c1, variance) - log_allowed[count]
        if value > evidence[count]:
            evidence[count] = value
            places[count, 0], places[count, 1] = pixel_row, pixel_column
            modes[count] = polished[0]


@compiled
def empty_outside(data: FloatArray, code: Any, r0: int, r1: int, c0: int, c1: int, variance: float) -> float:
    """Log likelihood of the measured pixels outside [r0, r1) x [c0, c1), where nothing is expected."""
    total = 0.0
    for i in range(data.shape[0]):
        for j in range(data.shape[1]):
            if not (r0 <= i < r1 and c0 <= j < c1) and code[i, j] == MEASURED:
                total -= 0.5 * data[i, j] ** 2 / variance
    return total


@compiled
def pixel_bounds(count: int, row: int, column: int, flux: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bounds of all parameters of a group inside one pixel."""
    low, high = np.empty(3 * count), np.empty(3 * count)
    for k in range(count):
        low[3 * k], high[3 * k] = column - 0.5, column + 0.5
        low[3 * k + 1], high[3 * k + 1] = row - 0.5, row + 0.5
        low[3 * k + 2], high[3 * k + 2] = flux[0], flux[1]
    return low, high


@compiled
def compare_bank(
    data: FloatArray,
    code: Any,
    count: int,
    row: int,
    column: int,
    flux: FloatArray,
    bank_images: Any,
    size: int,
    misfits: FloatArray,
    fluxes: FloatArray,
) -> None:
    """Fill `misfits` and `fluxes` for the first `size` configurations of the bank, put at the pixel (row, column).

    A misfit is the squared residual at the best common flux within the bounds; infinite where nothing is seen.
    """
    rows, columns = data.shape
    side = bank_images.shape[2]
    reach = side // 2
    window, valid = np.zeros(side * side, np.float32), np.zeros(side * side, np.float32)
    power, whole = np.float32(0.0), True
    for i in range(side):
        for j in range(side):
            r, c = row - reach + i, column - reach + j
            if 0 <= r < rows and 0 <= c < columns and code[r, c] != IGNORED:
                window[i * side + j], valid[i * side + j] = np.float32(data[r, c]), np.float32(1.0)
                power += np.float32(data[r, c]) ** 2
            else:
                whole = False
    for m in range(size):
        model = bank_images[count, m].reshape(side * side)
        cross, norm = np.float32(0.0), np.float32(0.0)
        if whole:
            for p in range(side * side):
                cross += window[p] * model[p]
                norm += model[p] * model[p]
        else:
            for p in range(side * side):
                cross += window[p] * model[p]
                norm += valid[p] * model[p] * model[p]
        misfits[m], fluxes[m] = np.inf, flux[0]
        if norm > np.float32(0.0):
            fluxes[m] = min(max(cross / norm, flux[0]), flux[1])
            misfits[m] = power + fluxes[m] * (fluxes[m] * norm - 2.0 * cross)


@compiled
def polish_in_pixel(
    data: FloatArray,
    code: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    count: int,
    row: int,
    column: int,
    flux: FloatArray,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    size: int,
    iterations: int,
    modes: FloatArray,
) -> tuple[int, float]:
    """Climb from those of the bank's first `size` configurations that fit best, one for each row of `modes`.

    Fills `modes` (starts, parameters or more), the best first; returns how many there are, and the log likelihood
    of the best over the patch.
    """
    rows, columns = data.shape
    reach = bank_images.shape[2] // 2
    r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
    c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
    misfits, fluxes = np.empty(size), np.empty(size)
    compare_bank(data, code, count, row, column, flux, bank_images, size, misfits, fluxes)
    low, high = pixel_bounds(count, row, column, flux)
    basis = np.zeros((0, r1 - r0, c1 - c0))
    theta, best, found = np.empty(3 * count), -np.inf, 0
    for _ in range(modes.shape[0]):
        m = int(np.argmin(misfits))
        if misfits[m] == np.inf:
            break
        misfits[m] = np.inf
        for k in range(count):
            theta[3 * k] = column + bank_positions[count, m, k, 0]
            theta[3 * k + 1] = row + bank_positions[count, m, k, 1]
            theta[3 * k + 2] = fluxes[m]
        value, _ = maximise(
            theta, count, low, high, min_separation, tables, r0, c0, basis, data[r0:r1, c0:c1],
            code[r0:r1, c0:c1].copy(), variance, inverse_gain, iterations, 1e-3,
        )  # fmt: skip
        modes[found, : 3 * count] = theta
        if value > best:
            best = value
            modes[found, : 3 * count] = modes[0, : 3 * count]
            modes[0, : 3 * count] = theta
        found += 1
    return found, best
