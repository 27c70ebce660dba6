"""Detection of peaks and its threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter
from scipy.special import j1
from scipy.stats import norm

from csist.checks import InputError
from csist.frames.background.estimate import Background, estimate_background
from csist.frames.detection.detect import detect_peaks
from csist.frames.detection.matched import matched_map
from csist.frames.detection.peaks import Peaks, find_peaks, keep_strongest, threshold_sigmas
from csist.frames.grouping import link, ridges, split
from csist.frames.solve import unmix_frame
from csist.physics.psf import AiryPSF, GaussianPSF, equivalent_sigma, pixel_kernel
from csist.physics.sensor import Sensor
from csist.targets import Targets


def white(shape, scale=3.0, seed=0):
    return np.random.default_rng(seed).normal(100.0, scale, shape)


@pytest.mark.parametrize("psf", [None, GaussianPSF(1.0)])
@pytest.mark.parametrize("rate", [1e-3, 1e-4])
def test_contrast_holds_the_stated_rate_in_white_noise(psf, rate):
    frames = [white((512, 512), seed=seed) for seed in range(2)]
    found = sum(
        len(detect_peaks(frame, estimate_background(frame), psf=psf, false_alarm_rate=rate)[0]) for frame in frames
    )
    # Pixels above the threshold come in clumps that share one peak, so fewer peaks than pixels are right too.
    assert 0.15 * rate < found / sum(frame.size for frame in frames) < 2.5 * rate


def test_matched_filter_is_standard_normal_in_white_noise():
    frame = white((400, 400))
    z = matched_map(frame, Background(np.full(frame.shape, 100.0), np.full(frame.shape, 3.0)), GaussianPSF(1.0))
    assert z.std() == pytest.approx(1.0, abs=0.03)
    for level in (2.0, 3.0):
        assert (z > level).mean() == pytest.approx(norm.sf(level), rel=0.25)


def test_matched_significance_is_the_signal_to_noise_ratio():
    psf = GaussianPSF(1.0)
    sensor = Sensor(psf=psf, shape=(41, 41), quantised=False)
    frame = sensor.render(Targets(x=[20.0], y=[20.0], intensity=[100.0]))
    z = matched_map(frame, Background(np.zeros(frame.shape), np.full(frame.shape, 2.0)), psf)
    norm_of_psf = np.sqrt((sensor.responses(np.array([20.0]), np.array([20.0])) ** 2).sum())
    assert z[20, 20] == pytest.approx(100.0 * norm_of_psf / 2.0, rel=1e-6)
    assert z.argmax() == 20 * 41 + 20


def test_clutter_has_about_the_rate_of_white_noise():
    """Cloud-like texture whose strength varies: the plain Gaussian threshold would raise hundreds of alarms."""
    rng = np.random.default_rng(1)
    strength = np.exp(gaussian_filter(rng.normal(size=(512, 512)), 20.0) * 60.0)
    frame = 100.0 + rng.normal(size=strength.shape) * strength
    background = estimate_background(frame, noise_std=float(np.median(strength)))
    contrast, threshold = detect_peaks(frame, background, psf=GaussianPSF(1.0), false_alarm_rate=1e-4)
    plain = find_peaks(matched_map(frame, background, GaussianPSF(1.0)), threshold)
    assert len(contrast) / frame.size < 1e-3
    assert len(plain) > 5 * len(contrast)


def test_a_spot_in_calm_beside_clutter_is_found():
    """Half of the frame is 8 times as rough: by a wide neighbourhood alone the spot would drown in it."""
    rng = np.random.default_rng(4)
    strength = np.where(np.arange(240) < 120, 1.0, 8.0)
    spot = Sensor(psf=GaussianPSF(0.7), shape=(200, 240)).render(Targets(x=[95.2], y=[100.1], intensity=[80.0]))
    frame = 100.0 + rng.normal(size=spot.shape) * strength + spot
    peaks, _ = detect_peaks(frame, estimate_background(frame), psf=GaussianPSF(0.7))
    assert len(peaks) == 1
    assert np.hypot(peaks.x[0] - 95.2, peaks.y[0] - 100.1) < 0.5


def test_significance_does_not_depend_on_level_and_unit_of_the_counts():
    frame = white((80, 90))
    first, second = (
        detect_peaks(each, estimate_background(each), false_alarm_rate=1e-2)[0] for each in (frame, 5.0 * frame + 40.0)
    )
    assert len(first) > 20
    np.testing.assert_allclose(second.significance, first.significance, rtol=1e-6)
    np.testing.assert_allclose(second.positions, first.positions, atol=1e-6)


def test_shifting_the_scene_shifts_the_peaks():
    sensor = Sensor(psf=GaussianPSF(1.1), shape=(90, 100), background=10.0, quantised=False)
    scene = Targets(x=[40.3, 61.8], y=[30.2, 55.5], intensity=[400.0, 300.0])
    noise = np.random.default_rng(3).normal(0.0, 1.0, sensor.shape)
    peaks = []
    for move in (0, 5):
        frame = sensor.render(scene.shifted(move, -move)) + noise
        peaks.append(detect_peaks(frame, estimate_background(frame))[0])
    assert len(peaks[0]) == len(peaks[1]) == 2
    for found, move in zip(peaks, (0, 5), strict=True):
        order = np.argsort(found.x)
        np.testing.assert_allclose(found.x[order], scene.x + move, atol=0.5)
        np.testing.assert_allclose(found.y[order], scene.y - move, atol=0.5)


@pytest.mark.parametrize("shape", [(3, 3), (3, 60), (7, 5), (40, 41)])
def test_small_and_constant_frames_have_no_peaks(shape):
    frame = np.full(shape, 12.0)
    for psf, detector in ((None, "contrast"), (GaussianPSF(2.0), "matched")):
        assert len(detect_peaks(frame, estimate_background(frame), psf=psf, detector=detector)[0]) == 0


def test_masked_pixels_raise_no_alarm():
    frame = white((100, 100))
    mask = np.zeros(frame.shape, dtype=bool)
    mask[40:44, 50:53] = True
    frame[mask] = 1e5
    background = estimate_background(frame, mask)
    for psf, detector in ((None, "contrast"), (GaussianPSF(1.0), "matched")):
        assert len(detect_peaks(frame, background, mask, psf, detector=detector)[0]) == 0


def test_a_plateau_is_one_peak():
    z = np.zeros((20, 20))
    z[8:11, 9:12] = 7.0
    peaks = find_peaks(z, 5.0)
    assert len(peaks) == 1
    assert (peaks.x[0], peaks.y[0], peaks.significance[0]) == (10.0, 9.0, 7.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60)), min_size=1, max_size=40), st.integers(0, 5))
def test_split_is_a_partition_within_its_limits(points, seed):
    positions = np.array(points)
    members = np.random.default_rng(seed).permutation(len(positions))
    parts = split(positions, members, 4, 10.0)
    assert sorted(np.concatenate(parts)) == list(range(len(positions)))
    for part in parts:
        assert len(part) == 1 or (len(part) <= 4 and np.ptp(positions[part], axis=0).max() <= 10.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)), min_size=0, max_size=25))
def test_linked_groups_are_apart_and_strongest_peaks_too(points):
    positions = np.array(points).reshape(-1, 2)
    labels = link(positions, 4.0)
    distance = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    assert (labels[:, None] == labels[None])[distance <= 4.0].all()
    assert (distance > 4.0)[labels[:, None] != labels[None]].all()


def test_keep_strongest():
    z = np.zeros((30, 30))
    z[5, 5], z[5, 8], z[20, 20] = 9.0, 8.0, 7.0
    kept = keep_strongest(find_peaks(z, 1.0), 4.0)
    assert kept.significance.tolist() == [9.0, 7.0]


def test_equivalent_sigma():
    assert equivalent_sigma(GaussianPSF(1.3)) == 1.3
    # Of a whole Airy pattern with its first dark ring at 1.22 u, sum(response^2) = 2 pi / (16 u^2) times this integral.
    integral = quad(lambda v: (2.0 * j1(v) / v) ** 4 * v, 1e-9, 400.0, limit=2000)[0]
    scale = 6.0 / 1.22
    expected = np.sqrt(1.0 / (4.0 * np.pi * 2.0 * np.pi * integral / (16.0 * scale**2)))
    assert equivalent_sigma(AiryPSF(6.0)) == pytest.approx(expected, rel=0.02)


def test_bad_options_are_named():
    frame = np.zeros((9, 9))
    background = estimate_background(frame)
    with pytest.raises(InputError, match="false_alarm_rate"):
        threshold_sigmas(0.0)
    with pytest.raises(InputError, match="detector"):
        detect_peaks(frame, background, detector="magic")
    with pytest.raises(InputError, match="needs the PSF"):
        detect_peaks(frame, background, detector="matched")


def test_ridges_join_a_plateau_and_not_a_pair():
    frame = np.zeros((30, 60))
    frame[10:15, 5:15] = 100.0
    sensor = Sensor(psf=GaussianPSF(1.2), shape=frame.shape, quantised=False)
    frame += sensor.render(Targets(x=[40.0, 46.0], y=[12.0, 12.0], intensity=[500.0, 400.0]))
    peaks = Peaks.beyond(6.0, np.array([6.0, 13.0, 40.0, 46.0]), np.full(4, 12.0), np.array([9.0, 8.0, 7.0, 6.0]))
    assert ridges(peaks.positions, frame, 12.0).tolist() == [[0, 1]]
    assert ridges(peaks.positions[:1], frame, 12.0).size == 0
    assert link(peaks.positions, 0.0, ridges(peaks.positions, frame, 12.0)).tolist() == [0, 0, 1, 2]


def test_dense_point_sources_do_not_hide_each_other():
    """One target on every 16 x 16 px fills the upper tail of the responses; it is no clutter all the same."""
    rng = np.random.default_rng(4)
    y, x = (v.ravel().astype(float) for v in np.mgrid[8:250:16, 8:250:16])
    sensor = Sensor(psf=GaussianPSF(1.0), shape=(256, 256), background=50.0, quantised=False)
    frame = sensor.render(Targets(x=x, y=y, intensity=np.full(x.size, 500.0))) + rng.normal(0.0, 2.0, sensor.shape)
    for psf in (None, sensor.psf):
        assert len(detect_peaks(frame, estimate_background(frame), psf=psf)[0]) == x.size


@pytest.mark.parametrize("side", [17, 21, 31])
def test_faint_stars_of_small_cut_outs_are_found_and_noise_is_not(side):
    # So few pixels cannot show that their noise is white: the star itself was taken for clutter.
    psf, found, false = GaussianPSF(1.1), 0, 0
    flux = 10.0 * 3.0 / float((pixel_kernel(psf) ** 2).sum()) ** 0.5
    for seed in range(20):
        rng = np.random.default_rng([seed, side])
        x, y = rng.uniform(4.0, side - 5.0, (2, 1))
        noise = 50.0 + rng.normal(0.0, 3.0, (side, side))
        star = Sensor(psf, shape=(side, side)).render(Targets(x=x, y=y, intensity=[flux]))
        seen = unmix_frame(noise + star, psf=psf, mode="fast").targets
        found += int((np.hypot(seen.x - x, seen.y - y) < 1.0).any())
        false += len(unmix_frame(noise, psf=psf, mode="fast").targets)
    assert found >= 18 and not false, (found, false)


@pytest.mark.parametrize("side", [30, 60])
def test_clutter_is_seen_in_small_frames_too(side):
    for seed in range(5):
        texture = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
        frame = 50.0 + 30.0 * texture / texture.std() + np.random.default_rng(seed + 9).normal(0.0, 1.0, (side, side))
        assert unmix_frame(frame, psf=GaussianPSF(1.1), mode="fast").detector == "contrast"
