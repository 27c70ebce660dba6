"""Pixels outside the footprint of a frame: a border, a wedge, any region filled with one value.

A fill is one value in a connected region that touches the frame's edge, and beside it the scene begins at once: as far
from the fill right at the rim as a few pixels further in. That tells it from a dark or clipped sky, which the light of
a source leaves gradually, and from single empty pixels of a photon counter, which have no inside.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

from csist._types import BoolArray, FloatArray

SHORTEST_RUN_PX = 8
"""Pixels in a row along the frame's edge that a fill has at least."""
MOST_VALUES = 4
"""Values that are tried, those with most pixels along the edge first."""
ABRUPTNESS = 0.5
"""Least ratio of the median difference to the fill at the rim and `RIM_DEPTH` pixels further in."""
RIM_DEPTH = 3
FEWEST_RIM_PIXELS = 10
LEAST_LEVELS = 3.0
"""Least difference at the rim of a whole-numbered frame in units of its usual difference of neighbours, at least 1."""
MOST_ERODED_PX = 4
RAMP_SIGMAS = 5.0
"""Difference of two rings' medians, in standard errors, from which the outer one is a ramp and left out, too."""


def outside_footprint(frame: FloatArray, nan: BoolArray, whole_numbered: bool) -> BoolArray | None:
    """Pixels (H, W) outside the footprint of a frame, with the ramp that resampling leaves along its rim; None if none.

    Args:
        frame: (H, W) in counts.
        nan: (H, W) pixels without a value.
        whole_numbered: whether all values are whole numbers, so that neighbours may be equal by chance.
    """
    outside = None
    for value in _edge_values(frame):
        labels, _ = ndimage.label(frame == value)
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        sizes = np.bincount(edge)
        sizes[0] = 0
        region = np.isin(labels, np.flatnonzero(sizes >= SHORTEST_RUN_PX))
        if not region.any():
            continue
        rings = _rings(region | nan | (False if outside is None else outside))
        if _is_fill(frame, value, rings, whole_numbered):
            for ring, next_ring in pairwise(rings[: MOST_ERODED_PX + 1]):
                if not _is_ramp(frame[ring], frame[next_ring]):
                    break
                region = region | ring
            outside = region if outside is None else outside | region
    return outside


def _edge_values(frame: FloatArray) -> list[float]:
    """Values that repeat along the frame's edge, the most frequent first."""
    values: list[float] = []
    for line in (frame[0], frame[-1], frame[:, 0], frame[:, -1]):
        starts = np.flatnonzero(np.concatenate([[True], line[1:] != line[:-1]]))
        lengths = np.diff(np.append(starts, len(line)))
        values += np.repeat(line[starts], lengths)[np.repeat(lengths >= SHORTEST_RUN_PX, lengths)].tolist()
    kinds, counts = np.unique(values, return_counts=True)
    return [float(value) for value in kinds[np.argsort(-counts, kind="stable")][:MOST_VALUES]]


def _rings(region: BoolArray) -> list[BoolArray]:
    """Rings (H, W) of pixels at a distance of 1, 2, ... from a region, beside it."""
    distance = ndimage.distance_transform_cdt(~region, "chessboard")
    return [distance == k for k in range(1, MOST_ERODED_PX + RIM_DEPTH)]


def _is_fill(frame: FloatArray, value: float, rings: list[BoolArray], whole_numbered: bool) -> bool:
    """Whether the scene begins abruptly beside a region of one value."""
    # The first ring may be a ramp half of whose light is missing.
    rim, inner = frame[rings[0]], frame[rings[RIM_DEPTH]]
    if inner.size < FEWEST_RIM_PIXELS or inner.size < 0.3 * rim.size:
        return False
    at_rim, inside = (float(np.median(np.abs(part - value))) for part in (rim, inner))
    if whole_numbered:
        steps = np.abs(np.diff(frame, axis=1))
        usual = float(np.median(steps[np.isfinite(steps) & (steps > 0.0)])) if (steps > 0.0).any() else 1.0
        if inside <= LEAST_LEVELS * max(usual, 1.0):
            return False
    return at_rim > ABRUPTNESS * inside


def _is_ramp(outer: FloatArray, inner: FloatArray) -> bool:
    """Whether the outer one of two rings has another level than the inner one."""
    if min(outer.size, inner.size) < FEWEST_RIM_PIXELS:
        return False
    levels = np.median(outer), np.median(inner)
    scatter = 1.4826 * float(np.median(np.abs(inner - levels[1])))
    return bool(
        abs(levels[0] - levels[1]) > RAMP_SIGMAS * 1.25 * scatter * (1.0 / outer.size + 1.0 / inner.size) ** 0.5
    )
