"""The Cramer-Rao bound against the Fisher information of numeric derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import csist
from csist.physics.bounds import cramer_rao_bound

PAIR = csist.Targets(x=[4.9, 5.4], y=[5.2, 4.8], intensity=[230.0, 240.0])


@pytest.mark.parametrize("sensor", [csist.Sensor(read_noise=2.0), csist.Sensor(read_noise=1.0, gain=3.0)])
def test_bound_is_the_inverse_of_the_numeric_information(sensor: csist.Sensor) -> None:
    theta = np.concatenate([PAIR.x, PAIR.y, PAIR.intensity])

    def moments(values: np.ndarray) -> np.ndarray:
        x, y, intensity = values.reshape(3, -1)
        clean = sensor.render(csist.Targets(x=x, y=y, intensity=intensity)).ravel()
        return np.stack([clean, sensor.noise_variance(clean)])

    variance = moments(theta)[1]
    slopes = []
    for place, value in enumerate(theta):
        step = np.zeros_like(theta)
        step[place] = 1e-5 * value
        slopes.append((moments(theta + step) - moments(theta - step)) / (2e-5 * value))
    mean, spread = np.stack(slopes, axis=1)
    information = (mean / variance) @ mean.T + 0.5 * (spread / variance**2) @ spread.T
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    bound = cramer_rao_bound(PAIR, sensor)
    np.testing.assert_allclose(np.concatenate([bound.x, bound.y, bound.intensity]), expected, rtol=1e-4)


def test_what_cannot_be_told_apart_has_no_finite_bound() -> None:
    twice = csist.Targets(x=[5.0, 5.0], y=[5.0, 5.0], intensity=[230.0, 230.0])
    bound = cramer_rao_bound(twice, csist.Sensor(read_noise=1.0))
    assert min(bound.x.min(), bound.y.min(), bound.intensity.min()) > 1e5
