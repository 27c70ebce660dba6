"""Symmetries of the square that a sensor has: an image turned or mirrored that is still an image of that sensor."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist.physics.psf import SampledPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

SAME_SHARE = 1e-9
"""Largest difference in a pixel, as a fraction of the flux, of PSFs that count as equal."""


class Symmetry(NamedTuple):
    """A symmetry of the square: rows and columns exchanged, then the rows, then the columns reversed."""

    transposed: bool
    rows: bool
    columns: bool

    def turn(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Return images or maps (..., H, W) under the symmetry."""
        return self._reversed(stack.swapaxes(-2, -1) if self.transposed else stack)

    def undo(self, stack: NDArray[Any]) -> NDArray[Any]:
        """Return images or maps (..., H, W) under the inverse of the symmetry."""
        straight = self._reversed(stack)
        return straight.swapaxes(-2, -1) if self.transposed else straight

    def _reversed(self, stack: NDArray[Any]) -> NDArray[Any]:
        return stack[..., :: -1 if self.rows else 1, :: -1 if self.columns else 1]


SYMMETRIES = tuple(Symmetry(*each) for each in product((False, True), repeat=3))
"""The eight symmetries of the square; the first is the identity."""


def symmetries_of(sensor: Sensor) -> tuple[Symmetry, ...]:
    """Return the symmetries under which the images of a sensor remain images of that sensor, the identity first.

    Those that leave its shape and its PSF unchanged: eight for a round PSF and a square image, four where it is not
    square; only the identity for a sampled PSF.
    """
    if isinstance(sensor.psf, SampledPSF):
        return SYMMETRIES[:1]
    height, width = sensor.shape
    centre = Targets(x=[(width - 1) / 2], y=[(height - 1) / 2], intensity=[1.0])
    spot = replace(sensor, background=0.0).render(centre)

    def holds(symmetry: Symmetry) -> bool:
        turned = symmetry.turn(spot)
        return turned.shape == spot.shape and bool(np.abs(turned - spot).max() <= SAME_SHARE)

    return tuple(symmetry for symmetry in SYMMETRIES if holds(symmetry))
