"""Light of sources that are wider than the PSF: an ellipse, a disc, a streak; and of a point whose PSF is not exact.

Each is a mixture of Gaussians that share their covariance, convolved with the Gaussian that has the width of the PSF
and integrated over the pixels by quadrature. The ellipse is one Gaussian. The disc has two rings of them: a uniform
disc blurred by half its standard deviation, to 0.6 % of its brightest pixel. The streak is a row of Gaussians that are
closer than the width of the PSF.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from csist._types import FloatArray
from csist.frames.shapes.kernels import mixture
from csist.methods.continuous.likelihood import render_with_jacobian
from csist.methods.continuous.model import Window
from csist.methods.continuous.optics import optics_of
from csist.physics.psf import PSF, EllipticalGaussianPSF, equivalent_sigma

DISC_RINGS = ((6, 0.6917, 0.3053), (12, 1.5762, 0.6947))
"""Number, radius and weight of the components in each ring of the disc of unit standard deviation."""
DISC_TAU = 0.262
"""Standard deviation of a component of that disc."""
NARROW_PX, WIDE_PX = 0.8, 2.5
"""Widths below which three nodes a side integrate a pixel, and from which one does."""
UNIT = np.eye(2)
SHEARS = (np.array([[1.0, 0.0], [0.0, -1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]))
"""Directions of the two shears."""
PARTS = 10
"""Images that `mixture` makes: the light and what its derivatives are put together from."""
BY_X, BY_Y = ([float(part == place) for part in range(PARTS)] for place in (1, 2))
"""Weights of these in the derivatives by x and y."""
BLUR_STEP = 0.2
"""Step of the numerical Laplacian in units of the PSF's sigma."""


class Model(Protocol):
    """Light of a source of flux 1 by parameters: x and y in px, then those of its shape."""

    def light(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Share of the flux (h, w) in each pixel, and its derivatives (parameters, h, w)."""


def covariance_of(psf: PSF) -> FloatArray:
    """Covariance (2, 2) in px^2 of the Gaussian that stands for a PSF."""
    if not isinstance(psf, EllipticalGaussianPSF):
        return equivalent_sigma(psf) ** 2 * np.eye(2)
    angle = np.deg2rad(psf.angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ np.diag([psf.sigma_x_px**2, psf.sigma_y_px**2]) @ turn.T)


def stretch(size: float, shear: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Symmetric matrix (2, 2) that makes an ellipse of the unit circle, and its derivatives (3, 2, 2).

    Args:
        size: logarithm of the geometric mean of both semi-axes.
        shear: (2,) half the logarithm of their ratio, times cosine and sine of twice the angle of the longer one.
    """
    first, second = float(shear[0]), float(shear[1])
    ratio = float(np.hypot(first, second))
    traceless = np.array([[first, second], [second, -first]])
    if ratio > 1e-4:
        along = float(np.sinh(ratio)) / ratio
        bend = (float(np.cosh(ratio)) - along) / ratio**2
    else:
        along, bend = 1.0, 1.0 / 3.0
    scale = float(np.exp(size))
    matrix = scale * (float(np.cosh(ratio)) * UNIT + along * traceless)
    slopes = [
        scale * (along * each * UNIT + along * direction + bend * each * traceless)
        for each, direction in zip((first, second), SHEARS, strict=True)
    ]
    return matrix, np.array([matrix, *slopes])


def quadrature(width_px: float) -> FloatArray:
    """Nodes and weights (q, 2) along a pixel's side for light that varies over `width_px`."""
    return _nodes(3 if width_px < NARROW_PX else 2 if width_px < WIDE_PX else 1)


@lru_cache(maxsize=3)
def _nodes(number: int) -> FloatArray:
    """So many Gauss-Legendre nodes along a pixel's side, and their weights (q, 2)."""
    return 0.5 * np.stack(np.polynomial.legendre.leggauss(number), axis=1)


def _mixture(
    shape: tuple[int, int], centres: FloatArray, arms: FloatArray, weights: FloatArray, covariance: FloatArray
) -> FloatArray:
    """`mixture` on the pixels of a window (h, w)."""
    xx, xy, yy = float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])
    determinant = xx * yy - xy * xy
    # The smaller eigenvalue, free of cancellation.
    smaller = determinant / (0.5 * (xx + yy) + float(np.hypot(0.5 * (xx - yy), xy)))
    out = np.empty((PARTS, *shape))
    mixture(
        np.ascontiguousarray(centres), np.ascontiguousarray(arms), weights,
        np.array([yy, -xy, xx]) / determinant, quadrature(smaller**0.5), out,
    )  # fmt: skip
    return out


def _by_shape(covariance: FloatArray, matrix: FloatArray) -> list[float]:
    """Weights (10,) of the parts of a mixture in its derivative by a parameter of its shape.

    Args:
        covariance: (2, 2) derivative of the covariance.
        matrix: (2, 2) derivative of the matrix that takes the arms to the centres.
    """
    (xx, xy), (_, yy) = covariance.tolist()
    return [0.0, 0.0, 0.0, 0.5 * xx, xy, 0.5 * yy, *matrix.T.ravel().tolist()]


def _slopes(parts: FloatArray, by_shape: list[list[float]]) -> FloatArray:
    """Derivatives (2 + n, h, w) of a mixture by x, y and n parameters of its shape.

    Args:
        parts: (10, h, w) of `mixture`.
        by_shape: weights of the parts for each parameter of the shape.
    """
    weights = np.array([BY_X, BY_Y, *by_shape])
    return np.asarray((weights @ parts.reshape(PARTS, -1)).reshape(len(weights), *parts.shape[1:]))


@dataclass(frozen=True)
class Ellipse:
    """Elliptical Gaussian convolved with the PSF.

    Parameters: x, y, logarithm of the geometric mean of its standard deviations in px, and two of shear, see `stretch`.

    Args:
        shape: (h, w) of the window.
        psf: (2, 2) covariance in px^2.
        arms: (K, 2) centres of the components of the source of unit standard deviation.
        weights: (K,) of them.
        tau: their standard deviation.
    """

    shape: tuple[int, int]
    psf: FloatArray
    arms: FloatArray
    weights: FloatArray
    tau: float

    @classmethod
    def gaussian(cls, shape: tuple[int, int], psf: FloatArray) -> Ellipse:
        """The Gaussian itself."""
        return cls(shape, psf, np.zeros((1, 2)), np.ones(1), 1.0)

    @classmethod
    def disc(cls, shape: tuple[int, int], psf: FloatArray) -> Ellipse:
        """A uniform disc, stretched to an ellipse, instead: its semi-axes are twice the standard deviations."""
        arms, weights = [], []
        for number, radius, weight in DISC_RINGS:
            turn = 2.0 * np.pi * (np.arange(number) + 0.5 * (number // 6 - 1)) / number
            arms.append(radius * np.stack([np.cos(turn), np.sin(turn)], axis=1))
            weights.append(np.full(number, weight / number))
        return cls(shape, psf, np.concatenate(arms), np.concatenate(weights), DISC_TAU)

    def light(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Share of the flux (h, w) in each pixel, and its derivatives (5, h, w)."""
        matrix, slopes = stretch(float(place[2]), place[3:5])
        covariance = self.psf + self.tau**2 * matrix @ matrix
        parts = _mixture(self.shape, place[:2] + self.arms @ matrix, self.arms, self.weights, covariance)
        widened = [self.tau**2 * (slope @ matrix + matrix @ slope) for slope in slopes]
        return parts[0], _slopes(parts, [_by_shape(*each) for each in zip(widened, slopes, strict=True)])


@dataclass(frozen=True)
class Streak:
    """Line segment of uniform light convolved with the PSF; parameters: x, y, logarithm of the length, angle in rad.

    Args:
        shape: (h, w) of the window.
        psf: (2, 2) covariance in px^2.
    """

    shape: tuple[int, int]
    psf: FloatArray

    def light(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Share of the flux (h, w) in each pixel, and its derivatives (4, h, w)."""
        length, angle = float(np.exp(place[2])), float(place[3])
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        narrowest = float(np.linalg.eigvalsh(self.psf)[0]) ** 0.5
        number = int(np.ceil(length / narrowest))
        step = length / number
        arms = np.stack([(np.arange(number) - 0.5 * (number - 1)) / number, np.zeros(number)], axis=1)
        # Each component has the variance of its part of the segment.
        variance = step**2 / 12.0
        covariance = self.psf + variance * np.outer(along, along)
        centres = place[:2] + length * arms[:, :1] * along
        parts = _mixture(self.shape, centres, arms, np.full(number, 1.0 / number), covariance)
        turned = variance * (np.outer(along, across) + np.outer(across, along))
        longer = length * np.stack([along, np.zeros(2)], axis=1)
        aside = length * np.stack([across, np.zeros(2)], axis=1)
        by_length = _by_shape(2.0 * variance * np.outer(along, along), longer)
        return parts[0], _slopes(parts, [by_length, _by_shape(turned, aside)])


@dataclass(frozen=True)
class Blurred:
    """Point whose PSF is a little wider or narrower than stated; parameters: x, y, relative change of the width.

    To first order the PSF changes by sigma^2 times its Laplacian.

    Args:
        window: gives place and shape.
        psf: as stated.
    """

    window: Window
    psf: PSF

    def light(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Share of the flux (h, w) in each pixel, and its derivatives (3, h, w)."""
        shape = self.window.data.shape
        step = BLUR_STEP * equivalent_sigma(self.psf)
        laplacian = np.array([-4.0, 1.0, 1.0, 1.0, 1.0]) / BLUR_STEP**2
        fluxes = place[2] * laplacian
        fluxes[0] += 1.0
        around = step * np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        theta = np.column_stack([place[:2] + around, fluxes]).ravel()
        bare = self.window._replace(basis=self.window.basis[:0])
        light, slopes = np.empty(shape), np.empty((len(theta), *shape))
        render_with_jacobian(theta, bare, optics_of(self.psf).tables, np.empty((4, max(shape))), light, slopes)
        return light, np.stack(
            [slopes[0::3].sum(axis=0), slopes[1::3].sum(axis=0), np.tensordot(laplacian, slopes[2::3], 1)]
        )
