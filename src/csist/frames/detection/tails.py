"""Significance of a filter's responses by the tail of those around them, compiled: the inner loops of detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled, lean
from csist._types import BoolArray, FloatArray
from csist.frames.kernels import quantile_of_sorted


class Tail(NamedTuple):
    """How the tail of a filter's responses is mapped onto Gaussian standard deviations.

    Args:
        z_low: value of a standard normal variable at the lower quantile of the tail.
        z_high: the same at the upper quantile.
        floor: smallest standard deviation of the response.
        least_exponent: lower bound of the tail's exponent.
    """

    z_low: float
    z_high: float
    floor: float
    least_exponent: float


class LocalTail(NamedTuple):
    """Responses of a filter and the tail of those around each.

    Args:
        values: (H, W) responses.
        meshes: (3, r, c) their median, lower and upper quantile at nodes spread evenly over the frame.
        tail: how both become standard deviations.
    """

    values: NDArray[np.floating]
    meshes: FloatArray
    tail: Tail


@lean
def _tail_z(excess: float, low: float, high: float, tail: Tail) -> float:
    """Significance of a response above its median, by two upper quantiles above the same median."""
    if excess <= 0.0:
        return 0.0
    low, high = max(low, tail.floor * tail.z_low), max(high, tail.floor * tail.z_high)
    # Below the tail any continuous function serves.
    if excess <= low:
        return tail.z_low * excess / low
    if excess <= high:
        return tail.z_low + (tail.z_high - tail.z_low) * (excess - low) / (high - low)
    exponent = np.log(tail.z_high / tail.z_low) / np.log(max(high / low, 1.001))
    return float(tail.z_high * (excess / high) ** min(max(exponent, tail.least_exponent), 1.0))


@compiled
def ring_values(
    response: NDArray[np.floating], beside: BoolArray, places: NDArray[np.int64], ring: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Values in a ring around each position, (n, m) padded with infinity, and how many each ring has, (n,).

    Args:
        response: (H, W).
        beside: (H, W) pixels that a ring may hold.
        places: (n, 2) rows and columns.
        ring: (m, 2) offsets along rows and columns.
    """
    height, width = response.shape
    values = np.full((places.shape[0], ring.shape[0]), np.inf, np.float32)
    counts = np.zeros(places.shape[0], np.int64)
    for n in range(places.shape[0]):
        for m in range(ring.shape[0]):
            i, j = places[n, 0] + ring[m, 0], places[n, 1] + ring[m, 1]
            if 0 <= i < height and 0 <= j < width and beside[i, j]:
                values[n, counts[n]] = response[i, j]
                counts[n] += 1
    return values, counts


@compiled
def box_values(
    response: NDArray[np.floating],
    beside: BoolArray,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    reach: tuple[int, int],
    step: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As `ring_values`, for boxes around each pair of a row and a column, in row order, sampled every `step` px.

    Args:
        response: (H, W).
        beside: (H, W) pixels that a box may hold.
        rows: (r,) of the middles.
        columns: (c,) likewise.
        reach: pixels that a box goes on from its middle, along rows and columns.
        step: in px.
    """
    height, width = response.shape
    side_i, side_j = (min(2 * reach[0] + 1, height) - 1) // step + 1, (min(2 * reach[1] + 1, width) - 1) // step + 1
    values = np.full((rows.shape[0] * columns.shape[0], side_i * side_j), np.inf, np.float32)
    counts = np.zeros(values.shape[0], np.int64)
    for a in range(rows.shape[0]):
        for b in range(columns.shape[0]):
            n, m = a * columns.shape[0] + b, 0
            for i in range(max(rows[a] - reach[0], 0), min(rows[a] + reach[0] + 1, height), step):
                for j in range(max(columns[b] - reach[1], 0), min(columns[b] + reach[1] + 1, width), step):
                    if beside[i, j]:
                        values[n, m] = response[i, j]
                        m += 1
            counts[n] = m
    return values, counts


@compiled
def quantiles_of_sorted(
    rows: NDArray[np.float32], counts: NDArray[np.int64], shares: tuple[float, ...], fewest: int
) -> FloatArray:
    """Quantiles (shares, n) of the first `counts` values of each sorted row (n, m), NaN where they are too few."""
    result = np.full((len(shares), rows.shape[0]), np.nan)
    for n in range(rows.shape[0]):
        if counts[n] >= fewest:
            for k in range(len(shares)):
                result[k, n] = quantile_of_sorted(rows[n], 0, counts[n], shares[k])
    return result


@compiled
def tail_of(excess: FloatArray, low: FloatArray, high: FloatArray, tail: Tail) -> FloatArray:
    """Significance (n,) of responses above their median, by two upper quantiles above the same median, all (n,)."""
    result = np.empty(excess.shape[0])
    for n in range(excess.shape[0]):
        result[n] = _tail_z(excess[n], low[n], high[n], tail)
    return result


@lean
def _between_nodes(place: int, length: int, nodes: int) -> tuple[int, float]:
    """The node before a pixel, of nodes spread evenly over an axis, and the share of the way to the next one."""
    at = place * (nodes - 1) / (length - 1)
    before = min(int(at), nodes - 2)
    return before, at - before


@lean
def _tail_at(response: NDArray[np.floating], meshes: FloatArray, i: int, j: int, tail: Tail) -> float:
    """Significance of the response at a pixel by the tail around it; see `tail_map`."""
    above, down = _between_nodes(i, response.shape[0], meshes.shape[1])
    left, right = _between_nodes(j, response.shape[1], meshes.shape[2])
    middle = _interpolated(meshes[0], above, down, left, right)
    low = _interpolated(meshes[1], above, down, left, right) - middle
    high = _interpolated(meshes[2], above, down, left, right) - middle
    return _tail_z(response[i, j] - middle, low, high, tail)


@lean
def _interpolated(mesh: FloatArray, above: int, down: float, left: int, right: float) -> float:
    """Value of a mesh between four nodes."""
    first = mesh[above, left] + right * (mesh[above, left + 1] - mesh[above, left])
    second = mesh[above + 1, left] + right * (mesh[above + 1, left + 1] - mesh[above + 1, left])
    return float(first + down * (second - first))


@compiled
def tail_map(response: NDArray[np.floating], meshes: FloatArray, tail: Tail) -> FloatArray:
    """Significance (H, W) of a filter's responses, see `csist.frames.detection.contrast.tail_significance`.

    Args:
        response: (H, W).
        meshes: (3, rows, columns) median, lower and upper quantile at nodes spread evenly over the frame.
        tail: the mapping.
    """
    result = np.empty(response.shape)
    for i in range(response.shape[0]):
        for j in range(response.shape[1]):
            result[i, j] = _tail_at(response, meshes, i, j, tail)
    return result


@compiled
def tail_values(
    response: NDArray[np.floating], meshes: FloatArray, tail: Tail, places: NDArray[np.int64]
) -> FloatArray:
    """The values (n,) of `tail_map` at some rows and columns (n, 2)."""
    result = np.empty(places.shape[0])
    for n in range(places.shape[0]):
        result[n] = _tail_at(response, meshes, places[n, 0], places[n, 1], tail)
    return result


@compiled
def outdone_by_ring(
    local: LocalTail,
    beside: BoolArray,
    places: NDArray[np.int64],
    ring: NDArray[np.int64],
    share: float,
    threshold: float,
) -> BoolArray:
    """Whether the ring around each position (n,) certainly keeps it below a threshold, found without sorting the ring.

    Rings that leave the frame are not looked at.

    The significance is the geometric mean of that by the ring and that by `tail_map`. Above the upper quantile the
    former grows at most in proportion to the response, so that the quantile must be low for it to reach what is needed:
    fewer of the ring's values than its share may lie between that and the response.

    Args:
        local: the responses.
        beside: (H, W) pixels that a ring may hold.
        places: (n, 2) rows and columns.
        ring: (m, 2) offsets along rows and columns.
        share: of the upper quantile.
        threshold: > 0.
    """
    response, meshes, tail = local.values, local.meshes, local.tail
    height, width = response.shape
    result = np.zeros(places.shape[0], np.bool_)
    pixels, counted, reach = response.ravel(), beside.ravel(), 0
    steps = np.empty(ring.shape[0], np.int64)
    for m in range(ring.shape[0]):
        steps[m] = ring[m, 0] * width + ring[m, 1]
        reach = max(reach, abs(ring[m, 0]), abs(ring[m, 1]))
    for n in range(places.shape[0]):
        row, column = places[n, 0], places[n, 1]
        if min(row, column) < reach or row + reach >= height or column + reach >= width:
            continue
        needed = 0.999 * threshold * threshold / max(_tail_at(response, meshes, row, column, tail), 1e-9)
        if needed <= tail.z_high:
            continue
        top = response[row, column]
        for i in range(row - 1, row + 2):
            for j in range(column - 1, column + 2):
                top = max(top, response[i, j])
        # A value that is most likely above the ring's median; whether it is, is counted.
        above, down = _between_nodes(row, height, meshes.shape[1])
        left, right = _between_nodes(column, width, meshes.shape[2])
        middle = _interpolated(meshes[0], above, down, left, right)
        middle += 0.5 * (_interpolated(meshes[1], above, down, left, right) - middle)
        highest = middle + (top - middle) * tail.z_high / needed
        number, over_middle, over_highest, here = 0, 0, 0, row * width + column
        for m in range(steps.shape[0]):
            one = int(counted[here + steps[m]])
            number += one
            over_middle += one * int(pixels[here + steps[m]] > middle)
            over_highest += one * int(pixels[here + steps[m]] > highest)
        last = number - 1
        result[n] = over_middle <= last - int(np.ceil(0.5 * last)) and over_highest > last - int(share * last)
    return result


@compiled
def mark_tail(response: NDArray[np.floating], meshes: FloatArray, tail: Tail, least: float, marks: BoolArray) -> None:
    """Set the marks (H, W) of the pixels where `tail_map` may reach `least`, and of their neighbours.

    Above the upper quantile the significance grows at most in proportion to the response, which gives a bound that is
    linear between the nodes.
    """
    height, width = response.shape
    rows, columns = meshes.shape[1], meshes.shape[2]
    factor = least / tail.z_high
    if factor < 1.0:
        marks[:] = True
        return
    bounds = meshes[0] + factor * (meshes[2] - meshes[0])
    line = np.empty(columns)
    for i in range(height):
        above, down = _between_nodes(i, height, rows)
        for m in range(columns):
            line[m] = bounds[above, m] + down * (bounds[above + 1, m] - bounds[above, m])
        values, first = response[i], 0
        for m in range(columns - 1):
            # Pixels up to the next node, the last one included at the end of the line.
            last = width if m == columns - 2 else min(int(np.ceil((m + 1) * (width - 1) / (columns - 1))), width)
            slope = (line[m + 1] - line[m]) * (columns - 1) / (width - 1)
            start = line[m] - slope * m * (width - 1) / (columns - 1)
            some = False
            for j in range(first, last):
                some |= values[j] >= start + slope * j
            for j in range(first if some else last, last):
                if values[j] >= start + slope * j:
                    for k in range(max(i - 1, 0), min(i + 2, height)):
                        for n in range(max(j - 1, 0), min(j + 2, width)):
                            marks[k, n] = True
            first = last


@compiled
def raise_to_tail(
    response: NDArray[np.floating], meshes: FloatArray, tail: Tail, marks: BoolArray, best: NDArray[np.float32]
) -> None:
    """Raise `best` (H, W) at the marked pixels (H, W) to the value of `tail_map`."""
    height, width = response.shape
    lines = np.empty((3, meshes.shape[2]))
    for i in range(height):
        above, down = _between_nodes(i, height, meshes.shape[1])
        for k in range(3):
            for m in range(meshes.shape[2]):
                lines[k, m] = meshes[k, above, m] + down * (meshes[k, above + 1, m] - meshes[k, above, m])
        for j in range(width):
            if marks[i, j]:
                left, right = _between_nodes(j, width, meshes.shape[2])
                middle = lines[0, left] + right * (lines[0, left + 1] - lines[0, left])
                low = lines[1, left] + right * (lines[1, left + 1] - lines[1, left])
                high = lines[2, left] + right * (lines[2, left + 1] - lines[2, left])
                best[i, j] = max(best[i, j], _tail_z(response[i, j] - middle, low - middle, high - middle, tail))
