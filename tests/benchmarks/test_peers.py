"""The rivals are competent: right derivatives, right answers where the answer is clear, refusal where they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import peers
from csist.checks import InputError
from csist.metrics import count_accuracy, cso_map
from csist.physics.psf import AiryPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets

SENSOR = Sensor(background=20.0)
PRIOR = ScenePrior.csist_100k()
TWO = Targets(x=[4.7, 5.3], y=[5.2, 4.8], intensity=[225.0, 240.0])


@pytest.fixture(scope="module")
def fit() -> peers.MultiStartFit:
    return peers.MultiStartFit(SENSOR, PRIOR, draws=32, starts=2)


def test_jacobian_is_the_derivative_of_the_residual(fit: peers.MultiStartFit) -> None:
    parameters = np.array([4.7, 5.3, 5.2, 4.8, 225.0, 240.0])
    image, step = SENSOR.observe(TWO, 0), 1e-4
    numeric = [
        (fit.residual(parameters + each, image) - fit.residual(parameters - each, image)) / (2 * step)
        for each in step * np.eye(len(parameters))
    ]
    np.testing.assert_allclose(fit.jacobian(parameters), np.stack(numeric, axis=1), atol=1e-4)


def test_multi_start_fit_counts_and_places_targets_also_on_the_border(fit: peers.MultiStartFit) -> None:
    corner = Targets(x=[0.1], y=[10.2], intensity=[230.0])
    truths = [TWO, corner, *sample_scenes(replace(PRIOR, count_range=(1, 2)), SENSOR, 6, 5)]
    found = [fit.predict_one(SENSOR.observe(truth, 0)) for truth in truths]
    assert count_accuracy(found, truths) == 1.0
    assert cso_map(found, truths)["AP15"] > 90.0


def test_multi_start_fit_keeps_the_bounds_and_knows_which_answer_is_sharper(fit: peers.MultiStartFit) -> None:
    blend = sample_scenes(replace(PRIOR, count_range=(3, 3)), SENSOR, 1, 2)[0]
    lone = Targets(x=[5.0], y=[5.0], intensity=[235.0])
    blended, single = (fit.predict_one(SENSOR.observe(truth, 0)) for truth in (blend, lone))
    assert (blended.intensity >= 220.0).all() and (blended.intensity <= 250.0).all()
    assert np.ptp(blended.x) <= 1.0 and np.ptp(blended.y) <= 1.0
    assert single.score.min() > blended.score.max()


def test_photutils_finds_a_lone_target_and_none_in_an_empty_image() -> None:
    pytest.importorskip("photutils", reason="needs the extra `astro`")
    lone = Targets(x=[4.8], y=[5.3], intensity=[235.0])
    peer = peers.PhotutilsPhotometry(SENSOR, PRIOR)
    found = peer.predict_one(SENSOR.observe(lone, 0))
    assert np.hypot(found.x - 4.8, found.y - 5.3).min() < 0.02
    assert abs(found.intensity[found.score.argmax()] - 235.0) < 3.0
    assert len(peer.predict_one(SENSOR.observe(Targets.empty(), 0))) == 0


@pytest.mark.parametrize(
    ("sensor", "prior"), [(Sensor(psf=AiryPSF(1.5)), PRIOR), (SENSOR, ScenePrior.flat()),
                          (SENSOR, replace(PRIOR, count_range=(0, 2)))],
)  # fmt: skip
def test_what_a_peer_does_not_model_is_refused(sensor: Sensor, prior: ScenePrior) -> None:
    with pytest.raises(InputError, match=r"peers model Gaussian|needs a prior"):
        peers.MultiStartFit(sensor, prior)
