"""Protocol of a point spread function, and quantities derived from any PSF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray, IntArray

RAYLEIGH_PER_SIGMA = 1.9
"""1 R, the unit of separation of the CSIST literature, is 1.9 sigma of the Gaussian PSF."""


REACH_SHARE = 1e-4
"""Share of the peak down to which the wings of a PSF are fitted."""


class PSF(Protocol):
    """Point spread function as used by sensors and solvers."""

    kind: ClassVar[str]

    def __hash__(self) -> int:
        """Return a hash, equal for equal PSFs, by which derived results are cached."""

    @property
    def reach_px(self) -> float:
        """Distance in px, along an axis, beyond which a pixel's response is negligible for fitting."""

    def response(self, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """Fraction of the flux in the pixel at offset (dx, dy) px from the target; arrays broadcast."""

    def gradient(self, dx: ArrayLike, dy: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Derivatives of `response` by the target's x and y, in 1/px."""

    def at(self, x: float, y: float) -> PSF:
        """PSF of a target at a place (x, y) in px; the same everywhere for all kinds but `FieldPSF`."""

    def moved(self, dx: float, dy: float) -> PSF:
        """The same PSF for a part of the frame whose first pixel lies at (dx, dy) px."""

    def to_card(self) -> dict[str, Any]:
        """Return a JSON-ready description from which `psf_from_card` builds an equal PSF."""

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Self:
        """Build the PSF from the fields of a card, without its kind.

        Raises:
            KeyError: if a field is missing.
            InputError: if a value is out of range.
        """


class Invariant:
    """Base class of a PSF that is the same all over the field."""

    def at(self, x: float, y: float) -> Self:
        """Return the PSF itself."""
        return self

    def moved(self, dx: float, dy: float) -> Self:
        """Return the PSF itself."""
        return self


class FromFields(Invariant):
    """Base class that writes and reads the card of a dataclass whose fields are numbers."""

    kind: ClassVar[str]

    def to_card(self: Any) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"kind": self.kind, **{each.name: getattr(self, each.name) for each in fields(self)}}

    @classmethod
    def from_fields(cls: Any, values: dict[str, Any]) -> Any:
        """Build the PSF from the fields of a card, without its kind."""
        return cls(**{each.name: values[each.name] for each in fields(cls)})


def by_place(psf: PSF, x: FloatArray, y: FloatArray) -> Iterator[tuple[PSF, IntArray]]:
    """Yield each PSF that some positions have, with the indices of these positions.

    Args:
        psf: of the frame.
        x: columns in px, shape (n,).
        y: rows in px, shape (n,).
    """
    if isinstance(psf, Invariant):
        yield psf, np.arange(len(x))
        return
    members: dict[PSF, list[int]] = {}
    for k, place in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        members.setdefault(psf.at(*place), []).append(k)
    for each, indices in members.items():
        yield each, np.array(indices, dtype=np.int64)


def pixel_kernel(psf: PSF) -> FloatArray:
    """Return the responses (n, n), n odd, of the pixels within the PSF's reach of a target at a pixel centre."""
    reach = np.arange(-np.ceil(psf.reach_px), np.ceil(psf.reach_px) + 1)
    return psf.response(reach[None, :], reach[:, None])


@lru_cache(maxsize=32)
def outer_response(psf: PSF) -> FloatArray:
    """Largest response (n,) of a pixel more than 0, 1, 2, ... px, along an axis, from a target at a pixel centre.

    It falls monotonically where the response itself has dark rings. The last value, at the PSF's reach, is 0.
    """
    response = np.abs(pixel_kernel(psf))
    along = np.abs(np.arange(len(response)) - len(response) // 2)
    ring = np.maximum(along[:, None], along)
    return np.array([response[ring > r].max(initial=0.0) for r in range(len(response) // 2 + 1)])


@lru_cache(maxsize=32)
def lone_significance(psf: PSF) -> float:
    """Significance, in standard deviations, of an isolated target whose flux equals the noise of a pixel."""
    return float(np.sqrt((pixel_kernel(psf) ** 2).sum()))


@lru_cache(maxsize=32)
def spread_px(psf: PSF) -> float:
    """Sigma in px of the Gaussian with the same noise-equivalent area, 4 pi sigma^2 = 1 / sum(response^2).

    The width includes the pixel. Second moments would give the same value for noise-free PSFs, but for measured ones
    they are dominated by the noise in the wings.
    """
    response = pixel_kernel(psf)
    return float(np.sqrt((response.sum() ** 2 / (response**2).sum()) / (4.0 * np.pi)))


def equivalent_sigma(psf: PSF) -> float:
    """Sigma in px of a comparable circular Gaussian: `sigma_px` of the PSF if it has one, else `spread_px`."""
    return float(getattr(psf, "sigma_px", None) or spread_px(psf))
