"""The evidence of targets that the image cannot tell apart.

Two targets within a part of the PSF's width look like one whose light has second moments M = q (1 - q) d d^T, with
their distance d and the share q of one of them. Their posterior is broad and bent: along d the likelihood is flat at
first and then falls with the fourth power, which a normal distribution at the mode (Laplace's approximation) takes for
a direction that the image does not measure. In M, however, the likelihood is nearly a normal distribution, and the
prior of M is known: the integral over d and q has a closed form but for two smooth integrals, over q and over the
direction of d. The other parameters follow M to their mode.
"""

from __future__ import annotations

import math

import numpy as np
from numba import void

from csist._compiled import inlined, lean, linked
from csist._types import FloatArray
from csist.methods.continuous.likelihood import (
    count_of,
    information_matrix,
    pixel_terms,
    render,
    render_with_jacobian,
)
from csist.methods.continuous.model import BOUNDS, NOISE, TABLES, VECTOR, WINDOW, Bounds, Noise, Window
from csist.methods.continuous.optimise import cholesky, cholesky_solve

STEP = 0.6
"""Half the distance of the two halves of a target by which its second moments are told, in widths of the PSF."""
FARTHEST = 1.5
"""Distance in widths of the PSF up to which two targets count here."""
LEAST_SHARE = 1e-3
LEAST_RATIO = 1e-4
"""Of what the prior has no room for: two targets that must be brighter than their light."""
SHARES, DIRECTIONS = 10, 12
"""Points of the integrals over the share and over the direction."""
MOST_SIGMAS = 35.0
"""Second moments that are farther from those of two targets have no weight."""
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(SHARES)


@lean
def _below(a: float) -> float:
    """The normal distribution function."""
    return 0.5 * math.erfc(-a * 0.7071067811865476)


@lean
def _along(slope: float, curvature: float, low: float, high: float) -> float:
    """Integral of exp(slope t - curvature t^2 / 2) over t from low to high."""
    width = math.sqrt(max(curvature, 0.0))
    if width * high < 0.05:  # no curvature to speak of
        middle = 0.5 * (low + high)
        return (high - low) * math.exp(min(slope * middle, 0.5 * MOST_SIGMAS**2))
    middle = slope / width
    if abs(middle) > MOST_SIGMAS:
        return 0.0
    begin, end = low * width - middle, high * width - middle
    inside = _below(-begin) - _below(-end) if begin > 0.0 else _below(end) - _below(begin)
    return math.exp(0.5 * middle * middle) * math.sqrt(2.0 * math.pi) / width * inside


@inlined
def _moments_of(target: FloatArray, reach: float, window: Window, tables: FloatArray, change: FloatArray) -> None:
    """Fill the derivatives (3, h, w) of the image by the second moments xx, xy and yy of a target's light.

    Args:
        target: (3 + terms,) x, y, flux, and 0 for each background term.
        reach: half the distance of the halves in px.
        window: gives place and shape.
        tables: of `Optics`.
        change: filled.
    """
    h, w = change.shape[1], change.shape[2]
    profiles, image, moved = np.empty((4, max(h, w))), np.empty((h, w)), target.copy()
    change[:] = 0.0
    diagonal = reach * math.sqrt(0.5)
    steps = ((reach, 0.0, 0, 1.0), (0.0, reach, 2, 1.0), (diagonal, diagonal, 1, 1.0), (diagonal, -diagonal, 1, -1.0))
    for dx, dy, moment, sign in steps:
        for side in (1.0, -1.0):
            moved[0], moved[1] = target[0] + side * dx, target[1] + side * dy
            render(moved, window, tables, profiles, image)
            for i in range(h):
                for j in range(w):
                    change[moment, i, j] += 0.5 * sign * image[i, j] / reach**2
    moved[0], moved[1] = target[0], target[1]
    render(moved, window, tables, profiles, image)
    for i in range(h):
        for j in range(w):
            change[0, i, j] -= image[i, j] / reach**2
            change[2, i, j] -= image[i, j] / reach**2


@lean
def _over_shares(slope: float, curvature: float, flux: float, bounds: Bounds, spread_px: float) -> float:
    """Integral over the share and the distance of two targets in one direction.

    Args:
        slope: of the log likelihood by the second moment in that direction.
        curvature: minus its second derivative.
        flux: of both.
        bounds: of the parameters.
        spread_px: width of the PSF.
    """
    low, high = bounds.low[2], bounds.high[2]
    least = max(low / flux, LEAST_SHARE)
    if least >= 0.5:
        return 0.0
    reach, total = math.log((1.0 - least) / least), 0.0
    for n in range(SHARES):
        share = 1.0 / (1.0 + math.exp(-reach * NODES[n]))
        product = share * (1.0 - share)
        nearest, farthest = product * bounds.min_separation**2, product * (FARTHEST * spread_px) ** 2
        prior = 1.0 / (product * math.log(high / low)) if bounds.log_flux else flux / (high - low)
        step = NODE_WEIGHTS[n] * reach * product
        total += step * prior * 0.5 / product * _along(slope, curvature, nearest, farthest)
    return total


@inlined
def _beside_the_rest(
    information: FloatArray, score: FloatArray, size: int, slopes: FloatArray, curvatures: FloatArray
) -> bool:
    """First and second derivatives by the last three parameters where all others follow; False if they cannot.

    Args:
        information: (size + 3, size + 3), of which the part of the others is replaced by its factor.
        score: (size + 3,) first derivatives.
        size: number of the others.
        slopes: filled, (3,).
        curvatures: filled, (3, 3), minus the second derivatives.
    """
    is_definite = cholesky(information, size)
    column = np.empty(size)
    for m in range(3):
        for a in range(size):
            column[a] = information[size + m, a]
        cholesky_solve(information, size, column)
        slopes[m] = score[size + m]
        for a in range(size):
            slopes[m] -= column[a] * score[a]
        for n in range(3):
            curvatures[m, n] = information[size + m, size + n]
            for a in range(size):
                curvatures[m, n] -= column[a] * information[size + n, a]
    return is_definite


@lean
def _over_directions(
    slopes: FloatArray, curvatures: FloatArray, flux: float, bounds: Bounds, spread_px: float
) -> float:
    """Integral over the share, the distance and the direction of two targets in the place of one.

    Args:
        slopes: (3,) of the log likelihood by the second moments xx, xy and yy.
        curvatures: (3, 3) minus its second derivatives.
        flux: of both.
        bounds: of the parameters.
        spread_px: width of the PSF.
    """
    total = 0.0
    for direction in range(DIRECTIONS):
        angle = (direction + 0.5) * math.pi / DIRECTIONS
        along = (math.cos(angle) ** 2, math.cos(angle) * math.sin(angle), math.sin(angle) ** 2)
        slope, curvature = 0.0, 0.0
        for m in range(3):
            slope += along[m] * slopes[m]
            for n in range(3):
                curvature += along[m] * curvatures[m, n] * along[n]
        total += _over_shares(slope, curvature, flux, bounds, spread_px) * 2.0 * math.pi / DIRECTIONS
    return total


@linked(void(VECTOR, BOUNDS, WINDOW, NOISE, TABLES, VECTOR))
def split_ratios(
    theta: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray, ratios: FloatArray
) -> None:
    """Sum over the targets of a mode of the evidence of two in the place of one, over that of the one.

    Args:
        theta: (parameters,) the mode.
        bounds: of the parameters.
        window: the data.
        noise: of a pixel.
        tables: of `Optics`.
        ratios: (2,) the width of the PSF in px at first; replaced by the ratio, and by what it is where another target
            has explained all that second moments can.
    """
    h, w = window.data.shape
    size, spread_px = theta.shape[0], ratios[0]
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    # The second moments of a target follow the parameters of the mode.
    jacobian, information = np.empty((size + 3, h, w)), np.empty((size + 3, size + 3))
    render_with_jacobian(theta, window, tables, np.empty((4, max(h, w))), image, jacobian)
    pixel_terms(image, window, noise, slope, curvature)
    target, score = np.zeros(3 + window.basis.shape[0]), np.empty(size + 3)
    slopes, curvatures = np.empty(3), np.empty((3, 3))
    ratios[:] = 0.0
    for k in range(count_of(theta, window)):
        for p in range(3):
            target[p] = theta[3 * k + p]
        if target[2] <= 0.0:
            continue
        _moments_of(target, STEP * spread_px, window, tables, jacobian[size:])
        information_matrix(jacobian, curvature, np.empty(h * w), information)
        for a in range(size):
            information[a, a] += 2.0 * math.pi / (bounds.high[a] - bounds.low[a]) ** 2
        for a in range(size + 3):
            score[a] = (jacobian[a] * slope).sum()
        if _beside_the_rest(information, score, size, slopes, curvatures):
            ratios[0] += _over_directions(slopes, curvatures, target[2], bounds, spread_px)
            slopes[:] = 0.0
            ratios[1] += _over_directions(slopes, curvatures, target[2], bounds, spread_px)
    area = (bounds.high[0] - bounds.low[0]) * (bounds.high[1] - bounds.low[1])
    for n in range(2):
        ratios[n] = max(ratios[n] / area, LEAST_RATIO)
