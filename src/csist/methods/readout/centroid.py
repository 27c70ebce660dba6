"""`NAME+centroid`: read-out that merges the cells of one target into their centroid."""

from __future__ import annotations

from csist._types import FloatArray
from csist.methods.readout.base import ReadOut
from csist.targets import Targets


class CentroidReadOut(ReadOut):
    """Grid method with the centroid read-out.

    Args:
        method: the grid method.
    """

    def read(self, images: FloatArray, maps: FloatArray, threshold: float | None = None) -> list[Targets]:
        """Return one `Targets` per map (N, cH, cW); `threshold` is in counts, None for the grid's."""
        return [self.method.grid.centroids(cells, threshold) for cells in maps]
