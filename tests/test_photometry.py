"""Forced photometry: fluxes within their errors, neighbours together, upper limits, agreement with photutils."""

from __future__ import annotations

import numpy as np
import pytest

from csist.checks import InputError
from csist.photometry import forced_photometry
from csist.physics.psf import AiryPSF, GaussianPSF, MoffatPSF
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

PSF = GaussianPSF(1.2)
SKY = Sensor(PSF, shape=(200, 220), background=50.0, read_noise=3.0, quantised=False)


def field(seed: int, stars: int, sensor: Sensor = SKY) -> Targets:
    rng = np.random.default_rng(seed)
    rows, columns = sensor.shape
    return Targets(
        x=rng.uniform(5, columns - 6, stars),
        y=rng.uniform(5, rows - 6, stars),
        intensity=10 ** rng.uniform(1.5, 3.5, stars),
    )


@pytest.mark.parametrize("flux", [2000.0, 20000.0, 200000.0])
@pytest.mark.parametrize("distance", [3.0, 4.5, 6.0, 7.5, 12.0])
def test_the_light_of_a_neighbour_without_a_position_is_left_out_or_flagged(flux: float, distance: float) -> None:
    """It raised the constant that is fitted beside the target: 15 standard errors too little, without a flag."""
    truth = Targets(x=[100.2, 100.2 + distance], y=[100.1, 100.3], intensity=[600.0, flux])
    for seed in range(5):
        found = forced_photometry(SKY.observe(truth, seed), [100.2], [100.1], psf=PSF)
        off = abs(found.intensity[0] - 600.0) / found.intensity_std[0]
        assert off < 4.0 or found.flags[0] & int(Flag.POOR_FIT), (distance, off)
        if distance >= 12.0:
            assert found.flags[0] == 0
    # With its position it is fitted, too.
    assert (np.abs(pulls(forced_photometry(SKY.observe(truth, 9), truth.x, truth.y, psf=PSF), truth)) < 4.0).all()


def pulls(found: Targets, truth: Targets) -> np.ndarray:
    return (found.intensity - truth.intensity) / found.intensity_std


@pytest.mark.parametrize("gain", [None, 0.5])
def test_fluxes_are_right_within_their_errors(gain: float | None) -> None:
    # About one star per 55 px^2: most have neighbours whose light overlaps.
    sensor = Sensor(PSF, shape=SKY.shape, background=50.0, read_noise=3.0, gain=gain, quantised=False)
    pulled = []
    for seed in range(2):
        truth = field(seed, 800, sensor)
        image = sensor.observe(truth, seed)
        noise = float(np.sqrt(sensor.noise_variance(50.0)))
        found = forced_photometry(image, truth.x, truth.y, psf=PSF, sensor=sensor, noise_std=noise)
        pulled.append(pulls(found, truth))
    together = np.concatenate(pulled)
    assert 0.9 < np.sqrt(np.mean(together**2)) < 1.1
    assert abs(together.mean()) < 0.15


def test_equal_positions_are_one_target() -> None:
    stars = Targets(x=[30.2, 60.6, 30.2], y=[40.1, 80.4, 40.1], intensity=[3000.0, 5000.0, 0.0])
    image = SKY.observe(stars, 0)
    once = forced_photometry(image, stars.x[:2], stars.y[:2], psf=PSF)
    twice = forced_photometry(image, stars.x, stars.y, psf=PSF)
    np.testing.assert_array_equal(twice.intensity, once.intensity[[0, 1, 0]])
    np.testing.assert_array_equal(twice.intensity_std, once.intensity_std[[0, 1, 0]])
    assert once.intensity[0] == pytest.approx(3000.0, abs=4.0 * once.intensity_std[0])


def test_the_order_of_the_table_stays_and_absence_is_an_upper_limit() -> None:
    truth = Targets(x=[150.3, 20.1], y=[30.2, 160.7], intensity=[2000.0, 500.0])
    image = SKY.observe(truth, 1)
    found = forced_photometry(image, [20.1, 100.0, 150.3], [160.7, 100.0, 30.2], psf=1.2, noise_std=3.0)
    assert found.intensity[[0, 2]] == pytest.approx([500.0, 2000.0], abs=5 * found.intensity_std.max())
    assert found.flags.tolist() == [0, int(Flag.UPPER_LIMIT), 0]
    assert found.intensity[1] + 3.0 * found.intensity_std[1] > 0.0


def test_a_target_takes_the_light_of_its_neighbour_only_if_that_is_not_named() -> None:
    truth = Targets(x=[60.0, 61.8], y=[80.0, 80.0], intensity=[1000.0, 1500.0])
    image = SKY.render(truth)
    alone = forced_photometry(image, [60.0], [80.0], psf=1.2, noise_std=3.0)
    both = forced_photometry(image, truth.x, truth.y, psf=1.2, noise_std=3.0)
    assert both.intensity == pytest.approx(truth.intensity, rel=0.02)
    assert alone.intensity[0] > 1300.0


@pytest.mark.parametrize(
    "psf", [GaussianPSF(0.6), MoffatPSF(2.0, 3.5), AiryPSF(2.0)], ids=["gaussian", "moffat", "airy"]
)
def test_a_constant_error_of_the_background_is_taken_out(psf: GaussianPSF) -> None:
    sensor = Sensor(psf, shape=(60, 60), background=10.0, read_noise=1.0, quantised=False)
    truth = Targets(x=[30.3], y=[29.6], intensity=[400.0])
    image = sensor.observe(truth, 5)
    image[20:40, 20:40] += 3.0  # a step that the background of wide boxes does not follow
    found = forced_photometry(image, truth.x, truth.y, psf=psf, noise_std=1.0)
    assert abs(pulls(found, truth)[0]) < 4.0


def test_masked_border_and_outside_positions() -> None:
    truth = Targets(x=[0.2, 100.0, 50.0], y=[100.0, 50.0, 20.0], intensity=[3000.0, 3000.0, 3000.0])
    image = SKY.observe(truth, 2)
    image[50, 100] = np.nan
    image[10:31, 40:61] = np.nan
    found = forced_photometry(image, [0.2, 100.0, 50.0, -30.0], [100.0, 50.0, 20.0, 4.0], psf=1.2, noise_std=3.0)
    assert abs(pulls(found[:2], truth[:2])).max() < 4.5
    assert np.isnan(found.intensity[2:]).all() and np.isnan(found.intensity_std[2:]).all()
    assert [bool(flags & Flag.MASKED) for flags in found.flags] == [False, True, True, True]


def test_no_position_is_an_empty_table_and_one_is_one() -> None:
    image = SKY.observe(Targets.empty(), 3)
    assert len(forced_photometry(image, [], [], psf=1.2)) == 0
    assert len(forced_photometry(image, 5.0, 5.0, psf=1.2)) == 1


def test_a_field_too_large_for_one_dense_matrix_has_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = field(9, 120, Sensor(PSF, shape=(60, 60)))
    image = Sensor(PSF, shape=(60, 60), background=5.0, read_noise=2.0, quantised=False).observe(truth, 4)
    dense = forced_photometry(image, truth.x, truth.y, psf=PSF, noise_std=2.0)
    monkeypatch.setattr("csist.photometry.DENSE_SIZE", 10)
    monkeypatch.setattr("csist.photometry.BLOCK", 7)
    sparse = forced_photometry(image, truth.x, truth.y, psf=PSF, noise_std=2.0)
    assert sparse.intensity == pytest.approx(dense.intensity, rel=1e-6)
    assert sparse.intensity_std == pytest.approx(dense.intensity_std, rel=1e-6)


def test_fluxes_are_those_of_photutils() -> None:
    pytest.importorskip("photutils", reason="compared where the extra `astro` is installed")
    from astropy.stats import gaussian_sigma_to_fwhm
    from astropy.table import Table
    from photutils.psf import CircularGaussianPRF, PSFPhotometry

    truth = Targets(x=[40.2, 90.7, 150.1], y=[60.3, 120.9, 40.4], intensity=[800.0, 1500.0, 300.0])
    image = SKY.observe(truth, 8)
    model = CircularGaussianPRF(fwhm=1.2 * gaussian_sigma_to_fwhm)
    model.x_0.fixed = model.y_0.fixed = True
    start = Table({"x": truth.x, "y": truth.y, "flux": truth.intensity})
    theirs = PSFPhotometry(model, (15, 15))(image - 50.0, error=np.full(image.shape, 3.0), init_params=start)
    ours = forced_photometry(image, truth.x, truth.y, psf=PSF, noise_std=3.0)
    assert (np.abs(ours.intensity - theirs["flux_fit"]) < ours.intensity_std).all()
    # Theirs takes the background as known exactly.
    assert (ours.intensity_std >= 0.99 * theirs["flux_err"]).all()
    assert (ours.intensity_std < 1.5 * theirs["flux_err"]).all()


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        ([1.0, 2.0], [1.0], {}, "positions of equal number"),
        ([np.nan], [1.0], {}, "positions must be finite"),
        ([1.0], [1.0], {"psf": "auto"}, "the PSF cannot be measured"),
        ([1.0], [1.0], {"psf": None}, "need the PSF"),
        ([1.0], [1.0], {"psf": "round"}, "psf must be a PSF, a sigma in px, auto or empirical, got 'round'"),
        ([1.0], [1.0], {"noise": 1.0}, "a frame does not take noise"),
        ([1.0], [1.0], {"noise_std": -1.0}, "noise_std"),
    ],
)
def test_bad_input(x: list[float], y: list[float], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        forced_photometry(np.zeros((40, 40)) + 1.0, x, y, **{"psf": 1.2, **options})


def test_an_error_map_takes_the_place_of_the_noise() -> None:
    truth = field(3, 300)
    rng = np.random.default_rng(0)
    error = np.where(np.arange(220) < 110, 2.0, 8.0) * np.ones((200, 1))
    image = SKY.render(truth) + rng.normal(0.0, 1.0, SKY.shape) * error
    error[100:110, 100:110] = np.inf
    image[100:110, 100:110] = 1e6
    found = forced_photometry(image, truth.x, truth.y, psf=PSF, error=error)
    seen = np.isfinite(found.intensity)
    assert seen.mean() > 0.95
    assert 0.85 < np.sqrt(np.mean(pulls(found, truth)[seen] ** 2)) < 1.15


@pytest.mark.parametrize("side", [15, 21, 41, 64])
def test_cut_outs_on_a_slope(side: int) -> None:
    # The ramp was taken for noise, ten times that of the pixels.
    off, errors = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        place, flux, angle = rng.uniform(3.0, side - 4.0, (2, 1)), rng.uniform(300.0, 3000.0, 1), rng.uniform(0.0, 6.3)
        rows, columns = np.indices((side, side))
        cut_out = Sensor(PSF, shape=(side, side)).render(Targets(x=place[0], y=place[1], intensity=flux))
        cut_out += 500.0 + 3.0 * (np.cos(angle) * columns + np.sin(angle) * rows) + rng.normal(0.0, 4.0, cut_out.shape)
        found = forced_photometry(cut_out, *place, psf=PSF)
        off.append(float((found.intensity - flux)[0] / found.intensity_std[0]))
        errors.append(float(found.intensity_std[0]))
    # A flux on a known background has an error of 4 / sqrt(sum of squared shares).
    least = 4.0 / float((PSF.response(*np.meshgrid(np.arange(-9, 10), np.arange(-9, 10))) ** 2).sum()) ** 0.5
    assert np.median(errors) == pytest.approx(least, rel=0.15)
    assert 0.7 < np.mean(np.square(off)) ** 0.5 < 1.35, off
