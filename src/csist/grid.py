"""Sub-pixel grid: the only module that converts between pixel positions and grid cells.

Each pixel is divided into ratio x ratio cells. A coordinate x lies in cell i = floor(ratio * (x + 1/2)), whose centre
is (i + 1/2) / ratio - 1/2. For odd ratios this equals the published rule round(c x + (c - 1) // 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist._compiled import compiled_exactly
from csist._types import FloatArray
from csist.checks import InputError, check_not_negative, check_ratio, check_shape
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

READ_OUT_THRESHOLD = 50.0
"""Intensity in counts below which the published read-out drops a cell, for targets of at least 220 counts."""

SPREAD_CELLS2 = 0.4
"""Largest spread of two groups of cells that are merged into one target.

The spread is the sum of flux times squared distance from the common centroid, in cells^2, with the flux in units of the
brightest cell. Two halves of one target in neighbouring cells have 1/4, two whole targets 1/2."""

TOUCHING_CELLS2 = 2.0
"""Squared distance in cells^2 between the centres of two cells that touch at a corner."""

MOST_CELLS = 512
"""Number of cells of a map, brightest first, that are merged: bounds the run time on maps of pure noise."""


@compiled_exactly
def merge_cells(cells: FloatArray, fewest: int, most: int) -> int:
    """Merge groups of cells in place and return their number.

    Each step merges the pair that adds least to the sum of flux times squared distance from the centroid (Ward,
    J. Am. Stat. Assoc. 58, 1963). A pair may merge if its cells touch and it adds at most `SPREAD_CELLS2` times the
    flux of the brightest cell, or while more than `most` groups remain. Merging stops at `fewest` groups.

    Args:
        cells: (n, 3) with columns column, row and flux; on return the first rows hold the merged groups.
        fewest: number of groups at which merging stops.
        most: number of groups above which cells are merged at any distance.
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
    """Grid of `ratio` x `ratio` cells per pixel over an image of `shape` (rows, columns).

    Args:
        shape: rows and columns of the image.
        ratio: cells per pixel along each axis.
        threshold: intensity in counts below which a read-out drops a cell; `csist.scenes.suited` chooses it by a prior.

    Raises:
        InputError: if ratio, shape or threshold is out of range.

    >>> grid = SubPixelGrid((11, 11), 3)
    >>> grid.cell_of(5.4).item(), round(grid.position_of(17).item(), 4)
    (17, 5.3333)
    """

    shape: tuple[int, int]
    ratio: int
    threshold: float = READ_OUT_THRESHOLD

    def __post_init__(self) -> None:
        check_not_negative("threshold", self.threshold)
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "ratio", check_ratio(self.ratio))

    @property
    def map_shape(self) -> tuple[int, int]:
        """Shape (rows, columns) of the map."""
        return self.shape[0] * self.ratio, self.shape[1] * self.ratio

    def cell_of(self, position: ArrayLike) -> NDArray[np.int64]:
        """Return the cell index of a coordinate in px along one axis."""
        return np.floor(self.ratio * (np.asarray(position, dtype=np.float64) + 0.5)).astype(np.int64)

    def position_of(self, cell: ArrayLike) -> FloatArray:
        """Return the coordinate in px of the centre of a cell along one axis; the cell index may be fractional."""
        return (np.asarray(cell, dtype=np.float64) + 0.5) / self.ratio - 0.5

    def coordinate_of(self, position: ArrayLike) -> FloatArray:
        """Return the fractional cell index of a coordinate in px along one axis, the inverse of `position_of`."""
        return (np.asarray(position, dtype=np.float64) + 0.5) * self.ratio - 0.5

    def encode(self, targets: Targets) -> FloatArray:
        """Return the intensity map [row, column] of the targets, shape `map_shape`; targets in one cell add up.

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

    def decode(self, cells: FloatArray, threshold: float | None = None) -> Targets:
        """Return one detection per cell of at least `threshold` counts, in row-major order, scored by its value.

        Args:
            cells: map (cH, cW) in counts.
            threshold: smallest value of a cell in counts; None for that of the grid.

        Raises:
            InputError: if the map has another shape.
        """
        self._check_map(cells)
        row, column = np.nonzero(cells >= (self.threshold if threshold is None else threshold))
        value = cells[row, column]
        return Targets(x=self.position_of(column), y=self.position_of(row), intensity=value, score=value)

    def centroids(
        self, cells: FloatArray, threshold: float | None = None, fewest: int = 1, most: int | None = None
    ) -> Targets:
        """Return one detection per group of cells explained by one target, brightest first, scored by its intensity.

        Cells of at least `threshold` counts (and above 0) are merged by `merge_cells`. The position of a group is its
        flux-weighted centroid, the intensity its sum. Only the brightest `MOST_CELLS` cells are used.

        Args:
            cells: map (cH, cW) in counts.
            threshold: smallest value of a cell in counts; None for that of the grid.
            fewest: number of groups at which merging stops.
            most: number of groups above which cells are merged at any distance; None for no limit.

        Raises:
            InputError: if the map has another shape.
        """
        self._check_map(cells)
        row, column = np.nonzero((cells >= (self.threshold if threshold is None else threshold)) & (cells > 0.0))
        value = cells[row, column]
        brightest = np.argsort(-value, kind="stable")[:MOST_CELLS]
        groups = np.stack([column, row, value], axis=1).astype(np.float64)[brightest]
        groups = groups[: merge_cells(groups, fewest, len(groups) if most is None else most)]
        x, y, flux = groups[np.argsort(-groups[:, 2], kind="stable")].T
        return Targets(x=self.position_of(x), y=self.position_of(y), intensity=flux, score=flux)

    def _check_map(self, cells: FloatArray) -> None:
        if cells.shape != self.map_shape:
            raise InputError(f"the map must have shape {self.map_shape} for {self}, got {cells.shape}")

    def snap(self, targets: Targets) -> Targets:
        """Move the targets to the centres of their cells, as an ideal grid read-out would report them."""
        return targets.replace(x=self.position_of(self.cell_of(targets.x)), y=self.position_of(self.cell_of(targets.y)))

    def steering_factors(self, psf: PSF) -> tuple[FloatArray, FloatArray]:
        """Return A (H, cH) and B (W, cW) with image = A @ map @ B.T for a separable PSF.

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
        """Return the dense matrix G (H W, cH cW) with image.ravel() = G @ map.ravel(), row-major on both sides."""
        if isinstance(psf, GaussianPSF):
            return np.asarray(np.kron(*self.steering_factors(psf)), dtype=np.float64)
        rows, columns = self.map_shape
        y, x = np.meshgrid(self.position_of(np.arange(rows)), self.position_of(np.arange(columns)), indexing="ij")
        responses = Sensor(psf=psf, shape=self.shape).responses(x.ravel(), y.ravel())
        return np.ascontiguousarray(responses.reshape(rows * columns, -1).T)


def least_squares_start(images: FloatArray, maps: FloatArray) -> FloatArray:
    """Return Q (cells, pixels) with map ~ Q image, by least squares over training pairs: Q = S Z^T (Z Z^T)^-1.

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
        raise InputError(f"a least-squares start needs at least {z.shape[1]} pairs (one per pixel), got {len(z)}")
    return np.asarray(np.linalg.lstsq(z, s, rcond=None)[0].T)


def encode_arrays(grid: SubPixelGrid, targets: FloatArray) -> NDArray[np.float32]:
    """Return the maps (N, cH, cW) of scenes given as arrays (N, K, 3) of x, y, intensity, padded with NaN.

    Targets in one cell add up.
    """
    rows, columns = grid.map_shape
    present = ~np.isnan(targets[:, :, 0])
    scene = np.nonzero(present)[0]
    x, y, intensity = targets[present].T
    flat = (scene * rows + grid.cell_of(y)) * columns + grid.cell_of(x)
    maps = np.bincount(flat, weights=intensity, minlength=len(targets) * rows * columns)
    return maps.reshape(len(targets), rows, columns).astype(np.float32)
