"""Noise of each pixel, masks, detector values and units of values, from Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import csist
from csist import GaussianPSF, InputError, Sensor, Targets, unmix_frame
from csist.windows import check_error, estimate_noise, window_noise

SKY = Sensor(GaussianPSF(1.2), shape=(48, 64), background=50.0, read_noise=3.0, quantised=False)
STARS = Targets(x=[12.3, 30.6, 50.1], y=[14.2, 31.8, 20.5], intensity=[1500.0, 3000.0, 900.0])
FRAME = SKY.observe(STARS, 1)
WINDOW_SENSOR = Sensor(GaussianPSF(1.1), shape=(13, 13), background=20.0, read_noise=1.0, quantised=False)
STAR = Targets(x=[6.2], y=[5.9], intensity=[240.0])
WINDOW = WINDOW_SENSOR.observe(STAR, 0)
FAST: dict[str, Any] = {"mode": "fast"}


def by_place(targets: Targets) -> Targets:
    return targets[np.argsort(targets.x)]


@settings(max_examples=12)
@given(exponent=st.integers(-18, 12), factor=st.floats(1.0, 9.0))
def test_a_window_times_a_factor_has_the_same_answer(exponent: int, factor: float) -> None:
    scale = factor * 10.0**exponent
    expected = csist.unmix(WINDOW, replace(WINDOW_SENSOR, read_noise=0.0), **FAST)
    sensor = replace(WINDOW_SENSOR, background=20.0 * scale, read_noise=0.0)
    found = csist.unmix(WINDOW * scale, sensor, **FAST)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-3)
    np.testing.assert_allclose(found.intensity, scale * expected.intensity, rtol=1e-4)


@settings(max_examples=8)
@given(exponent=st.integers(-18, 12), offset=st.floats(-1e4, 1e4), detector=st.sampled_from(["contrast", "matched"]))
def test_a_frame_times_a_factor_plus_a_level_has_the_same_answer(exponent: int, offset: float, detector: str) -> None:
    scale = 10.0**exponent
    expected = by_place(unmix_frame(FRAME, psf=1.2, detector=detector, **FAST).targets)
    found = by_place(unmix_frame((FRAME + offset) * scale, psf=1.2, detector=detector, **FAST).targets)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-3)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-3)
    np.testing.assert_allclose(found.intensity, scale * expected.intensity, rtol=1e-3)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">i4", "<u2", ">u2", "i8"])
def test_type_and_byte_order_do_not_matter(dtype: str) -> None:
    whole = np.rint(FRAME)
    expected = unmix_frame(whole, psf=1.2, **FAST).targets
    assert unmix_frame(whole.astype(dtype), psf=1.2, **FAST).targets == expected


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), share=st.floats(0.0, 0.15))
def test_what_is_masked_does_not_matter(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.uniform(size=FRAME.shape) < share
    junk = np.where(mask, rng.uniform(-1e6, 1e6, FRAME.shape), FRAME)
    blank = np.where(mask, np.nan, FRAME)
    assert csist.unmix(junk, psf=1.2, mask=mask, **FAST) == csist.unmix(blank, psf=1.2, **FAST)
    inner = mask[:13, :13]
    window, left = np.where(inner, 1e9, WINDOW), np.where(inner, np.nan, WINDOW)
    assert csist.unmix(window, WINDOW_SENSOR, mask=inner, **FAST) == csist.unmix(
        left, WINDOW_SENSOR, mask_nan=True, **FAST
    )


def test_an_even_error_map_says_the_same_as_one_noise() -> None:
    expected = csist.unmix(WINDOW, WINDOW_SENSOR, **FAST)
    found = csist.unmix(WINDOW, WINDOW_SENSOR, error=np.ones(WINDOW.shape), **FAST)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-9)
    np.testing.assert_allclose(found.intensity, expected.intensity, rtol=1e-9)


@pytest.mark.parametrize("prior", [csist.ScenePrior.flat(), csist.ScenePrior.csist_100k()])
@pytest.mark.parametrize("mode", ["fast", "accurate"])
def test_noisy_pixels_count_less(prior: csist.ScenePrior, mode: str) -> None:
    """Half of the pixels are noisy: with a map, positions are as good as the other half allows."""
    rng = np.random.default_rng(4)
    sensor = Sensor(GaussianPSF(0.5 if prior.single_pixel else 1.1), shape=(13, 13), quantised=False)
    error = np.where(rng.uniform(size=(40, 13, 13)) < 0.5, 8.0, 1.0)
    scenes = [Targets(x=[6.0 + dx], y=[6.0 + dy], intensity=[235.0]) for dx, dy in rng.uniform(-0.4, 0.4, (40, 2))]
    images = np.stack([sensor.render(scene) for scene in scenes]) + rng.normal(0.0, 1.0, error.shape) * error
    prior = replace(prior, count_range=(1, 1))
    options: dict[str, Any] = {"prior": prior, "mode": mode}
    mapped = csist.unmix(images, sensor, error=error, **options)
    plain = csist.unmix(images, sensor, noise_std=float(np.sqrt(np.mean(error**2))), **options)
    pairs = [
        (a.x - s.x, b.x - s.x, a.x_std) for a, b, s in zip(mapped, plain, scenes, strict=True) if len(a) and len(b)
    ]
    own, other, stated = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert len(pairs) == 40
    assert np.sqrt(np.mean(own**2)) < 0.7 * np.sqrt(np.mean(other**2))
    assert 0.7 < np.sqrt(np.mean((own / stated) ** 2)) < 1.4


def test_an_error_map_of_a_frame_leaves_pixels_out_and_sets_the_errors() -> None:
    error = np.full(FRAME.shape, 3.0)
    error[0, :5], error[1, :5], error[2, :5] = 0.0, np.inf, np.nan
    result = unmix_frame(FRAME, psf=1.2, error=error, **FAST)
    assert result.pixel_counts["nan"] == 15 and len(result.targets) == 3
    np.testing.assert_allclose(np.median(result.noise), 3.0)
    twice = unmix_frame(FRAME, psf=1.2, error=2.0 * error, **FAST).targets
    ratio = by_place(twice).intensity_std / by_place(result.targets).intensity_std
    np.testing.assert_allclose(ratio, 2.0, rtol=0.3)


def test_a_sensor_with_gain_and_read_noise_has_the_noise_of_both() -> None:
    card = Sensor(GaussianPSF(1.3), shape=(96, 96), background=400.0, read_noise=3.0, gain=2.0)
    stars = Targets(x=[30.2, 60.7], y=[40.1, 62.4], intensity=[2e4, 5e4])
    result = unmix_frame(card.observe(stars, 3), card, detector="matched", **FAST)
    np.testing.assert_allclose(np.median(result.noise), card.pixel_noise, rtol=0.1)
    assert len(result.targets) == 2 and np.isfinite(result.targets.intensity_std).all()
    # A sky that was smoothed shows less noise than its photons have; what the sensor states is no offset.
    smooth = np.full((64, 64), 400.0) + np.random.default_rng(0).normal(0.0, 1.0, (64, 64))
    np.testing.assert_allclose(np.median(unmix_frame(smooth, card).noise), card.pixel_noise, rtol=0.02)
    raw = replace(card, background=0.0)
    np.testing.assert_allclose(np.median(unmix_frame(smooth, raw).noise), 3.0, rtol=0.02)


def test_the_noise_rule_of_windows() -> None:
    stack = np.random.default_rng(0).normal(0.0, 2.0, (20, 13, 13))
    sensor = Sensor(background=0.0, quantised=False)
    assert window_noise(stack, sensor, 5.0) == 5.0
    assert window_noise(stack, replace(sensor, read_noise=3.0)) == 3.0
    photons = replace(sensor, read_noise=3.0, gain=2.0, background=32.0)
    assert window_noise(stack, photons) == 5.0 == photons.pixel_noise
    assert photons.with_pixel_noise(5.0) == photons
    assert window_noise(stack, sensor) == estimate_noise(stack)
    rounded = window_noise(np.rint(stack), replace(sensor, quantised=True))
    np.testing.assert_allclose(rounded**2, estimate_noise(np.rint(stack)) ** 2 - 1.0 / 12.0)
    assert window_noise(1e-18 * np.ones((1, 5, 5)), sensor) == pytest.approx(1e-21)
    assert window_noise(np.zeros((1, 5, 5)), sensor) > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": np.ones((3, 3))}, "error must have the image's shape"),
        ({"error": -np.ones(WINDOW.shape)}, "standard deviations >= 0, got -1"),
        ({"error": np.zeros(WINDOW.shape)}, "no finite value > 0"),
        ({"error": np.full(WINDOW.shape, "a")}, "real numbers"),
        ({"mask": np.ones((3, 3))}, "mask must have the image's shape"),
        ({"mask": np.ones(WINDOW.shape)}, "leave no pixel"),
        ({"error": np.ones(WINDOW.shape), "method": "fista"}, "one noise for all pixels"),
    ],
)
def test_bad_maps_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        csist.unmix(WINDOW, WINDOW_SENSOR, **options)


def test_an_even_error_map_says_the_same_as_one_noise_to_the_crowded_detector() -> None:
    options: dict[str, Any] = {"psf": 1.2, "detector": "crowded"}
    plain = unmix_frame(FRAME, noise_std=3.0, **options)
    mapped = unmix_frame(FRAME, error=np.full(FRAME.shape, 3.0), **options)
    for name in ("x", "y", "intensity", "x_std", "intensity_std", "score"):
        np.testing.assert_allclose(getattr(mapped.targets, name), getattr(plain.targets, name), rtol=1e-6)
    np.testing.assert_allclose(mapped.noise, 3.0)


def test_errors_of_the_crowded_detector_are_those_of_the_map() -> None:
    rng, shape = np.random.default_rng(3), (160, 160)
    grid = 8.0 + 9.0 * np.arange(17)
    x, y = (each.ravel() + rng.uniform(-1.5, 1.5, 289) for each in np.meshgrid(grid, grid))
    stars = Targets(x=x, y=y, intensity=np.exp(rng.uniform(*np.log([2e3, 2e4]), 289)))
    error = np.broadcast_to(np.linspace(2.0, 12.0, shape[1]), shape) * rng.uniform(0.7, 1.4, shape)
    clean = Sensor(GaussianPSF(1.2), shape=shape, background=50.0, quantised=False).render(stars)
    image = clean + rng.normal(0.0, 1.0, shape) * error
    bad = rng.uniform(size=shape) < 0.03
    image[bad] += 1e4
    found = unmix_frame(image, psf=1.2, detector="crowded", error=np.where(bad, np.inf, error)).targets
    distance = np.hypot(found.x - stars.x[:, None], found.y - stars.y[:, None])
    at = distance.argmin(axis=1)
    assert (distance.min(axis=1) < 0.5).mean() > 0.98 and len(found) < 295
    for name in ("x", "y", "intensity"):
        pulls = (getattr(found, name)[at] - getattr(stars, name)) / getattr(found, f"{name}_std")[at]
        assert 0.85 < 1.4826 * np.median(np.abs(pulls)) < 1.3
    left, right = (found.intensity_std[side] for side in (found.x < 40, found.x > 120))
    assert np.median(right) > 2.5 * np.median(left)


def test_no_map_is_no_map() -> None:
    assert check_error(None, (5, 5)) is None
