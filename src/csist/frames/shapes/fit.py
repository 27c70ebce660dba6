"""Mode and evidence of one source in a window: Levenberg-Marquardt with Fisher curvature, and Laplace's approximation.

The likelihood is that of the point targets (`csist.methods.continuous.likelihood`): the same pixels, noise and
background terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray
from csist.frames.shapes.light import Model
from csist.methods.continuous.likelihood import pixel_terms, render_with_jacobian
from csist.methods.continuous.model import Noise, Window

LOG_2PI = float(np.log(2.0 * np.pi))
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8
TOLERANCE = 0.05
"""Gain in log likelihood at which a climb has converged."""

Image = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Expected image (h, w) of parameters (n,) and its derivatives (n, h, w)."""


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
        covariance: (n, n) of the parameters.
        at_bound: (n,) parameters that are at a bound.
    """

    theta: FloatArray
    image: FloatArray
    log_evidence: float
    covariance: FloatArray
    at_bound: BoolArray


class _Slopes(NamedTuple):
    """The posterior at a place: its logarithm, gradient (n,), Fisher information (n, n) and the expected image."""

    value: float
    gradient: FloatArray
    information: FloatArray
    image: FloatArray


def points_image(window: Window, tables: FloatArray) -> Image:
    """Images of point targets: x, y and flux of each, then the background terms.

    Args:
        window: gives place, shape and background terms.
        tables: of the PSF, see `csist.methods.continuous.optics`.
    """

    def image(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        shape = window.data.shape
        light, slopes = np.empty(shape), np.empty((len(theta), *shape))
        render_with_jacobian(theta, window, tables, np.empty((4, max(shape))), light, slopes)
        return light, slopes

    return image


def source_image(window: Window, model: Model) -> Image:
    """Images of one source: the parameters of its model, the logarithm of its flux, then the background terms."""
    terms = window.basis

    def image(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        number = len(theta) - len(terms) - 1
        light, slopes = model.light(theta[:number])
        flux = np.exp(theta[number])
        source = flux * light
        whole = source + np.tensordot(theta[number + 1 :], terms, 1)
        return whole, np.concatenate([flux * slopes, source[None], terms])

    return image


def climb(image: Image, start: FloatArray, within: Range, window: Window, noise: Noise, steps: int = 25) -> Mode:
    """Climb from a start to a mode, and take its evidence.

    Args:
        image: expected image of the parameters.
        start: (n,) parameters.
        within: their bounds and priors.
        window: the data.
        noise: of a pixel.
        steps: most steps.
    """
    theta = np.clip(start, within.low, within.high)
    here, damping = _slopes(image, theta, within, window, noise), FIRST_DAMPING
    for _ in range(steps):
        held = ((theta <= within.low) & (here.gradient < 0.0)) | ((theta >= within.high) & (here.gradient > 0.0))
        free = np.flatnonzero(~held)
        system = here.information if not held.any() else here.information[np.ix_(free, free)]
        diagonal = np.maximum(np.diag(system), 1e-12)
        # Scaled to a unit diagonal: parameters have different units.
        scale = 1.0 / np.sqrt(diagonal)
        damped = system * scale[:, None] * scale
        damped.flat[:: len(free) + 1] += damping
        step = np.linalg.solve(damped, scale * here.gradient[free]) * scale
        trial = theta.copy()
        trial[free] = np.clip(theta[free] + step, within.low[free], within.high[free])
        if float(here.gradient @ (trial - theta)) < TOLERANCE:
            break
        there = _slopes(image, trial, within, window, noise)
        if there.value > here.value:
            theta, here, damping = trial, there, max(0.2 * damping, LEAST_DAMPING)
        else:
            damping *= 8.0
            if damping > MOST_DAMPING:
                break
    return _mode(theta, here, within)


def _slopes(image: Image, theta: FloatArray, within: Range, window: Window, noise: Noise) -> _Slopes:
    light, jacobian = image(theta)
    slope, curvature = np.empty(light.shape), np.empty(light.shape)
    value = pixel_terms(light, window, noise, slope, curvature)
    flat = jacobian.reshape(len(theta), -1)
    information = (flat * curvature.ravel()) @ flat.T
    information.flat[:: len(theta) + 1] += within.pull
    gradient = flat @ slope.ravel() - within.pull * theta
    return _Slopes(float(value - 0.5 * (within.pull * theta) @ theta), gradient, information, light)


def _mode(theta: FloatArray, here: _Slopes, within: Range) -> Mode:
    """Laplace's evidence: a direction that the image does not measure counts with exactly the prior's width."""
    information = here.information + np.diag(np.where(within.pull > 0.0, 0.0, 2.0 * np.pi / within.width**2))
    sign, determinant = np.linalg.slogdet(information)
    evidence = here.value + float((0.5 * LOG_2PI - np.log(within.width)).sum()) - 0.5 * float(determinant)
    at_bound = (theta <= within.low) | (theta >= within.high)
    return Mode(theta, here.image, evidence if sign > 0 else -np.inf, np.linalg.pinv(information), at_bound)
