"""Cramer-Rao bound of positions and fluxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csist._types import FloatArray
from csist.physics.sensor import Sensor
from csist.targets import Targets


@dataclass(frozen=True)
class Bound:
    """Smallest standard errors of an unbiased estimate, one value per target.

    Args:
        x: standard errors of x in px.
        y: standard errors of y in px.
        intensity: standard errors of the intensity in counts.
    """

    x: FloatArray
    y: FloatArray
    intensity: FloatArray


def cramer_rao_bound(targets: Targets, sensor: Sensor) -> Bound:
    """Compute the Cramer-Rao bound of a joint estimate of all positions and fluxes, count and background known.

    The bound is the inverse of the Fisher information J^T diag(1 / v) J + 1/2 J^T diag(v'^2 / v^2) J for Gaussian
    noise of variance v(mu) (Kay, Fundamentals of Statistical Signal Processing I, 1993, eq. 3.31). Rounding counts as
    noise of variance 1/12; clipping is ignored. The bound is infinite where the information matrix is singular.

    >>> single = Targets(x=[5.0], y=[5.0], intensity=[235.0])
    >>> round(float(cramer_rao_bound(single, Sensor(read_noise=1.0, quantised=False)).x[0]), 4)
    0.0088
    """
    dx = np.arange(sensor.shape[1])[None, None, :] - targets.x[:, None, None]
    dy = np.arange(sensor.shape[0])[None, :, None] - targets.y[:, None, None]
    by_x, by_y = sensor.psf.gradient(dx, dy)
    flux = targets.intensity[:, None, None]
    jacobian = np.concatenate([flux * by_x, flux * by_y, sensor.responses(targets.x, targets.y)])
    jacobian = jacobian.reshape(3 * len(targets), -1)
    clean = sensor.render(targets).ravel()
    variance = sensor.noise_variance(clean)
    weight = 1.0 / variance
    if sensor.gain is not None:
        weight = weight + 0.5 * (np.where(clean > 0, 1.0 / sensor.gain, 0.0) / variance) ** 2
    information = (jacobian * weight) @ jacobian.T
    scale = np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
    try:
        inverse = np.linalg.inv(information / np.outer(scale, scale)) / np.outer(scale, scale)
        error = np.sqrt(np.where(np.diag(inverse) > 0, np.diag(inverse), np.inf))
    except np.linalg.LinAlgError:
        error = np.full(3 * len(targets), np.inf)
    x, y, intensity = error.reshape(3, -1)
    return Bound(x, y, intensity)
