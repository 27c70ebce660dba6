"""Self-calibration: known sensors are found again, stated errors hold, and what cannot be calibrated is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares

import csist
from csist.checks import InputError

calibrate = csist.calibrate
module = sys.modules["csist.methods.continuous.calibrate"]

BENCHMARK = csist.ScenePrior.csist_100k()
SINGLE = replace(BENCHMARK, count_range=(1, 1))


def windows(truth: csist.Sensor, number: int, seed: int, prior: csist.ScenePrior = BENCHMARK) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([truth.observe(scene, rng) for scene in csist.sample_scenes(prior, truth, number, seed)])


def guess(truth: csist.Sensor, sigma_px: float) -> csist.Sensor:
    """The sensor with a wrong width, and nothing known of its background."""
    return replace(truth, psf=csist.GaussianPSF(sigma_px), background=0.0)


# --- what is found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "start"), [(0.0, 0.55), (1.0, 0.45), (2.0, 0.475)])
def test_the_benchmarks_windows_give_sigma_to_a_percent(noise: float, start: float) -> None:
    truth = csist.Sensor(background=20.0, read_noise=noise)
    found = calibrate(windows(truth, 500, 21), guess(truth, start), BENCHMARK, noise_std=noise)
    assert found.sigma_px == pytest.approx(0.5, rel=0.01)
    assert found.background == pytest.approx(20.0, abs=0.1)
    assert found.sensor == replace(truth, psf=csist.GaussianPSF(found.sigma_px), background=found.background)
    # every fifth window holds one target
    assert 50 <= found.images_used <= 150
    assert found.noise_std == noise


def test_where_it_starts_does_not_matter() -> None:
    truth = csist.Sensor(background=20.3, read_noise=1.0)
    images = windows(truth, 120, 3)
    found = [calibrate(images, guess(truth, sigma), BENCHMARK) for sigma in (0.45, 0.475, 0.525, 0.55, 0.65)]
    assert [each.sigma_px for each in found] == pytest.approx([found[0].sigma_px] * 5, abs=1e-4)
    assert [each.background for each in found] == pytest.approx([found[0].background] * 5, abs=1e-3)
    assert len({each.images_used for each in found}) == 1


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_stated_errors_hold(noise: float) -> None:
    deviations = []
    for seed in range(12):
        truth = csist.Sensor(csist.GaussianPSF(0.45 + 0.01 * seed), background=-3.0 + seed / 12, read_noise=noise)
        found = calibrate(windows(truth, 60, seed, SINGLE), guess(truth, 0.5), SINGLE, noise_std=noise)
        deviations.append((found.sigma_px - truth.psf.sigma_px) / found.sigma_px_std)
        deviations.append((found.background - truth.background) / found.background_std)
    # the mean square of 24 normal deviates, hardly dependent on each other, is 1 +- 0.3
    assert 0.4 < np.mean(np.square(deviations)) < 1.9


def test_exact_images_give_exact_values() -> None:
    truth = csist.Sensor(csist.GaussianPSF(0.62), background=3.3, quantised=False)
    for noise_std in (None, 0.0):
        found = calibrate(windows(truth, 40, 5, SINGLE), guess(truth, 0.58), SINGLE, noise_std)
        assert found.sigma_px == pytest.approx(0.62, abs=1e-5)
        assert found.background == pytest.approx(3.3, abs=1e-4)


def test_agrees_with_least_squares_of_all_parameters() -> None:
    truth = csist.Sensor(background=7.0, read_noise=2.0, quantised=False)
    scenes = csist.sample_scenes(SINGLE, truth, 12, 4)
    rng = np.random.default_rng(4)
    images = np.stack([truth.observe(scene, rng) for scene in scenes])

    def residuals(theta: np.ndarray) -> np.ndarray:
        sensor = csist.Sensor(csist.GaussianPSF(theta[0]), background=theta[1])
        x, y, flux = theta[2:].reshape(3, -1, 1)
        return (sensor.render_stack(x, y, flux) - images).ravel() / 2.0

    own = [np.concatenate([getattr(scene, name) for scene in scenes]) for name in ("x", "y", "intensity")]
    expected = least_squares(residuals, np.concatenate([[0.5, 7.0], *own]), x_scale="jac", xtol=1e-12)
    covariance = np.linalg.inv(expected.jac.T @ expected.jac)
    found = calibrate(images, guess(truth, 0.53), SINGLE)
    assert found.images_used == 12
    assert found.sigma_px == pytest.approx(expected.x[0], abs=0.01 * found.sigma_px_std)
    assert found.background == pytest.approx(expected.x[1], abs=0.01 * found.background_std)
    # the sandwich of a few windows is rough, yet of the size that known noise gives
    assert found.sigma_px_std == pytest.approx(covariance[0, 0] ** 0.5, rel=0.5)
    assert found.background_std == pytest.approx(covariance[1, 1] ** 0.5, rel=0.5)


def test_a_free_prior_and_a_wider_psf() -> None:
    law = csist.ScenePrior(count_range=(1, 2), intensity_range=(300.0, 3000.0), min_separation_px=4.0)
    truth = csist.Sensor(csist.GaussianPSF(1.2), shape=(15, 15), background=40.0, read_noise=2.0)
    found = calibrate(windows(truth, 60, 6, law), guess(truth, 1.08), csist.ScenePrior(count_range=(1, 3)))
    assert abs(found.sigma_px - 1.2) < 4.0 * found.sigma_px_std < 0.02
    assert abs(found.background - 40.0) < 4.0 * found.background_std < 0.5


@pytest.mark.parametrize(
    "truth",
    [
        csist.Sensor(background=20.0, read_noise=1.0, gain=5.0),
        csist.Sensor(background=0.0, read_noise=1.0, bits=8),
        csist.Sensor(background=20.4, read_noise=0.0),
    ],
    ids=["shot noise", "half of the dark pixels clipped", "dark pixels all rounded alike"],
)
def test_sensors_of_every_kind(truth: csist.Sensor) -> None:
    found = calibrate(windows(truth, 60, 8, SINGLE), guess(truth, 0.53), SINGLE, noise_std=truth.read_noise)
    assert abs(found.sigma_px - 0.5) < 4.0 * found.sigma_px_std < 0.02
    assert abs(found.background - truth.background) < 4.0 * found.background_std < 0.5


# --- what is left out -------------------------------------------------------------------------------------


def test_windows_that_one_target_does_not_explain_are_left_out() -> None:
    truth = csist.Sensor(background=20.0, read_noise=1.0)
    images = windows(truth, 50, 9, SINGLE)
    hit = images.copy()
    for n in range(0, 50, 5):
        peak = np.unravel_index(images[n].argmax(), images[n].shape)
        hit[n, (peak[0] + 5) % 11, (peak[1] + 5) % 11] += 60.0
    clean = calibrate(np.delete(images, np.arange(0, 50, 5), axis=0), guess(truth, 0.53), SINGLE)
    found = calibrate(hit, guess(truth, 0.53), SINGLE)
    assert found.images_used == clean.images_used
    assert found.sigma_px == pytest.approx(clean.sigma_px, abs=1e-5)


def test_saturated_windows_are_left_out() -> None:
    truth = csist.Sensor(background=20.0, read_noise=1.0)
    images = windows(truth, 60, 10, SINGLE)
    level = float(np.median(images.max(axis=(1, 2))))
    clipped = replace(truth, saturation=level)
    found = calibrate(np.minimum(images, level), guess(clipped, 0.53), SINGLE)
    assert found.images_used <= (images.max(axis=(1, 2)) < level).sum()
    assert abs(found.sigma_px - 0.5) < 4.0 * found.sigma_px_std


def test_missing_pixels_are_left_out() -> None:
    truth = csist.Sensor(background=20.0, read_noise=1.0)
    images = windows(truth, 60, 11, SINGLE)
    images[np.random.default_rng(0).random(images.shape) < 0.03] = np.nan
    found = calibrate(images, guess(truth, 0.53), SINGLE)
    assert abs(found.sigma_px - 0.5) < 4.0 * found.sigma_px_std
    assert abs(found.background - 20.0) < 4.0 * found.background_std


def test_a_large_stack_is_thinned_evenly() -> None:
    truth = csist.Sensor(background=20.0, read_noise=1.0)
    images = windows(truth, 61, 12, SINGLE)
    thinned = calibrate(images, guess(truth, 0.53), SINGLE, most_images=21)
    assert thinned == calibrate(images[::3], guess(truth, 0.53), SINGLE)


# --- how it behaves ---------------------------------------------------------------------------------------


def test_deterministic_and_leaves_its_input_alone() -> None:
    truth = csist.Sensor(background=20.0)
    images = windows(truth, 30, 13, SINGLE)
    before = images.copy()
    images.flags.writeable = False
    assert calibrate(images, None, SINGLE, workers=1) == calibrate(images, None, SINGLE, workers=3)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("parameter", range(5))
def test_derivatives_equal_numeric(parameter: int) -> None:
    own, sigma, shape = np.array([[3.3, 4.2, 230.0], [0.1, 8.4, 500.0]]), 0.55, (9, 7)

    def light(theta: np.ndarray) -> np.ndarray:
        return module._light(theta[:, :3], csist.GaussianPSF(theta[0, 3]), shape)[0] + theta[0, 4]

    theta = np.column_stack([own, [sigma] * 2, [2.0] * 2])
    step = np.zeros(5)
    step[parameter] = 1e-5
    numeric = (light(theta + step) - light(theta - step)) / 2e-5
    assert module._light(own, csist.GaussianPSF(sigma), shape)[1][:, parameter] == pytest.approx(numeric, abs=1e-5)


def test_too_few_windows_are_counted() -> None:
    truth = csist.Sensor(background=20.0, read_noise=1.0)
    sensor = guess(truth, 0.5)
    with pytest.raises(InputError, match="at least 10 windows are needed, got 9"):
        calibrate(windows(truth, 9, 14, SINGLE), sensor, SINGLE)
    with pytest.raises(InputError, match="only 0 of 30 windows hold one bright target"):
        calibrate(windows(truth, 30, 14, replace(BENCHMARK, count_range=(5, 5))), sensor, BENCHMARK)
    with pytest.raises(InputError, match="only 0 of 30 windows hold one bright target"):
        calibrate(windows(truth, 30, 14, replace(BENCHMARK, count_range=(0, 0))), sensor, BENCHMARK)
    mixed = np.concatenate(
        [windows(truth, 30, 14, replace(BENCHMARK, count_range=(3, 3))), windows(truth, 5, 15, SINGLE)]
    )
    with pytest.raises(InputError, match="only 5 of 35 windows"):
        calibrate(mixed, sensor, BENCHMARK)


GOOD = np.zeros((20, 11, 11))


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (np.zeros((0, 11, 11)), {}, "at least 10 windows are needed, got 0"),
        (np.zeros((11, 11)), {}, "at least 10 windows are needed, got 1"),
        (np.zeros(11), {}, "images must be"),
        (np.full((20, 11, 11), np.nan), {}, "image 0 contains only NaN"),
        (
            GOOD,
            {"sensor": csist.Sensor(csist.AiryPSF(1.2))},
            "Gaussian PSF can be calibrated, got a PSF of kind 'airy'",
        ),
        (GOOD, {"noise_std": -1.0}, "noise_std must be a finite number >= 0, got -1.0"),
        (GOOD, {"most_images": 3}, "most_images must be a whole number >= 10, got 3"),
    ],
    ids=["empty", "one image", "1-D", "all NaN", "Airy", "negative noise", "most_images"],
)
def test_bad_input_gets_one_line(images: np.ndarray, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        calibrate(images, **options)
    assert "\n" not in str(caught.value)
