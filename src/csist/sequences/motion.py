"""Motion laws of `unmix_sequence`: functions of time and the prior of their coefficients."""

from __future__ import annotations

import math

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.methods.continuous.sequence.model import MotionLaw
from csist.physics.sensor import Sensor
from csist.scenes import flux_bounds
from csist.trajectories import MotionPrior

MOTIONS = ("linear", "acceleration", "free")
WALK_MODES = 4
"""Cosines that describe a random walk; the first four hold 90 % of its variance."""
SCINTILLATIONS = (0.1, 0.3)
"""Relative variations of the fluxes from frame to frame that are tried where less does not explain the frames."""
ACCELERATION_SHARE = 1.0
"""Largest acceleration: it changes the velocity over half the sequence by so much of the largest velocity. A group may
start from rest or turn back."""
LEAST_SPEED_PX = 1e-6
"""Of a group that stays: a prior without width has no density."""


def check_motion(motion: str) -> None:
    """Check that a motion is one of `MOTIONS`.

    Raises:
        InputError: if it is not.
    """
    if motion not in MOTIONS:
        raise InputError(f"motion must be one of {', '.join(MOTIONS)}, got {motion!r}")


def degree_of(motion: str, frames: int) -> int:
    """Degree of the polynomial of time that the middle of a group follows, which is seen in so many frames."""
    return min(1 if motion == "linear" else 2, frames - 2)


def motion_law(
    time: FloatArray, motion: str, prior: MotionPrior, sensor: Sensor, noise_std: float, motion_std_px: float
) -> MotionLaw:
    """The law of a group's paths in a window.

    Args:
        time: (T,) in frames since the first.
        motion: one of `MOTIONS`.
        prior: first frame, speeds, scintillation.
        sensor: gives the shape of the window and the PSF.
        noise_std: noise of a pixel in counts.
        motion_std_px: step of the random walk of `free` in px per frame.

    Raises:
        InputError: if the motion is unknown.
    """
    check_motion(motion)
    span = max(float(time[-1]), 1e-9)
    functions, common, own, normal = [np.ones_like(time)], [0.0], [0.0], [0.0]
    if len(time) > 1 and prior.group_speed_px + prior.own_speed_px > 0.0:
        functions.append(time)
        common.append(max(prior.group_speed_px, LEAST_SPEED_PX))
        own.append(prior.own_speed_px)
        normal.append(0.0)
        if motion == "acceleration" and len(time) > 2:
            functions.append(0.5 * time**2)
            common.append(ACCELERATION_SHARE * max(prior.group_speed_px, LEAST_SPEED_PX) / (0.5 * span))
            normal.append(0.0)
    if motion == "free" and len(time) > 2:
        for mode in range(1, min(WALK_MODES, len(time) - 2) + 1):
            # Karhunen-Loeve functions of a random walk without its linear part, which the velocity describes
            wave = np.cos(mode * math.pi * time / span)
            functions.append(wave - wave[0])
            common.append(motion_std_px * math.sqrt(2.0 * span) / (mode * math.pi))
            normal.append(1.0)
    width = np.zeros((2, len(functions)), np.float32)
    width[0], width[1, : len(own)] = common, own
    rows, columns = sensor.shape
    flux = np.array(flux_bounds(prior.start, sensor, noise_std))
    log_flux = prior.start.intensity_law == "log-uniform"
    return MotionLaw(
        np.array(functions, np.float32),
        len(functions),
        2 if len(own) > 1 and prior.own_speed_px > 0.0 else 1,
        width,
        np.array(normal, np.float32),
        np.array([-0.5, -0.5, columns - 0.5, rows - 0.5], np.float32),
        prior.start.single_pixel,
        prior.start.min_separation_px**2 * (1.0 - 1e-5),
        np.array(np.log(flux) if log_flux else flux, np.float32),
        log_flux,
        prior.scintillation,
    )
