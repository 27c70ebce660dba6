"""Point spread functions, always integrated over the pixel that looks at them.

Every PSF answers one question: what fraction of a target's flux falls into the pixel whose centre lies
(dx, dy) px from the target, dx = column - x, dy = row - y. Derivatives are with respect to the target's
x and y. The Gaussian is exact (error function); see Han et al., ICCV 2025 (arXiv 2505.19148), eq. 1-2.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import RectBivariateSpline
from scipy.special import erf, j1

from csist._types import FloatArray
from csist.checks import InputError, check_positive

RAYLEIGH_PER_SIGMA = 1.9
"""1 R, the unit of separation of the CSIST literature, is 1.9 sigma of the Gaussian PSF."""


class PSF(Protocol):
    """What a sensor and a solver need to know of a point spread function."""

    kind: ClassVar[str]

    def __hash__(self) -> int:
        """Equal PSFs have the same; what is derived from one is kept by it."""

    @property
    def radius_px(self) -> float:
        """Distance in px, along an axis, beyond which a pixel's response is negligible for fitting."""

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""

    def to_card(self) -> dict[str, Any]:
        """A JSON-ready description that `psf_from_card` turns back into an equal PSF."""


def pixel_kernel(psf: PSF) -> FloatArray:
    """Response (n, n) of the pixels around a target in the middle of one, as far as it matters; n is odd."""
    reach = np.arange(-np.ceil(psf.radius_px), np.ceil(psf.radius_px) + 1)
    return psf.response(reach[None, :], reach[:, None])


@lru_cache(maxsize=32)
def lone_significance(psf: PSF) -> float:
    """Significance, in standard deviations, of a target alone whose flux is the noise of a pixel."""
    return float(np.sqrt((pixel_kernel(psf) ** 2).sum()))


@lru_cache(maxsize=32)
def spread_px(psf: PSF) -> float:
    """Sigma in px of the Gaussian with the same noise-equivalent area, 4 pi sigma^2 = 1 / sum(response^2).

    The pixel is in it. Second moments would say the same of clean tables, but of measured ones mostly what the noise
    far out is.
    """
    response = pixel_kernel(psf)
    return float(np.sqrt((response.sum() ** 2 / (response**2).sum()) / (4.0 * np.pi)))


def equivalent_sigma(psf: PSF) -> float:
    """`spread_px`, of a Gaussian its own sigma, without the pixel."""
    return psf.sigma_px if isinstance(psf, GaussianPSF) else spread_px(psf)


def _gaussian_cell(offset: FloatArray, sigma: float) -> FloatArray:
    """Integral of the normal density of width `sigma` over [offset - 1/2, offset + 1/2]."""
    scale = 1.0 / (sigma * np.sqrt(2.0))
    return np.asarray(0.5 * (erf((offset + 0.5) * scale) - erf((offset - 0.5) * scale)))


def _normal_density(offset: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(np.exp(-0.5 * (offset / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi)))


@dataclass(frozen=True)
class GaussianPSF:
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
    def radius_px(self) -> float:
        """Five sigma and half a pixel: 6e-7 of the flux lies beyond, per axis."""
        return 5.0 * self.sigma_px + 0.5

    def profile(self, offset: ArrayLike) -> FloatArray:
        """One-dimensional response at `offset` px; the two-dimensional one is the product of two of these."""
        return _gaussian_cell(np.asarray(offset, dtype=np.float64), self.sigma_px)

    def profile_gradient(self, offset: ArrayLike) -> FloatArray:
        """Derivative of `profile` by the target's position (so with the sign of -d/d offset), in 1/px."""
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

    def to_card(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"kind": self.kind, "sigma_px": self.sigma_px}


@dataclass(frozen=True)
class AiryPSF:
    """Diffraction pattern of a clear circular aperture; `radius_px` is its first dark ring.

    With k = 3.8317 / radius_px the density at distance r is k^2 / (4 pi) * (2 J1(k r) / (k r))^2
    (Born & Wolf, Principles of Optics, 8.5.2). It is integrated over each pixel by Gauss-Legendre
    quadrature with so many nodes that doubling them changes nothing above 1e-9.

    Raises:
        InputError: if `radius_px` is not a finite number > 0.
    """

    radius_px: float
    kind: ClassVar[str] = "airy"

    FIRST_ZERO_OF_J1: ClassVar[float] = 3.8317059702075125

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius_px", check_positive("radius_px", self.radius_px))

    @cached_property
    def _nodes(self) -> tuple[FloatArray, FloatArray]:
        count = 8 + 2 * int(np.ceil(4.0 / self.radius_px))
        nodes, weights = np.polynomial.legendre.leggauss(count)
        return 0.5 * nodes, 0.5 * weights

    def _density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        k = self.FIRST_ZERO_OF_J1 / self.radius_px
        v = np.maximum(k * np.hypot(dx, dy), 1e-8)
        return k**2 / (4.0 * np.pi) * (2.0 * j1(v) / v) ** 2

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        nodes, weights = self._nodes
        total = np.zeros(dx.shape)
        for node_y, weight_y in zip(nodes, weights, strict=True):
            total += weight_y * (self._density(dx[..., None] + nodes, (dy + node_y)[..., None]) @ weights)
        return total

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px: differences of edge integrals."""
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        nodes, weights = self._nodes

        def across(fixed: FloatArray, along: FloatArray) -> FloatArray:
            return np.asarray(self._density(fixed[..., None], along[..., None] + nodes) @ weights)

        return across(dx - 0.5, dy) - across(dx + 0.5, dy), across(dy - 0.5, dx) - across(dy + 0.5, dx)

    def to_card(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"kind": self.kind, "radius_px": self.radius_px}


@dataclass(frozen=True, eq=False)
class SampledPSF:
    """A measured PSF: pixel responses tabulated every 1/oversampling px, the target in the array's middle.

    Args:
        array: odd-sided 2-D array [dy, dx] of responses (an "effective PSF": the pixel is already in it).
        oversampling: samples per pixel. The array is scaled so that its sum is oversampling^2, flux 1.

    Between samples a cubic spline interpolates (scipy's RectBivariateSpline); outside the array it is 0.

    Raises:
        InputError: if the array is not a finite odd-sided 2-D array of at least 5 x 5 with a positive sum.
    """

    array: FloatArray = field(repr=False)
    oversampling: int
    kind: ClassVar[str] = "sampled"

    def __post_init__(self) -> None:
        array = np.array(self.array, dtype=np.float64)
        if array.ndim != 2 or min(array.shape) < 5 or any(n % 2 == 0 for n in array.shape):
            raise InputError(f"a sampled PSF must be 2-D with odd sides of at least 5, got shape {array.shape}")
        if not np.isfinite(array).all() or array.sum() <= 0:
            raise InputError("a sampled PSF must be finite with a positive sum")
        if int(self.oversampling) != self.oversampling or self.oversampling < 1:
            raise InputError(f"oversampling must be a whole number >= 1, got {self.oversampling}")
        array *= self.oversampling**2 / array.sum()
        array.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "oversampling", int(self.oversampling))

    @property
    def radius_px(self) -> float:
        """Distance beyond which every sample is below 1e-3 of the peak, or the array ends."""
        bright = np.argwhere(np.abs(self.array) > 1e-3 * self.array.max())
        centre = (np.array(self.array.shape) - 1) / 2
        return float((np.abs(bright - centre).max() + 1) / self.oversampling)

    @cached_property
    def _half_px(self) -> FloatArray:
        return (np.array(self.array.shape) - 1) / (2.0 * self.oversampling)

    @cached_property
    def _spline(self) -> RectBivariateSpline:
        rows, columns = (
            np.arange(n) / self.oversampling - h for n, h in zip(self.array.shape, self._half_px, strict=True)
        )
        return RectBivariateSpline(rows, columns, self.array)

    def _evaluate(self, dx: ArrayLike, dy: ArrayLike, order_x: int = 0, order_y: int = 0) -> FloatArray:
        dx, dy = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
        values = self._spline.ev(dy, dx, dx=order_y, dy=order_x)
        return np.where((np.abs(dy) <= self._half_px[0]) & (np.abs(dx) <= self._half_px[1]), values, 0.0)

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""
        return self._evaluate(dx, dy)

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""
        return -self._evaluate(dx, dy, order_x=1), -self._evaluate(dx, dy, order_y=1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampledPSF):
            return NotImplemented
        return self.to_card() == other.to_card()

    def __hash__(self) -> int:
        return hash(self.to_card()["float32"])

    def to_card(self) -> dict[str, Any]:
        """A JSON-ready description; the array is base64 of little-endian float32, row by row."""
        data = base64.b64encode(self.array.astype("<f4").tobytes()).decode()
        return {
            "kind": self.kind,
            "oversampling": self.oversampling,
            "shape": list(self.array.shape),
            "float32": data,
        }


def psf_from_card(card: dict[str, Any]) -> PSF:
    """The PSF that a card describes.

    Raises:
        InputError: if the kind is unknown or a field is missing.
    """
    try:
        match card["kind"]:
            case "gaussian":
                return GaussianPSF(card["sigma_px"])
            case "airy":
                return AiryPSF(card["radius_px"])
            case "sampled":
                data = np.frombuffer(base64.b64decode(card["float32"]), dtype="<f4")
                return SampledPSF(data.reshape(card["shape"]).astype(np.float64), card["oversampling"])
    except (KeyError, TypeError) as error:
        raise InputError(f"this PSF card lacks the field {error}: {str(card)[:80]}") from error
    raise InputError(f"unknown PSF kind {card['kind']!r}: gaussian, airy and sampled exist")
