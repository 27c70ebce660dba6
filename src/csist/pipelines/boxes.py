"""Maps as pictures with a box around each target, as a detector of objects wants them, and the way back.

A cell of the map is a square of 8 x 8 picture pixels, the finest stride of the YOLO family, and lies on its grid: one
cell is one place where the detector can find something. The map lies in a square picture whose side is a multiple of
the coarsest stride: the detector then resamples nothing, and boxes of targets at the border are whole.

To learn from, windows of the maps around the groups do as well, since the detector is convolutional, and cost a sixth.
They are drawn in all places that a group can have on the coarser strides.

In a picture, (u, v) counts in pixels from the upper left corner of the upper left pixel, as boxes do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import atomic_path
from csist.grid import SubPixelGrid
from csist.targets import Targets

Picture = NDArray[np.uint8]
Labelled = tuple[FloatArray, Sequence[Targets]]
"""Maps (N, cH, cW) in counts and the true targets of each."""

CELL_PX = 8
"""Side of a cell in picture pixels: the finest stride."""

STRIDE_PX = 32
"""The coarsest stride."""

BOX_CELLS = 3
"""Side of a box in cells: it holds most of a target's flux, and the boxes of two targets at the benchmark's smallest
distance overlap by a third of their union at ratio 3, which suppression of doubles lets pass."""

WHITE_COUNTS = 500.0
"""Value that is drawn white: two of the benchmark's brightest targets in one cell."""

MARGIN_PX = 2 * CELL_PX
"""Least distance of a map from the side of its picture: half a box, on the grid of the finest stride."""

PHASES = STRIDE_PX // CELL_PX
"""Places of a cell on the coarsest stride, in each direction."""

WINDOW_PX = 3
"""Side of a window in px of the image: the pixel that holds a group, and one on each side for what a map leaves
beside it."""

CLASS_NAME = "target"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Canvas:
    """Picture of a map.

    Args:
        grid: grid of the map.
        phase: cells (columns, rows) by which the map is moved to the right and down, each below `PHASES`.
    """

    grid: SubPixelGrid
    phase: tuple[int, int] = (0, 0)

    @property
    def side(self) -> int:
        """Rows and columns of a picture, whatever its phase."""
        needed = 2 * MARGIN_PX + CELL_PX * (max(self.grid.map_shape) + PHASES - 1)
        return -(-needed // STRIDE_PX) * STRIDE_PX

    @property
    def corner(self) -> tuple[int, int]:
        """(u, v) of the map's upper left corner."""
        return MARGIN_PX + CELL_PX * self.phase[0], MARGIN_PX + CELL_PX * self.phase[1]

    def draw(self, cells: FloatArray) -> Picture:
        """Picture (side, side) of a map (cH, cW) in counts: 0 and below black, `WHITE_COUNTS` and above white.

        Raises:
            InputError: if the map has another shape.
        """
        rows, columns = self.grid.map_shape
        if cells.shape != (rows, columns):
            raise InputError(f"a map of shape {self.grid.map_shape} is needed for {self.grid}, got {cells.shape}")
        level = np.rint(np.clip(cells / WHITE_COUNTS, 0.0, 1.0) * 255.0).astype(np.uint8)
        u, v = self.corner
        picture = np.zeros((self.side, self.side), dtype=np.uint8)
        enlarged = level.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)
        picture[v : v + CELL_PX * rows, u : u + CELL_PX * columns] = enlarged
        return picture

    def boxes(self, targets: Targets) -> FloatArray:
        """Boxes (n, 4) around targets: centre u, centre v, width, height, as shares of the picture's side."""
        position = np.stack([targets.x, targets.y], axis=1)
        centre = np.asarray(self.corner) + CELL_PX * (self.grid.coordinate_of(position) + 0.5)
        size = np.full_like(centre, BOX_CELLS * CELL_PX)
        return np.concatenate([centre, size], axis=1) / self.side

    def targets(self, centre: FloatArray, confidence: FloatArray, cells: FloatArray) -> Targets:
        """Targets from the boxes that a detector found.

        A centre beside the map is moved to its edge. The intensity of a target is the sum of the cells that are
        nearer to it than to any other and within the reach of its box; cells below 0 count as 0.

        Args:
            centre: (n, 2), u and v of each box in picture pixels.
            confidence: (n,), becomes the score.
            cells: the map (cH, cW) in counts.
        """
        rows, columns = self.grid.map_shape
        place = (centre - np.asarray(self.corner)) / CELL_PX - 0.5
        place = np.clip(place, -0.5, np.array([columns, rows]) - 0.5)
        x, y = self.grid.position_of(place).T
        return Targets(x=x, y=y, intensity=_flux(place, cells), score=confidence)


def _flux(place: FloatArray, cells: FloatArray) -> FloatArray:
    """Sum of the cells (cH, cW) nearest to each place (n, 2), column and row, within half a box of it."""
    if not len(place):
        return np.zeros(0)
    row, column = np.nonzero(cells > 0.0)
    away = np.abs(np.stack([column, row], axis=1)[:, None] - place[None])
    nearest = np.square(away).sum(axis=2).argmin(axis=1)
    within = away[np.arange(len(row)), nearest].max(axis=1, initial=0.0) <= BOX_CELLS / 2
    return np.bincount(nearest[within], weights=cells[row, column][within], minlength=len(place)).astype(np.float64)


def label_text(boxes: FloatArray) -> str:
    r"""A label file: a line "class u v width height" a box; empty for none.

    >>> label_text(np.array([[0.5, 0.25, 0.125, 0.125]]))
    '0 0.50000000 0.25000000 0.12500000 0.12500000\n'
    """
    return "".join("0 " + " ".join(f"{value:.8f}" for value in box) + "\n" for box in boxes)


def windows_around(grid: SubPixelGrid, labelled: Labelled, side_px: int) -> Labelled:
    """Windows of maps around the groups, and the targets as they lie in them.

    A window has whole pixels and reaches over no border of the image. Without a target it is around the brightest cell.

    Args:
        grid: grid of the maps.
        labelled: maps and targets.
        side_px: side in px of the image.

    Raises:
        InputError: if a window does not fit into the image, or does not hold a group.
    """
    rows, columns = grid.shape
    if not 1 <= side_px <= min(rows, columns):
        raise InputError(f"window_px must be between 1 and {min(rows, columns)}, the image's side, got {side_px}")
    cut, side = [], grid.ratio * side_px
    moved: list[Targets] = []
    for number, (cells, truth) in enumerate(zip(*labelled, strict=True)):
        if len(truth):
            places = np.stack([truth.y, truth.x])
            row, column = np.rint((places.min(axis=1) + places.max(axis=1)) / 2.0).astype(int)
        else:
            row, column = np.array(np.unravel_index(cells.argmax(), cells.shape)) // grid.ratio
        top = int(np.clip(row - side_px // 2, 0, rows - side_px))
        left = int(np.clip(column - side_px // 2, 0, columns - side_px))
        window = cells[grid.ratio * top :, grid.ratio * left :][:side, :side]
        inside = truth.shifted(-left, -top)
        if len(inside) and max(
            np.abs(inside.x - (side_px - 1) / 2).max(), np.abs(inside.y - (side_px - 1) / 2).max()
        ) > (side_px / 2):
            raise InputError(f"windows of {side_px} px do not hold the group of map {number}: give a larger window_px")
        cut.append(window)
        moved.append(inside)
    return np.array(cut).reshape(-1, side, side), moved


def write_detection_set(
    folder: str | Path, grid: SubPixelGrid, parts: Mapping[str, Labelled], seed: int | None = None
) -> Path:
    """Write maps and truth as a data set for a detector; returns the path of its description, data.yaml.

    Beside data.yaml there are images/SPLIT/NUMBER.png and labels/SPLIT/NUMBER.txt; the folder can be moved.

    Args:
        folder: to be made.
        grid: grid of the maps.
        parts: maps and targets of "train" and of "val".
        seed: where given, maps are drawn in random phases, see `Canvas`.

    Raises:
        InputError: if a part is missing or empty, maps and targets differ in number, or the folder exists.
    """
    from PIL import Image

    folder = Path(folder)
    for split in SPLITS:
        if split not in parts or not len(parts[split][0]):
            raise InputError(f"a detection set needs maps for train and val, got none for {split}")
        maps, truths = parts[split]
        if len(maps) != len(truths):
            raise InputError(f"there must be one Targets per map, got {len(truths)} for {len(maps)} maps of {split}")
    rng = None if seed is None else np.random.default_rng(seed)
    with atomic_path(folder, folder=True) as partial:
        for split in SPLITS:
            images, labels = partial / "images" / split, partial / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for number, (cells, truth) in enumerate(zip(*parts[split], strict=True)):
                u, v = (0, 0) if rng is None else rng.integers(PHASES, size=2).tolist()
                canvas = Canvas(grid, (u, v))
                Image.fromarray(canvas.draw(cells)).save(images / f"{number:06d}.png")
                (labels / f"{number:06d}.txt").write_text(label_text(canvas.boxes(truth)), encoding="utf-8")
        lines = [f"{split}: images/{split}" for split in SPLITS]
        description = "\n".join([*lines, "names:", f"  0: {CLASS_NAME}"]) + "\n"
        (partial / "data.yaml").write_text(description, encoding="utf-8")
    return folder / "data.yaml"
