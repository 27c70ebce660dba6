"""An oversampled PSF, measured on isolated sources: the best Gaussian plus a smooth surface of its residual.

Sources lie at different sub-pixel places, so together their pixels sample the PSF more finely than one of them does
(Anderson & King, PASP 112, 1360, 2000). What a Gaussian leaves of them is fitted by cubic B-splines that end at zero
in a circle, with a penalty on their bend (Eilers & Marx, Statistical Science 11, 89, 1996) whose weight is the one
that predicts left-out sources best; then the sources are fitted anew by the result, a few times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.optimize import least_squares
from scipy.special import huber

from csist._types import FloatArray, IntArray
from csist.checks import InputError
from csist.frames.detection.spots import HALF_WINDOW_PX, Spot
from csist.physics.psf import PSF, GaussianPSF, SampledPSF

OVERSAMPLING = 4
KNOTS_PX = 0.5
LARGEST_SIGMA_PX = HALF_WINDOW_PX / 3.5
"""Largest sigma of a PSF whose light ends within the sources' windows."""
LARGEST_MISFIT = 0.03
ROUNDS = 3
MOST_SPOTS = 150
FOLDS = 7
STIFFNESSES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
"""Weights of the smoothness penalty that are compared."""
SAME_SHARE = 0.003
"""Error of a pixel, as a share of the flux, that any source is allowed: the optics vary over a frame."""
ROBUST_SIGMAS = 2.0
ROBUST_ROUNDS = 5
RIDGE = 1e-9


def empirical_psf(spots: Sequence[Spot], sigma_px: float) -> tuple[SampledPSF, list[Spot]]:
    """The PSF of some sources, and the sources fitted with it.

    Args:
        spots: sources of the same optics; of many the brightest are used.
        sigma_px: standard deviation of the Gaussian that fits them best, in px.

    Returns:
        a PSF that ends `HALF_WINDOW_PX` from its middle, and the sources with its place, flux, misfit and profile. The
        misfit of each is by a PSF that was made without it.

    Raises:
        InputError: if the sources are too wide for their windows.
    """
    if sigma_px > LARGEST_SIGMA_PX:
        raise InputError(
            f"an empirical PSF must end within {HALF_WINDOW_PX} px, but sigma is {sigma_px:.2f} px: use psf='auto'"
        )
    spots = sorted(spots, key=lambda spot: -spot.flux)[:MOST_SPOTS]
    gaussian = GaussianPSF(sigma_px)
    for _ in range(ROUNDS):
        owner, design, rest, weight = _samples(spots, gaussian)
        fold = owner % FOLDS
        stiffness = _best_stiffness(fold, design, rest, weight)
        psf = _sampled(gaussian, _robust_fit(design, rest, weight, stiffness))
        spots = [refit(spot, psf) for spot in spots]
    without = [
        _sampled(gaussian, _robust_fit(design[fold != k], rest[fold != k], weight[fold != k], stiffness))
        for k in range(min(FOLDS, len(spots)))
    ]
    return psf, [replace(spot, misfit=misfit(spot, without[k % FOLDS], sigma_px)) for k, spot in enumerate(spots)]


def well_fitted(spots: Sequence[Spot], psf: PSF, sigma_px: float) -> list[Spot]:
    """The sources whose residual by a PSF is below `LARGEST_MISFIT` of their brightest pixel.

    Where the PSF is no Gaussian, the Gaussian that fits a source best depends on its place within the pixel: its width
    does not tell whether the source is a point.

    Args:
        spots: sources, as fitted by Gaussians.
        psf: made of some of them.
        sigma_px: standard deviation of the Gaussian that fits those best, in px.
    """
    return [spot for spot in spots if misfit(refit(spot, psf), psf, sigma_px) < LARGEST_MISFIT]


def _samples(spots: Sequence[Spot], gaussian: GaussianPSF) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Source index, design matrix, residual of the Gaussian, and weight of all pixels of the sources."""
    owner = np.repeat(np.arange(len(spots)), [len(spot.profile) for spot in spots])
    dx, dy, share = np.concatenate([spot.profile for spot in spots]).T
    noise = np.array([spot.noise_std / spot.flux for spot in spots])[owner]
    inside = np.maximum(np.abs(dx), np.abs(dy)) < HALF_WINDOW_PX
    dx, dy, share, noise, owner = dx[inside], dy[inside], share[inside], noise[inside], owner[inside]
    weight = 1.0 / (noise**2 + SAME_SHARE**2)
    return owner, _surface(dx, dy), share - gaussian.response(dx, dy), weight / weight.mean()


@cache
def _splines() -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
    """Knots along an axis, mask (n, n) of the products of two splines that are free, and their smoothness penalty."""
    number = round(2 * HALF_WINDOW_PX / KNOTS_PX) + 3
    knots = np.arange(-3.0, number + 1.0) * KNOTS_PX - HALF_WINDOW_PX
    middles = knots[2:-2]
    # A cubic B-spline extends two knots from its centre.
    free: NDArray[np.bool_] = np.hypot(middles, middles[:, None]) <= HALF_WINDOW_PX - 2.0 * KNOTS_PX
    second = np.diff(np.eye(number), 2, axis=0)
    bend, same = second.T @ second, np.eye(number)
    penalty: FloatArray = np.kron(bend, same) + np.kron(same, bend)
    return knots, free, penalty[np.ix_(free.ravel(), free.ravel())]


def _along(places: FloatArray) -> FloatArray:
    """B-splines (m, n) of one axis at positions (m,) within the window."""
    most = HALF_WINDOW_PX * (1.0 - 1e-12)
    return np.asarray(BSpline.design_matrix(np.clip(places, -most, most), _splines()[0], 3).toarray())


def _surface(dx: FloatArray, dy: FloatArray) -> FloatArray:
    """Free products of B-splines (m, free) at offsets (m,)."""
    products = _along(dy)[:, :, None] * _along(dx)[:, None, :]
    return np.asarray(products[:, _splines()[1]])


def _solve(information: FloatArray, right: FloatArray, stiffness: float) -> FloatArray:
    """Spline coefficients by penalised least squares."""
    system = information + stiffness * _splines()[2] + RIDGE * np.eye(len(right))
    return np.asarray(np.linalg.solve(system, right), np.float64)


def _robust_fit(design: FloatArray, rest: FloatArray, weight: FloatArray, stiffness: float) -> FloatArray:
    """Spline coefficients with Huber weights, which reduce the influence of outliers such as neighbours."""
    trust = np.ones(len(rest))
    for _ in range(ROBUST_ROUNDS):
        weighted = design.T * (weight * trust)
        coefficients = _solve(weighted @ design, weighted @ rest, stiffness)
        distance = np.abs(rest - design @ coefficients) * np.sqrt(weight)
        usual = 1.4826 * np.median(distance)
        trust = np.minimum(1.0, ROBUST_SIGMAS * usual / np.maximum(distance, 1e-300))
    return coefficients


def _best_stiffness(fold: IntArray, design: FloatArray, rest: FloatArray, weight: FloatArray) -> float:
    """The stiffness with the smallest cross-validated Huber loss per pixel, sources left out in folds."""
    parts = [(fold == k, (design[fold == k].T * weight[fold == k])) for k in np.unique(fold)]
    sums = [(weighted @ design[out], weighted @ rest[out]) for out, weighted in parts]
    information, right = (sum(each) for each in zip(*sums, strict=True))

    def loss(stiffness: float) -> float:
        error = np.empty(len(rest))
        for (out, _), (own_information, own_right) in zip(parts, sums, strict=True):
            error[out] = rest[out] - design[out] @ _solve(information - own_information, right - own_right, stiffness)
        distance = np.abs(error) * np.sqrt(weight)
        return float(huber(ROBUST_SIGMAS * 1.4826 * np.median(distance), distance).mean())

    return min(STIFFNESSES, key=loss)


def _sampled(gaussian: GaussianPSF, coefficients: FloatArray) -> SampledPSF:
    """Sum of the Gaussian and the surface as one table."""
    places = np.arange(-HALF_WINDOW_PX * OVERSAMPLING, HALF_WINDOW_PX * OVERSAMPLING + 1) / OVERSAMPLING
    free = _splines()[1]
    surface = np.zeros(free.shape)
    surface[free] = coefficients
    along = _along(places)
    return SampledPSF(gaussian.response(places, places[:, None]) + along @ surface @ along.T, OVERSAMPLING)


def refit(spot: Spot, psf: PSF) -> Spot:
    """A source fitted with another PSF: position, flux and constant background."""
    dx, dy, share = spot.profile.T

    def residuals(p: FloatArray) -> FloatArray:
        return np.asarray(p[2] * psf.response(dx - p[0], dy - p[1]) + p[3] - share)

    shift_x, shift_y, flux, level = least_squares(
        residuals, [0.0, 0.0, 1.0, 0.0], x_scale=[0.1, 0.1, 1.0, 0.01], loss="soft_l1", f_scale=SAME_SHARE
    ).x
    profile = np.stack([dx - shift_x, dy - shift_y, (share - level) / flux], axis=1)
    return replace(spot, x=spot.x + shift_x, y=spot.y + shift_y, flux=spot.flux * flux, profile=profile)


def misfit(spot: Spot, psf: PSF, sigma_px: float) -> float:
    """`Spot.misfit` of a source for another PSF."""
    dx, dy, share = spot.profile.T
    bright = np.hypot(dx, dy) <= 2.0 * sigma_px + 0.5
    left = share[bright] - psf.response(dx[bright], dy[bright])
    beyond = float((left**2).mean()) - (spot.noise_std / spot.flux) ** 2
    return float(np.sqrt(max(beyond, 0.0)) / share[bright].max())
