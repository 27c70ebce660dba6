"""Bright spots of a frame, each fitted by a Gaussian of unknown position, flux and width on an unknown constant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial import KDTree

from csist._types import FloatArray
from csist.frames.detection.peaks import Peaks
from csist.physics.psf import GaussianPSF

SIGMA_RANGE_PX = (0.25, 3.0)
NARROWEST_PX = 0.35
"""Sigma below which a spot is one bright pixel: no optics are so sharp."""
HALF_WINDOW_PX = 6
FEWEST_PIXELS = 40
FARTHEST_PX = 1.9
"""A fit that ends farther from its peak has moved to another source."""
DEFAULT_SIGMA_PX = 1.0
"""Sigma assumed where a frame has no isolated spot to measure it on."""
MOST_SIGMA_SPOTS = 40
"""Most spots that the typical width is measured on."""


@dataclass(frozen=True)
class Spot:
    """A fitted spot.

    Args:
        x: column in px.
        y: row in px.
        flux: in counts.
        sigma_px: standard deviation of the Gaussian.
        sigma_px_std: its standard error, from the scatter of the residuals where that exceeds the noise.
        noise_std: noise of its pixels in counts.
        misfit: standard deviation of the residuals beyond the noise, as a share of the brightest pixel; over the
            pixels that hold most of the light.
        profile: (n, 3) its pixels: distance in columns and rows from (x, y) in px, and share of the flux.
    """

    x: float
    y: float
    flux: float
    sigma_px: float
    sigma_px_std: float
    noise_std: float
    misfit: float
    profile: FloatArray = field(repr=False, compare=False)


def fit_spot(flattened: NDArray[np.floating], noise: FloatArray, x: float, y: float) -> Spot | None:
    """Fit of the spot near a position of a frame.

    None if too few of its pixels are valid or none in its core, or if the fit ends at a bound.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked or saturated.
        noise: (H, W) standard deviation of a pixel in counts.
        x: column in px near which the spot is.
        y: row in px.
    """
    column, row, half = round(x), round(y), HALF_WINDOW_PX
    part = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
    data = flattened[part].astype(np.float64, copy=False)
    good = np.isfinite(data)
    if good.sum() < FEWEST_PIXELS:
        return None
    i, j = np.nonzero(good)
    dx, dy = j + part[1].start - x, i + part[0].start - y
    values, scale = data[good], float(noise[row, column])

    def residuals(p: FloatArray) -> FloatArray:
        return np.asarray((p[2] * GaussianPSF(float(p[3])).response(dx - p[0], dy - p[1]) + p[4] - values) / scale)

    def jacobian(p: FloatArray) -> FloatArray:
        psf, at = GaussianPSF(float(p[3])), (dx - p[0], dy - p[1])
        along = [p[2] * slope for slope in psf.gradient(*at)]
        return np.stack([*along, psf.response(*at), p[2] * psf.sigma_gradient(*at), np.ones(len(dx))], axis=1) / scale

    top = max(float(values.max()), scale)
    low, high = SIGMA_RANGE_PX
    fit = least_squares(
        residuals,
        [0.0, 0.0, 8.0 * top, 1.1, 0.0],
        jac=jacobian,
        bounds=([-2.0, -2.0, 0.0, low, -top], [2.0, 2.0, 500.0 * top, high, top]),
        x_scale=[0.1, 0.1, top, 0.1, 0.1 * top],
        max_nfev=60,
    )
    sigma = float(fit.x[3])
    if not low * 1.02 < sigma < high * 0.98 or np.hypot(fit.x[0], fit.x[1]) >= FARTHEST_PX:
        return None
    bright = np.hypot(dx - fit.x[0], dy - fit.x[1]) <= 2.0 * sigma + 0.5
    if not bright.any():
        return None
    slopes = jacobian(fit.x)
    excess = max(1.0, 2.0 * fit.cost / (len(values) - 5))
    variance = np.linalg.pinv(slopes.T @ slopes)[3, 3] * excess
    beyond = max(float((fit.fun[bright] ** 2).mean()) - 1.0, 0.0) ** 0.5 * scale
    shift_x, shift_y, flux = (float(value) for value in fit.x[:3])
    profile = np.stack([dx - shift_x, dy - shift_y, (values - fit.x[4]) / flux], axis=1)
    return Spot(x + shift_x, y + shift_y, flux, sigma, float(variance**0.5), scale, beyond / top, profile)


class Widths(NamedTuple):
    """Widths of the strongest isolated spots of a frame.

    Args:
        sigmas_px: sigma of the Gaussian that fits each, where one does.
        tried: number of these spots.
    """

    sigmas_px: list[float]
    tried: int

    @property
    def middle_px(self) -> float:
        """Median; `DEFAULT_SIGMA_PX` where there is none."""
        return float(np.median(self.sigmas_px)) if self.sigmas_px else DEFAULT_SIGMA_PX


def fitted_widths(flattened: NDArray[np.floating], peaks: Peaks, noise: FloatArray) -> Widths:
    """Fit Gaussians to the strongest isolated spots of a frame; those of a single pixel are left out.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked or saturated.
        peaks: detections, most significant first.
        noise: (H, W) standard deviation of a pixel in counts.
    """
    if not len(peaks):
        return Widths([], 0)
    distance = np.asarray(KDTree(peaks.positions).query(peaks.positions, k=[2])[0])[:, 0]
    isolated = peaks[distance > 1.5 * HALF_WINDOW_PX][:MOST_SIGMA_SPOTS]
    spots = (fit_spot(flattened, noise, x, y) for x, y in isolated.positions)
    widths = [spot.sigma_px for spot in spots if spot is not None and spot.sigma_px >= NARROWEST_PX]
    return Widths(widths, len(isolated))


def typical_sigma(flattened: NDArray[np.floating], peaks: Peaks, noise: FloatArray) -> float:
    """Median sigma in px of the Gaussians that fit the strongest isolated spots of a frame; see `fitted_widths`."""
    return fitted_widths(flattened, peaks, noise).middle_px
