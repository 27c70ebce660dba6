"""`NAME+ensemble`: published read-out of the mean of a grid method's maps of an image turned and mirrored.

A trained network is not exactly equivariant: its maps of a turned image, turned back, scatter about their mean. The
mean has the smaller squared error at up to eight times the cost (*Timofte et al., CVPR 2016*, "enhanced prediction";
*Lim et al., CVPR Workshops 2017*, "geometric self-ensemble").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from csist._types import FloatArray
from csist.grid import READ_OUT_THRESHOLD
from csist.methods.base import GridMethod
from csist.methods.readout.base import ReadOut
from csist.physics.sensor import Sensor
from csist.targets import Targets

SAME_SHARE = 1e-9
"""Largest difference in a pixel, as a fraction of the flux, of PSFs that count as equal."""


class Symmetry(NamedTuple):
    """A symmetry of the square: quarter turns, then a mirror along x."""

    quarters: int
    mirrored: bool

    def turn(self, images: FloatArray) -> FloatArray:
        """Apply the symmetry to images or maps (..., H, W)."""
        turned = np.rot90(images, self.quarters, axes=(-2, -1))
        return turned[..., ::-1] if self.mirrored else turned

    def undo(self, images: FloatArray) -> FloatArray:
        """Apply the inverse of the symmetry to images or maps (..., H, W)."""
        return np.rot90(images[..., ::-1] if self.mirrored else images, -self.quarters, axes=(-2, -1))


SYMMETRIES = tuple(Symmetry(quarters, mirrored) for mirrored in (False, True) for quarters in range(4))
"""The eight symmetries of the square; the first is the identity."""


def symmetries_of(sensor: Sensor) -> list[Symmetry]:
    """Return the symmetries under which the images of a sensor remain images of that sensor, the identity first.

    Those that leave its shape and its PSF unchanged: eight for a round PSF and a square image.
    """
    height, width = sensor.shape
    centre = Targets(x=[(width - 1) / 2], y=[(height - 1) / 2], intensity=[1.0])
    spot = replace(sensor, background=0.0).render(centre)

    def holds(symmetry: Symmetry) -> bool:
        turned = symmetry.turn(spot)
        return turned.shape == spot.shape and bool(np.abs(turned - spot).max() <= SAME_SHARE)

    return [symmetry for symmetry in SYMMETRIES if holds(symmetry)]


class EnsembleReadOut(ReadOut):
    """Grid method whose maps are averaged over the symmetries of its sensor before the published read-out.

    Args:
        method: the grid method.
    """

    def __init__(self, method: GridMethod) -> None:
        super().__init__(method)
        self.symmetries = symmetries_of(method.sensor)

    def read(self, images: FloatArray, maps: FloatArray, threshold: float = READ_OUT_THRESHOLD) -> list[Targets]:
        """Return one `Targets` per image from the maps (N, cH, cW) of the images as they are.

        Args:
            images: (N, H, W) in counts.
            maps: the method's maps of `images`, in counts.
            threshold: smallest value in counts of a cell that counts as a detection.
        """
        return [self.method.grid.decode(cells, threshold) for cells in self.mean_maps(images, maps)]

    def mean_maps(self, images: FloatArray, maps: FloatArray) -> FloatArray:
        """Return the mean (N, cH, cW) of the maps of `images` and of those of the other symmetries, in counts."""
        return sum(self._others(images), start=np.array(maps)) / len(self.symmetries)

    def _others(self, images: FloatArray) -> Iterator[FloatArray]:
        for symmetry in self.symmetries[1:]:
            yield symmetry.undo(self.method.predict_maps(symmetry.turn(images)))
