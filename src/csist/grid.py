"""The sub-pixel grid: the only place that converts between pixel positions and grid cells.

Each pixel becomes ratio x ratio cells. A coordinate x lies in cell floor(ratio * (x + 1/2)), whose centre
is (i + 1/2) / ratio - 1/2; for odd ratios this equals the published rule round(c x + (c - 1) // 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist.checks import InputError, check_ratio, check_shape
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

FloatArray = NDArray[np.float64]

READ_OUT_THRESHOLD = 50.0
"""Cells below this intensity in counts are dropped by the published read-out."""


@dataclass(frozen=True)
class SubPixelGrid:
    """Grid of `ratio` x `ratio` cells a pixel over an image of `shape` (rows, columns).

    Raises:
        InputError: if ratio or shape is out of range.

    >>> grid = SubPixelGrid((11, 11), 3)
    >>> grid.cell_of(5.4).item(), round(grid.position_of(17).item(), 4)
    (17, 5.3333)
    """

    shape: tuple[int, int]
    ratio: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "ratio", check_ratio(self.ratio))

    @property
    def map_shape(self) -> tuple[int, int]:
        """(rows, columns) of the map."""
        return self.shape[0] * self.ratio, self.shape[1] * self.ratio

    def cell_of(self, position: ArrayLike) -> NDArray[np.int64]:
        """Cell index of a coordinate in px, along one axis."""
        return np.floor(self.ratio * (np.asarray(position, dtype=np.float64) + 0.5)).astype(np.int64)

    def position_of(self, cell: ArrayLike) -> FloatArray:
        """Coordinate in px of the centre of a cell, along one axis."""
        return (np.asarray(cell, dtype=np.float64) + 0.5) / self.ratio - 0.5

    def encode(self, targets: Targets) -> FloatArray:
        """Map [row, column] of intensities, shape `map_shape`; targets in one cell add up.

        Raises:
            InputError: if a target lies outside the image.
        """
        row, column = self.cell_of(targets.y), self.cell_of(targets.x)
        rows, columns = self.map_shape
        outside = (row < 0) | (row >= rows) | (column < 0) | (column >= columns)
        if outside.any():
            where = int(np.argmax(outside))
            raise InputError(
                f"target at x={targets.x[where]}, y={targets.y[where]} lies outside the image of shape {self.shape}"
            )
        cells = np.zeros(self.map_shape)
        np.add.at(cells, (row, column), targets.intensity)
        return cells

    def decode(self, cells: FloatArray, threshold: float = READ_OUT_THRESHOLD) -> Targets:
        """One detection a cell of at least `threshold` counts, in row-major order; the score is the cell's value.

        Raises:
            InputError: if the map has another shape.
        """
        if cells.shape != self.map_shape:
            raise InputError(f"a map of shape {self.map_shape} is needed for {self}, got {cells.shape}")
        row, column = np.nonzero(cells >= threshold)
        value = cells[row, column]
        return Targets(x=self.position_of(column), y=self.position_of(row), intensity=value, score=value)

    def snap(self, targets: Targets) -> Targets:
        """The targets moved to the centres of their cells, as the best grid read-out would report them."""
        return targets.replace(x=self.position_of(self.cell_of(targets.x)), y=self.position_of(self.cell_of(targets.y)))

    def steering_factors(self, psf: PSF) -> tuple[FloatArray, FloatArray]:
        """(A, B) with image = A @ map @ B.T for a separable PSF: A is (H, cH), B is (W, cW).

        Raises:
            InputError: if the PSF is not separable.
        """
        if not isinstance(psf, GaussianPSF):
            raise InputError(f"only a Gaussian PSF is separable, got {psf.kind}: use steering_matrix")
        rows, columns = (
            psf.profile(np.arange(n)[:, None] - self.position_of(np.arange(n * self.ratio))[None, :])
            for n in self.shape
        )
        return rows, columns

    def steering_matrix(self, psf: PSF) -> FloatArray:
        """Dense G, (H W, cH cW), row-major on both sides: image.ravel() = G @ map.ravel()."""
        if isinstance(psf, GaussianPSF):
            return np.asarray(np.kron(*self.steering_factors(psf)), dtype=np.float64)
        rows, columns = self.map_shape
        y, x = np.meshgrid(self.position_of(np.arange(rows)), self.position_of(np.arange(columns)), indexing="ij")
        responses = Sensor(psf=psf, shape=self.shape).responses(x.ravel(), y.ravel())
        return np.ascontiguousarray(responses.reshape(rows * columns, -1).T)


def least_squares_start(images: FloatArray, maps: FloatArray) -> FloatArray:
    """Q (cells, pixels) with map ~ Q image, least squares over training pairs: Q = S Z^T (Z Z^T)^-1.

    Args:
        images: (N, H, W), N at least H W.
        maps: (N, cH, cW).

    Raises:
        InputError: if there are fewer pairs than pixels.

    Source: Zhang & Ghanem, ISTA-Net, CVPR 2018, eq. 10.
    """
    z = images.reshape(len(images), -1)
    s = maps.reshape(len(maps), -1)
    if len(z) < z.shape[1]:
        raise InputError(f"a least-squares start needs at least {z.shape[1]} pairs (one a pixel), got {len(z)}")
    return np.asarray(np.linalg.lstsq(z, s, rcond=None)[0].T)
