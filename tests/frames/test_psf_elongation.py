"""Elongation of the PSF, found where the sources show it and only there."""

from __future__ import annotations

import numpy as np
import pytest

import csist
from csist.frames import estimate_psf


def stars(psf: object, seed: int, flux: float = 8000.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(15, 190, 25.0), np.arange(15, 140, 25.0)))
    scene = csist.Targets(
        x=x + rng.uniform(-2, 2, x.size),
        y=y + rng.uniform(-2, 2, x.size),
        intensity=flux * 10 ** rng.uniform(-0.5, 0.3, x.size),
    )
    return csist.Sensor(psf, shape=(150, 200), background=100.0, read_noise=5.0).observe(scene, seed)


@pytest.mark.parametrize(
    ("long", "short", "angle"), [(1.3, 1.15, 30.0), (1.5, 1.1, -40.0), (0.9, 0.6, 80.0), (2.0, 1.0, 0.0)]
)
def test_axes_and_angle_of_an_elongated_psf_are_found(long: float, short: float, angle: float) -> None:
    found = estimate_psf(stars(csist.EllipticalGaussianPSF(long, short, angle), 1))
    assert found.elliptical is not None and found.psf == found.elliptical
    assert found.elliptical.sigma_x_px == pytest.approx(long, rel=0.02)
    assert found.elliptical.sigma_y_px == pytest.approx(short, rel=0.02)
    assert (found.elliptical.angle_deg - angle + 90.0) % 180.0 - 90.0 == pytest.approx(0.0, abs=3.0)
    assert found.psf_error < 0.02


@pytest.mark.parametrize(
    ("psf", "seed"), [(csist.GaussianPSF(1.2), seed) for seed in range(5)] + [(csist.MoffatPSF(2.6, 3.5), 0)]
)
def test_a_round_psf_stays_round(psf: object, seed: int) -> None:
    assert estimate_psf(stars(psf, seed)).elliptical is None


def test_a_pair_among_round_stars_does_not_elongate_the_psf() -> None:
    image = stars(csist.GaussianPSF(1.2), 4)
    pair = csist.Targets(x=[65.0, 66.6], y=[62.0, 62.0], intensity=[30000.0, 30000.0])
    image += csist.Sensor(csist.GaussianPSF(1.2), shape=image.shape).render(pair)
    assert estimate_psf(image).elliptical is None


def test_a_frame_is_unmixed_with_the_elongated_psf() -> None:
    psf = csist.EllipticalGaussianPSF(1.6, 1.1, 30.0)
    image = stars(psf, 2)
    found = csist.unmix_frame(image, psf="auto", mode="fast")
    known = csist.unmix_frame(image, psf=psf, mode="fast")
    assert found.psf.kind == "elliptical-gaussian"
    assert len(found.targets) == len(known.targets) == 35
