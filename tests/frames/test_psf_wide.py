"""The width of the PSF where nothing is stated, from sources narrower than a pixel to sources that fill a window."""

import numpy as np
import pytest

from csist.frames import unmix_frame
from csist.frames.psf.wide import in_blocks
from csist.physics.psf import GaussianPSF


def sparse_field(sigma_px, seed, number=3):
    """A frame with stars at 60 to 200 times the noise, and their positions."""
    rng = np.random.default_rng([seed, int(10 * sigma_px)])
    pitch = int(max(30, 18 * sigma_px))
    middle = (np.arange(number) + 0.5) * pitch
    x, y = (each.ravel() + rng.uniform(-4.0, 4.0, number**2) for each in np.meshgrid(middle, middle))
    psf, pixels = GaussianPSF(sigma_px), np.arange(number * pitch)[:, None]
    flux = 5.0 * np.exp(rng.uniform(np.log(60.0), np.log(200.0), number**2)) / psf.response(0.0, 0.0)
    light = (flux * psf.profile(pixels - y)) @ psf.profile(pixels - x).T
    return 200.0 + light + rng.normal(0.0, 5.0, light.shape), x, y


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma_px", [0.4, 0.7, 1.3, 2.5, 4.0, 6.0])
def test_without_options_every_star_is_one_target(sigma_px, seed):
    image, x, y = sparse_field(sigma_px, seed)
    result = unmix_frame(image, mode="fast")
    found = result.targets
    assert result.frame_psf.sigma_px == pytest.approx(sigma_px, rel=0.05)
    assert len(found) == len(x)
    distance = np.hypot(found.x[:, None] - x, found.y[:, None] - y)
    assert (distance.min(axis=0) < 0.1 + 0.05 * sigma_px).all()
    assert result.psf_origin == ("measured" if sigma_px > 3.0 else "guessed")


def test_the_error_of_a_wide_psf_is_honest():
    image, _, _ = sparse_field(5.0, 8)
    measured = unmix_frame(image, mode="fast").psf_estimate
    assert measured is not None and measured.sources >= 3
    assert abs(measured.sigma_px - 5.0) < 4.0 * measured.sigma_px_std + 0.02


@pytest.mark.parametrize("shape", [(30, 30), (100, 130)])
def test_noise_alone_has_no_width(shape):
    image = np.random.default_rng(1).normal(100.0, 2.0, shape)
    result = unmix_frame(image, mode="fast")
    assert len(result.targets) == 0 and result.psf_origin == "guessed" and result.frame_psf.sigma_px == 1.0


def test_blocks_are_means_of_valid_pixels():
    image = np.arange(35.0).reshape(5, 7)
    image[0, 0] = np.nan
    blocks = in_blocks(image, 2)
    assert blocks.shape == (2, 3)
    assert blocks[1, 2] == pytest.approx(image[2:4, 4:6].mean()) and blocks[0, 0] == pytest.approx((1 + 7 + 8) / 3)
    image[:2, :2] = np.nan
    assert np.isnan(in_blocks(image, 2)[0, 0]) and np.isnan(in_blocks(image, 2)).sum() == 1
