"""Every kind of PSF: close targets of high signal in frames and windows, found within their errors, and no others."""

from __future__ import annotations

import numpy as np
import pytest

import csist
from csist.physics.psf import PSF


def sampled(psf: PSF) -> csist.SampledPSF:
    offset = np.arange(-40, 41) / 5.0
    return csist.SampledPSF(psf.response(offset[None, :], offset[:, None]), 5)


NARROW, WIDE = sampled(csist.GaussianPSF(0.9)), sampled(csist.EllipticalGaussianPSF(1.5, 0.9, 30.0))
PSFS: dict[str, PSF] = {
    "gaussian": csist.GaussianPSF(1.0),
    "elliptical": csist.EllipticalGaussianPSF(0.8, 1.3, 30.0),
    "airy": csist.AiryPSF(2.0),
    "moffat": csist.MoffatPSF(2.5, 3.0),
    "sampled": sampled(csist.AiryPSF(1.5)),
    "field": csist.FieldPSF(np.array([0.0, 80.0]), np.array([0.0]), np.array([[NARROW.array, WIDE.array]]), 5),
}


def pair(psf: PSF, peak: float, middle: tuple[float, float], seed: int) -> csist.Targets:
    angle = np.random.default_rng(seed).uniform(0.0, np.pi)
    x, y = middle[0] + np.cos(angle) * np.array([-1.0, 1.0]), middle[1] + np.sin(angle) * np.array([-1.0, 1.0])
    flux = peak / float(psf.response(0.0, 0.0))
    return csist.Targets(x=x, y=y, intensity=[flux, 0.8 * flux])


def drawn(psf: PSF, truth: csist.Targets, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Frame of targets whose PSF is that of the middle of their cell."""
    image = np.random.default_rng(seed).normal(100.0, 1.0, shape)
    columns, rows = np.arange(shape[1]), np.arange(shape[0])
    for each in truth:
        own = psf.at(float(each.x[0]), float(each.y[0]))
        image += each.intensity[0] * own.response(columns[None, :] - each.x[0], rows[:, None] - each.y[0])
    return image


def check(found: csist.Targets, truth: csist.Targets) -> None:
    assert len(found) == len(truth)
    distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y)
    order = distance.argmin(axis=0)
    assert sorted(order.tolist()) == list(range(len(truth)))
    for name in ("x", "y", "intensity"):
        error = getattr(found, name)[order] - getattr(truth, name)
        assert (np.abs(error) < 4.5 * getattr(found, f"{name}_std")[order]).all(), name


@pytest.mark.parametrize("peak", [100.0, 10000.0])
@pytest.mark.parametrize("name", PSFS)
def test_two_targets_2_px_apart_in_a_frame(name: str, peak: float) -> None:
    psf = PSFS[name]
    truth = pair(psf, peak, (40.3, 48.4), 1)
    image = drawn(psf, truth, (90, 80), 2)
    check(csist.unmix_frame(image, psf=psf, mode="fast", noise_std=1.0, workers=1).targets, truth)


@pytest.mark.parametrize("name", [name for name in PSFS if name != "field"])
def test_two_targets_2_px_apart_in_a_window(name: str) -> None:
    psf = PSFS[name]
    truth = pair(psf, 3000.0, (7.3, 6.8), 3)
    sensor = csist.Sensor(psf, shape=(15, 15), background=100.0, read_noise=1.0, quantised=False)
    check(csist.unmix(drawn(psf, truth, (15, 15), 4), sensor, mode="fast"), truth)


def test_each_group_has_the_psf_of_its_place() -> None:
    psf = PSFS["field"]
    truth = csist.Targets.concatenate([pair(psf, 3000.0, place, 5) for place in ((8.0, 40.0), (64.5, 40.4))])
    image = drawn(psf, truth, (80, 80), 6)
    for detector in ("contrast", "crowded"):
        result = csist.unmix_frame(image, psf=psf, mode="fast", noise_std=1.0, detector=detector, workers=1)
        check(result.targets, truth)
        assert np.abs(result.residual()).max() < 10.0


def test_fluxes_at_positions_have_the_psf_of_their_place() -> None:
    from csist.photometry import forced_photometry

    psf = PSFS["field"]
    truth = csist.Targets(x=[10.2, 70.3], y=[40.1, 40.4], intensity=[5000.0, 5000.0])
    found = forced_photometry(drawn(psf, truth, (80, 80), 7), truth.x, truth.y, psf=psf, noise_std=1.0)
    assert (np.abs(found.intensity - truth.intensity) < 4.5 * found.intensity_std).all()


def test_the_wing_of_a_bright_star_hides_no_star_and_is_none() -> None:
    psf = csist.AiryPSF(2.0)
    flux = 5000.0 / float(psf.response(0.0, 0.0))
    truth = csist.Targets(x=[40.2, 48.0], y=[45.1, 49.3], intensity=[flux, 0.03 * flux])
    image = drawn(psf, truth, (90, 80), 8)
    check(csist.unmix_frame(image, psf=psf, mode="fast", noise_std=1.0, workers=1).targets, truth)
