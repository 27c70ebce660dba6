"""Least-squares fit of a Gaussian of unknown position, flux and width on an unknown constant, compiled."""

from __future__ import annotations

import math

import numpy as np

from csist._compiled import compiled, inner
from csist._types import FloatArray
from csist.frames.shapes.fit import FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING, Place, Range, damped_step

TOLERANCE = 1e-7
"""Gain in half the sum of squares at which a fit has converged, in units of the noise."""
STEPS = 60
"""Most steps of a fit."""


@inner
def _profile(offsets: int, at: float, sigma_px: float, values: FloatArray) -> None:
    """Fill in the share of a Gaussian in each of a row of pixels, and its derivatives by place and by width.

    Args:
        offsets: number of pixels, the first of which is at 0.
        at: centre of the Gaussian in px.
        sigma_px: its standard deviation.
        values: (3, offsets) share and derivatives.
    """
    scale = 1.0 / (sigma_px * math.sqrt(2.0))
    height = 1.0 / (sigma_px * math.sqrt(2.0 * math.pi))
    edge = -0.5 - at
    below, density = math.erf(edge * scale), height * math.exp(-((edge * scale) ** 2))
    for k in range(offsets):
        last_edge, last_below, last_density = edge, below, density
        edge = k + 0.5 - at
        below, density = math.erf(edge * scale), height * math.exp(-((edge * scale) ** 2))
        values[0, k] = 0.5 * (below - last_below)
        values[1, k] = last_density - density
        values[2, k] = (last_edge * last_density - edge * density) / sigma_px


@inner
def _look(theta: FloatArray, data: FloatArray, noise: float, place: Place) -> float:
    """Minus half the sum of squares at some parameters; gradient and information are filled in."""
    h, w = data.shape
    size = theta.shape[0]
    along, across, slopes = np.empty((3, w)), np.empty((3, h)), np.empty(size)
    _profile(w, theta[0], theta[3], along)
    _profile(h, theta[1], theta[3], across)
    flux, value, weight = theta[2], 0.0, 1.0 / (noise * noise)
    place.gradient[:] = 0.0
    place.information[:] = 0.0
    for i in range(h):
        for j in range(w):
            if math.isnan(data[i, j]):
                continue
            slopes[0] = flux * across[0, i] * along[1, j]
            slopes[1] = flux * across[1, i] * along[0, j]
            slopes[2] = across[0, i] * along[0, j]
            slopes[3] = flux * (across[0, i] * along[2, j] + across[2, i] * along[0, j])
            slopes[4] = 1.0
            rest = data[i, j] - flux * slopes[2] - theta[4]
            value -= 0.5 * weight * rest * rest
            for a in range(size):
                place.gradient[a] += weight * rest * slopes[a]
                for b in range(a + 1):
                    place.information[a, b] += weight * slopes[a] * slopes[b]
    for a in range(size):
        for b in range(a):
            place.information[b, a] = place.information[a, b]
    return value


@compiled
def fit_gaussian(data: FloatArray, noise: float, theta: FloatArray, within: Range) -> tuple[float, FloatArray]:
    """Fit a Gaussian by least squares (Levenberg-Marquardt within bounds).

    Args:
        data: (h, w) in counts, NaN where not measured.
        noise: standard deviation of a pixel in counts.
        theta: (5,) x and y in px from the first pixel, flux, sigma in px and the constant; changed in place.
        within: bounds of these.

    Returns:
        Sum of squares in units of the noise, and the information (5, 5) of the parameters.
    """
    size = theta.shape[0]
    here = Place(np.empty(data.shape), np.empty(size), np.empty((size, size)))
    there = Place(np.empty(data.shape), np.empty(size), np.empty((size, size)))
    trial, damping = np.empty(size), FIRST_DAMPING
    value = _look(theta, data, noise, here)
    for _ in range(STEPS):
        gain = damped_step(theta, within, here, damping, trial)
        if gain < TOLERANCE:
            break
        reached = _look(trial, data, noise, there) if gain < np.inf else -np.inf
        if reached > value:
            theta[:], value = trial, reached
            here, there = there, here
            damping = max(0.2 * damping, LEAST_DAMPING)
        else:
            damping *= 8.0
            if damping > MOST_DAMPING:
                break
    return -2.0 * value, here.information
