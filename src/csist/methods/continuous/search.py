"""How well a number of targets explains a window, and the search where targets may lie anywhere in it.

`search_free` adds targets one at a time, at the largest residuals or by splitting one that is there, polishes
each proposal and keeps the best for every count; the counts are weighed by the evidence in Laplace's
approximation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.likelihood import (
    MEASURED,
    chi_squared,
    cholesky,
    cholesky_solve,
    compiled,
    information_matrix,
    maximise,
    pixel_terms,
    profile,
    render,
    render_with_jacobian,
)

FloatArray = NDArray[np.float64]

LOG_2PI = math.log(2.0 * math.pi)

RESOLVED_SIGMAS = 3.0
"""Targets closer than so many standard errors of their distance are one to the image."""

QUICK_ITERATIONS, FULL_ITERATIONS = 12, 60
MOST_SPLITS = 4
"""Targets, worst explained first, that are tried as two."""
GIVE_UP, GIVE_UP_EXPLAINED = 10.0, 6.0
"""Log evidence below the best from which larger counts are not tried, and the same where the best explains the window:
then further targets can only fit the noise, and each costs more evidence than the last."""
EXPLAINED_SIGMAS = 2.0
"""Standard deviations by which the chi-squared of a count that explains a window may exceed its degrees of freedom."""


@compiled
def log_evidence(
    theta: FloatArray,
    count: int,
    low: FloatArray,
    high: FloatArray,
    log_flux: bool,
    tables: FloatArray,
    row: int,
    column: int,
    basis: FloatArray,
    data: FloatArray,
    code: Any,
    variance: float,
    inverse_gain: float,
) -> float:
    """Laplace's log evidence of `count` targets at the mode theta, uniform prior between the bounds.

    Every ordering of the targets is a mode of its own, hence log count!; but orderings of targets that the
    image cannot tell apart are one and the same mode. 2 pi / width^2 is added to the information, so that a
    direction which the image does not measure counts with exactly the prior's width.
    """
    h, w = data.shape
    size = theta.shape[0]
    work = np.empty((4, max(h, w)))
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    jacobian = np.empty((size, h, w))
    information = np.empty((size, size))
    render_with_jacobian(theta, count, tables, row, column, basis, work, image, jacobian)
    total = pixel_terms(image, data, code, variance, inverse_gain, slope, curvature)
    information_matrix(jacobian, curvature, size, np.empty(h * w), information)
    for a in range(size):
        is_log = log_flux and a < 3 * count and a % 3 == 2
        width = math.log(high[a] / low[a]) if is_log else high[a] - low[a]
        if is_log:
            for b in range(size):
                information[a, b] *= theta[a]
                information[b, a] *= theta[a]
        information[a, a] += 2.0 * math.pi / width**2
        total += 0.5 * LOG_2PI - math.log(width)
    if not cholesky(information, size):
        return -np.inf
    for a in range(size):
        total -= math.log(information[a, a])
    return total + _log_orderings(theta, count, information)


@compiled
def _log_orderings(theta: FloatArray, count: int, factor: FloatArray) -> float:
    """Log of the number of distinct orderings; `factor` is the Cholesky factor of the information."""
    size = theta.shape[0]
    variance = np.empty(2 * count)
    for k in range(2 * count):
        p = 3 * (k // 2) + k % 2
        column = np.zeros(size)
        column[p] = 1.0
        cholesky_solve(factor, size, column)
        variance[k] = column[p]
    cluster = np.arange(count)
    for a in range(count):
        for b in range(a):
            dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
            apart = dx * dx / (variance[2 * a] + variance[2 * b])
            apart += dy * dy / (variance[2 * a + 1] + variance[2 * b + 1])
            if apart < RESOLVED_SIGMAS**2:
                old, new = cluster[a], cluster[b]
                for k in range(count):
                    if cluster[k] == old:
                        cluster[k] = new
    total = math.lgamma(count + 1.0)
    for k in range(count):
        total -= math.lgamma((cluster == k).sum() + 1.0)
    return total


@compiled
def window_bounds(
    count: int, shape_low: FloatArray, shape_high: FloatArray, terms_low: FloatArray, terms_high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bounds of all parameters from those of one target (3,) and of the background terms."""
    size = 3 * count + terms_low.shape[0]
    low, high = np.empty(size), np.empty(size)
    for k in range(count):
        low[3 * k : 3 * k + 3], high[3 * k : 3 * k + 3] = shape_low, shape_high
    low[3 * count :], high[3 * count :] = terms_low, terms_high
    return low, high


@compiled
def _largest_residual(
    slope: FloatArray,
    curvature: FloatArray,
    tables: FloatArray,
    row: int,
    column: int,
    taken: Any,
    work: FloatArray,
) -> tuple[float, float, float]:
    """Position and flux of the pixel-centred target that would raise the likelihood most; taken pixels are skipped."""
    h, w = slope.shape
    best, best_i, best_j, best_flux = 0.0, -1, -1, 0.0
    for i in range(h):
        for j in range(w):
            if taken[i, j] or slope[i, j] <= 0.0:
                continue
            gain, norm = 0.0, 0.0
            for rank in range(tables.shape[1]):
                profile(tables[0, rank], row + i, row, work[0, :h])
                profile(tables[1, rank], column + j, column, work[2, :w])
                for a in range(h):
                    if work[0, a] != 0.0:
                        for b in range(w):
                            response = work[0, a] * work[2, b]
                            gain += response * slope[a, b]
                            norm += response * response * curvature[a, b]
            if norm > 0.0 and gain > 0.0 and gain * gain / norm > best:
                best, best_i, best_j, best_flux = gain * gain / norm, i, j, gain / norm
    return float(row + best_i) if best_i >= 0 else np.nan, float(column + best_j), best_flux


@compiled
def search_free(
    data: FloatArray,
    code: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    basis: FloatArray,
    row: int,
    column: int,
    most: int,
    target_low: FloatArray,
    target_high: FloatArray,
    terms_low: FloatArray,
    terms_high: FloatArray,
    log_flux: bool,
    min_separation: float,
    split_px: float,
    evidence: FloatArray,
    modes: FloatArray,
    at_mode: FloatArray,
    converged: Any,
) -> None:
    """Find the best mode of every count from 0 to `most` in a window.

    Args:
        data: window (h, w) whose first pixel is (row, column) of the frame.
        basis: background terms (terms, h, w), each with bounds `terms_low`, `terms_high`.
        target_low: (3,) bounds of x, y in px and flux in counts; `target_high` likewise.
        split_px: distance at which a target is split in two.
        evidence: filled, (most + 1,); -inf from where larger counts are hopeless.
        modes: filled, (most + 1, 3 most + terms).
        at_mode: filled, (most + 1,) log likelihood of each mode.
        converged: filled, (most + 1,).
    """
    h, w = data.shape
    terms = basis.shape[0]
    work = np.empty((4, max(h, w)))
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    taken = np.empty((h, w), np.bool_)
    evidence[:] = -np.inf
    theta = np.zeros(terms)
    low, high = window_bounds(0, target_low, target_high, terms_low, terms_high)
    for term in range(terms):
        theta[term] = min(max(0.0, low[term]), high[term])
    at_mode[0], converged[0] = maximise(
        theta,
        0,
        low,
        high,
        0.0,
        tables,
        row,
        column,
        basis,
        data,
        code,
        variance,
        inverse_gain,
        FULL_ITERATIONS,
        1e-3,
    )
    modes[0, :terms] = theta
    evidence[0] = log_evidence(
        theta, 0, low, high, log_flux, tables, row, column, basis, data, code, variance, inverse_gain
    )
    best = evidence[0]
    measured = (code == MEASURED).sum()
    explained = False
    for count in range(1, most + 1):
        size = 3 * count + terms
        previous = modes[count - 1, : size - 3].copy()
        low, high = window_bounds(count, target_low, target_high, terms_low, terms_high)
        render(previous, count - 1, tables, row, column, basis, work, image)
        pixel_terms(image, data, code, variance, inverse_gain, slope, curvature)
        proposals = np.empty((2 + 2 * MOST_SPLITS, size))
        number = 0
        taken[:] = False
        for _ in range(2):
            y, x, flux = _largest_residual(slope, curvature, tables, row, column, taken, work)
            if not np.isfinite(y):
                break
            for i in range(h):
                for j in range(w):
                    if abs(row + i - y) <= 1.0 and abs(column + j - x) <= 1.0:
                        taken[i, j] = True
            proposal = proposals[number]
            proposal[: size - 3 - terms] = previous[: size - 3 - terms]
            proposal[size - 3 - terms], proposal[size - 2 - terms], proposal[size - 1 - terms] = x, y, flux
            proposal[size - terms :] = previous[size - 3 - terms :]
            number += 1
        # how badly each target's surroundings are explained, and along which axis the residual is stretched
        badness, axis = np.empty(count - 1), np.empty(count - 1)
        for k in range(count - 1):
            total, xx, xy = 0.0, 0.0, 0.0
            for i in range(h):
                for j in range(w):
                    dx, dy = column + j - previous[3 * k], row + i - previous[3 * k + 1]
                    if dx * dx + dy * dy <= (2.0 * split_px + 1.0) ** 2 and curvature[i, j] > 0.0:
                        total += slope[i, j] ** 2 / curvature[i, j]
                        xx += slope[i, j] * (dx * dx - dy * dy)
                        xy += slope[i, j] * 2.0 * dx * dy
            badness[k], axis[k] = total, 0.5 * math.atan2(xy, xx)
        for _ in range(min(MOST_SPLITS, count - 1)):
            k = int(np.argmax(badness))
            badness[k] = -np.inf
            for turn in range(2):
                angle = axis[k] + turn * 0.5 * math.pi
                ux, uy = 0.5 * split_px * math.cos(angle), 0.5 * split_px * math.sin(angle)
                proposal = proposals[number]
                proposal[: size - 3 - terms] = previous[: size - 3 - terms]
                proposal[3 * k] -= ux
                proposal[3 * k + 1] -= uy
                proposal[3 * k + 2] *= 0.5
                proposal[size - 3 - terms] = previous[3 * k] + ux
                proposal[size - 2 - terms] = previous[3 * k + 1] + uy
                proposal[size - 1 - terms] = 0.5 * previous[3 * k + 2]
                proposal[size - terms :] = previous[size - 3 - terms :]
                number += 1
        if number == 0:
            break
        value, chosen = -np.inf, 0
        for p in range(number):
            for a in range(size):
                proposals[p, a] = min(max(proposals[p, a], low[a]), high[a])
            quick, _ = maximise(
                proposals[p], count, low, high, min_separation, tables, row, column, basis, data, code, variance,
                inverse_gain, QUICK_ITERATIONS, 1e-2,
            )  # fmt: skip
            if quick > value:
                value, chosen = quick, p
        theta = proposals[chosen].copy()
        at_mode[count], converged[count] = maximise(
            theta, count, low, high, min_separation, tables, row, column, basis, data, code, variance, inverse_gain,
            FULL_ITERATIONS, 1e-3,
        )  # fmt: skip
        modes[count, :size] = theta
        evidence[count] = log_evidence(
            theta, count, low, high, log_flux, tables, row, column, basis, data, code, variance, inverse_gain
        )
        if evidence[count] > best:
            best = evidence[count]
            render(theta, count, tables, row, column, basis, work, image)
            freedom = max(measured - size, 1)
            misfit = chi_squared(image, data, code, variance, inverse_gain)
            explained = misfit < freedom + EXPLAINED_SIGMAS * math.sqrt(2.0 * freedom)
        if evidence[count] < best - (GIVE_UP_EXPLAINED if explained else GIVE_UP):
            break
