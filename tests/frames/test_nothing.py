"""Frames without targets say why, and frames whose PSF is unknown say what was assumed of it."""

from __future__ import annotations

import numpy as np
import pytest

from csist.frames import unmix_frame
from csist.physics.psf import EllipticalGaussianPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets


def few_valid() -> np.ndarray:
    frame = np.full((40, 40), np.nan)
    frame[10:20, 10:16] = np.random.default_rng(0).normal(50.0, 2.0, (10, 6))
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "reason"),
    [
        (np.random.default_rng(1).normal(50.0, 2.0, (60, 70)), {}, "no peak above the threshold of "),
        (np.full((20, 30), 7.0), {}, "all 600 usable pixels have the same value, 7"),
        (np.full((20, 30), 255.0), {}, "all 600 usable pixels are at the ceiling of 255 counts"),
        (np.random.default_rng(2).normal(50.0, 2.0, (9, 30)), {"psf": 3.0}, "a frame of 30 x 9 px is smaller than the"),
        (few_valid(), {}, "only 60 of 1600 pixels are usable"),
    ],
    ids=["noise", "one value", "saturated", "small", "few valid"],
)
def test_an_empty_table_has_a_reason(frame, options, reason):
    result = unmix_frame(frame, mode="fast", **options)
    assert len(result.targets) == 0 and result.empty_reason.startswith(reason)


def stars(psf, seed, number=9):
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() + rng.uniform(-2.0, 2.0, 9) for each in np.meshgrid([30.0, 90.0, 150.0], [30.0, 80.0, 130.0]))
    truth = Targets(x=x[:number], y=y[:number], intensity=rng.uniform(1500.0, 4500.0, number))
    return Sensor(psf, shape=(160, 180), background=50.0, read_noise=1.0).observe(truth, seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("axes", [(1.7, 1.0, 30.0), (2.4, 1.2, 70.0), (0.9, 0.6, -20.0)])
def test_an_elongated_psf_is_found_without_options(axes, seed):
    result = unmix_frame(stars(EllipticalGaussianPSF(*axes), seed), mode="fast")
    assert result.psf_origin == "measured" and result.psf_assumption == result.empty_reason == ""
    assert isinstance(result.psf, EllipticalGaussianPSF)
    assert (result.psf.sigma_x_px, result.psf.sigma_y_px) == pytest.approx(axes[:2], rel=0.05)
    assert result.psf.angle_deg == pytest.approx(axes[2], abs=5.0)
    assert len(result.targets) == 9 and 0.0 < result.psf_error < 0.1


@pytest.mark.parametrize(("number", "expected"), [(9, "median width of 9 isolated spots"), (1, "of 1 isolated spot")])
def test_a_guessed_psf_says_what_it_assumes(number, expected):
    result = unmix_frame(stars(GaussianPSF(1.2), 4, number), mode="fast")
    assert result.psf_origin == "guessed" and expected in result.psf_assumption
    assert result.psf_assumption.startswith("circular Gaussian")


def test_a_psf_that_no_spot_shows_is_an_assumption():
    result = unmix_frame(np.random.default_rng(1).normal(50.0, 2.0, (60, 70)), mode="fast")
    assert result.psf_assumption == "Gaussian of sigma 1 px: no spot shows its width"


def test_nothing_is_assumed_of_a_given_psf():
    assert unmix_frame(stars(GaussianPSF(1.2), 4, 1), psf=1.2, mode="fast").psf_assumption == ""
