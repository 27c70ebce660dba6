"""Bad and saturated pixels, and the level at which a frame clips."""

import numpy as np
import pytest

from csist.checks import InputError
from csist.frames.masks.mask import PixelKind, check_frame, find_ceiling, mask_pixels
from csist.physics import psf
from csist.physics.sensor import Sensor
from csist.targets import Targets


def test_input_is_left_alone():
    image = np.random.default_rng(5).normal(10.0, 2.0, (40, 40))
    image[3, 4] = np.nan
    before = image.copy()
    mask_pixels(image)
    np.testing.assert_array_equal(image, before)


def test_frames_that_cannot_be_used():
    with pytest.raises(InputError, match="no valid pixel"):
        check_frame(np.full((5, 5), np.nan))
    with pytest.raises(InputError, match="stack of 2"):
        check_frame(np.zeros((2, 5, 5)))
    with pytest.raises(InputError, match="3 x 3"):
        check_frame(np.zeros((2, 5)))


def test_bad_pixels_are_counted_and_targets_are_not_bad():
    rng = np.random.default_rng(7)
    sensor = Sensor(psf=psf.GaussianPSF(0.5), shape=(64, 64), background=100.0, read_noise=1.0, quantised=False)
    truth = Targets(x=[20.0, 40.0], y=[20.0, 40.3], intensity=[5000.0, 500.0])
    image = sensor.observe(truth, rng)
    image[5, 6] = np.nan
    image[50, 10] += 3000.0
    image[10, 50] -= 90.0
    found = mask_pixels(image)
    assert {kind: count for kind, count in found.counts.items() if count} == {"nan": 1, "dead": 1, "hot": 1}
    assert [found.kind[5, 6], found.kind[10, 50], found.kind[50, 10]] == [PixelKind.NAN, PixelKind.DEAD, PixelKind.HOT]
    assert found.masked.sum() == 3 and found.masked[5, 6] and found.masked[50, 10] and found.masked[10, 50]
    assert not found.saturated.any()


def test_a_psf_smaller_than_a_pixel_is_no_hot_pixel():
    sharp = psf.GaussianPSF(0.25)
    image = Sensor(psf=sharp, shape=(32, 32), quantised=False).observe(
        Targets(x=[15.0], y=[15.0], intensity=[3000.0]), 0
    )
    image += np.random.default_rng(8).normal(0.0, 1.0, image.shape)
    assert mask_pixels(image).counts["hot"] == 1
    assert mask_pixels(image, psf=sharp).counts["hot"] == 0


def test_saturation_is_given_or_guessed():
    image = np.random.default_rng(9).integers(0, 50, (20, 20)).astype(float)
    assert find_ceiling(image) == np.inf
    assert find_ceiling(np.minimum(np.rint(image) * 2000.0, 32767.0)) == 32767.0  # of signed 16-bit integers
    image[4:6, 4:6] = 255.0
    assert mask_pixels(image).saturated.sum() == 4
    assert mask_pixels(image, ceiling=40.0).saturated.sum() == (image >= 40.0).sum()
    assert mask_pixels(image + 0.5).saturated.sum() == 0
