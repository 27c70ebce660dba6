"""A measured point spread function, tabulated on a fine grid."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import RectBivariateSpline

from csist._types import FloatArray
from csist.checks import InputError
from csist.physics.psf.base import REACH_SHARE, Invariant


@dataclass(frozen=True, eq=False)
class SampledPSF(Invariant):
    """Measured PSF: pixel responses tabulated every 1/oversampling px around a target at the centre of the array.

    Args:
        array: 2-D array [dy, dx] of responses with odd sides (an "effective PSF", which includes the pixel).
        oversampling: samples per pixel. The array is scaled to the sum oversampling^2, that is, flux 1.

    Values between samples are interpolated by a cubic spline (SciPy's RectBivariateSpline); outside the array the
    response is 0.

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
    def reach_px(self) -> float:
        """Distance in px beyond which every sample is below `REACH_SHARE` of the peak, or at which the array ends."""
        bright = np.argwhere(np.abs(self.array) > REACH_SHARE * self.array.max())
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
        """Return a JSON-ready description; the array is base64 of little-endian float32, row by row."""
        data = base64.b64encode(self.array.astype("<f4").tobytes()).decode()
        return {
            "kind": self.kind,
            "oversampling": self.oversampling,
            "shape": list(self.array.shape),
            "float32": data,
        }

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> SampledPSF:
        """Build the PSF from the fields of a card, without its kind."""
        data = np.frombuffer(base64.b64decode(values["float32"]), dtype="<f4")
        return cls(data.reshape(values["shape"]).astype(np.float64), values["oversampling"])
