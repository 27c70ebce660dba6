"""Passes over all pixels of a frame, compiled: the inner loops of background and detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled, inner
from csist._types import BoolArray, FloatArray

FEWEST_ON_PLANE = 60
"""Fewest pixels for the scatter about a plane."""


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
def blank_discs(values: FloatArray, places: FloatArray, reach: float) -> None:
    """Set the pixels (h, w) within a distance of any of some positions (n, 2), rows and columns in px, to NaN."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for n in range(places.shape[0]):
                if (i - places[n, 0]) ** 2 + (j - places[n, 1]) ** 2 <= reach * reach:
                    values[i, j] = np.nan


@compiled
def _differences_from_plane(
    rows: FloatArray, columns: FloatArray, values: FloatArray, kept: BoolArray, result: FloatArray
) -> None:
    """Fill in the absolute differences (n,) of values from the plane that fits those that are kept best."""
    number, y, x, level = 0, 0.0, 0.0, 0.0
    for n in range(values.shape[0]):
        if kept[n]:
            number, y, x, level = number + 1, y + rows[n], x + columns[n], level + values[n]
    y, x, level = y / number, x / number, level / number
    yy, xx, xy, by_y, by_x = 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(values.shape[0]):
        if kept[n]:
            down, right, above = rows[n] - y, columns[n] - x, values[n] - level
            yy, xx, xy = yy + down * down, xx + right * right, xy + down * right
            by_y, by_x = by_y + down * above, by_x + right * above
    # Without a slope along an axis, or across the line, on which all pixels lie.
    skew = xy / yy if yy > 0.0 else 0.0
    left = xx - skew * xy
    across = (by_x - skew * by_y) / left if left > 1e-9 * xx else 0.0
    along = (by_y - across * xy) / yy if yy > 0.0 else 0.0
    for n in range(values.shape[0]):
        result[n] = abs(values[n] - level - along * (rows[n] - y) - across * (columns[n] - x))


@compiled
def plane_scatter(rows: FloatArray, columns: FloatArray, values: FloatArray, rounds: int, clip: float) -> float:
    """Robust standard deviation of values (n,) about the plane that fits them best.

    Args:
        rows: (n,) places of the values.
        columns: likewise.
        values: at least `FEWEST_ON_PLANE`.
        rounds: most fits.
        clip: values farther from the plane than so many standard deviations are left out of the next fit.
    """
    kept, rest, scatter = np.ones(values.shape[0], np.bool_), np.empty(values.shape[0]), 0.0
    for _ in range(rounds):
        _differences_from_plane(rows, columns, values, kept, rest)
        scatter = 1.4826 * np.median(rest)
        # The wings of a bright source beside the window would tilt the plane.
        number, changed = 0, False
        for n in range(values.shape[0]):
            keep = rest[n] <= clip * scatter
            changed |= keep != kept[n]
            kept[n] = keep
            number += keep
        if number < FEWEST_ON_PLANE or not changed:
            break
    return scatter


@compiled
def is_whole(frame: FloatArray) -> bool:
    """Whether every pixel of a frame (H, W) that is not NaN is a whole number."""
    for i in range(frame.shape[0]):
        for j in range(frame.shape[1]):
            value = frame[i, j]
            if value == value and value != np.rint(value):
                return False
    return True


@inner
def _mirrored(place: int, length: int) -> int:
    """Index of the pixel that stands for one at `place` along an axis, beyond the ends mirrored about the last ones."""
    if length == 1:
        return 0
    place = abs(place) % (2 * length - 2)
    return min(place, 2 * length - 2 - place)


@compiled
def sum_of_products(
    image: NDArray[np.floating], smooth: NDArray[np.floating], bend: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Correlation of an image (H, W), mirrored at its borders, with smooth(y) bend(x) + bend(y) smooth(x).

    Args:
        image: (H, W).
        smooth: (n,) taps of an even filter from its middle on, of the image's type.
        bend: (n,) likewise.
    """
    height, width = image.shape
    reach = smooth.shape[0] - 1
    result = np.empty_like(image)
    smoothed, bent = np.empty(width + 2 * reach, image.dtype), np.empty(width + 2 * reach, image.dtype)
    for i in range(height):
        s, b, line = smoothed[reach : reach + width], bent[reach : reach + width], image[i]
        for j in range(width):
            s[j] = smooth[0] * line[j]
            b[j] = bend[0] * line[j]
        for k in range(1, reach + 1):
            above, below = image[_mirrored(i - k, height)], image[_mirrored(i + k, height)]
            a, c = smooth[k], bend[k]
            for j in range(width):
                both = above[j] + below[j]
                s[j] += a * both
                b[j] += c * both
        for k in range(1, reach + 1):
            left, right = reach + _mirrored(-k, width), reach + _mirrored(width - 1 + k, width)
            smoothed[reach - k], bent[reach - k] = smoothed[left], bent[left]
            smoothed[reach + width - 1 + k], bent[reach + width - 1 + k] = smoothed[right], bent[right]
        out = result[i]
        for j in range(width):
            out[j] = smooth[0] * b[j] + bend[0] * s[j]
        for k in range(1, reach + 1):
            a, c = smooth[k], bend[k]
            b_left, b_right = bent[reach - k : reach - k + width], bent[reach + k : reach + k + width]
            s_left, s_right = smoothed[reach - k : reach - k + width], smoothed[reach + k : reach + k + width]
            for j in range(width):
                out[j] += a * (b_left[j] + b_right[j]) + c * (s_left[j] + s_right[j])
    return result


@compiled
def local_maxima(values: NDArray[np.floating], threshold: float, reach: int) -> BoolArray:
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
def steep_pixels(values: FloatArray, least: float) -> NDArray[np.int64]:
    """Rows and columns (n, 2) of the pixels that differ from every direct neighbour by more than `least`, one way."""
    height, width = values.shape
    found = np.empty((height * width, 2), np.int64)  # memory that is not written costs nothing
    number = 0
    for i in range(height):
        above, line, below = values[i - 1 if i else 1], values[i], values[i + 1 if i + 1 < height else i - 1]
        for j in range(width):
            here, other = line[j], line[j - 1 if j else 1]
            if abs(here - other) <= least:
                continue
            sign = 1.0 if here > other else -1.0
            if (
                sign * (here - line[j + 1 if j + 1 < width else j - 1]) > least
                and sign * (here - above[j]) > least
                and sign * (here - below[j]) > least
            ):
                found[number, 0], found[number, 1] = i, j
                number += 1
    return found[:number].copy()


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
def spread_lines(lines: FloatArray, left: NDArray[np.int64], right: FloatArray) -> FloatArray:
    """Values (H, W) between the columns of lines (H, c): the column before each pixel (W,), the share of the next."""
    result = np.empty((lines.shape[0], left.shape[0]))
    last = lines.shape[1] - 1
    for i in range(lines.shape[0]):
        line, out = lines[i], result[i]
        for j in range(left.shape[0]):
            first = line[left[j]]
            out[j] = first + right[j] * (line[min(left[j] + 1, last)] - first)
    return result


@inner
def _between_nodes(place: int, length: int, nodes: int) -> tuple[int, float]:
    """The node before a pixel, of nodes spread evenly over an axis, and the share of the way to the next one."""
    at = place * (nodes - 1) / (length - 1)
    before = min(int(at), nodes - 2)
    return before, at - before


@inner
def _tail_at(response: NDArray[np.floating], meshes: FloatArray, i: int, j: int, tail: Tail) -> float:
    """Significance of the response at a pixel by the tail around it; see `tail_map`."""
    above, down = _between_nodes(i, response.shape[0], meshes.shape[1])
    left, right = _between_nodes(j, response.shape[1], meshes.shape[2])
    middle = _interpolated(meshes[0], above, down, left, right)
    low = _interpolated(meshes[1], above, down, left, right) - middle
    high = _interpolated(meshes[2], above, down, left, right) - middle
    return _tail_z(response[i, j] - middle, low, high, tail)


@inner
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
            for j in range(first, last):
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
    for i in range(response.shape[0]):
        for j in range(response.shape[1]):
            if marks[i, j]:
                best[i, j] = max(best[i, j], _tail_at(response, meshes, i, j, tail))
