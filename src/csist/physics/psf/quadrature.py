"""Point spread functions given by their density, integrated over the pixel by quadrature: Airy and Moffat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import j1

from csist._types import FloatArray
from csist.checks import InputError, check_positive
from csist.physics.psf.base import REACH_SHARE, FromFields


@lru_cache(maxsize=64)
def pixel_nodes(scale_px: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes and weights over [-1/2, 1/2] px for a density that varies over `scale_px`.

    Doubling their number changes no response by more than 1e-9.
    """
    nodes, weights = np.polynomial.legendre.leggauss(8 + 2 * int(np.ceil(4.0 / scale_px)))
    return 0.5 * nodes, 0.5 * weights


class DensityPSF(FromFields):
    """PSF given by its density: a subclass defines `scale_px` and `density`."""

    @property
    def scale_px(self) -> float:
        """Distance in px over which the density varies, for `pixel_nodes`."""
        raise NotImplementedError

    def density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """Flux per px^2 at (dx, dy) px from the target."""
        raise NotImplementedError

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        nodes, weights = pixel_nodes(self.scale_px)
        total = np.zeros(dx.shape)
        for node_y, weight_y in zip(nodes, weights, strict=True):
            total += weight_y * (self.density(dx[..., None] + nodes, (dy + node_y)[..., None]) @ weights)
        return total

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px: differences of edge integrals."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        nodes, weights = pixel_nodes(self.scale_px)

        def along_y(x: FloatArray) -> FloatArray:
            return np.asarray(self.density(x[..., None], dy[..., None] + nodes) @ weights)

        def along_x(y: FloatArray) -> FloatArray:
            return np.asarray(self.density(dx[..., None] + nodes, y[..., None]) @ weights)

        return along_y(dx - 0.5) - along_y(dx + 0.5), along_x(dy - 0.5) - along_x(dy + 0.5)


@dataclass(frozen=True)
class AiryPSF(DensityPSF):
    """Diffraction pattern of a clear circular aperture; `radius_px` is its first dark ring.

    With k = 3.8317 / radius_px the density at distance r is k^2 / (4 pi) * (2 J1(k r) / (k r))^2
    (Born & Wolf, Principles of Optics, 8.5.2).

    Raises:
        InputError: if `radius_px` is not a finite number > 0.
    """

    radius_px: float
    kind: ClassVar[str] = "airy"

    FIRST_ZERO_OF_J1: ClassVar[float] = 3.8317059702075125

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius_px", check_positive("radius_px", self.radius_px))

    @property
    def scale_px(self) -> float:
        """Radius of the first dark ring in px."""
        return self.radius_px

    @property
    def reach_px(self) -> float:
        """Distance in px from which every bright ring is below `REACH_SHARE` of the peak, plus half a pixel.

        At large v the density is at most 8 / (pi v^3) of the peak, v = k r (asymptote of J1).
        """
        return float(self.radius_px / self.FIRST_ZERO_OF_J1 * (8.0 / (np.pi * REACH_SHARE)) ** (1.0 / 3.0) + 0.5)

    def density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """Flux per px^2 at (dx, dy) px from the target."""
        k = self.FIRST_ZERO_OF_J1 / self.radius_px
        v = np.maximum(k * np.hypot(dx, dy), 1e-8)
        return np.asarray(k**2 / (4.0 * np.pi) * (2.0 * j1(v) / v) ** 2)


@dataclass(frozen=True)
class MoffatPSF(DensityPSF):
    """Moffat profile, for images blurred by the atmosphere: a Gaussian-like core with power-law wings.

    The density at distance r is (beta - 1) / (pi alpha^2) * (1 + r^2 / alpha^2)^-beta, with
    fwhm = 2 alpha sqrt(2^(1/beta) - 1) (Moffat, A&A 3, 455, 1969).

    Args:
        fwhm_px: full width at half maximum in px, without the pixel.
        beta: exponent, above 1; about 2.5 to 5 through the atmosphere.

    Raises:
        InputError: if `fwhm_px` is not a finite number > 0 or beta is not above 1.
    """

    fwhm_px: float
    beta: float
    kind: ClassVar[str] = "moffat"

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm_px", check_positive("fwhm_px", self.fwhm_px))
        object.__setattr__(self, "beta", check_positive("beta", self.beta))
        if self.beta <= 1.0:
            raise InputError(f"beta must be above 1 for the flux to be finite, got {self.beta}")

    @property
    def alpha_px(self) -> float:
        """Scale of the profile in px."""
        return float(self.fwhm_px / (2.0 * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0)))

    @property
    def scale_px(self) -> float:
        """Half the full width at half maximum in px."""
        return 0.5 * self.fwhm_px

    @property
    def reach_px(self) -> float:
        """Distance in px at which the density has fallen to `REACH_SHARE` of its peak, plus half a pixel."""
        return float(self.alpha_px * np.sqrt(REACH_SHARE ** (-1.0 / self.beta) - 1.0) + 0.5)

    def density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """Flux per px^2 at (dx, dy) px from the target."""
        alpha2 = self.alpha_px**2
        return np.asarray((self.beta - 1.0) / (np.pi * alpha2) * (1.0 + (dx**2 + dy**2) / alpha2) ** -self.beta)
