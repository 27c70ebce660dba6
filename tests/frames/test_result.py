"""What the result of a frame remembers, and that it is that of the fit."""

import pickle

import numpy as np
import pytest

from csist.frames import FrameOptions, solve_frame, unmix_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

PSF = GaussianPSF(1.2)
TRUTH = Targets(x=[20.3, 60.1, 62.4, 90.6], y=[20.1, 40.2, 41.0, 70.4], intensity=[3000.0, 900.0, 1200.0, 500.0])


def sky(seed=0, bits=None):
    sensor = Sensor(PSF, shape=(90, 110), background=60.0, read_noise=2.0, bits=bits, quantised=bits is not None)
    frame = sensor.observe(TRUTH, seed)
    frame[5, 6:9] = np.nan
    frame[80, 10] += 190.0 if bits else 2000.0
    return sensor, frame


def test_the_model_is_background_and_light_of_the_targets():
    sensor, frame = sky()
    before = frame.copy()
    result = unmix_frame(frame, sensor, mode="fast")
    light = sensor.render(result.targets) - sensor.background
    np.testing.assert_allclose(result.model() - result.background, light, atol=1e-2)
    np.testing.assert_allclose(result.residual()[~result.mask], (frame - result.model())[~result.mask])
    np.testing.assert_array_equal(np.isnan(result.residual()), result.mask)
    assert np.nanstd(result.residual()) == pytest.approx(2.0, rel=0.1)
    assert np.abs(result.background - 60.0).max() < 2.0
    assert np.median(result.noise) == pytest.approx(2.0, rel=0.1)
    assert {kind: count for kind, count in result.pixel_counts.items() if count} == {"nan": 3, "hot": 1}
    assert result.mask[5, 6:9].all() and result.mask[80, 10] and result.mask.sum() == 4
    assert (result.psf, result.psf_origin, result.psf_error, result.psf_estimate) == (PSF, "given", 0.0, None)
    assert result.ceiling == np.inf and not result.saturated.any()
    assert (result.targets.score <= 1.0).all() and result.threshold > 4.0
    np.testing.assert_array_equal(frame, before)


def test_the_residual_of_clipped_pixels_is_that_of_the_clipped_model():
    sensor, frame = sky(bits=8)
    result = unmix_frame(frame, sensor, mode="fast")
    assert result.ceiling == 255.0
    assert result.saturated.sum() == result.pixel_counts["saturated"] > 3
    assert result.model().max() > 300.0
    assert np.nanmax(np.abs(result.residual())) < 12.0


def test_how_the_psf_is_known():
    _, frame = sky()
    guessed = unmix_frame(frame, mode="fast")
    assert guessed.psf_origin == "guessed" and guessed.psf_error == 0.2 and guessed.psf_estimate is None
    assert guessed.psf.sigma_px == pytest.approx(1.2, rel=0.2)
    assert np.nanstd(guessed.residual()) < 4.0
    assert unmix_frame(frame, mode="fast", psf_error=0.05).psf_error == 0.05
    places = np.arange(15.0, 180.0, 25.0)
    x, y = (each.ravel() for each in np.meshgrid(places, places[:4]))
    stars = Targets(x=x + 0.3, y=y - 0.2, intensity=2000.0 + 10.0 * x)
    field = Sensor(PSF, shape=(110, 190), background=20.0, read_noise=1.0).observe(stars, 0)
    measured = unmix_frame(field, mode="fast", psf="auto")
    assert measured.psf_origin == "measured" and measured.psf.sigma_px == pytest.approx(1.2, rel=0.02)
    assert measured.psf_estimate.sources >= 10
    again = unmix_frame(field, mode="fast", psf=measured.psf_estimate)
    assert again.psf_origin == "measured" and again.targets == measured.targets
    assert again.psf_error == measured.psf_estimate.psf_error


def test_a_frame_without_targets_has_a_result_too():
    frame = np.random.default_rng(3).normal(40.0, 3.0, (64, 80))
    for options in ({}, {"psf": 1.0}, {"psf": 1.0, "detector": "matched"}, {"psf": 1.0, "detector": "crowded"}):
        result = unmix_frame(frame, **options)
        assert len(result.targets) == len(result.groups) == 0
        np.testing.assert_allclose(result.model(), result.background)
        assert result.residual().std() == pytest.approx(3.0, rel=0.1)


def test_each_step_is_done_once(monkeypatch):
    """Bad pixels, background and PSF are measured once, whether the PSF is given, guessed or measured."""
    from csist.frames import measured, solve

    calls = []
    for module, name in (
        (measured, "mask_pixels"), (measured, "estimate_background"), (solve, "guess_psf"), (solve, "psf_of_spots"),
    ):  # fmt: skip
        plain = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, name=name, plain=plain, **more: (calls.append(name), plain(*given, **more))[1]
        )
    stars = Targets(x=15.0 + 25.0 * np.arange(7), y=20.3 + np.arange(7), intensity=np.full(7, 4000.0))
    frame = Sensor(PSF, shape=(50, 190), background=20.0, read_noise=1.0).observe(stars, 0)
    both = ["mask_pixels", "estimate_background"]
    for psf, also in ((1.2, []), (None, ["guess_psf"]), ("auto", ["psf_of_spots"])):
        calls.clear()
        result = unmix_frame(frame, mode="fast", psf=psf)
        result.model(), result.residual(), result.mask, result.background, result.noise
        assert calls == both + also


def test_the_model_alone_can_be_sent_elsewhere():
    sensor, frame = sky()
    result = unmix_frame(frame, sensor, mode="fast")
    alone = result.drawing.compact()
    assert len(pickle.dumps(alone)) < 0.2 * frame.nbytes
    np.testing.assert_array_equal(alone.draw(), result.model())


def test_options_in_one_object_give_the_same():
    sensor, frame = sky()
    options = FrameOptions(sensor=sensor, mode="fast", workers=1)
    assert solve_frame(frame, options).targets == unmix_frame(frame, sensor, mode="fast", workers=2).targets
