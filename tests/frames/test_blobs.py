"""What becomes of peaks: windows, what they find beyond their peaks, and the noise they are fitted with."""

from dataclasses import replace

import numpy as np
import pytest

from csist.frames import pipeline, unmix_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

PSF = GaussianPSF(0.8)


def frame_of(targets, seed=0, shape=(90, 110)):
    sensor = Sensor(PSF, shape=shape, quantised=False)
    return sensor.render(targets) + np.random.default_rng(seed).normal(50.0, 1.0, shape)


def test_a_target_that_detection_missed_becomes_a_peak(monkeypatch):
    truth = Targets(x=[30.2, 33.4, 80.0], y=[40.1, 41.5, 50.0], intensity=[300.0, 250.0, 200.0])
    frame = frame_of(truth)
    whole, groups = unmix_frame(frame, psf=PSF, mode="fast")
    detect = pipeline.detect_peaks

    def half_blind(*args, **options):
        peaks, threshold = detect(*args, **options)
        return peaks[np.hypot(peaks.x - truth.x[1], peaks.y - truth.y[1]) > 2.0], threshold

    monkeypatch.setattr(pipeline, "detect_peaks", half_blind)
    found, again = unmix_frame(frame, psf=PSF, mode="fast")
    assert len(whole) == len(found) == 3
    distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y)
    assert (distance.min(axis=0) < 0.15).all() and len(set(distance.argmin(axis=0))) == 3
    assert sorted(group.count for group in groups) == sorted(group.count for group in again)
    assert [group.number for group in again] == list(range(len(again)))
    for group in again:
        assert (found.group == group.number).sum() == group.count


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_added_to_sky_around_a_target(seed):
    truth = Targets(x=[30.2], y=[40.1], intensity=[400.0])
    assert len(unmix_frame(frame_of(truth, seed), psf=PSF, mode="fast")[0]) == 1


def test_errors_follow_what_a_window_leaves_where_the_map_overrates_the_noise(monkeypatch):
    frame = frame_of(Targets(x=[30.2, 32.4], y=[40.1, 40.6], intensity=[900.0, 800.0]))
    right, _ = unmix_frame(frame, psf=PSF, mode="fast")
    estimate = pipeline.estimate_background

    def overrated(*args, **options):
        background = estimate(*args, **options)
        return replace(background, noise=12.0 * background.noise)

    monkeypatch.setattr(pipeline, "estimate_background", overrated)
    found, _ = unmix_frame(frame, psf=PSF, mode="fast")
    assert len(found) == len(right) == 2
    np.testing.assert_allclose(found.intensity_std, right.intensity_std, rtol=0.3)
    given, _ = unmix_frame(frame, psf=PSF, mode="fast", noise_std=1.0)
    assert (given.intensity_std > 5.0 * right.intensity_std).all()  # a stated noise is believed
