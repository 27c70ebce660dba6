"""Bright spots of a frame, each fitted by a Gaussian of unknown position, flux and width on an unknown constant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from csist._types import FloatArray
from csist.frames.detection.peaks import Peaks
from csist.frames.detection.spot_fit import fit_gaussian
from csist.frames.shapes.fit import Range
from csist.physics.psf import GaussianPSF

SIGMA_RANGE_PX = (0.25, 3.0)
NARROWEST_PX = 0.35
"""Sigma below which a spot is one bright pixel: no optics are so sharp."""
HALF_WINDOW_PX = 6
FEWEST_PIXELS = 40
FARTHEST_TRIED_PX = 2.0
"""A fit stays so close to its peak along each axis."""
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
    data = np.ascontiguousarray(flattened[part], dtype=np.float64)
    good = np.isfinite(data)
    if good.sum() < FEWEST_PIXELS:
        return None
    scale, top = float(noise[row, column]), float(data[good].max())
    top = max(top, scale)
    low, high = SIGMA_RANGE_PX
    first = np.array([x - part[1].start, y - part[0].start])
    theta = np.array([*first, 8.0 * top, 1.1, 0.0])
    within = Range.uniform(
        np.array([*first - FARTHEST_TRIED_PX, 0.0, low, -top]),
        np.array([*first + FARTHEST_TRIED_PX, 500.0 * top, high, top]),
    )
    squares, information = fit_gaussian(data, scale, theta, within)
    flux, sigma, level = (float(value) for value in theta[2:])
    shift_x, shift_y = (float(value) for value in theta[:2] - first)
    if not low * 1.02 < sigma < high * 0.98 or np.hypot(shift_x, shift_y) >= FARTHEST_PX or not flux > 0.0:
        return None
    i, j = np.nonzero(good)
    dx, dy, light = j - theta[0], i - theta[1], data[good] - level
    bright = np.hypot(dx, dy) <= 2.0 * sigma + 0.5
    if not bright.any():
        return None
    excess = max(1.0, squares / (len(light) - 5))
    variance = np.linalg.pinv(information)[3, 3] * excess
    rest = light[bright] - flux * GaussianPSF(sigma).response(dx[bright], dy[bright])
    beyond = max(float((rest**2).mean()) - scale**2, 0.0) ** 0.5
    profile = np.stack([dx, dy, light / flux], axis=1)
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
