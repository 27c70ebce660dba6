"""The light of one source in a window with its derivatives, compiled with Numba.

An ellipse, a disc and a streak are mixtures of Gaussians that share their covariance, convolved with the Gaussian that
has the width of the PSF and integrated over the pixels by quadrature. A point whose PSF is not exact is five points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled, inner
from csist._types import FloatArray
from csist.methods.continuous.likelihood import render_with_jacobian
from csist.methods.continuous.model import Window

POINTS, ELLIPSE, STREAK, BLURRED = 0, 1, 2, 3
"""Kinds of outlines."""
FARTHEST = 18.0
"""Exponent beyond which a Gaussian is taken as 0: exp(-18) = 1.5e-8."""
NARROW_PX, WIDE_PX = 0.8, 2.5
"""Widths below which three nodes a side integrate a pixel, and from which one does."""
NODES = np.zeros((3, 3, 2))
"""Gauss-Legendre nodes along a pixel's side, -0.5 to 0.5 px, and their weights (q, 2), for one, two and three nodes."""
for _number in (1, 2, 3):
    NODES[_number - 1, :_number] = 0.5 * np.stack(np.polynomial.legendre.leggauss(_number), axis=1)
BLUR_STEP = 0.2
"""Step of the numerical Laplacian in units of the PSF's sigma."""


class Outline(NamedTuple):
    """What is drawn of the parameters of a hypothesis; see `csist.frames.shapes.light`.

    Args:
        kind: one of the above.
        psf: (2, 2) covariance in px^2 of the Gaussian that stands for the PSF.
        sigma_px: width of the PSF.
        tables: of the PSF, see `csist.methods.continuous.optics`.
        arms: (K, 2) centres of the components of an ellipse of unit standard deviation.
        weights: (K,) of them.
        tau: their standard deviation.
    """

    kind: int
    psf: FloatArray
    sigma_px: float
    tables: FloatArray
    arms: FloatArray
    weights: FloatArray
    tau: float


@inner
def _mixture(
    centres: FloatArray,
    moves: FloatArray,
    weights: FloatArray,
    covariance: FloatArray,
    light: FloatArray,
    slopes: FloatArray,
) -> None:
    """Light of a mixture of Gaussians that share their covariance, and its derivatives by x, y and n parameters.

    Args:
        centres: (K, 2) x and y of the components in px.
        moves: (n, K, 2) their derivatives by the parameters.
        weights: (K,) of the components.
        covariance: (1 + n, 3) xx, xy and yy in px^2, then its derivatives.
        light: filled, (h, w).
        slopes: filled, (2 + n, h, w).
    """
    h, w = light.shape
    number = moves.shape[0]
    xx, xy, yy = covariance[0, 0], covariance[0, 1], covariance[0, 2]
    determinant = xx * yy - xy * xy
    a, b, c = yy / determinant, -xy / determinant, xx / determinant
    scale = 1.0 / (2.0 * math.pi * math.sqrt(determinant))
    # The smaller eigenvalue, free of cancellation.
    width = math.sqrt(determinant / (0.5 * (xx + yy) + math.hypot(0.5 * (xx - yy), xy)))
    order = 3 if width < NARROW_PX else 2 if width < WIDE_PX else 1
    nodes = NODES[order - 1]
    # Along a row a Gaussian is a product of ratios that change by a constant factor from pixel to pixel.
    bend = math.exp(-a)
    sums, by_centre = np.empty((6, w)), np.empty((number, w))
    for i in range(h):
        sums[:] = 0.0
        by_centre[:] = 0.0
        for k in range(weights.shape[0]):
            for row in range(order):
                dy = i + nodes[row, 0] - centres[k, 1]
                least = 0.5 * dy * dy / yy
                if least > FARTHEST:
                    continue
                middle = centres[k, 0] + dy * xy / yy
                reach = math.sqrt(2.0 * (FARTHEST - least) / a)
                for column in range(order):
                    first = max(math.ceil(middle - nodes[column, 0] - reach), 0)
                    last = min(math.floor(middle - nodes[column, 0] + reach), w - 1)
                    if last < first:
                        continue
                    away = first + nodes[column, 0] - middle
                    share = weights[k] * scale * nodes[row, 1] * nodes[column, 1]
                    density = share * math.exp(-0.5 * a * away * away - least)
                    ratio = math.exp(-a * (away + 0.5))
                    for j in range(first, last + 1):
                        dx = j + nodes[column, 0] - centres[k, 0]
                        gx, gy = a * dx + b * dy, b * dx + c * dy
                        by_x, by_y = density * gx, density * gy
                        sums[0, j] += density
                        sums[1, j] += by_x
                        sums[2, j] += by_y
                        sums[3, j] += by_x * gx - a * density
                        sums[4, j] += by_x * gy - b * density
                        sums[5, j] += by_y * gy - c * density
                        if weights.shape[0] > 1:
                            for p in range(number):
                                by_centre[p, j] += by_x * moves[p, k, 0] + by_y * moves[p, k, 1]
                        density *= ratio
                        ratio *= bend
        for j in range(w):
            light[i, j], slopes[0, i, j], slopes[1, i, j] = sums[0, j], sums[1, j], sums[2, j]
            for p in range(number):
                wider = 0.5 * (covariance[1 + p, 0] * sums[3, j] + covariance[1 + p, 2] * sums[5, j])
                slopes[2 + p, i, j] = wider + covariance[1 + p, 1] * sums[4, j] + by_centre[p, j]


@compiled
def stretch(size: float, first: float, second: float) -> FloatArray:
    """Symmetric matrix that makes an ellipse of the unit circle, and its derivatives; (4, 3), xx, xy and yy of each.

    Args:
        size: logarithm of the geometric mean of both semi-axes.
        first: half the logarithm of their ratio, times the cosine of twice the angle of the longer one.
        second: the same, times the sine.
    """
    ratio = math.hypot(first, second)
    along, bend = 1.0, 1.0 / 3.0
    if ratio > 1e-4:
        along = math.sinh(ratio) / ratio
        bend = (math.cosh(ratio) - along) / ratio**2
    scale, result = math.exp(size), np.empty((4, 3))
    result[0, 0] = scale * (math.cosh(ratio) + along * first)
    result[0, 1] = scale * along * second
    result[0, 2] = scale * (math.cosh(ratio) - along * first)
    result[1] = result[0]
    for k in range(2):
        each = second if k else first
        result[2 + k, 0] = scale * each * (along + bend * first)
        result[2 + k, 1] = scale * each * bend * second
        result[2 + k, 2] = scale * each * (along - bend * first)
    result[2, 0] += scale * along
    result[2, 2] -= scale * along
    result[3, 1] += scale * along
    return result


@inner
def _ellipse(outline: Outline, place: FloatArray, light: FloatArray, slopes: FloatArray) -> None:
    """Light of an elliptical source, a Gaussian or a disc, and its derivatives by 5 parameters."""
    matrices, arms, square = stretch(place[2], place[3], place[4]), outline.arms, outline.tau**2
    centres, moves = np.empty(arms.shape), np.empty((3, arms.shape[0], 2))
    for k in range(arms.shape[0]):
        x, y = arms[k, 0], arms[k, 1]
        centres[k, 0] = place[0] + matrices[0, 0] * x + matrices[0, 1] * y
        centres[k, 1] = place[1] + matrices[0, 1] * x + matrices[0, 2] * y
        for p in range(3):
            moves[p, k, 0] = matrices[1 + p, 0] * x + matrices[1 + p, 1] * y
            moves[p, k, 1] = matrices[1 + p, 1] * x + matrices[1 + p, 2] * y
    covariance = np.empty((4, 3))
    a, b, d = matrices[0, 0], matrices[0, 1], matrices[0, 2]
    covariance[0, 0] = outline.psf[0, 0] + square * (a * a + b * b)
    covariance[0, 1] = outline.psf[0, 1] + square * b * (a + d)
    covariance[0, 2] = outline.psf[1, 1] + square * (b * b + d * d)
    for p in range(1, 4):
        da, db, dd = matrices[p, 0], matrices[p, 1], matrices[p, 2]
        covariance[p, 0] = 2.0 * square * (a * da + b * db)
        covariance[p, 1] = square * (db * (a + d) + b * (da + dd))
        covariance[p, 2] = 2.0 * square * (b * db + d * dd)
    _mixture(centres, moves, outline.weights, covariance, light, slopes)


@inner
def _streak(outline: Outline, place: FloatArray, light: FloatArray, slopes: FloatArray) -> None:
    """Light of a streak and its derivatives by 4 parameters: a row of Gaussians closer than the width of the PSF."""
    length, dx, dy = math.exp(place[2]), math.cos(place[3]), math.sin(place[3])
    xx, xy, yy = outline.psf[0, 0], outline.psf[0, 1], outline.psf[1, 1]
    narrowest = math.sqrt(0.5 * (xx + yy) - math.hypot(0.5 * (xx - yy), xy))
    number = math.ceil(length / narrowest)
    centres, moves = np.empty((number, 2)), np.empty((2, number, 2))
    for k in range(number):
        away = length * (k - 0.5 * (number - 1)) / number
        moves[0, k, 0], moves[0, k, 1] = away * dx, away * dy
        moves[1, k, 0], moves[1, k, 1] = -away * dy, away * dx
        centres[k, 0], centres[k, 1] = place[0] + away * dx, place[1] + away * dy
    # Each component has the variance of its part of the segment.
    variance, covariance = (length / number) ** 2 / 12.0, np.empty((3, 3))
    covariance[1, 0], covariance[1, 1], covariance[1, 2] = variance * dx * dx, variance * dx * dy, variance * dy * dy
    covariance[0, 0], covariance[0, 1] = xx + covariance[1, 0], xy + covariance[1, 1]
    covariance[0, 2] = yy + covariance[1, 2]
    covariance[1] *= 2.0
    covariance[2, 0], covariance[2, 2] = -2.0 * variance * dx * dy, 2.0 * variance * dx * dy
    covariance[2, 1] = variance * (dx * dx - dy * dy)
    _mixture(centres, moves, np.full(number, 1.0 / number), covariance, light, slopes)


@inner
def _blurred(outline: Outline, place: FloatArray, window: Window, light: FloatArray, slopes: FloatArray) -> None:
    """Light of a point whose PSF is a little wider or narrower than stated, and its derivatives by 3 parameters.

    To first order the PSF changes by sigma^2 times its Laplacian.
    """
    h, w = light.shape
    step, theta = BLUR_STEP * outline.sigma_px, np.empty(15)
    laplacian = np.full(5, 1.0 / BLUR_STEP**2)
    laplacian[0] = -4.0 / BLUR_STEP**2
    for k in range(5):
        theta[3 * k], theta[3 * k + 1], theta[3 * k + 2] = place[0], place[1], place[2] * laplacian[k]
    theta[2] += 1.0
    theta[3] += step
    theta[6] -= step
    theta[10] += step
    theta[13] -= step
    bare = Window(window.data, window.code, window.weight, 0, 0, window.basis[:0])
    each = np.empty((15, h, w))
    render_with_jacobian(theta, bare, outline.tables, np.empty((4, max(h, w))), light, each)
    slopes[:3] = 0.0
    for k in range(5):
        slopes[0] += each[3 * k]
        slopes[1] += each[3 * k + 1]
        slopes[2] += laplacian[k] * each[3 * k + 2]


@inner
def draw(outline: Outline, place: FloatArray, window: Window, light: FloatArray, slopes: FloatArray) -> None:
    """Share of a source's flux in each pixel, and its derivatives.

    Args:
        outline: of the source.
        place: (n,) x and y in px, then the parameters of its shape.
        window: gives place and shape.
        light: filled, (h, w).
        slopes: filled, (n, h, w).
    """
    if outline.kind == ELLIPSE:
        _ellipse(outline, place, light, slopes)
    elif outline.kind == STREAK:
        _streak(outline, place, light, slopes)
    else:
        _blurred(outline, place, window, light, slopes)


@compiled
def light_in(outline: Outline, place: FloatArray, window: Window) -> tuple[FloatArray, FloatArray]:
    """Share of a source's flux (h, w) in each pixel of a window, and its derivatives (n, h, w); see `draw`."""
    h, w = window.data.shape
    light, slopes = np.empty((h, w)), np.empty((place.shape[0], h, w))
    draw(outline, place, window, light, slopes)
    return light, slopes


@compiled
def expected(outline: Outline, theta: FloatArray, window: Window, image: FloatArray, jacobian: FloatArray) -> None:
    """Expected image of the parameters of a hypothesis, and its derivatives.

    Args:
        outline: of the source, or that of point targets.
        theta: (n,) x, y and logarithm of the flux of each point target, or x, y, shape and logarithm of the flux of one
            source; then the coefficients of the background terms.
        window: gives shape and background terms.
        image: filled, (h, w).
        jacobian: filled, (n, h, w).
    """
    h, w = image.shape
    number = theta.shape[0] - window.basis.shape[0]
    if outline.kind == POINTS:
        linear = theta.copy()
        for k in range(2, number, 3):
            linear[k] = math.exp(theta[k])
        render_with_jacobian(linear, window, outline.tables, np.empty((4, max(h, w))), image, jacobian)
        for k in range(2, number, 3):
            jacobian[k] *= linear[k]
        return
    draw(outline, theta[: number - 1], window, image, jacobian[: number - 1])
    flux = math.exp(theta[number - 1])
    jacobian[: number - 1] *= flux
    image *= flux
    jacobian[number - 1] = image
    for term in range(window.basis.shape[0]):
        jacobian[number + term] = window.basis[term]
        image += theta[number + term] * window.basis[term]
