"""Elongation of the PSF, from the shapes of the sources that it was measured on.

Astigmatism, a moving camera or an off-axis field make sources elongated alike, while pairs and extended sources point
in all directions. A linear fit of each source's quadrupole shows whether they agree; if so, each is fitted by an
elliptical Gaussian, and the medians of the covariances give the PSF.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from csist._types import FloatArray
from csist.frames.detection.spots import Spot
from csist.physics.psf import EllipticalGaussianPSF, GaussianPSF

LEAST_ELONGATION = 0.03
"""Smallest median ellipticity (a^2 - b^2) / (a^2 + b^2) that counts as elongation, a and b the standard deviations."""
CLEAR_ELONGATION = 0.1
"""Ellipticity of a single source from which it is fitted by an ellipse, too."""
ELONGATION_SIGMAS = 5.0
"""Least median ellipticity in units of its standard error, from the scatter of the sources."""
CORE_SIGMAS = 3.0
"""Radius in sigma within which an ellipse is fitted."""
STEP = 0.1
"""Ellipticity with which the quadrupole's template is made."""
MOST_SPOTS = 40
"""Sources, the brightest, that are fitted by ellipses."""


def elongation(spots: Sequence[Spot], sigma_px: float) -> EllipticalGaussianPSF | None:
    """The elliptical Gaussian of some sources; None where they do not agree that the PSF is elongated.

    Args:
        spots: sources of the same optics.
        sigma_px: standard deviation of the circular Gaussian that fits them best, in px.
    """
    shapes = _ellipticities(spots, sigma_px)
    middle = np.median(shapes, axis=0)
    scatter = 1.4826 * np.median(np.abs(shapes - middle), axis=0)
    error = 1.2533 * float(np.hypot(*scatter)) / np.sqrt(2.0 * len(spots))
    if float(np.hypot(*middle)) < max(LEAST_ELONGATION, ELONGATION_SIGMAS * error):
        return None
    brightest = sorted(spots, key=lambda spot: -spot.flux / spot.noise_std)[:MOST_SPOTS]
    found = [psf for psf in map(ellipse_of, brightest) if psf is not None]
    return _of_covariance(np.median([_covariance(psf) for psf in found], axis=0)) if found else None


def is_elongated(spot: Spot) -> bool:
    """Whether a source alone is clearly elongated."""
    return float(np.hypot(*_ellipticities([spot], spot.sigma_px)[0])) > CLEAR_ELONGATION


def _ellipticities(spots: Sequence[Spot], sigma_px: float) -> FloatArray:
    """Ellipticity (n, 2) of each source, along the axes and along the diagonals, by a linear fit."""
    dx, dy, share = np.concatenate([spot.profile for spot in spots]).T
    long, short = sigma_px * np.sqrt(1.0 + STEP), sigma_px * np.sqrt(1.0 - STEP)
    turned = [EllipticalGaussianPSF(long, short, angle).response(dx, dy) for angle in (0.0, 90.0, 45.0, -45.0)]
    circle = GaussianPSF(sigma_px)
    columns = [
        (turned[0] - turned[1]) / (2.0 * STEP),
        (turned[2] - turned[3]) / (2.0 * STEP),
        circle.response(dx, dy),
        circle.sigma_gradient(dx, dy),
        np.ones(len(dx)),
    ]
    design = np.stack(columns, axis=1)
    ends = np.cumsum([len(spot.profile) for spot in spots])[:-1]
    parts = zip(np.split(design, ends), np.split(share, ends), strict=True)
    return np.array([np.linalg.lstsq(matrix, values, rcond=None)[0][:2] for matrix, values in parts])


def ellipse_of(spot: Spot) -> EllipticalGaussianPSF | None:
    """The elliptical Gaussian that fits a source best; None if the fit does not converge.

    Args:
        spot: as it was fitted by a circular Gaussian.
    """
    dx, dy, share = spot.profile[np.hypot(*spot.profile[:, :2].T) <= CORE_SIGMAS * spot.sigma_px + 1.5].T

    def residuals(p: FloatArray) -> FloatArray:
        psf = _of_covariance(_matrix(p[4:]))
        return np.asarray(p[2] * psf.response(dx - p[0], dy - p[1]) + p[3] - share)

    width = np.log(spot.sigma_px)
    fit = least_squares(
        residuals,
        [0.0, 0.0, 1.0, 0.0, width, width, 0.0],
        bounds=(
            [-2.0, -2.0, 0.0, -1.0, width - 2.0, width - 2.0, -3.0],
            [2.0, 2.0, 5.0, 1.0, width + 2.0, width + 2.0, 3.0],
        ),
        x_scale=[0.1, 0.1, 1.0, 0.01, 0.1, 0.1, 0.1],
        max_nfev=30,
    )
    return _of_covariance(_matrix(fit.x[4:])) if fit.success else None


def _matrix(p: FloatArray) -> FloatArray:
    """Covariance from the logarithms of both standard deviations and the area tangent of the correlation."""
    x, y, mixed = np.exp(p[0]), np.exp(p[1]), np.tanh(p[2])
    return np.array([[x * x, mixed * x * y], [mixed * x * y, y * y]])


def _covariance(psf: EllipticalGaussianPSF) -> FloatArray:
    angle = np.deg2rad(psf.angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ np.diag([psf.sigma_x_px**2, psf.sigma_y_px**2]) @ turn.T)


def _of_covariance(matrix: FloatArray) -> EllipticalGaussianPSF:
    """The PSF of a covariance, its first axis the longer one."""
    values, vectors = np.linalg.eigh(matrix)
    angle = float(np.rad2deg(np.arctan2(vectors[1, 1], vectors[0, 1])))
    angle = (angle + 90.0) % 180.0 - 90.0
    small, large = np.sqrt(np.maximum(values, 1e-6))
    return EllipticalGaussianPSF(float(large), float(small), angle)
