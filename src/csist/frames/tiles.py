"""Frames too large to be unmixed at once, in overlapping tiles.

Each tile is unmixed with a margin around it. A blob belongs to the tile that holds its brightest target, which both
neighbours see alike where the margin is wider than the blob and the background's boxes. A blob that goes on beyond a
margin may look like two to one of them: a target of it that the tile around it reports, too, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from csist._types import FloatArray
from csist.frames.groups import FrameGroup, sources_of
from csist.frames.masks.mask import PixelKind, PixelMask
from csist.frames.measured import FramePSF
from csist.frames.result import Detection, FrameModel, FrameResult, ModelPart, own_values
from csist.targets import Targets

LARGEST_PIXELS = 4096**2
"""Frames with more pixels are unmixed in tiles: unmixing needs some twenty times the memory of the frame."""
TILE_PX = 2048
SAME_PX = 0.5
"""Targets of two tiles that are closer than this are the same."""
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

    def own(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the tile itself in a frame of this shape."""
        return (
            slice(int(max(self.top, 0)), int(min(self.bottom, shape[0]))),
            slice(int(max(self.left, 0)), int(min(self.right, shape[1]))),
        )

    def owns(self, x: float, y: float) -> bool:
        """Whether a position in the frame belongs to this tile and no other."""
        return self.left - 0.5 <= x < self.right - 0.5 and self.top - 0.5 <= y < self.bottom - 0.5


def tiles(shape: tuple[int, int], side: int = TILE_PX, margin: int = MARGIN_PX) -> Iterator[Tile]:
    """Tiles of about `side` px that cover a frame; positions beyond its edges belong to the outer tiles.

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
    solve: Callable[[tuple[slice, slice]], FrameResult],
    side: int = TILE_PX,
    margin: int = MARGIN_PX,
) -> FrameResult:
    """Unmix a frame (H, W) tile by tile; of the background only the boxes are kept.

    Args:
        frame: in counts; tiles without a valid pixel are left out, but one has to have some.
        solve: unmixes the part of the frame in these rows and columns, in its own coordinates.
        side: of a tile in px.
        margin: around it in px.
    """
    shape = (frame.shape[0], frame.shape[1])
    kind = np.full(shape, PixelKind.NAN, dtype=np.uint8)
    found: list[OwnGroup] = []
    parts: list[ModelPart] = []
    psfs: list[FramePSF] = []
    detections: list[Detection] = []
    gains: list[float] = []
    for tile in tiles(shape, side, margin):
        if np.isnan(frame[tile.part]).all():
            continue
        result = solve(tile.part)
        found += _own_groups(tile, result)
        own_psf = result.frame_psf
        left, top = tile.part[1].start, tile.part[0].start
        psfs.append(own_psf if own_psf.guessed else replace(own_psf, psf=own_psf.psf.moved(-left, -top)))
        background = result.drawing.parts[0].background.compact()
        psf = result.psf.moved(-tile.part[1].start, -tile.part[0].start)
        part = ModelPart(tile.part, tile.own(shape), background, psf, Targets.empty())
        parts.append(part)
        kind[part.own] = own_values(part, result.pixels.kind)
        ceiling = result.ceiling
        detections.append(result.detection)
        gains += [] if result.gain is None else [result.gain]
    found = _once(found)
    own_groups = [[each for each in found if each.tile.part == part.region] for part in parts]
    parts = [
        replace(
            part,
            targets=Targets.concatenate(each.targets for each in own),
            sources=sources_of(each.group for each in own),
        )
        for part, own in zip(parts, own_groups, strict=True)
    ]
    found.sort(key=lambda each: -each.group.significance)
    return FrameResult(
        image=frame,
        targets=Targets.concatenate(
            own.targets.replace(group=np.full(len(own.targets), number)) for number, own in enumerate(found)
        ),
        groups=[replace(own.group, number=number) for number, own in enumerate(found)],
        pixels=PixelMask(kind, ceiling),
        frame_psf=_middle_psf(psfs),
        detection=max(detections, key=detections.count),
        drawing=FrameModel(shape, parts),
        gain=float(np.median(gains)) if gains else None,
    )


class OwnGroup(NamedTuple):
    """A group that belongs to a tile, in frame coordinates."""

    tile: Tile
    targets: Targets
    group: FrameGroup


def _once(found: list[OwnGroup]) -> list[OwnGroup]:
    """The groups of all tiles without the targets that the tile around them reports, too."""
    kept = []
    places = np.concatenate([np.empty((0, 2)), *(np.stack([own.targets.x, own.targets.y], axis=1) for own in found)])
    tree = KDTree(places)
    at_home = np.array(
        [own.tile.owns(x, y) for own in found for x, y in zip(own.targets.x, own.targets.y, strict=True)]
    )
    first = 0
    for own in found:
        near = tree.query_ball_point(places[first : first + len(own.targets)], SAME_PX)
        away = ~at_home[first : first + len(own.targets)].astype(bool)
        # At home elsewhere is at home in another tile: each place has one.
        twice = away & np.array([at_home[others].any() for others in near], dtype=bool)
        first += len(own.targets)
        if not twice.any():
            kept.append(own)
        elif not twice.all():
            kept.append(own._replace(targets=own.targets[~twice], group=own.group.without(int(twice.sum()))))
    return kept


def _own_groups(tile: Tile, result: FrameResult) -> list[OwnGroup]:
    """The groups that belong to a tile."""
    row, column = tile.part[0].start, tile.part[1].start
    targets = result.targets.shifted(column, row)
    found = []
    for group in result.groups:
        own = targets[targets.group == group.number]
        if len(own):
            brightest = int(np.argmax(own.intensity))
            x, y = float(own.x[brightest]), float(own.y[brightest])
        else:
            x, y = column + group.column + 0.5 * group.shape[1], row + group.row + 0.5 * group.shape[0]
        if tile.owns(x, y):
            samples = tuple(each + np.array([column, row, 0.0]) for each in group.samples)
            moved = replace(
                group,
                column=group.column + column,
                row=group.row + row,
                samples=samples,
                sources=tuple(source.shifted(column, row) for source in group.sources),
            )
            found.append(OwnGroup(tile, own, moved))
    return found


def _middle_psf(psfs: Sequence[FramePSF]) -> FramePSF:
    """The PSF that all tiles share; where it was guessed per tile, the one with the median width."""
    return sorted(psfs, key=lambda psf: psf.sigma_px)[len(psfs) // 2] if psfs[0].guessed else psfs[0]
