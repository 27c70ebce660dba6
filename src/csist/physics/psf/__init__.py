"""Point spread functions (PSFs), always integrated over the pixel.

A PSF gives the fraction of a target's flux in the pixel whose centre lies (dx, dy) px from the target, dx = column - x,
dy = row - y. Derivatives are with respect to the target's x and y. See Han et al., ICCV 2025 (arXiv 2505.19148),
eq. 1-2. To add a kind, write a class with the members of `PSF` and list it in `KINDS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from csist.checks import InputError
from csist.physics.psf.base import (
    PSF,
    RAYLEIGH_PER_SIGMA,
    by_place,
    equivalent_sigma,
    lone_significance,
    outer_response,
    pixel_kernel,
    spread_px,
)
from csist.physics.psf.field import FieldPSF
from csist.physics.psf.gaussian import EllipticalGaussianPSF, GaussianPSF
from csist.physics.psf.quadrature import AiryPSF, MoffatPSF
from csist.physics.psf.sampled import SampledPSF

__all__ = [
    "KINDS",
    "PSF",
    "RAYLEIGH_PER_SIGMA",
    "AiryPSF",
    "EllipticalGaussianPSF",
    "FieldPSF",
    "GaussianPSF",
    "MoffatPSF",
    "SampledPSF",
    "as_psf",
    "by_place",
    "equivalent_sigma",
    "lone_significance",
    "outer_response",
    "pixel_kernel",
    "psf_from_card",
    "spread_px",
]

KINDS: dict[str, Any] = {
    each.kind: each for each in (GaussianPSF, EllipticalGaussianPSF, AiryPSF, MoffatPSF, SampledPSF, FieldPSF)
}
"""PSF classes by the kind in their card."""


def as_psf(given: Any) -> PSF | None:
    """A PSF from one, or from the sigma in px of a Gaussian one; None for anything else.

    >>> as_psf(1), as_psf("auto")
    (GaussianPSF(sigma_px=1.0), None)
    """
    if isinstance(given, int | float | np.integer | np.floating) and given is not True and given is not False:
        return GaussianPSF(float(given))
    return given if hasattr(given, "response") else None


def psf_from_card(card: dict[str, Any]) -> PSF:
    """Build the PSF that a card describes.

    Args:
        card: card returned by `to_card` of a PSF.

    Raises:
        InputError: if the kind is unknown, a field is missing, or a value is out of range.

    >>> psf_from_card({"kind": "gaussian", "sigma_px": 0.5})
    GaussianPSF(sigma_px=0.5)
    """
    try:
        kind = card["kind"]
        if kind in KINDS:
            fields = {name: value for name, value in card.items() if name != "kind"}
            psf: PSF = KINDS[kind].from_fields(fields)
            return psf
    except (KeyError, TypeError) as error:
        raise InputError(f"this PSF card lacks the field {error}: {str(card)[:80]}") from error
    raise InputError(f"unknown PSF kind {kind!r}: use one of {', '.join(KINDS)}")
