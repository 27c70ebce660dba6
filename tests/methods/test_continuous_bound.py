"""Errors of groups in the mode fast: no smaller than the Cramer-Rao bound, and true for pairs that are not resolved."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from csist.methods.continuous import Continuous
from csist.methods.continuous.bound import MOST_WIDENING, least_errors, widened
from csist.methods.continuous.model import Noise, stack_of
from csist.methods.unmixer import Answers
from csist.physics.bounds import cramer_rao_bound
from csist.physics.psf import RAYLEIGH_PER_SIGMA, AiryPSF, GaussianPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets

SIGMA_PX = 1.3
PAIR = Targets(
    [8.2, 10.1], [9.3, 9.9], [900.0, 700.0], x_std=[0.01, 0.01], y_std=[0.01, 0.01], intensity_std=[5.0, 5.0]
)


def camera(**known: object) -> Sensor:
    given = {"psf": GaussianPSF(SIGMA_PX), "shape": (19, 19), "read_noise": 3.0, "quantised": False}
    return Sensor(**(given | known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "psf",
    [GaussianPSF(SIGMA_PX), AiryPSF(2.0), SampledPSF(np.outer(*2 * [np.exp(-0.5 * np.linspace(-4, 4, 25) ** 2)]), 3)],
)
def test_with_a_known_background_it_is_the_cramer_rao_bound(psf: object) -> None:
    sensor = camera(psf=psf)
    stack = stack_of(sensor.render(PAIR)[None], sensor)
    found = least_errors(PAIR, stack, 0, sensor.psf, Noise(9.0, 0.0, -1.0))
    bound = cramer_rao_bound(PAIR, sensor)
    np.testing.assert_allclose(found, np.stack([bound.x, bound.y, bound.intensity], axis=1), rtol=1e-6)


def test_masked_pixels_weights_photons_and_an_unknown_background_take_information_away() -> None:
    sensor = camera()
    image = sensor.render(PAIR)[None]
    plain = stack_of(image, sensor)
    noise = Noise(9.0, 0.0, -1.0)
    least = least_errors(PAIR, plain, 0, sensor.psf, noise)
    masked = image.copy()
    masked[0, 9, 9] = np.nan
    others = (
        least_errors(PAIR, stack_of(masked, sensor), 0, sensor.psf, noise),
        least_errors(PAIR, stack_of(image, sensor, np.ones((1, 19, 19))), 0, sensor.psf, noise),
        least_errors(PAIR, stack_of(image, sensor, None, np.full(image.shape, 0.5)), 0, sensor.psf, noise),
        least_errors(PAIR, plain, 0, sensor.psf, Noise(9.0, 0.5, -1.0)),
    )
    for other in others:
        assert (other > least).all()
    np.testing.assert_allclose(others[2], least * 2.0**0.5)
    everything = stack_of(np.full_like(image, np.nan), sensor)
    assert np.isinf(least_errors(PAIR, everything, 0, sensor.psf, noise)).all()


def test_errors_widen_by_one_factor_a_target_and_only_in_groups_of_several() -> None:
    sensor = camera()
    images = np.stack([sensor.observe(targets, seed) for seed, targets in enumerate((PAIR, PAIR[:1], PAIR[:0]))])
    method = Continuous(sensor, prior=ScenePrior.flat(), mode="fast", noise_std=3.0, background="constant")
    method.least_widening = np.inf
    plain = method.solve(images)
    stack = stack_of(images, sensor, np.ones((1, 19, 19)))
    assert [len(each) for each in plain.targets] == [2, 1, 0]
    narrow = Answers(
        [each.replace(x_std=each.x_std / 5, y_std=each.y_std / 5, intensity_std=each.intensity_std / 5)
         for each in plain.targets], plain.groups,
    )  # fmt: skip
    wide = widened(narrow, stack, sensor.psf, Noise(9.0, 0.0, -1.0))
    factor = wide.targets[0].x_std / narrow.targets[0].x_std
    assert ((factor > 1.0) & (factor <= MOST_WIDENING + 1e-9)).all()
    np.testing.assert_allclose(wide.targets[0].y_std / narrow.targets[0].y_std, factor)
    np.testing.assert_allclose(wide.targets[0].intensity_std / narrow.targets[0].intensity_std, factor)
    assert wide.groups is narrow.groups
    np.testing.assert_array_equal(wide.targets[0].score, narrow.targets[0].score)
    for place in (1, 2):
        assert wide.targets[place] is narrow.targets[place]
    enough = Answers([each.replace(x_std=each.x_std * 9, y_std=each.y_std * 9, intensity_std=each.intensity_std * 9)
                      for each in plain.targets], plain.groups)  # fmt: skip
    assert widened(enough, stack, sensor.psf, Noise(9.0, 0.0, -1.0)).targets[0] is enough.targets[0]


def test_errors_of_pairs_that_are_not_resolved_are_true_in_fast() -> None:
    rng = np.random.default_rng(5)
    sensor = camera()
    truths = []
    for _ in range(120):
        apart = rng.uniform(0.5, 1.0) * RAYLEIGH_PER_SIGMA * SIGMA_PX
        angle, flux = rng.uniform(0.0, 2.0 * np.pi), np.exp(rng.uniform(np.log(800.0), np.log(8000.0)))
        step = 0.5 * apart * np.array([np.cos(angle), np.sin(angle)])
        (x, y) = 9.0 + rng.uniform(-1.0, 1.0, 2)
        truths.append(Targets([x - step[0], x + step[0]], [y - step[1], y + step[1]], flux * rng.uniform(0.6, 1.0, 2)))
    images = np.stack([sensor.observe(truth, rng) for truth in truths])
    method = Continuous(sensor, prior=ScenePrior.flat(), mode="fast", noise_std=3.0, background="surface")
    pulls = []
    for found, true in zip(method.predict(images), truths, strict=True):
        if len(found) == 2:
            apart = np.hypot(found.x[:, None] - true.x, found.y[:, None] - true.y) ** 2
            order = min(permutations((0, 1)), key=lambda p: apart[0, p[0]] + apart[1, p[1]])
            own = true[list(order)]
            errors = found.x - own.x, found.y - own.y, found.intensity - own.intensity
            pulls.append(np.array(errors) / [found.x_std, found.y_std, found.intensity_std])
    absolute = np.abs(np.array(pulls))
    assert len(pulls) > 100
    assert 0.6 < np.mean(absolute <= 1.0) < 0.78
    assert 0.92 < np.mean(absolute <= 1.96) < 0.985
