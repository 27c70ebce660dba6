"""Passes over all pixels of a frame, compiled: the inner loops of background and detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled
from csist._types import BoolArray, FloatArray


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


@compiled
def _quantile(values: NDArray[np.floating], first: int, last: int, share: float) -> float:
    """Quantile of values[first:last], sorted, with linear interpolation."""
    place = first + share * (last - 1 - first)
    low = int(np.floor(place))
    high = min(low + 1, last - 1)
    return float(values[low] + (place - low) * (values[high] - values[low]))


@compiled
def clip_sorted(rows: NDArray[np.floating], counts: NDArray[np.int64], sigmas: float, rounds: int) -> FloatArray:
    """Median, scatter and mean (n, 3) of each row after clipping at `sigmas` times the scatter.

    Sorted once, a clipped set is a range of places; its scatter is half the range between the 16 % and 84 %
    quantiles, which needs no second sort.

    Args:
        rows: (n, m), each sorted.
        counts: (n,) values of a row that count, at least 1; the others lie at its end.
        sigmas: reach of the values that stay.
        rounds: most rounds of clipping.
    """
    result = np.empty((rows.shape[0], 3))
    for k in range(rows.shape[0]):
        values = rows[k, : counts[k]]
        first, last = 0, values.shape[0]
        for _ in range(rounds):
            median = _quantile(values, first, last, 0.5)
            # The small term keeps a constant box from being clipped away by rounding errors.
            spread = _quantile(values, first, last, 0.8413) - _quantile(values, first, last, 0.1587)
            scatter = 0.5 * spread + 1e-12 * abs(median)
            lowest = int(np.searchsorted(values, median - sigmas * scatter))
            highest = int(np.searchsorted(values, median + sigmas * scatter, side="right"))
            result[k, 0], result[k, 1] = median, scatter
            if highest <= lowest or (lowest == first and highest == last):
                break
            first, last = lowest, highest
        total = 0.0
        for place in range(first, last):
            total += values[place]
        result[k, 2] = total / (last - first)
    return result


@compiled
def sum_of_products(padded: FloatArray, smooth: FloatArray, bend: FloatArray) -> FloatArray:
    """Correlation of an image with smooth(y) bend(x) + bend(y) smooth(x), without its margin of len(smooth) // 2."""
    taps = smooth.shape[0]
    height, width = padded.shape[0] - taps + 1, padded.shape[1] - taps + 1
    result = np.zeros((height, width))
    smoothed, bent = np.empty(padded.shape[1]), np.empty(padded.shape[1])
    for i in range(height):
        smoothed[:], bent[:] = 0.0, 0.0
        for k in range(taps):
            a, b, line = smooth[k], bend[k], padded[i + k]
            for j in range(padded.shape[1]):
                smoothed[j] += a * line[j]
                bent[j] += b * line[j]
        out = result[i]
        for k in range(taps):
            a, b = smooth[k], bend[k]
            for j in range(width):
                out[j] += a * bent[j + k] + b * smoothed[j + k]
    return result


@compiled
def local_maxima(values: FloatArray, threshold: float, reach: int) -> BoolArray:
    """Pixels (H, W) at or above a threshold that no other within `reach` rows and columns exceeds."""
    height, width = values.shape
    result = np.zeros((height, width), dtype=np.bool_)
    for i in range(height):
        for j in range(width):
            here = values[i, j]
            if here < threshold:
                continue
            highest = here
            for k in range(max(i - reach, 0), min(i + reach + 1, height)):
                for m in range(max(j - reach, 0), min(j + reach + 1, width)):
                    highest = max(highest, values[k, m])
            result[i, j] = here == highest
    return result


@compiled
def steep_pixels(values: FloatArray, least: float) -> BoolArray:
    """Pixels (H, W) that differ from every direct neighbour by more than `least`, all with the same sign."""
    height, width = values.shape
    result = np.zeros((height, width), dtype=np.bool_)
    for i in range(height):
        for j in range(width):
            here, other = values[i, j], values[i, j - 1 if j else 1]
            if abs(here - other) <= least:
                continue
            sign = 1.0 if here > other else -1.0
            result[i, j] = (
                sign * (here - values[i, j + 1 if j + 1 < width else j - 1]) > least
                and sign * (here - values[i - 1 if i else 1, j]) > least
                and sign * (here - values[i + 1 if i + 1 < height else i - 1, j]) > least
            )
    return result


@compiled
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
    response: FloatArray, beside: BoolArray, places: NDArray[np.int64], ring: NDArray[np.int64]
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
    response: FloatArray,
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
                result[k, n] = _quantile(rows[n], 0, counts[n], shares[k])
    return result


@compiled
def tail_of(excess: FloatArray, low: FloatArray, high: FloatArray, tail: Tail) -> FloatArray:
    """Significance (n,) of responses above their median, by two upper quantiles above the same median, all (n,)."""
    result = np.empty(excess.shape[0])
    for n in range(excess.shape[0]):
        result[n] = _tail_z(excess[n], low[n], high[n], tail)
    return result


@compiled
def tail_map(response: FloatArray, meshes: FloatArray, tail: Tail) -> FloatArray:
    """Significance (H, W) of a filter's responses by their local tail; see `csist.frames.contrast.tail_significance`.

    Args:
        response: (H, W).
        meshes: (3, rows, columns) median, lower and upper quantile at nodes spread evenly over the frame.
        tail: the mapping.
    """
    height, width = response.shape
    rows, columns = meshes.shape[1], meshes.shape[2]
    result = np.zeros((height, width))
    left, share = np.empty(width, np.int64), np.empty(width)
    for j in range(width):
        at = j * (columns - 1) / (width - 1)
        left[j] = min(int(at), columns - 2)
        share[j] = at - left[j]
    line = np.empty((3, columns))
    for i in range(height):
        at = i * (rows - 1) / (height - 1)
        above = min(int(at), rows - 2)
        for k in range(3):
            for m in range(columns):
                line[k, m] = meshes[k, above, m] + (at - above) * (meshes[k, above + 1, m] - meshes[k, above, m])
        for j in range(width):
            m, t = left[j], share[j]
            middle = line[0, m] + t * (line[0, m + 1] - line[0, m])
            low = line[1, m] + t * (line[1, m + 1] - line[1, m]) - middle
            high = line[2, m] + t * (line[2, m + 1] - line[2, m]) - middle
            result[i, j] = _tail_z(response[i, j] - middle, low, high, tail)
    return result
