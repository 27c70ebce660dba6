"""Cramer-Rao bound of positions and fluxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
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
    error = standard_errors(information)
    x, y, intensity = error.reshape(3, -1)
    return Bound(x, y, intensity)


def joint_bound(frames: Sequence[Targets], sensor: Sensor, scintillation: float = 0.0) -> Bound:
    """Compute the Cramer-Rao bound of a joint estimate from frames of targets that move along straight lines.

    Start, velocity and mean intensity of each target are unknown. The intensity of a frame varies about its mean by
    `scintillation`, as Gaussian noise that all pixels of a target share. The prior is not used.

    Args:
        frames: true targets of each frame, in the same order in all.
        sensor: camera.
        scintillation: standard deviation of an intensity from frame to frame, as a share of its mean.

    Returns:
        Bounds of the positions in the middle of the sequence and of the mean intensities; for a single frame those of
        `cramer_rao_bound`, with scintillation.

    Raises:
        InputError: if there is no frame, or the numbers of targets differ.

    >>> still = [Targets(x=[5.0], y=[5.0], intensity=[235.0])] * 4
    >>> alone = cramer_rao_bound(still[0], Sensor(read_noise=1.0))
    >>> round(float(alone.x[0] / joint_bound(still, Sensor(read_noise=1.0)).x[0]), 3)
    2.0
    """
    if not frames or any(len(each) != len(frames[0]) for each in frames):
        raise InputError("a joint bound needs frames with the same targets in each")
    count, number, pixels = len(frames[0]), len(frames), sensor.shape[0] * sensor.shape[1]
    time = np.arange(number) - 0.5 * (number - 1)
    functions = 2 if number > 1 else 1
    size = count * (2 * functions + 1)
    information = np.zeros((size, size))
    flux = np.mean([each.intensity for each in frames], axis=0)
    for t, targets in zip(time, frames, strict=True):
        dx = np.arange(sensor.shape[1])[None, None, :] - targets.x[:, None, None]
        dy = np.arange(sensor.shape[0])[None, :, None] - targets.y[:, None, None]
        by_x, by_y = (flux[:, None] * each.reshape(count, pixels) for each in sensor.psf.gradient(dx, dy))
        response = sensor.responses(targets.x, targets.y).reshape(count, pixels)
        rows = [by_x, by_y, *((t * by_x, t * by_y) if functions > 1 else ()), response]
        jacobian = np.concatenate(rows)
        weight = 1.0 / sensor.noise_variance(sensor.render(targets).ravel())
        shared = scintillation * flux[:, None] * response
        mixed = (jacobian * weight) @ shared.T
        inner = np.eye(count) + (shared * weight) @ shared.T
        information += (jacobian * weight) @ jacobian.T - mixed @ np.linalg.solve(inner, mixed.T)
    error = standard_errors(information)
    return Bound(error[:count], error[count : 2 * count], error[-count:] if count else error)


def standard_errors(information: FloatArray) -> FloatArray:
    """Return the standard errors (n,) of a Fisher information (n, n): infinite where it is singular."""
    scale = np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
    try:
        inverse = np.linalg.inv(information / np.outer(scale, scale)) / np.outer(scale, scale)
    except np.linalg.LinAlgError:
        return np.full(len(information), np.inf)
    return np.asarray(np.sqrt(np.where(np.diag(inverse) > 0, np.diag(inverse), np.inf)))
