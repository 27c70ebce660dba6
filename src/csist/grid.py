"""The sub-pixel grid: the only place that converts between pixel positions and grid cells.

Each pixel becomes ratio x ratio cells. A coordinate x lies in cell floor(ratio * (x + 1/2)), whose centre
is (i + 1/2) / ratio - 1/2; for odd ratios this equals the published rule round(c x + (c - 1) // 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist._compiled import compiled_exactly
from csist._types import FloatArray
from csist.checks import InputError, check_ratio, check_shape
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

READ_OUT_THRESHOLD = 50.0
"""Cells below this intensity in counts are dropped by the published read-out."""

SPREAD_CELLS2 = 0.4
"""Squared distance from their centroid, in cells^2 and summed with the flux in units of the brightest cell, up to which
two groups of cells are one target: two halves of a target in neighbouring cells have 1/4, two whole targets 1/2."""

TOUCHING_CELLS2 = 2.0
"""Squared distance in cells^2 of two cells that touch at a corner."""

MOST_CELLS = 512
"""Cells of one map that are merged, brightest first: bounds the time where a map is nothing but noise."""


@compiled_exactly
def merge_cells(cells: FloatArray, fewest: int, most: int) -> int:
    """Merge `cells` (n, 3), rows of column, row and flux, in place; the first so many rows that it returns remain.

    Of all pairs that may merge, the one whose merging adds least to the sum of flux times squared distance from
    the centroid is taken (Ward, J. Am. Stat. Assoc. 58, 1963), until none is left. A pair may merge if it
    touches and adds at most `SPREAD_CELLS2` times the brightest cell, or while more than `most` remain; never
    below `fewest`.
    """
    number: int = cells.shape[0]
    allowed = SPREAD_CELLS2 * cells[:, 2].max() if number else 0.0
    while number > max(fewest, 1):
        least, first, second = np.inf, -1, -1
        for a in range(number):
            for b in range(a):
                dx, dy = cells[a, 0] - cells[b, 0], cells[a, 1] - cells[b, 1]
                apart = dx * dx + dy * dy
                added = cells[a, 2] * cells[b, 2] / (cells[a, 2] + cells[b, 2]) * apart
                if added < least and (number > most or (added <= allowed and apart <= TOUCHING_CELLS2)):
                    least, first, second = added, b, a
        if first < 0:
            break
        flux = cells[first, 2] + cells[second, 2]
        for axis in range(2):
            cells[first, axis] += cells[second, 2] / flux * (cells[second, axis] - cells[first, axis])
        cells[first, 2] = flux
        number -= 1
        cells[second] = cells[number]
    return number


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
        """Coordinate in px of the centre of a cell, along one axis; between centres, of a fraction of a cell."""
        return (np.asarray(cell, dtype=np.float64) + 0.5) / self.ratio - 0.5

    def coordinate_of(self, position: ArrayLike) -> FloatArray:
        """Position on the map, in cells and fractions, of a coordinate in px, along one axis: undoes `position_of`."""
        return (np.asarray(position, dtype=np.float64) + 0.5) * self.ratio - 0.5

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
        self._check_map(cells)
        row, column = np.nonzero(cells >= threshold)
        value = cells[row, column]
        return Targets(x=self.position_of(column), y=self.position_of(row), intensity=value, score=value)

    def centroids(
        self, cells: FloatArray, threshold: float = READ_OUT_THRESHOLD, fewest: int = 1, most: int | None = None
    ) -> Targets:
        """One detection a group of cells that one target explains, brightest first; the score is its intensity.

        Cells of at least `threshold` counts (and above 0) are merged as in `merge_cells`; the position is the
        centroid, weighted by flux, the intensity the sum. Of more than `MOST_CELLS` the brightest are used.

        Args:
            cells: map (cH, cW) in counts.
            threshold: in counts.
            fewest: groups below which nothing is merged further.
            most: groups above which cells are merged however far apart they are; None for no limit.

        Raises:
            InputError: if the map has another shape.
        """
        self._check_map(cells)
        row, column = np.nonzero((cells >= threshold) & (cells > 0.0))
        value = cells[row, column]
        brightest = np.argsort(-value, kind="stable")[:MOST_CELLS]
        groups = np.stack([column, row, value], axis=1).astype(np.float64)[brightest]
        groups = groups[: merge_cells(groups, fewest, len(groups) if most is None else most)]
        x, y, flux = groups[np.argsort(-groups[:, 2], kind="stable")].T
        return Targets(x=self.position_of(x), y=self.position_of(y), intensity=flux, score=flux)

    def _check_map(self, cells: FloatArray) -> None:
        if cells.shape != self.map_shape:
            raise InputError(f"a map of shape {self.map_shape} is needed for {self}, got {cells.shape}")

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


def encode_arrays(grid: SubPixelGrid, targets: FloatArray) -> NDArray[np.float32]:
    """Maps (N, cH, cW) of scenes given as padded arrays (N, K, 3) of x, y, intensity; NaN is padding.

    Two targets in one cell add up.
    """
    rows, columns = grid.map_shape
    present = ~np.isnan(targets[:, :, 0])
    scene = np.nonzero(present)[0]
    x, y, intensity = targets[present].T
    flat = (scene * rows + grid.cell_of(y)) * columns + grid.cell_of(x)
    maps = np.bincount(flat, weights=intensity, minlength=len(targets) * rows * columns)
    return maps.reshape(len(targets), rows, columns).astype(np.float32)
