"""Which positions of a frame belong together: linked within a distance, joined along ridges, cut into parts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray

VALLEY = 0.7
"""Two peaks are one extended source if the light between them stays above this share of the lower one."""


def ridges(positions: FloatArray, flattened: FloatArray, reach_px: float, depth: float = VALLEY) -> IntArray:
    """Pairs (m, 2) of peaks with no valley between them: an extended source, not two.

    Args:
        positions: (n, 2) x, y of the peaks in px.
        flattened: (H, W) background-subtracted counts, no NaN.
        reach_px: largest distance of a pair.
        depth: share of the lower peak below which the line between two peaks has to fall to be a valley.
    """
    if len(positions) < 2:
        return np.empty((0, 2), dtype=np.int64)
    pairs = KDTree(positions).query_pairs(reach_px, output_type="ndarray").astype(np.int64)
    along = np.linspace(0.0, 1.0, 2 * int(np.ceil(reach_px)) + 1)
    x, y = (v[pairs[:, :1]] + along * (v[pairs[:, 1:]] - v[pairs[:, :1]]) for v in positions.T)
    line = ndimage.map_coordinates(flattened, [y, x], order=1, mode="nearest")
    lower = np.minimum(line[:, 0], line[:, -1])
    return np.asarray(pairs[(line.min(axis=1, initial=np.inf) >= depth * lower) & (lower > 0.0)])


def link(positions: FloatArray, distance_px: float, more_pairs: IntArray | None = None) -> IntArray:
    """Label of the group, 0, 1, ..., of each position (n, 2): closer than `distance_px` is the same group.

    Args:
        positions: (n, 2) in px.
        distance_px: largest distance of a pair.
        more_pairs: (m, 2) indices of pairs that belong together whatever their distance.

    >>> link(np.array([[0.0, 0.0], [9.0, 0.0], [2.0, 0.0]]), 3.0).tolist()
    [0, 1, 0]
    """
    if len(positions) == 0:
        return np.empty(0, dtype=np.int64)
    pairs = KDTree(positions).query_pairs(distance_px, output_type="ndarray")
    if more_pairs is not None:
        pairs = np.concatenate([pairs, more_pairs])
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=2 * (len(positions),))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def split(positions: FloatArray, members: IntArray, most: int, extent_px: float) -> list[IntArray]:
    """Members of a group, cut in two across its longer side until no part is too large.

    Args:
        positions: (n, 2) of all peaks in px.
        members: (m,) indices of the group's peaks.
        most: largest number of peaks in a part.
        extent_px: largest distance of two peaks of a part along an axis.
    """
    place = positions[members]
    extent = np.ptp(place, axis=0)
    if len(members) < 2 or (len(members) <= most and extent.max() <= extent_px):
        return [members]
    axis = int(extent.argmax())
    order = np.argsort(place[:, axis], kind="stable")
    sorted_along = place[order, axis]
    # The widest gap in the middle half separates best; coincident peaks are cut in the middle.
    first, last = max(len(order) // 4, 1), max(-(-3 * len(order) // 4), 2)
    gaps = sorted_along[first:last] - sorted_along[first - 1 : last - 1]
    cut = first + int(gaps.argmax())
    return [part for half in (order[:cut], order[cut:]) for part in split(positions, members[half], most, extent_px)]
