"""Light of sources that are wider than the PSF: an ellipse, a disc, a streak; and of a point whose PSF is not exact.

The ellipse is one Gaussian. The disc has two rings of Gaussians: a uniform disc blurred by half its standard deviation,
to 0.6 % of its brightest pixel. The streak is a line segment of uniform light. The parameters of each are x and y in
px, then those of its shape:

- ellipse and disc: logarithm of the geometric mean of the standard deviations in px, and two of shear, half the
  logarithm of their ratio times cosine and sine of twice the angle of the longer one;
- streak: logarithm of the length in px, and the angle in rad;
- blurred point: relative change of the PSF's width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from csist._types import FloatArray
from csist.frames.shapes.kernels import BLURRED, ELLIPSE, POINTS, STREAK, Outline, light_in
from csist.methods.continuous.model import Window
from csist.methods.continuous.optics import optics_of
from csist.physics.psf import PSF, EllipticalGaussianPSF, equivalent_sigma

DISC_RINGS = ((6, 0.6917, 0.3053), (12, 1.5762, 0.6947))
"""Number, radius and weight of the components in each ring of the disc of unit standard deviation."""
DISC_TAU = 0.262
"""Standard deviation of a component of that disc."""


def covariance_of(psf: PSF) -> FloatArray:
    """Covariance (2, 2) in px^2 of the Gaussian that stands for a PSF."""
    if not isinstance(psf, EllipticalGaussianPSF):
        return equivalent_sigma(psf) ** 2 * np.eye(2)
    angle = np.deg2rad(psf.angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ np.diag([psf.sigma_x_px**2, psf.sigma_y_px**2]) @ turn.T)


@lru_cache(maxsize=32)
def point_targets(psf: PSF) -> Outline:
    """Point targets."""
    covariance = np.ascontiguousarray(covariance_of(psf))
    tables = optics_of(psf).tables
    return Outline(POINTS, covariance, equivalent_sigma(psf), tables, np.zeros((1, 2)), np.ones(1), 1.0)


def ellipse(psf: PSF) -> Outline:
    """An elliptical Gaussian convolved with the PSF."""
    return point_targets(psf)._replace(kind=ELLIPSE)


def disc(psf: PSF) -> Outline:
    """A uniform disc, stretched to an ellipse: its semi-axes are twice the standard deviations."""
    arms, weights = [], []
    for number, radius, weight in DISC_RINGS:
        turn = 2.0 * np.pi * (np.arange(number) + 0.5 * (number // 6 - 1)) / number
        arms.append(radius * np.stack([np.cos(turn), np.sin(turn)], axis=1))
        weights.append(np.full(number, weight / number))
    return ellipse(psf)._replace(arms=np.concatenate(arms), weights=np.concatenate(weights), tau=DISC_TAU)


def streak(psf: PSF) -> Outline:
    """A line segment of uniform light convolved with the PSF."""
    return point_targets(psf)._replace(kind=STREAK)


def blurred(psf: PSF) -> Outline:
    """A point whose PSF is a little wider or narrower than stated."""
    return point_targets(psf)._replace(kind=BLURRED)


OUTLINES = {"ellipse": ellipse, "disc": disc, "streak": streak, "point": blurred}
"""Outline of one source by its name."""


def light_of(outline: Outline, place: FloatArray, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Share of a source's flux in each pixel of a window, and its derivatives.

    Args:
        outline: of the source.
        place: (n,) its parameters, flux and background left out.
        shape: (h, w) of the window.

    Returns:
        the light (h, w) and its derivatives (n, h, w).
    """
    empty = np.zeros(shape)
    window = Window(empty, np.zeros(shape, np.int8), empty, 0, 0, np.zeros((0, *shape)))
    return light_in(outline, np.ascontiguousarray(place, dtype=np.float64), window)
