"""`NAME+ensemble`: published read-out of the mean of a grid method's maps of an image turned and mirrored.

A trained network is not exactly equivariant: its maps of a turned image, turned back, scatter about their mean. The
mean has the smaller squared error at up to eight times the cost (*Timofte et al., CVPR 2016*, "enhanced prediction";
*Lim et al., CVPR Workshops 2017*, "geometric self-ensemble").
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from csist._types import FloatArray
from csist.methods.base import GridMethod
from csist.methods.readout.base import ReadOut
from csist.physics.symmetry import symmetries_of
from csist.targets import Targets


class EnsembleReadOut(ReadOut):
    """Grid method whose maps are averaged over the symmetries of its sensor before the published read-out.

    Args:
        method: the grid method.
    """

    def __init__(self, method: GridMethod) -> None:
        super().__init__(method)
        self.symmetries = symmetries_of(method.sensor)

    def read(self, images: FloatArray, maps: FloatArray, threshold: float | None = None) -> list[Targets]:
        """Return one `Targets` per image from the maps (N, cH, cW) of the images as they are.

        Args:
            images: (N, H, W) in counts.
            maps: the method's maps of `images`, in counts.
            threshold: smallest value in counts of a cell that counts as a detection; None for that of the grid.
        """
        return [self.method.grid.decode(cells, threshold) for cells in self.mean_maps(images, maps)]

    def mean_maps(self, images: FloatArray, maps: FloatArray) -> FloatArray:
        """Return the mean (N, cH, cW) of the maps of `images` and of those of the other symmetries, in counts."""
        return sum(self._others(images), start=np.array(maps)) / len(self.symmetries)

    def _others(self, images: FloatArray) -> Iterator[FloatArray]:
        for symmetry in self.symmetries[1:]:
            yield symmetry.undo(self.method.predict_maps(symmetry.turn(images)))
