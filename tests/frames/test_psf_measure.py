"""The PSF measured on the sources of frames."""

import numpy as np
import pytest
from scipy.optimize import minimize

from csist.checks import InputError
from csist.frames import estimate_psf, unmix_frame
from csist.frames.detection.spots import fit_spot
from csist.frames.psf.measure import spread_evenly
from csist.physics.psf import GaussianPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

NOISE = 2.0


def star_field(psf, seed, number=24, pairs=0, separation_px=(0.8, 2.0), shape=(150, 190)):
    """Sources of many fluxes on a slope; the first `pairs` of them have an unresolved companion."""
    rng = np.random.default_rng(seed)
    y, x = (v.ravel().astype(float) for v in np.mgrid[16 : shape[0] - 10 : 25, 16 : shape[1] - 10 : 25])
    chosen = rng.permutation(x.size)[:number]
    x, y = x[chosen] + rng.uniform(-2, 2, number), y[chosen] + rng.uniform(-2, 2, number)
    flux = np.exp(rng.uniform(np.log(900.0), np.log(9000.0), number))
    angle, apart = rng.uniform(0, 2 * np.pi, pairs), rng.uniform(*separation_px, pairs)
    scene = Targets(
        x=np.append(x, x[:pairs] + apart * np.cos(angle)),
        y=np.append(y, y[:pairs] + apart * np.sin(angle)),
        intensity=np.append(flux, flux[:pairs] * rng.uniform(0.5, 1.0, pairs)),
    )
    slope = 200.0 + 0.2 * np.arange(shape[1])
    return scene, Sensor(psf, shape=shape, quantised=False).render(scene) + slope + rng.normal(0.0, NOISE, shape)


@pytest.mark.parametrize("sigma_px", [0.7, 1.1, 1.8])
def test_the_width_is_recovered(sigma_px):
    _, frame = star_field(GaussianPSF(sigma_px), 0)
    found = estimate_psf(frame)
    assert found.sigma_px == pytest.approx(sigma_px, rel=0.03)
    assert abs(found.sigma_px - sigma_px) < 5.0 * found.sigma_px_std + 1e-3 * sigma_px
    assert found.sources >= 15
    assert found.psf_error == 0.0


@pytest.mark.parametrize("sigma_px", [0.7, 1.1, 1.8])
def test_unresolved_pairs_do_not_widen_it(sigma_px):
    scene, frame = star_field(GaussianPSF(sigma_px), 1, pairs=9, separation_px=(0.8 * sigma_px, 2.0 * sigma_px))
    found = estimate_psf(frame)
    assert len(scene) == 33
    assert found.sigma_px == pytest.approx(sigma_px, rel=0.03)
    assert found.sources < found.candidates


def test_of_a_measured_psf_it_is_the_gaussian_closest_to_it():
    offset = np.arange(-40, 41) / 5
    beta, alpha = 3.5, 2.2  # a Moffat profile, with wings that no Gaussian has
    profile = (1.0 + (offset[None, :] ** 2 + offset[:, None] ** 2) / alpha**2) ** -beta
    psf = SampledPSF(profile, 5)
    found = estimate_psf(star_field(psf, 2)[1])
    dx, dy = np.meshgrid(np.arange(-6, 7) + 0.2, np.arange(-6, 7) - 0.3)
    exact = psf.response(dx, dy)

    def misfit(p):
        return float(((p[1] * GaussianPSF(float(p[0])).response(dx, dy) + p[2] - exact) ** 2).sum())

    closest = minimize(misfit, [1.0, 1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-14}).x[0]
    assert found.sigma_px == pytest.approx(closest, rel=0.03)
    assert 0.0 < found.psf_error < 0.1  # it notices that the shape is another one


def test_faint_frames_are_put_together():
    frames = [star_field(GaussianPSF(1.2), seed, number=3)[1] for seed in range(4)]
    with pytest.raises(InputError, match=r"only 3 isolated .* 1 frame, 5 are needed"):
        estimate_psf(frames[0])
    found = estimate_psf(iter(frames))
    assert (found.frames, found.sources) == (4, 12)
    assert found.sigma_px == pytest.approx(1.2, rel=0.03)


def test_saturated_and_masked_sources_are_left_out():
    scene, frame = star_field(GaussianPSF(1.2), 3, number=12)
    level = 500.0
    above = int((scene.intensity > 4000.0).sum())
    clipped = np.minimum(frame, level)
    found = estimate_psf(clipped, ceiling=level)
    assert above > 0
    assert found.candidates <= len(scene) - above
    assert found.sigma_px == pytest.approx(1.2, rel=0.03)


@pytest.mark.parametrize(
    "frame",
    [
        np.full((40, 40), 3.0),
        np.random.default_rng(4).normal(10.0, 1.0, (64, 64)),
        np.random.default_rng(5).normal(10.0, 1.0, (5, 5)),
    ],
)
def test_frames_without_sources_are_refused_politely(frame):
    with pytest.raises(InputError, match=r"only 0 isolated bright .*--psf-sigma"):
        estimate_psf(frame)
    with pytest.raises(InputError, match="--psf-sigma"):
        unmix_frame(frame, psf="auto")


def test_unmixing_with_it_is_unmixing_with_what_it_finds():
    scene, frame = star_field(GaussianPSF(1.1), 6, number=10, pairs=1, separation_px=(2.2, 2.4), shape=(110, 120))
    found = unmix_frame(frame, psf="auto", mode="fast").targets
    assert found == unmix_frame(frame, psf=estimate_psf(frame).psf, mode="fast").targets
    assert len(found) == len(scene)
    with pytest.raises(InputError, match="auto or empirical, got 'best'"):
        unmix_frame(frame, psf="best")


def test_indices_spread_over_a_sequence():
    assert spread_evenly(0) == []
    assert spread_evenly(1) == [0]
    assert spread_evenly(1000, 8)[0] == 0 and spread_evenly(1000, 8)[-1] == 999 and len(spread_evenly(1000, 8)) == 8


def test_a_spot_whose_own_pixels_are_masked_is_none():
    sensor = Sensor(GaussianPSF(1.1), shape=(41, 41), quantised=False)
    frame = sensor.render(Targets(x=[20.0], y=[20.0], intensity=[3000.0]))
    noise = np.ones(frame.shape)
    assert fit_spot(frame, noise, 20.0, 20.0) is not None
    i, j = np.indices(frame.shape)
    frame[np.hypot(i - 20, j - 20) < 4.0] = np.nan
    assert fit_spot(frame, noise, 20.0, 20.0) is None


def moffat(oversampling=5):
    """A PSF with wings that no Gaussian has, and not round."""
    offset = np.arange(-6 * oversampling, 6 * oversampling + 1) / oversampling
    square = (offset[None, :] / 1.15) ** 2 + offset[:, None] ** 2
    return SampledPSF((1.0 + square / 1.6**2) ** -3.5, oversampling)


@pytest.fixture(scope="module")
def winged_field():
    return star_field(moffat(), 7, number=35)


def test_an_empirical_psf_has_the_shape_of_the_true_one(winged_field):
    found = estimate_psf(winged_field[1], empirical=True)
    places = np.linspace(-4.0, 4.0, 41)
    exact = moffat().response(places, places[:, None])
    nearest = GaussianPSF(found.sigma_px).response(places, places[:, None])
    error = found.psf.response(places, places[:, None]) - exact
    assert found.sources == 35
    assert np.abs(error).max() < 0.025 * exact.max()
    assert np.sqrt((error**2).mean()) < 0.2 * np.sqrt(((nearest - exact) ** 2).mean())
    assert found.psf_error < 0.5 * estimate_psf(winged_field[1]).psf_error


def test_fluxes_by_an_empirical_psf_hold_the_light_of_the_wings(winged_field):
    scene, frame = winged_field
    for word, low, high in (("auto", 0.8, 0.96), ("empirical", 0.975, 1.025)):
        found = unmix_frame(frame, psf=word, mode="fast").targets
        distance = np.hypot(found.x[:, None] - scene.x, found.y[:, None] - scene.y)
        own = distance.argmin(axis=0)
        assert word == "auto" or len(found) == len(scene)
        assert (distance.min(axis=0) < 0.5).all()
        assert low < np.median(found.intensity[own] / scene.intensity) < high


def test_of_gaussian_sources_the_empirical_psf_is_the_gaussian():
    found = estimate_psf(star_field(GaussianPSF(1.1), 8, number=35)[1], empirical=True)
    places = np.linspace(-5.0, 5.0, 31)
    exact = GaussianPSF(1.1).response(places, places[:, None])
    np.testing.assert_allclose(found.psf.response(places, places[:, None]), exact, atol=0.015 * exact.max())
    assert found.psf.array.sum() == pytest.approx(found.psf.oversampling**2)


def test_an_empirical_psf_needs_enough_sources_that_end_within_their_windows():
    with pytest.raises(InputError, match="10 are needed"):
        estimate_psf(star_field(GaussianPSF(1.1), 9, number=7)[1], empirical=True)
    with pytest.raises(InputError, match="use psf='auto'"):
        estimate_psf(star_field(GaussianPSF(2.0), 9)[1], empirical=True)


def test_one_source_in_many_frames_is_one_source():
    sky = Sensor(GaussianPSF(0.9), shape=(64, 64), background=50.0, read_noise=3.0)
    rng = np.random.default_rng(0)
    moving = [
        sky.observe(Targets([20.0 + t, 21.2 + t], [20.0 + 0.5 * t, 20.3 + 0.5 * t], [3000.0, 2500.0]), rng)
        for t in range(20)
    ]
    # A pair as one would be 28 stated errors too wide.
    with pytest.raises(InputError, match="all 20 frames show the same 1 isolated bright source, which may be groups"):
        estimate_psf(moving)
    elsewhere = [
        sky.observe(Targets(*rng.uniform(12, 52, (2, 1)), [3000.0]), rng) for _ in range(12)
    ]  # fmt: skip
    assert estimate_psf(elsewhere).sigma_px == pytest.approx(0.9, rel=0.02)
