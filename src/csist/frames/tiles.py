"""Frames too large to be unmixed at once, in overlapping tiles.

Each tile is unmixed with a margin around it. A blob belongs to the tile that holds its brightest target, which both
neighbours see alike because the margin is wider than a blob and the background's boxes; so nothing is lost at a seam
and nothing is reported twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csist.targets import Targets

if TYPE_CHECKING:
    from csist.frames.blobs import FrameGroup

FloatArray = NDArray[np.float64]

LARGEST_PIXELS = 4096**2
"""Frames with more pixels go in tiles: the steps of a frame need some twenty times its size."""
TILE_PX = 2048
MARGIN_PX = 128
"""Side of the coarsest background box: local statistics at a tile's edge then differ little from its neighbour's."""


@dataclass(frozen=True)
class Tile:
    """A part of a frame with its margin.

    Args:
        part: rows and columns of the tile and its margin.
        top: first row of the tile itself, in the frame.
        left: first column of it.
        bottom: one past its last row.
        right: one past its last column.
    """

    part: tuple[slice, slice]
    top: float
    left: float
    bottom: float
    right: float

    def owns(self, x: float, y: float) -> bool:
        """Whether a place of the frame belongs to this tile and no other."""
        return self.left - 0.5 <= x < self.right - 0.5 and self.top - 0.5 <= y < self.bottom - 0.5


def tiles(shape: tuple[int, int], side: int = TILE_PX, margin: int = MARGIN_PX) -> Iterator[Tile]:
    """Tiles of about `side` px that cover a frame; places beyond its edges belong to the outer ones.

    >>> [(tile.part[1].start, tile.part[1].stop) for tile in tiles((100, 500), 250, 30)]
    [(0, 280), (220, 500)]
    """
    edges = [np.linspace(0, n, max(1, round(n / side)) + 1).round().astype(int) for n in shape]
    rows, columns = (list(zip(edge[:-1].tolist(), edge[1:].tolist(), strict=True)) for edge in edges)
    for top, bottom in rows:
        for left, right in columns:
            part = (
                slice(max(top - margin, 0), min(bottom + margin, shape[0])),
                slice(max(left - margin, 0), min(right + margin, shape[1])),
            )
            yield Tile(
                part,
                top if top > 0 else -np.inf,
                left if left > 0 else -np.inf,
                bottom if bottom < shape[0] else np.inf,
                right if right < shape[1] else np.inf,
            )


def unmix_tiles(
    frame: FloatArray,
    unmix: Callable[[FloatArray], tuple[Targets, list[FrameGroup]]],
    side: int = TILE_PX,
    margin: int = MARGIN_PX,
) -> tuple[Targets, list[FrameGroup]]:
    """Targets and groups of a frame (H, W), the most significant group first.

    Args:
        frame: in counts; tiles without a valid pixel are left out.
        unmix: gives targets and groups of a part of the frame, in its own coordinates.
        side: of a tile in px.
        margin: around it in px.
    """
    found: list[tuple[Targets, FrameGroup]] = []
    for tile in tiles((frame.shape[0], frame.shape[1]), side, margin):
        part = frame[tile.part]
        if np.isnan(part).all():
            continue
        row, column = tile.part[0].start, tile.part[1].start
        targets, groups = unmix(part)
        targets = targets.shifted(column, row)
        for group in groups:
            own = targets[targets.group == group.number]
            if len(own):
                brightest = int(np.argmax(own.intensity))
                x, y = float(own.x[brightest]), float(own.y[brightest])
            else:
                x, y = column + group.column + 0.5 * group.shape[1], row + group.row + 0.5 * group.shape[0]
            if tile.owns(x, y):
                samples = tuple(each + np.array([column, row, 0.0]) for each in group.samples)
                moved = replace(group, column=group.column + column, row=group.row + row, samples=samples)
                found.append((own, moved))
    found.sort(key=lambda each: -each[1].significance)
    return (
        Targets.concatenate(own.replace(group=np.full(len(own), number)) for number, (own, _) in enumerate(found)),
        [replace(group, number=number) for number, (_, group) in enumerate(found)],
    )
