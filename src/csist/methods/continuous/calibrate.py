"""Self-calibration: the width of a Gaussian PSF and a constant background, from windows whose targets are unknown.

With several targets inside one pixel the width of a blob mixes PSF and spread. Windows in which the continuous
method is sure of exactly one target do not: there the width is the PSF's. So two steps take turns. First all
windows are unmixed with the sensor as known so far, and those of one target are kept. Then their likelihood is
maximised over sigma and background, shared by all, and over each window's own position and flux: Fisher scoring,
where a window's own parameters are eliminated by the Schur complement of the information, so that N windows cost
N small systems. What is maximised is the profile likelihood, whose bias by the own parameters is of the order
1 / SNR^2; faint targets are therefore left out.

A wrong sigma misfits bright targets far beyond the noise, and more targets would explain that. Hence the noise is
raised at first by the misfit that a doubt of ten percent in sigma would bring, later by less, at last by nothing.

The standard errors are those of the sandwich estimator (Huber 1967; White, Econometrica 50, 1982): they come from
how much the windows disagree and hold when the noise is not quite what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist.checks import InputError, check_not_negative, check_stack
from csist.methods.continuous.group import is_poor_fit
from csist.methods.continuous.likelihood import pixel_terms
from csist.methods.continuous.method import Continuous
from csist.methods.continuous.model import IGNORED, MEASURED, Window, pixel_codes
from csist.methods.continuous.rounding import noise_of
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets
from csist.windows import as_array, check_window_values, default_sensor, window_noise

FloatArray = NDArray[np.float64]

LEAST_IMAGES = 10
"""Windows of one target without which there is no calibration: fewer do not say how much they disagree."""

LEAST_SNR = 10.0
"""Flux of a target in units of its standard error (position known) from which it is used."""

LEAST_PIXELS = 6
"""Pixels of a window from which it says something of the PSF besides its own three parameters."""

DOUBTS = (0.1, 0.02, 0.0)
"""Relative doubt in sigma of each round of unmixing and fitting."""

DITHER_STD = 0.4
"""Noise in counts below which rounding errors of dark pixels are all alike, so that they say nothing of the level."""
LIT = (1.0, 4.0)
"""Light in counts from which a pixel's rounding error depends on the scene, not on the background alone.

The threshold of each pixel is drawn between the two: one sharp threshold would cut the period of the errors at the
same place everywhere, and their mean would then not be zero.
"""

MOST_STEPS = 50
CONVERGED = 1e-6
"""Gain in log likelihood at which the scoring stops."""
LARGEST_STEP = 0.2
"""Of sigma in one step, relative."""


@dataclass(frozen=True)
class Calibration:
    """What the windows say of the sensor.

    Args:
        sensor: the sensor given, with the PSF and background found.
        sigma_px: standard deviation of its PSF in px.
        sigma_px_std: standard error of it in px.
        background: its constant level in counts.
        background_std: standard error of it in counts.
        images_used: windows of one target that both come from.
        noise_std: noise of a pixel in counts that was assumed, before rounding.
    """

    sensor: Sensor
    sigma_px: float
    sigma_px_std: float
    background: float
    background_std: float
    images_used: int
    noise_std: float


class _Fit(NamedTuple):
    """The fields of `Calibration` that one fit gives."""

    sigma_px: float
    sigma_px_std: float
    background: float
    background_std: float
    images_used: int


class _Terms(NamedTuple):
    """Log likelihood of all windows, and of each its gradient (n, 5) and information (n, 5, 5).

    The five parameters are x, y, flux, sigma, background. Then come the number (n,) and chi-squared (n,) of the
    measured pixels, neither masked nor clipped.
    """

    value: float
    gradient: FloatArray
    information: FloatArray
    pixels: NDArray[np.int64]
    chi_squared: FloatArray


def calibrate(
    images: ArrayLike,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    noise_std: float | None = None,
    most_images: int = 2000,
    workers: int | None = None,
) -> Calibration:
    """Find the PSF's width and the background with which a stack of windows agrees; their targets are unknown.

    It needs windows that hold one target, and finds out by itself which they are. NaN pixels are left out, windows
    with saturated pixels too. A sensor whose sigma is right to ten percent is a sure start, whatever its
    background.

    Args:
        images: windows (N, H, W) in counts, of one sensor.
        sensor: first guess; its PSF must be Gaussian. None for that of `csist.windows.default_sensor`.
        prior: law of the scenes; None for `ScenePrior.flat()`.
        noise_std: noise of a pixel in counts; None: the sensor's, or if that is 0 estimated from the stack.
        most_images: of a larger stack so many windows are looked at, evenly spread over it.
        workers: threads; the result does not depend on it.

    Raises:
        InputError: if the images or a value cannot be used, or if fewer than `LEAST_IMAGES` windows hold one
            target that the PSF explains.

    >>> from csist.scenes import sample_scenes
    >>> truth, prior = Sensor(background=20.0, read_noise=1.0), ScenePrior.csist_100k()
    >>> images = [truth.observe(scene, seed) for seed, scene in enumerate(sample_scenes(prior, truth, 100, 0))]
    >>> found = calibrate(images, Sensor(GaussianPSF(0.55), read_noise=1.0), prior)
    >>> abs(found.sigma_px - 0.5) < 0.01, abs(found.background - 20.0) < 0.1
    (True, True)
    """
    array = as_array(images)
    stack = check_stack(array, "images")
    if len(stack) < LEAST_IMAGES:
        raise InputError(f"at least {LEAST_IMAGES} windows are needed, got {len(stack)}: give more")
    check_window_values(stack, mask_nan=True)
    if int(most_images) != most_images or most_images < LEAST_IMAGES:
        raise InputError(f"most_images must be a whole number >= {LEAST_IMAGES}, got {most_images}")
    if len(stack) > most_images:
        stack = stack[np.linspace(0, len(stack) - 1, int(most_images)).round().astype(np.int64)]
    sensor = (sensor or default_sensor(stack, array.dtype)).with_shape((stack.shape[1], stack.shape[2]))
    psf = sensor.psf
    if not isinstance(psf, GaussianPSF):
        raise InputError(f"only the width of a Gaussian PSF can be calibrated, got a PSF of kind {psf.kind!r}")
    noise = 0.0 if noise_std is None else check_not_negative("noise_std", noise_std)
    if noise_std is None or (noise == 0.0 and not sensor.quantised):  # exact numbers have no likelihood
        noise = window_noise(stack, sensor)
    sensor = replace(sensor, background=float(np.nanmedian(stack)))
    for doubt in DOUBTS:
        misfit = doubt * _misfit_per_doubt(stack, sensor, psf)
        chosen, own = _single_targets(stack, sensor, prior, float(np.hypot(noise, misfit)), workers)
        fit = _fit(stack[chosen], sensor, psf.sigma_px, own, noise_std=noise, misfit=misfit, images=len(stack))
        psf = GaussianPSF(fit.sigma_px)
        sensor = replace(sensor, psf=psf, background=fit.background)
    return Calibration(sensor, **fit._asdict(), noise_std=noise)


def _check_enough(usable: int, images: int) -> None:
    if usable < LEAST_IMAGES:
        raise InputError(
            f"only {usable} of {images} windows hold one bright target that a Gaussian PSF explains, {LEAST_IMAGES} "
            "are needed: give more windows, or check prior, noise_std and the sensor's PSF"
        )


def _misfit_per_doubt(stack: FloatArray, sensor: Sensor, psf: GaussianPSF) -> float:
    """Residual in counts, as the noise that does equal harm to a flux, for a relative error of 1 in sigma."""
    brightest = np.nanmax(stack, axis=(1, 2)) - sensor.background
    reach = np.arange(-np.ceil(psf.reach_px), np.ceil(psf.reach_px) + 1)
    response = psf.response(reach[None, :], reach[:, None])
    change = psf.sigma_px * psf.sigma_gradient(reach[None, :], reach[:, None])
    flux = max(float(np.median(brightest)), 0.0) / float(response.max())
    return flux * float(np.sqrt((change**2).sum() * (response**2).sum()))


def _single_targets(
    stack: FloatArray, sensor: Sensor, prior: ScenePrior | None, noise_std: float, workers: int | None
) -> tuple[NDArray[np.intp], FloatArray]:
    """Windows (n,) that hold one target for sure, and its x, y in px and flux in counts (n, 3)."""
    method = Continuous(sensor, prior=prior, mode="fast", noise_std=noise_std, mask_nan=True, workers=workers)
    targets, groups = method.solve(stack)
    unsure = Flag.AMBIGUOUS_COUNT | Flag.SATURATED
    chosen = [n for n, group in enumerate(groups) if group.count == 1 and not group.flags & unsure]
    single = Targets.concatenate(targets[n] for n in chosen)
    return np.array(chosen, dtype=np.intp), np.stack([single.x, single.y, single.intensity], axis=1)


def _light(own: FloatArray, psf: GaussianPSF, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Light (n, H, W) of one target a window, and its derivatives (n, 5, H, W) by x, y, flux, sigma, background."""
    dx, dy = np.arange(shape[1]) - own[:, :1], np.arange(shape[0]) - own[:, 1:2]
    flux = own[:, 2, None, None]

    def product(along_y: FloatArray, along_x: FloatArray) -> FloatArray:
        return along_y[:, :, None] * along_x[:, None, :]

    on_x, on_y = psf.profile(dx), psf.profile(dy)
    response = product(on_y, on_x)
    jacobian = np.stack(
        [
            flux * product(on_y, psf.profile_gradient(dx)),
            flux * product(psf.profile_gradient(dy), on_x),
            response,
            flux * (product(psf.profile_sigma_gradient(dy), on_x) + product(on_y, psf.profile_sigma_gradient(dx))),
            np.ones_like(response),
        ],
        axis=1,
    )
    return flux * response, jacobian


def _terms(
    data: FloatArray, codes: NDArray[np.int8], own: FloatArray, shared: FloatArray, variance: float, sensor: Sensor
) -> _Terms:
    """Likelihood of windows (n, H, W) at their own parameters (n, 3) and the shared ones, sigma and background."""
    light, jacobian = _light(own, GaussianPSF(shared[0]), sensor.shape)
    number, rows, columns = data.shape
    flat = (number * rows, columns)
    slope, curvature = np.empty(flat), np.empty(flat)
    pixels = Window(data.reshape(flat), codes.reshape(flat), np.ones(flat), 0, 0, np.zeros((0, *flat)))
    value = pixel_terms((light + shared[1]).reshape(flat), pixels, noise_of(sensor, variance), slope, curvature)
    slope, curvature = slope.reshape(number, -1), curvature.reshape(number, -1)
    jacobian = jacobian.reshape(number, 5, -1)
    measured = codes.reshape(number, -1) == MEASURED
    return _Terms(
        value,
        (jacobian @ slope[:, :, None])[:, :, 0],
        (jacobian * curvature[:, None]) @ jacobian.swapaxes(1, 2),
        measured.sum(axis=1),
        np.divide(slope**2, curvature, out=np.zeros_like(slope), where=measured).sum(axis=1),
    )


def _eliminated(terms: _Terms, damping: float = 0.0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Own parameters eliminated: each window's gradient (n, 2) and information (n, 2, 2) of the shared ones.

    Third come the own parameters' answers (n, 3, 3): columns 0 and 1 by the shared ones, column 2 the free step.
    """
    own = terms.information[:, :3, :3] * (1.0 + damping * np.eye(3))
    cross = terms.information[:, :3, 3:]
    answers = np.linalg.solve(own, np.concatenate([cross, terms.gradient[:, :3, None]], axis=2))
    down = cross.swapaxes(1, 2) @ answers
    gradient = terms.gradient[:, 3:] - down[:, :, 2]
    information = terms.information[:, 3:, 3:] * (1.0 + damping * np.eye(2)) - down[:, :, :2]
    return gradient, information, answers


def _maximise(
    data: FloatArray, codes: NDArray[np.int8], own: FloatArray, shared: FloatArray, variance: float, sensor: Sensor
) -> tuple[FloatArray, FloatArray, _Terms]:
    """Own (n, 3) and shared (2,) parameters of the highest likelihood, by Fisher scoring with damping."""
    terms = _terms(data, codes, own, shared, variance, sensor)
    low, high = _own_bounds(own, sensor)
    damping = 1e-3
    for _ in range(MOST_STEPS):
        gradient, information, answers = _eliminated(terms, damping)
        step = np.linalg.solve(information.sum(axis=0), gradient.sum(axis=0))
        limit = LARGEST_STEP * shared[0]
        step *= limit / max(abs(step[0]), limit)
        own_trial = np.clip(own + answers[:, :, 2] - answers[:, :, :2] @ step, low, high)
        expected = ((own_trial - own) * terms.gradient[:, :3]).sum() + step @ terms.gradient[:, 3:].sum(axis=0)
        if expected < CONVERGED:
            break
        trial = _terms(data, codes, own_trial, shared + step, variance, sensor)
        if trial.value > terms.value:
            own, shared, terms = own_trial, shared + step, trial
            damping = max(0.1 * damping, 1e-9)
        else:
            damping *= 10.0
    return own, shared, terms


def _own_bounds(own: FloatArray, sensor: Sensor) -> tuple[FloatArray, FloatArray]:
    """Bounds (n, 3) of the own parameters: the window for the position, a factor of ten from `own` for the flux."""
    low, high = np.full_like(own, -0.5), np.empty_like(own)
    high[:, 0], high[:, 1] = sensor.shape[1] - 0.5, sensor.shape[0] - 0.5
    low[:, 2], high[:, 2] = 0.1 * own[:, 2], 10.0 * own[:, 2]
    return low, high


def _fit(
    stack: FloatArray,
    sensor: Sensor,
    sigma_px: float,
    own: FloatArray,
    *,
    noise_std: float,
    misfit: float,
    images: int,
) -> _Fit:
    """Shared parameters of windows (n, H, W) of one target, of which those that are faint or misfit are left out.

    Args:
        stack: the windows in counts.
        sensor: gives background, rounding, gain and clipping to start from.
        sigma_px: start of the PSF's width in px.
        own: (n, 3) start of x, y in px and flux in counts.
        noise_std: noise of a pixel in counts before rounding.
        misfit: standard deviation in counts of what a wrong sigma may leave besides.
        images: number of all windows, for the message.

    Raises:
        InputError: if too few windows remain.
    """
    _check_enough(len(own), images)
    # The background is part of the light here, so its photons are no part of the noise.
    variance = sensor.with_pixel_noise(noise_std).read_noise ** 2 + sensor.rounding_variance
    data, codes = pixel_codes(stack, sensor)
    shared = np.array([sigma_px, sensor.background])
    if sensor.quantised and noise_std < DITHER_STD:
        light = _light(own, GaussianPSF(sigma_px), sensor.shape)[0]
        codes[light < np.random.default_rng(0).uniform(*LIT, light.shape)] = IGNORED
    terms = _terms(data, codes, own, shared, variance, sensor)
    bright = own[:, 2] * np.sqrt(terms.information[:, 2, 2]) >= LEAST_SNR
    kept = np.flatnonzero(bright & (terms.pixels >= LEAST_PIXELS))
    low, high = _own_bounds(own, sensor)
    while True:
        _check_enough(len(kept), images)
        found, shared, terms = _maximise(data[kept], codes[kept], own[kept], shared, variance, sensor)
        freedom = np.maximum(terms.pixels - 3, 1)
        expected = freedom * (variance + misfit**2) / variance
        explained = ~is_poor_fit(terms.chi_squared * freedom / expected, freedom)
        explained &= np.all((found > low[kept]) & (found < high[kept]), axis=1)
        if explained.all():
            break
        kept = kept[explained]
    gradient, information, _ = _eliminated(terms)
    inverse = np.linalg.inv(information.sum(axis=0))
    covariance = inverse @ (gradient.T @ gradient) @ inverse * len(kept) / (len(kept) - 2)
    errors = np.sqrt(np.diag(covariance))
    return _Fit(float(shared[0]), float(errors[0]), float(shared[1]), float(errors[1]), len(kept))
