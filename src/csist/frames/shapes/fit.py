"""Mode and evidence of one source in a window: Levenberg-Marquardt with Fisher curvature, and Laplace's approximation.

The likelihood is that of the point targets (`csist.methods.continuous.likelihood`): the same pixels, noise and
background terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled, inner
from csist._types import BoolArray, FloatArray
from csist.frames.shapes.kernels import Outline, expected
from csist.methods.continuous.likelihood import information_matrix, pixel_terms
from csist.methods.continuous.model import Noise, Window
from csist.methods.continuous.optimise import cholesky, cholesky_solve

LOG_2PI = float(np.log(2.0 * np.pi))
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8
TOLERANCE = 0.05
"""Gain in log likelihood at which a climb has converged."""
STEPS = 25
"""Most steps of a climb."""
MOST_GAIN = 3.0
"""Most that is still to be gained in a climb, in units of what the gradient promises for the next step: half of it near
a mode; the rest is room for a likelihood that is no parabola."""


class Range(NamedTuple):
    """Where the parameters of a hypothesis may lie, and the width of the prior of each.

    Args:
        low: (n,) lower bounds.
        high: (n,) upper bounds.
        width: (n,) of a uniform prior; a Gaussian prior of standard deviation s has sqrt(2 pi) s.
        pull: (n,) precision of a Gaussian prior around 0; 0 for a uniform one.
    """

    low: FloatArray
    high: FloatArray
    width: FloatArray
    pull: FloatArray

    @classmethod
    def uniform(cls, low: FloatArray, high: FloatArray) -> Range:
        """Uniform priors between bounds (n,)."""
        return cls(low, high, high - low, np.zeros(len(low)))

    def joined(self, *others: Range) -> Range:
        """These parameters, then others."""
        return Range(*(np.concatenate(parts) for parts in zip(self, *others, strict=True)))


@dataclass(frozen=True, eq=False)
class Mode:
    """A mode of the posterior.

    Args:
        theta: (n,) parameters.
        image: (h, w) expected light.
        log_evidence: Laplace's, prior included.
        information: (n, n) Fisher information of the parameters, with their priors.
        at_bound: (n,) parameters that are at a bound.
        given_up: whether the climb ended before the mode, which is of no interest.
    """

    theta: FloatArray
    image: FloatArray
    log_evidence: float
    information: FloatArray
    at_bound: BoolArray
    given_up: bool = False

    @cached_property
    def covariance(self) -> FloatArray:
        """(n, n) of the parameters."""
        # In units of their own: the information of a background of small numbers is many orders above that of a place.
        unit = np.sqrt(np.maximum(np.diag(self.information), np.finfo(float).tiny))
        return np.asarray(np.linalg.pinv(self.information / unit[:, None] / unit) / unit[:, None] / unit)


class Place(NamedTuple):
    """The posterior at some parameters: expected image (h, w), gradient (n,) and Fisher information (n, n)."""

    image: FloatArray
    gradient: FloatArray
    information: FloatArray


@inner
def _look(outline: Outline, theta: FloatArray, pull: FloatArray, window: Window, noise: Noise, place: Place) -> float:
    """The log posterior at some parameters; what else is known there is filled into `place`."""
    h, w = window.data.shape
    size = theta.shape[0]
    jacobian, slope, curvature = np.empty((size, h, w)), np.empty((h, w)), np.empty((h, w))
    expected(outline, theta, window, place.image, jacobian)
    value = pixel_terms(place.image, window, noise, slope, curvature)
    information_matrix(jacobian, curvature, np.empty(h * w), place.information)
    for a in range(size):
        total = 0.0
        for i in range(h):
            for j in range(w):
                total += jacobian[a, i, j] * slope[i, j]
        place.gradient[a] = total - pull[a] * theta[a]
        place.information[a, a] += pull[a]
        value -= 0.5 * pull[a] * theta[a] * theta[a]
    return value


@inner
def damped_step(theta: FloatArray, within: Range, here: Place, damping: float, trial: FloatArray) -> float:
    """Fill in where a damped step leads to, within the bounds, and return the gain that the gradient promises there.

    A parameter at a bound whose gradient points outwards is held there. Infinite if there is no solution.
    """
    size = theta.shape[0]
    system, step, scale = np.empty((size, size)), np.empty(size), np.empty(size)
    for a in range(size):
        low = theta[a] <= within.low[a] and here.gradient[a] < 0.0
        high = theta[a] >= within.high[a] and here.gradient[a] > 0.0
        # Scaled to a unit diagonal: parameters have different units.
        scale[a] = 0.0 if low or high else 1.0 / math.sqrt(max(here.information[a, a], 1e-12))
        step[a] = scale[a] * here.gradient[a]
    for a in range(size):
        for b in range(a):
            system[a, b] = here.information[a, b] * scale[a] * scale[b]
        system[a, a] = here.information[a, a] * scale[a] * scale[a] + damping if scale[a] > 0.0 else 1.0
    if not cholesky(system, size):
        return np.inf
    cholesky_solve(system, size, step)
    gain = 0.0
    for a in range(size):
        trial[a] = min(max(theta[a] + scale[a] * step[a], within.low[a]), within.high[a])
        gain += here.gradient[a] * (trial[a] - theta[a])
    return gain


@inner
def _spread(information: FloatArray, within: Range) -> float:
    """Add the uniform priors to the Fisher information; log share of the prior that the posterior takes up.

    Minus infinity if the information is not positive definite.
    """
    size, share = information.shape[0], 0.0
    for a in range(size):
        if within.pull[a] == 0.0:
            information[a, a] += 2.0 * math.pi / within.width[a] ** 2
        share += 0.5 * LOG_2PI - math.log(within.width[a])
    factor = information.copy()
    if not cholesky(factor, size):
        return -np.inf
    for a in range(size):
        share -= math.log(factor[a, a])
    return share


@compiled
def _climb(
    outline: Outline, theta: FloatArray, within: Range, window: Window, noise: Noise, needed: float
) -> tuple[float, FloatArray, FloatArray, bool]:
    """Climb from `theta`, which is changed in place; log evidence, expected image and Fisher information there.

    The last value is whether the climb was given up, as no mode above `needed` can be expected.
    """
    size, shape = theta.shape[0], window.data.shape
    here = Place(np.empty(shape), np.empty(size), np.empty((size, size)))
    there = Place(np.empty(shape), np.empty(size), np.empty((size, size)))
    trial, damping = np.empty(size), FIRST_DAMPING
    value, given_up = _look(outline, theta, within.pull, window, noise, here), False
    for _ in range(STEPS):
        gain = damped_step(theta, within, here, damping, trial)
        if gain < TOLERANCE:
            break
        # The evidence of a mode is less than its posterior: no prior is wider than its range.
        given_up = value + MOST_GAIN * gain < needed
        if given_up:
            break
        reached = -np.inf
        if gain < np.inf:
            reached = _look(outline, trial, within.pull, window, noise, there)
        if reached > value:
            theta[:], value = trial, reached
            here, there = there, here
            damping = max(0.2 * damping, LEAST_DAMPING)
        else:
            damping *= 8.0
            if damping > MOST_DAMPING:
                break
    return value + _spread(here.information, within), here.image, here.information, given_up


def climb(
    outline: Outline, start: FloatArray, within: Range, window: Window, noise: Noise, needed: float = -np.inf
) -> Mode:
    """Climb from a start to a mode, and take its evidence.

    Laplace's evidence: a direction that the image does not measure counts with exactly the prior's width.

    Args:
        outline: what the parameters draw, see `csist.frames.shapes.kernels.expected`.
        start: (n,) parameters.
        within: their bounds and priors.
        window: the data.
        noise: of a pixel.
        needed: log evidence below which the mode is of no interest; the climb may then be given up before it.
    """
    theta = np.clip(start, within.low, within.high)
    evidence, image, information, given_up = _climb(outline, theta, within, window, noise, needed)
    at_bound = (theta <= within.low) | (theta >= within.high)
    return Mode(theta, image, evidence, information, at_bound, given_up)
