"""What becomes of peaks: windows, what they find beyond their peaks, and the noise they are fitted with."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csist.frames import measured, solve, unmix_frame
from csist.frames.blobs import windows
from csist.frames.blobs.windows import WindowFit
from csist.methods.continuous import Group
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

PSF = GaussianPSF(0.8)


def frame_of(targets, seed=0, shape=(90, 110)):
    sensor = Sensor(PSF, shape=shape, quantised=False)
    return sensor.render(targets) + np.random.default_rng(seed).normal(50.0, 1.0, shape)


def test_a_target_that_detection_missed_becomes_a_peak(monkeypatch):
    truth = Targets(x=[30.2, 33.4, 80.0], y=[40.1, 41.5, 50.0], intensity=[300.0, 250.0, 200.0])
    frame = frame_of(truth)
    result = unmix_frame(frame, psf=PSF, mode="fast")
    whole, groups = result.targets, result.groups
    detect = solve.detect_peaks

    def half_blind(*args, **options):
        peaks, threshold = detect(*args, **options)
        return peaks[np.hypot(peaks.x - truth.x[1], peaks.y - truth.y[1]) > 2.0], threshold

    monkeypatch.setattr(solve, "detect_peaks", half_blind)
    result = unmix_frame(frame, psf=PSF, mode="fast")
    found, again = result.targets, result.groups
    assert len(whole) == len(found) == 3
    distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y)
    assert (distance.min(axis=0) < 0.15).all() and len(set(distance.argmin(axis=0))) == 3
    assert sorted(group.count for group in groups) == sorted(group.count for group in again)
    assert [group.number for group in again] == list(range(len(again)))
    for group in again:
        assert (found.group == group.number).sum() == group.count


SATELLITES = [(30.0, 30.0, 9000.0), (33.5, 31.0, 7000.0), (31.0, 34.5, 6000.0)]  # 3.0 to 3.8 sigma apart
BESIDE_A_STAR = [(28.95, 27.82, 15450.0), *SATELLITES]


@pytest.mark.parametrize("points", [SATELLITES, BESIDE_A_STAR], ids=["three", "four"])
@pytest.mark.parametrize("options", [{}, {"detector": "matched"}, {"detector": "matched", "extended": False}])
def test_targets_that_each_other_hide_are_all_found(points, options):
    """Once one extended source with a probability of 1, or without the faintest target and without a flag."""
    truth = Targets(*np.array(points).T)
    sky = Sensor(GaussianPSF(1.2), shape=(64, 64), background=150.0, read_noise=4.0, gain=2.0)
    for seed in range(4):
        found = unmix_frame(sky.observe(truth, np.random.default_rng(seed)), sky, mode="fast", **options).targets
        assert len(found) == len(truth)
        assert np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y).min(axis=0).max() < 0.15
        assert not (found.flags & int(Flag.EXTENDED | Flag.POOR_FIT)).any()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_added_to_sky_around_a_target(seed):
    truth = Targets(x=[30.2], y=[40.1], intensity=[400.0])
    assert len(unmix_frame(frame_of(truth, seed), psf=PSF, mode="fast").targets) == 1


def test_errors_follow_what_a_window_leaves_where_the_map_overrates_the_noise(monkeypatch):
    frame = frame_of(Targets(x=[30.2, 32.4], y=[40.1, 40.6], intensity=[900.0, 800.0]))
    right = unmix_frame(frame, psf=PSF, mode="fast").targets
    estimate = measured.estimate_background

    def overrated(*args, **options):
        background = estimate(*args, **options)
        return replace(background, noise=12.0 * background.noise)

    monkeypatch.setattr(measured, "estimate_background", overrated)
    found = unmix_frame(frame, psf=PSF, mode="fast").targets
    assert len(found) == len(right) == 2
    errors = [each.intensity_std[np.argsort(each.x)] for each in (found, right)]
    np.testing.assert_allclose(*errors, rtol=0.6)  # of few samples; 12 times as much would be wrong
    given = unmix_frame(frame, psf=PSF, mode="fast", noise_std=1.0).targets
    assert (given.intensity_std > 5.0 * right.intensity_std).all()  # a stated noise is believed


@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    flags=st.sampled_from([Flag(0), Flag.POOR_FIT, Flag.AMBIGUOUS_COUNT]),
    psf=st.sampled_from([PSF, None]),
    keep_samples=st.booleans(),
    extended=st.booleans(),
)
def test_windows_of_any_count_make_a_frame(counts, flags, psf, keep_samples, extended):
    """A window that resolves to no target, or to many, costs neither its frame nor its group."""
    remaining = iter(counts + 100 * [0])

    def unmix_window(cutout, _prior, noise_std, *_):
        count = next(remaining)
        rng = np.random.default_rng(count)
        x, y = (rng.uniform(0.0, size - 1.0, count) for size in cutout.data.shape[::-1])
        flux, error = rng.uniform(100.0, 900.0, count), np.full(count, 0.1)
        probability = np.full(6, 0.02)
        probability[count] = 0.9
        samples = np.stack([x, y, flux], axis=1) + rng.normal(0.0, 0.1, (20, count, 3)) if keep_samples else None
        group = Group(count, probability, 90.0, 80, flags, samples)
        targets = Targets(x, y, flux, score=np.full(count, 0.9), x_std=error, y_std=error, intensity_std=10 * error)
        targets = targets.replace(flags=np.full(count, int(flags)))
        return WindowFit(targets, group, noise_std)

    places = np.array([[20.0, 20.0], [50.0, 22.0], [53.5, 24.0], [85.0, 60.0], [89.0, 62.0], [30.0, 70.0]])
    frame = frame_of(Targets(*places.T, intensity=[900.0, 800.0, 700.0, 900.0, 500.0, 300.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "unmix_window", unmix_window)
        result = unmix_frame(frame, psf=psf, mode="fast", workers=1, keep_samples=keep_samples, extended=extended)
        found, groups = result.targets, result.groups
    assert [group.number for group in groups] == list(range(len(groups))) and len(groups) >= 4
    for group in groups:
        own = found[found.group == group.number]
        assert len(own) == group.count
        if group.count_probability.size:
            others = group.extended_probability + group.streak_probability
            assert group.count_probability.sum() + others == pytest.approx(1.0)
            assert extended or others == 0.0
        if extended:
            continue  # a source that took the place of the targets has no samples
        assert len(group.samples) == (group.windows if keep_samples else 0)
        assert all(cloud.shape[0] == 20 and cloud.shape[2] == 3 for cloud in group.samples)
        measured = own[np.isfinite(own.intensity_std)]  # peaks that the fit does not explain have no samples
        if keep_samples:
            assert sum(cloud.shape[1] for cloud in group.samples) == len(measured)
            means = np.concatenate([cloud.mean(axis=0) for cloud in group.samples] + [np.empty((0, 3))])
            np.testing.assert_allclose(means[:, 2], measured.intensity, atol=0.2)
    assert sorted(set(found.group)) == [group.number for group in groups if group.count]
