"""Background and noise of a frame."""

import numpy as np
import pytest

from csist.checks import InputError
from csist.frames.background.estimate import clipped_statistics, estimate_background, noise_floor, scatter_about_plane
from csist.physics import psf
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets


def gradient(shape, slope=0.1, level=200.0):
    rows, columns = np.indices(shape)
    return level + slope * columns + 0.5 * slope * rows


def test_background_follows_a_slope_and_noise_is_measured():
    rng = np.random.default_rng(0)
    truth = gradient((200, 260))
    found = estimate_background(truth + rng.normal(0.0, 4.0, truth.shape))
    assert np.abs(found.level - truth).max() < 3.0
    assert np.abs(found.level - truth).mean() < 0.5
    assert np.median(found.noise) == pytest.approx(4.0, rel=0.05)


def test_noise_follows_the_place():
    rng = np.random.default_rng(1)
    scale = np.where(np.arange(256) < 128, 1.0, 5.0)
    found = estimate_background(rng.normal(0.0, 1.0, (128, 256)) * scale)
    assert np.median(found.noise[:, :90]) == pytest.approx(1.0, rel=0.1)
    assert np.median(found.noise[:, -90:]) == pytest.approx(5.0, rel=0.1)


def test_point_sources_stay_in_the_frame():
    rng = np.random.default_rng(2)
    sensor = Sensor(psf=psf.GaussianPSF(1.2), shape=(128, 128), background=50.0, quantised=False)
    x, y = rng.uniform(5, 122, (2, 40))
    truth = Targets(x=x, y=y, intensity=np.full(40, 2000.0))
    image = sensor.render(truth) + rng.normal(0.0, 1.0, sensor.shape)
    assert np.abs(estimate_background(image).level - 50.0).max() < 1.0


def test_known_noise_is_taken_as_it_is():
    image = np.random.default_rng(3).normal(0.0, 2.0, (40, 40))
    assert (estimate_background(image, noise_std=7.0).noise == 7.0).all()


def test_shift_and_scale_of_the_counts_carry_over():
    image = np.random.default_rng(4).normal(10.0, 2.0, (70, 90))
    first, second = estimate_background(image), estimate_background(3.0 * image + 100.0)
    np.testing.assert_allclose(second.level, 3.0 * first.level + 100.0, rtol=1e-9)
    np.testing.assert_allclose(second.noise, 3.0 * first.noise, rtol=1e-6)  # sorted in single precision


def test_input_is_left_alone():
    image = np.random.default_rng(5).normal(10.0, 2.0, (40, 40))
    image[3, 4] = np.nan
    before = image.copy()
    estimate_background(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shape", [(3, 3), (3, 50), (31, 33), (129, 65)])
def test_any_shape_and_constant_frames(shape):
    found = estimate_background(np.full(shape, 7.0))
    np.testing.assert_allclose(found.level, 7.0)
    assert (found.noise > 0).all()


def test_nan_is_bridged():
    image = gradient((96, 96)) + np.random.default_rng(6).normal(0.0, 1.0, (96, 96))
    image[20:60, 10:70] = np.nan
    found = estimate_background(image)
    assert np.isfinite(found.level).all() and np.isfinite(found.noise).all()


def test_frames_that_cannot_be_used():
    with pytest.raises(InputError, match="masked"):
        estimate_background(np.zeros((5, 5)), np.ones((5, 5), dtype=bool))
    with pytest.raises(InputError, match="box_sides_px"):
        estimate_background(np.zeros((5, 5)), box_sides_px=(2,))


def test_clipped_statistics_ignores_sources():
    rng = np.random.default_rng(10)
    rows = rng.normal(5.0, 1.0, (3, 1000))
    rows[0, :80] += 100.0
    rows[2, 3:] = np.nan
    level, scatter = clipped_statistics(rows, 0.0)
    assert level[0] == pytest.approx(5.0, abs=0.2) and scatter[0] == pytest.approx(1.0, rel=0.1)
    assert np.isnan(level[2]) and np.isnan(scatter[2])


@pytest.mark.parametrize("level", [37.0, 37.25, 37.5])
@pytest.mark.parametrize("read_noise", [0.4, 0.5, 0.6, 1.0, 2.0])
def test_whole_numbers_with_little_noise_show_their_level_and_noise(level, read_noise):
    """Their quantiles lock to whole numbers: the noise was 0.29 or 0.99 in place of 0.5 to 0.7, the level half off."""
    rng = np.random.default_rng(1)
    frame = np.rint(gradient((120, 150), 0.002, level) + rng.normal(0.0, read_noise, (120, 150)))
    frame[40:44, 50:54] += 300.0
    found = estimate_background(frame)
    true = (read_noise**2 + 1.0 / 12.0) ** 0.5
    assert np.median(found.noise) == pytest.approx(true, rel=0.13)
    assert np.abs(found.level - gradient((120, 150), 0.002, level)).mean() < 0.1 + 0.1 * true
    part = frame[:30, :30].copy()
    part[2:5, 3:6] += 40.0
    assert scatter_about_plane(part, 1.0) == pytest.approx(true, rel=0.2)


def test_noise_floor_is_that_of_rounding():
    assert noise_floor(np.array([[1.0, 2.0], [3.0, np.nan]])) == pytest.approx(12**-0.5)
    assert 0.0 < noise_floor(np.array([[1.5, 2.5]])) < 1e-4


def test_scatter_about_a_plane():
    i, j = np.indices((21, 24))
    values = 5.0 + 3.0 * i - 2.0 * j + np.random.default_rng(0).normal(0.0, 1.5, i.shape)
    values[8:12, 9:13] = np.nan  # a source
    values[2, 3] += 60.0
    assert scatter_about_plane(values) == pytest.approx(1.5, rel=0.15)
    line = np.full((3, 90), np.nan)
    line[1] = 0.5 * np.arange(90)
    assert scatter_about_plane(line) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(scatter_about_plane(values[:5, :5]))


@pytest.mark.parametrize("noise_std", [None, 3.0])
@pytest.mark.parametrize("shape", [(3, 3), (64, 300)])
def test_the_boxes_give_back_the_background(shape, noise_std):
    image = gradient(shape) + np.random.default_rng(10).normal(0.0, 2.0, shape)
    found = estimate_background(image, noise_std=noise_std)
    again = found.compact().spread()
    np.testing.assert_array_equal(again.level, found.level)
    np.testing.assert_array_equal(again.noise, found.noise)
    boxes = found.compact()
    assert sum(mesh.rest.size for mesh in boxes.levels) + boxes.noise.size <= 3 + image.size // 32


@pytest.mark.parametrize("shape", [(13, 13), (21, 30), (41, 41), (64, 64), (78, 60), (40, 300)])
@pytest.mark.parametrize("slope", [0.8, 8.0])
def test_small_frames_on_a_slope(shape, slope):
    # Boxes are too few there to show one: the frame's own ramp was taken for noise.
    rng = np.random.default_rng(sum(shape))
    rows, columns = np.indices(shape)
    ramp = 400.0 + slope * (0.8 * rows - 0.6 * columns)
    stars = Targets(x=[0.3 * shape[1], 0.8 * shape[1]], y=[0.6 * shape[0], 0.2 * shape[0]], intensity=[3000.0, 200.0])
    frame = Sensor(GaussianPSF(1.1), shape=shape).render(stars) + ramp + rng.normal(0.0, 3.0, shape)
    frame[1, 2:5] = np.nan
    found = estimate_background(frame)
    assert np.abs(found.level - ramp).max() < 3.0, np.abs(found.level - ramp).max()
    assert np.median(found.noise) == pytest.approx(3.0, rel=0.35 if min(shape) < 20 else 0.15)


@pytest.mark.parametrize("side", [9, 15, 25, 50])
@pytest.mark.parametrize("flux", [0.0, 300.0, 30_000.0])
def test_a_source_beside_the_middle_is_no_slope(side, flux):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        place = rng.uniform(0.0, side - 1.0, 2)
        star = Targets(x=place[:1], y=place[1:], intensity=[flux])
        light = Sensor(GaussianPSF(1.1), shape=(side, side)).render(star)
        dark = light < 0.01
        level = estimate_background(light + 50.0 + rng.normal(0.0, 2.0, light.shape)).level
        assert np.abs(level[dark] - 50.0).max() < 3.0
