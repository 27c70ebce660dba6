"""How well a number of targets explains a window: the evidence in Laplace's approximation."""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float64

from csist._compiled import inlined, lean, linked
from csist._types import FloatArray
from csist.methods.continuous.likelihood import count_of, information_matrix, pixel_terms, render_with_jacobian
from csist.methods.continuous.model import BOUNDS, NOISE, TABLES, VECTOR, WINDOW, Bounds, Noise, Window
from csist.methods.continuous.optimise import cholesky, cholesky_solve

LOG_2PI = math.log(2.0 * math.pi)

FAR_BEYOND = 20.0
"""From here on the asymptotic tail of the normal distribution is exact to 0.1 %."""

RESOLVED_SIGMAS = 3.0
"""Targets closer than so many standard errors of their distance are one to the image."""


@inlined
def _log_orderings(theta: FloatArray, count: int, factor: FloatArray) -> float:
    """Log of the number of distinct orderings; `factor` is the Cholesky factor of the information."""
    size = theta.shape[0]
    variance, column = np.empty(2 * count), np.empty(size)
    for k in range(2 * count):
        p = 3 * (k // 2) + k % 2
        column[:] = 0.0
        column[p] = 1.0
        cholesky_solve(factor, size, column)
        variance[k] = column[p]
    cluster = np.empty(count, np.int64)
    for k in range(count):
        cluster[k] = k
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
        members = 0
        for other in range(count):
            members += cluster[other] == k
        total -= math.lgamma(members + 1.0)
    return total


@lean
def _log_one_sided(slope: float, variance: float) -> float:
    """Log of the share of a normal distribution's integral that is left of a mode at a bound.

    Args:
        slope: of the log likelihood, towards the bound.
        variance: of the parameter.
    """
    x = slope * math.sqrt(0.5 * variance)
    if x < FAR_BEYOND:
        return math.log(0.5 * math.erfc(x)) + x * x
    return -math.log(2.0 * x * math.sqrt(math.pi))


@linked(float64(VECTOR, BOUNDS, WINDOW, NOISE, TABLES, boolean))
def log_evidence(
    theta: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray, is_one_sided: bool
) -> float:
    """Laplace's log evidence of a group with its mode at theta, prior uniform within the bounds.

    Every ordering of the targets is a mode of its own, hence log count!; but orderings of targets that the
    image cannot tell apart are one and the same mode. 2 pi / width^2 is added to the information, so that a
    direction which the image does not measure counts with exactly the prior's width.

    Args:
        theta: (parameters,) the mode.
        bounds: of the parameters.
        window: the data.
        noise: of a pixel.
        tables: of `Optics`.
        is_one_sided: whether nothing lies beyond a bound at which the mode is; else what lies there counts, which
            stands for the modes in the pixels around.
    """
    h, w = window.data.shape
    size, count = theta.shape[0], count_of(theta, window)
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    jacobian, information = np.empty((size, h, w)), np.empty((size, size))
    render_with_jacobian(theta, window, tables, np.empty((4, max(h, w))), image, jacobian)
    total = pixel_terms(image, window, noise, slope, curvature)
    information_matrix(jacobian, curvature, np.empty(h * w), information)
    for a in range(size):
        is_log = bounds.log_flux and a < 3 * count and a % 3 == 2
        width = math.log(bounds.high[a] / bounds.low[a]) if is_log else bounds.high[a] - bounds.low[a]
        if is_log:
            for b in range(size):
                information[a, b] *= theta[a]
                information[b, a] *= theta[a]
        information[a, a] += 2.0 * math.pi / width**2
        total += 0.5 * LOG_2PI - math.log(width)
    if not cholesky(information, size):
        return -np.inf
    if is_one_sided:
        column = np.empty(size)
        for a in range(3 * count):
            at_low, at_high = theta[a] <= bounds.low[a], theta[a] >= bounds.high[a]
            if at_low or at_high:
                score = (jacobian[a] * slope).sum() * (theta[a] if bounds.log_flux and a % 3 == 2 else 1.0)
                column[:] = 0.0
                column[a] = 1.0
                cholesky_solve(information, size, column)
                total += _log_one_sided(max(-score if at_low else score, 0.0), column[a])
    for a in range(size):
        total -= math.log(information[a, a])
    return total + _log_orderings(theta, count, information)
