"""Frames from the image to their targets."""

from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.frames import unmix_frame
from csist.frames.background.estimate import estimate_background
from csist.frames.detection.detect import detect_peaks
from csist.frames.detection.spots import typical_sigma
from csist.io import read_image
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

REAL = Path(__file__).parents[3] / "shared" / "data" / "real"

PSF = GaussianPSF(1.0)
NOISE = 2.0


def slope(shape):
    rows, columns = np.indices(shape)
    return 300.0 + 0.15 * columns - 0.1 * rows


def grid_scene(seed, snr=(15.0, 200.0), step=16, shape=(128, 144)):
    """Targets about `step` px apart, fluxes from low to high signal-to-noise ratio, anywhere in a pixel."""
    rng = np.random.default_rng(seed)
    y, x = (v.ravel().astype(float) for v in np.mgrid[step : shape[0] - 8 : step, step : shape[1] - 8 : step])
    error = NOISE * np.sqrt(4.0 * np.pi) * PSF.sigma_px
    flux = error * np.exp(rng.uniform(*np.log(snr), x.size))
    truth = Targets(x=x + rng.uniform(-2, 2, x.size), y=y + rng.uniform(-2, 2, x.size), intensity=flux)
    sensor = Sensor(psf=PSF, shape=shape, quantised=False)
    return truth, sensor.render(truth) + slope(shape) + rng.normal(0.0, NOISE, shape)


def nearest(truth, found):
    distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
    return distance.argmin(axis=1), distance.min(axis=1)


@pytest.mark.parametrize("options", [{"psf": PSF}, {}, {"psf": 1.0, "detector": "matched"}])
def test_complete_single_and_in_place(options):
    truth, frame = grid_scene(0)
    result = unmix_frame(frame, mode="fast", **options)
    found, groups = result.targets, result.groups
    index, distance = nearest(truth, found)
    assert (distance < 0.5).mean() >= 0.97
    assert np.median(distance) < 0.08
    good = distance < 0.5
    assert np.median(found.intensity[index[good]] / truth.intensity[good]) == pytest.approx(1.0, abs=0.06)
    # nothing counted twice, next to nothing false
    assert len(found) <= len(truth) + 1
    assert np.unique(index[good]).size == good.sum()
    assert sorted(set(found.group)) == [group.number for group in groups if group.count]
    assert [group.number for group in groups] == list(range(len(groups)))
    assert all((found.group == group.number).sum() == group.count for group in groups)


def test_errors_are_honest():
    truth, frame = grid_scene(1)
    found = unmix_frame(frame, mode="fast", psf=PSF).targets
    index, distance = nearest(truth, found)
    good = distance < 0.5
    pull = (found.x[index[good]] - truth.x[good]) / found.x_std[index[good]]
    assert 0.6 < np.median(np.abs(pull)) / 0.6745 < 1.5


@pytest.mark.parametrize(("sigma_px", "flux"), [(0.8, 600.0), (1.2, 3000.0)])
def test_scores_of_lone_stars_are_near_certainty(sigma_px, flux):
    rng = np.random.default_rng(10)
    x, y = (each.ravel() * 25.0 + 14.0 + rng.uniform(-0.5, 0.5, 25) for each in np.meshgrid(np.arange(5), np.arange(5)))
    sky = Sensor(GaussianPSF(sigma_px), shape=(130, 130), background=100.0, read_noise=5.0)
    image = sky.observe(Targets(x=x, y=y, intensity=np.full(25, flux)), rng)
    found = unmix_frame(image, psf=sigma_px, mode="fast").targets
    near = np.hypot(found.x[:, None] - x, found.y[:, None] - y).min(axis=1) < 0.25
    assert near.sum() == 25
    # They were 0.76 and 0.90: a star was not there where a second one beside it was possible, and z / (z + 6).
    assert found.score[near].mean() > 0.98


def test_close_pair_is_unmixed_in_frame_coordinates():
    shape = (70, 90)
    truth = Targets(x=[60.2, 61.9], y=[21.4, 22.3], intensity=[3000.0, 2500.0])
    frame = Sensor(psf=PSF, shape=shape, quantised=False).render(truth) + slope(shape)
    frame += np.random.default_rng(2).normal(0.0, NOISE, shape)
    result = unmix_frame(frame, psf=PSF, mode="fast")
    found, groups = result.targets, result.groups
    assert len(groups) == 1 and groups[0].count == 2 and groups[0].count_probability.argmax() == 2
    order = np.argsort(found.x)
    np.testing.assert_allclose(found.x[order], truth.x, atol=0.1)
    np.testing.assert_allclose(found.y[order], truth.y, atol=0.1)
    np.testing.assert_allclose(found.intensity[order], truth.intensity, rtol=0.1)
    group = groups[0]
    assert group.column <= 60 < group.column + group.shape[1] and group.row <= 21 < group.row + group.shape[0]


def test_long_blob_is_cut_into_windows_and_counted_once():
    shape = (40, 120)
    x = np.arange(10.0, 110.0, 4.2)
    truth = Targets(x=x, y=20.0 + np.sin(x), intensity=np.full(x.size, 1500.0))
    frame = Sensor(psf=PSF, shape=shape, quantised=False).render(truth) + 100.0
    frame += np.random.default_rng(3).normal(0.0, NOISE, shape)
    result = unmix_frame(frame, psf=PSF, mode="fast", detector="matched", noise_std=NOISE)
    found, groups = result.targets, result.groups
    assert len(groups) == 1 and groups[0].windows > 3
    assert len(found) == len(truth)
    _, distance = nearest(truth, found)
    assert distance.max() < 0.3


def test_noise_alone_gives_nothing():
    frame = np.random.default_rng(4).normal(100.0, 5.0, (256, 256))
    for options in ({}, {"psf": 1.0}, {"psf": 1.0, "detector": "matched"}):
        result = unmix_frame(frame, **options)
        found, groups = result.targets, result.groups
        assert len(found) == len(groups) == 0


def test_targets_at_the_border_and_in_the_corner():
    shape = (50, 60)
    truth = Targets(x=[0.2, 59.1, 30.0], y=[0.1, 25.0, 48.8], intensity=[3000.0, 3000.0, 3000.0])
    frame = Sensor(psf=PSF, shape=shape, quantised=False).render(truth) + 50.0
    frame += np.random.default_rng(5).normal(0.0, NOISE, shape)
    found = unmix_frame(frame, psf=PSF, mode="fast").targets
    _, distance = nearest(truth, found)
    assert len(found) == 3 and distance.max() < 0.2


def test_masked_and_saturated_pixels_are_flagged():
    shape = (60, 80)
    sensor = Sensor(psf=PSF, shape=shape, background=40.0, read_noise=1.0, bits=8)
    truth = Targets(x=[20.3, 40.0, 60.2], y=[20.0, 40.2, 30.0], intensity=[3000.0, 700.0, 700.0])
    frame = sensor.observe(truth, 6)
    frame[41, 40] = np.nan
    result = unmix_frame(frame, sensor=sensor, mode="fast")
    found, groups = result.targets, result.groups
    index, distance = nearest(truth, found)
    assert distance.max() < 0.3
    flags = [Flag(int(found.flags[i])) for i in index]
    assert Flag.SATURATED in flags[0] and Flag.MASKED not in flags[0]
    assert Flag.MASKED in flags[1] and Flag.SATURATED not in flags[1]
    assert not flags[2] & (Flag.MASKED | Flag.SATURATED)
    # the clipped peak is extrapolated by the model
    assert found.intensity[index[0]] == pytest.approx(3000.0, rel=0.1)
    assert any(Flag.MASKED in group.flags for group in groups)


def test_extended_blob_is_one_target_not_many():
    rows, columns = np.indices((80, 80))
    frame = 100.0 + 400.0 * ((columns - 40.0) ** 2 / 30.0 + (rows - 38.0) ** 2 / 8.0 < 1.0)
    frame += np.random.default_rng(7).normal(0.0, 2.0, frame.shape)
    for options in ({}, {"psf": 1.0}):
        result = unmix_frame(frame, mode="fast", **options)
        found, groups = result.targets, result.groups
        assert 1 <= len(found) <= 2
        assert Flag.POOR_FIT in groups[0].flags
        assert np.hypot(found.x[0] - 40.0, found.y[0] - 38.0) < 3.0


def test_sigma_is_measured():
    _, frame = grid_scene(8, snr=(50.0, 200.0))
    background = estimate_background(frame)
    peaks, _ = detect_peaks(frame, background)
    assert typical_sigma(frame - background.level, peaks, background.noise) == pytest.approx(1.0, abs=0.05)
    assert typical_sigma(frame, peaks[:0], background.noise) == 1.0


def test_same_answer_with_any_number_of_workers_and_input_left_alone():
    _, frame = grid_scene(9, shape=(64, 80))
    before = frame.copy()
    told: list[tuple[int, int]] = []
    one, two = (
        unmix_frame(frame, psf=PSF, mode="fast", workers=n, progress=lambda *amounts: told.append(amounts)).targets
        for n in (1, 2)
    )
    blobs = len(np.unique(one.group))
    assert told == 2 * [(done, blobs) for done in range(1, blobs + 1)]
    assert one == two
    np.testing.assert_array_equal(frame, before)


def test_moving_the_scene_moves_the_targets():
    _, frame = grid_scene(10, snr=(60.0, 200.0), shape=(96, 96))
    found = unmix_frame(frame, psf=PSF, mode="fast").targets
    moved = unmix_frame(frame[3:, 5:], psf=PSF, mode="fast").targets
    _, distance = nearest(found, moved.shifted(5, 3))
    assert np.median(distance) < 0.02 and len(moved) == len(found)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.5])
@pytest.mark.parametrize("shape", [(3, 3), (5, 40), (64, 64)])
def test_constant_frames_have_no_targets(shape, value):
    result = unmix_frame(np.full(shape, value))
    assert (result.targets, result.groups) == (Targets.empty(), [])


def test_tiny_frames_and_frames_smaller_than_the_psf_come_to_an_end():
    rng = np.random.default_rng(11)
    for shape in ((3, 3), (4, 30), (9, 9)):
        for psf in (None, 0.5, 4.0):
            frame = rng.normal(10.0, 1.0, shape)
            frame[shape[0] // 2, shape[1] // 2] += 500.0
            result = unmix_frame(frame, psf=psf, mode="fast")
            assert sum(group.count for group in result.groups) == len(result.targets)


def test_frames_and_options_that_cannot_be_used():
    frame = np.zeros((10, 10))
    with pytest.raises(InputError, match="no valid pixel"):
        unmix_frame(np.full((10, 10), np.nan))
    with pytest.raises(InputError, match="stack"):
        unmix_frame(np.zeros((2, 10, 10)))
    with pytest.raises(InputError, match="3 x 3"):
        unmix_frame(np.zeros((2, 2)))
    with pytest.raises(InputError, match="prior"):
        unmix_frame(frame, prior=ScenePrior.csist_100k())
    with pytest.raises(InputError, match="false_alarm_rate"):
        unmix_frame(frame, false_alarm_rate=2.0)
    with pytest.raises(InputError, match="psf_error"):
        unmix_frame(frame, psf_error=-1.0)


def test_real_infrared_frames():
    table = REAL / "sirst" / "targets.csv"
    if not table.is_file():
        pytest.skip(f"the real frames are not here ({table})")
    pandas = pytest.importorskip("pandas")
    targets = pandas.read_csv(table)
    found, missed, false, pixels = 0, 0, 0, 0
    for name in ("Misc_105", "Misc_12", "Misc_187", "Misc_47", "Misc_57", "Misc_79"):
        frame = read_image(REAL / "sirst" / "images" / f"{name}.png")[0]
        result = unmix_frame(frame).targets
        rows = targets[targets.frame == name]
        truth = Targets(x=rows.mask_cx, y=rows.mask_cy, intensity=np.ones(len(rows)))
        hit = nearest(truth, result)[1] <= 3.0
        found, missed = found + hit.sum(), missed + (~hit).sum()
        false, pixels = false + len(result) - hit.sum(), pixels + frame.size
    assert found / (found + missed) >= 0.8
    assert false / pixels <= 1e-4


def test_samples_lie_around_their_targets():
    sensor = Sensor(psf=GaussianPSF(1.1), shape=(90, 100), background=10.0, read_noise=1.0)
    scene = Targets(x=[40.3, 42.6, 71.8], y=[30.2, 31.0, 55.5], intensity=[400.0, 300.0, 500.0])
    frame = sensor.observe(scene, 3)
    assert not any(group.samples for group in unmix_frame(frame, psf=1.1).groups)
    result = unmix_frame(frame, psf=1.1, keep_samples=True)
    found, groups = result.targets, result.groups
    assert len(found) == 3
    for group in groups:
        own = found[found.group == group.number]
        (samples,) = group.samples
        assert samples.shape[1:] == (len(own), 3)
        mean, spread = samples.mean(axis=0), samples.std(axis=0)
        assert (np.abs(mean - np.stack([own.x, own.y, own.intensity], axis=1)) < 0.5 * spread).all()


@pytest.mark.parametrize("detector", ["matched", "contrast"])
def test_a_star_brighter_than_the_largest_snr_of_the_prior_is_one(detector: str) -> None:
    sensor = Sensor(GaussianPSF(1.2), shape=(60, 80), background=30.0, read_noise=1.0, quantised=False)
    truth = Targets(x=[30.3, 36.1], y=[29.8, 31.4], intensity=[1e6, 1e3])
    found = unmix_frame(sensor.observe(truth, 0), psf=sensor.psf, detector=detector).targets
    sure = found[found.score > 0.3]
    assert len(sure) == 2
    order = np.argsort(-sure.intensity)
    np.testing.assert_allclose(sure.x[order], truth.x, atol=0.1)
    np.testing.assert_allclose(sure.intensity[order], truth.intensity, rtol=0.05)
