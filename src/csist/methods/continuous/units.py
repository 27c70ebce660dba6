"""Noise of a pixel as the unit of the solver, so that answers do not depend on the unit of the values.

The chains run in single precision: values of 1e-18 or 1e15 counts would leave its range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csist._types import FloatArray
from csist.methods.continuous.rounding import NOT_EXACT, noise_before_rounding
from csist.methods.unmixer import Answers
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior

MOST_PRECISE = 100.0
"""Precision that a pixel counts with at most, in units of the median one."""


def typical_variance(error: FloatArray) -> float:
    """Variance in counts^2 of a typical pixel of an error map, of which some values may be unusable.

    The harmonic mean: the good pixels decide how well a flux can be known. Single values that are absurdly small do not
    decide alone.
    """
    precision = 1.0 / error[np.isfinite(error) & (error > 0.0)] ** 2
    return float(1.0 / np.minimum(precision, MOST_PRECISE * np.median(precision)).mean())


def weights_of(error: FloatArray, variance: float, part: slice) -> FloatArray:
    """Weights (n, H, W) of the pixels of some images, `variance` over their own variance; 1 where it is unusable.

    Args:
        error: (N, H, W) standard deviations in counts, or (1, H, W) for all images.
        variance: of a pixel of weight 1 in counts^2.
        part: the images.
    """
    usable = np.isfinite(error) & (error > 0.0)
    weight = np.ones(error.shape)
    np.divide(variance**0.5, error, out=weight, where=usable)
    weight = weight**2
    if len(error) == 1:
        return np.repeat(weight, part.stop - part.start, axis=0)
    return weight[part]


def unit_of(sensor: Sensor, variance: float) -> float:
    """Unit in counts in which windows are solved: the noise, or 1 where rounding to whole counts matters."""
    exact = noise_before_rounding(sensor, variance) != NOT_EXACT
    return 1.0 if exact else float(np.sqrt(variance))


def in_units(sensor: Sensor, prior: ScenePrior, unit: float) -> tuple[Sensor, ScenePrior]:
    """Sensor and prior with fluxes in a unit of so many counts; of the sensor only PSF, shape and gain matter there."""
    if unit == 1.0:
        return sensor, prior
    gain = None if sensor.gain is None else sensor.gain * unit
    if prior.intensity_range is not None:
        low, high = prior.intensity_range
        prior = replace(prior, intensity_range=(low / unit, high / unit))
    return Sensor(psf=sensor.psf, shape=sensor.shape, gain=gain, quantised=False), prior


def from_units(answers: Answers, unit: float) -> Answers:
    """Answers with fluxes in counts again."""
    if unit == 1.0:
        return answers
    targets = [
        each.replace(intensity=each.intensity * unit, intensity_std=each.intensity_std * unit)
        for each in answers.targets
    ]
    groups = [
        group if group.samples is None else replace(group, samples=group.samples * np.array([1.0, 1.0, unit]))
        for group in answers.groups
    ]
    return Answers(targets, groups)
