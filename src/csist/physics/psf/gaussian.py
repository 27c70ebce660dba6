"""Gaussian point spread functions, circular and elliptical, integrated over the pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erf, ndtr

from csist._types import FloatArray
from csist.checks import InputError, as_number, check_positive
from csist.physics.psf.base import FromFields
from csist.physics.psf.quadrature import pixel_nodes


def _gaussian_cell(offset: FloatArray, sigma: float) -> FloatArray:
    """Integral of the normal density of width `sigma` over [offset - 1/2, offset + 1/2]."""
    scale = 1.0 / (sigma * np.sqrt(2.0))
    return np.asarray(0.5 * (erf((offset + 0.5) * scale) - erf((offset - 0.5) * scale)))


def _normal_density(offset: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(np.exp(-0.5 * (offset / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi)))


@dataclass(frozen=True)
class GaussianPSF(FromFields):
    """Circular Gaussian with standard deviation `sigma_px`, integrated over pixels in closed form.

    Raises:
        InputError: if `sigma_px` is not a finite number > 0.

    >>> round(float(GaussianPSF(0.5).response(0.0, 0.0)), 6)
    0.466065
    """

    sigma_px: float
    kind: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_px", check_positive("sigma_px", self.sigma_px))

    @property
    def reach_px(self) -> float:
        """Five sigma plus half a pixel; per axis, 6e-7 of the flux lies beyond."""
        return 5.0 * self.sigma_px + 0.5

    def profile(self, offset: ArrayLike) -> FloatArray:
        """One-dimensional response at `offset` px; the two-dimensional response is the product over both axes."""
        return _gaussian_cell(np.asarray(offset, dtype=np.float64), self.sigma_px)

    def profile_gradient(self, offset: ArrayLike) -> FloatArray:
        """Derivative of `profile` by the target's position, -d/d offset, in 1/px."""
        offset = np.asarray(offset, dtype=np.float64)
        return _normal_density(offset - 0.5, self.sigma_px) - _normal_density(offset + 0.5, self.sigma_px)

    def profile_sigma_gradient(self, offset: ArrayLike) -> FloatArray:
        """Derivative of `profile` by `sigma_px`, in 1/px."""
        offset = np.asarray(offset, dtype=np.float64)
        low, high = offset - 0.5, offset + 0.5
        return (low * _normal_density(low, self.sigma_px) - high * _normal_density(high, self.sigma_px)) / self.sigma_px

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""
        return self.profile(dx) * self.profile(dy)

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""
        return self.profile_gradient(dx) * self.profile(dy), self.profile(dx) * self.profile_gradient(dy)

    def sigma_gradient(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Derivative of `response` by `sigma_px`, in 1/px."""
        return self.profile_sigma_gradient(dx) * self.profile(dy) + self.profile(dx) * self.profile_sigma_gradient(dy)


@dataclass(frozen=True)
class EllipticalGaussianPSF(FromFields):
    """Elliptical Gaussian with standard deviations along two perpendicular axes, integrated over pixels.

    The integral along y is a Gauss-Legendre quadrature; along x, given y, it is exact (error function).

    Args:
        sigma_x_px: standard deviation in px along the first axis, which is x if the angle is 0.
        sigma_y_px: standard deviation in px along the second axis.
        angle_deg: angle in degrees from x towards y (clockwise on the screen, where y points down) of the first axis.

    Raises:
        InputError: if a standard deviation is not a finite number > 0 or the angle is not finite.

    >>> bool(np.isclose(EllipticalGaussianPSF(0.5, 0.5, 30.0).response(0, 0), GaussianPSF(0.5).response(0, 0)))
    True
    """

    sigma_x_px: float
    sigma_y_px: float
    angle_deg: float = 0.0
    kind: ClassVar[str] = "elliptical-gaussian"

    def __post_init__(self) -> None:
        for name in ("sigma_x_px", "sigma_y_px"):
            object.__setattr__(self, name, check_positive(name, getattr(self, name)))
        if not np.isfinite(as_number(self.angle_deg)):
            raise InputError(f"angle_deg must be finite, got {self.angle_deg}")
        object.__setattr__(self, "angle_deg", float(self.angle_deg))

    @property
    def sigma_px(self) -> float:
        """Standard deviation in px of the circular Gaussian of the same area."""
        return float(np.sqrt(self.sigma_x_px * self.sigma_y_px))

    @property
    def reach_px(self) -> float:
        """Five times the larger standard deviation and half a pixel."""
        return 5.0 * max(self.sigma_x_px, self.sigma_y_px) + 0.5

    @cached_property
    def _shape(self) -> tuple[float, float, float]:
        """Standard deviation of y, slope of the mean of x given y, and standard deviation of x given y."""
        angle = np.deg2rad(self.angle_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        covariance = turn @ np.diag([self.sigma_x_px**2, self.sigma_y_px**2]) @ turn.T
        slope = covariance[0, 1] / covariance[1, 1]
        return (
            float(np.sqrt(covariance[1, 1])),
            float(slope),
            float(np.sqrt(covariance[0, 0] - slope * covariance[0, 1])),
        )

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        sigma_y, slope, sigma_x = self._shape
        # The integrand along y can be as narrow as the narrower axis, because a pixel edge crosses a tilted ellipse.
        nodes, weights = pixel_nodes(min(self.sigma_x_px, self.sigma_y_px))
        y = dy[..., None] + nodes
        low, high = ((dx[..., None] + side - slope * y) / sigma_x for side in (-0.5, 0.5))
        return np.asarray((_normal_density(y, sigma_y) * (ndtr(high) - ndtr(low))) @ weights)

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        sigma_y, slope, sigma_x = self._shape
        nodes, weights = pixel_nodes(min(self.sigma_x_px, self.sigma_y_px))
        y = dy[..., None] + nodes
        low, high = (_normal_density(dx[..., None] + side - slope * y, sigma_x) for side in (-0.5, 0.5))
        by_x = np.asarray((_normal_density(y, sigma_y) * (low - high)) @ weights)

        def across(edge: FloatArray) -> FloatArray:
            low, high = ((dx + side - slope * edge) / sigma_x for side in (-0.5, 0.5))
            return np.asarray(_normal_density(edge, sigma_y) * (ndtr(high) - ndtr(low)))

        return by_x, across(dy - 0.5) - across(dy + 0.5)
