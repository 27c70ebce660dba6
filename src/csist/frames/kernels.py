"""Passes over all pixels of a frame, compiled: the inner loops of background and detection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled, lean
from csist._types import BoolArray, FloatArray

FEWEST_ON_PLANE = 60
"""Fewest pixels for the scatter about a plane."""
FEW_STEPS = 4.0
"""Scatter of whole numbers, in units of the step between them, up to which their quantiles are too coarse."""


@lean
def quantile_of_sorted(values: NDArray[np.floating], first: int, last: int, share: float) -> float:
    """Quantile of values[first:last], sorted, with linear interpolation."""
    place = first + share * (last - 1 - first)
    low = int(np.floor(place))
    high = min(low + 1, last - 1)
    return float(values[low] + (place - low) * (values[high] - values[low]))


@compiled
def clip_sorted(
    rows: NDArray[np.floating], counts: NDArray[np.int64], sigmas: float, rounds: int, step: float
) -> FloatArray:
    """Median, scatter and mean (n, 3) of each row after clipping at `sigmas` times the scatter.

    Sorted once, a clipped set is a range of places; its scatter is half the range between the 16 % and 84 %
    quantiles, which needs no second sort. Quantiles of whole numbers are whole numbers, too: where the scatter is but a
    few steps, mean and standard deviation of what is kept stand for median and scatter, unless sources skew them.

    Args:
        rows: (n, m), each sorted.
        counts: (n,) values of a row that count, at least 1; the others lie at its end.
        sigmas: reach of the values that stay.
        rounds: most rounds of clipping.
        step: from a value that a pixel can have to the next one; 0 if they are no whole numbers.
    """
    result = np.empty((rows.shape[0], 3))
    for k in range(rows.shape[0]):
        values = rows[k, : counts[k]]
        first, last = 0, values.shape[0]
        for _ in range(rounds):
            median = quantile_of_sorted(values, first, last, 0.5)
            # The small term keeps a constant box from being clipped away by rounding errors.
            spread = quantile_of_sorted(values, first, last, 0.8413) - quantile_of_sorted(values, first, last, 0.1587)
            scatter = max(0.5 * spread + 1e-12 * abs(median), 0.5 * step)
            reach = sigmas * scatter + 0.5 * step
            lowest = int(np.searchsorted(values, median - reach))
            highest = int(np.searchsorted(values, median + reach, side="right"))
            result[k, 0], result[k, 1] = median, scatter
            if highest <= lowest or (lowest == first and highest == last):
                break
            first, last = lowest, highest
        total = 0.0
        for place in range(first, last):
            total += values[place]
        mean = total / (last - first)
        result[k, 2] = mean
        if result[k, 1] <= FEW_STEPS * step and abs(mean - result[k, 0]) <= 0.5 * step:
            total = 0.0
            for place in range(first, last):
                total += (values[place] - mean) ** 2
            result[k, 0], result[k, 1] = mean, np.sqrt(total / (last - first))
    return result


@lean
def blank_discs(values: FloatArray, places: FloatArray, reach: float) -> None:
    """Set the pixels (h, w) within a distance of any of some positions (n, 2), rows and columns in px, to NaN."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for n in range(places.shape[0]):
                if (i - places[n, 0]) ** 2 + (j - places[n, 1]) ** 2 <= reach * reach:
                    values[i, j] = np.nan


@lean
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
def plane_scatter(
    rows: FloatArray, columns: FloatArray, values: FloatArray, rounds: int, clip: float, step: float
) -> float:
    """Robust standard deviation of values (n,) about the plane that fits them best.

    Of whole numbers that scatter by a few steps, the root mean square of those that are kept, as in `clip_sorted`.

    Args:
        rows: (n,) places of the values.
        columns: likewise.
        values: at least `FEWEST_ON_PLANE`.
        rounds: most fits.
        clip: values farther from the plane than so many standard deviations are left out of the next fit.
        step: from a value that a pixel can have to the next one; 0 if they are no whole numbers.
    """
    kept, rest, scatter = np.ones(values.shape[0], np.bool_), np.empty(values.shape[0]), 0.0
    for _ in range(rounds):
        _differences_from_plane(rows, columns, values, kept, rest)
        scatter = max(1.4826 * np.median(rest), 0.5 * step)
        # The wings of a bright source beside the window would tilt the plane.
        number, changed, power = 0, False, 0.0
        for n in range(values.shape[0]):
            keep = rest[n] <= clip * scatter + 0.5 * step
            changed |= keep != kept[n]
            kept[n] = keep
            number += keep
            if keep:
                power += rest[n] ** 2
        if scatter <= FEW_STEPS * step:
            scatter = np.sqrt(power / max(number, 1))
        if number < FEWEST_ON_PLANE or not changed:
            break
    return scatter


@lean
def is_whole(frame: FloatArray) -> bool:
    """Whether every pixel of a frame (H, W) that is not NaN is a whole number."""
    for i in range(frame.shape[0]):
        for j in range(frame.shape[1]):
            value = frame[i, j]
            if value == value and value != np.rint(value):
                return False
    return True


@lean
def add_products(image: NDArray[np.floating], down: NDArray[np.floating], across: NDArray[np.floating]) -> None:
    """Add the product of two matrices (H, k) and (k, W) to an image (H, W).

    Of few terms. A library of linear algebra would start a thread on every core, which then wait for each other.

    Args:
        image: changed.
        down: of the image's type.
        across: likewise.
    """
    for i in range(image.shape[0]):
        out = image[i]
        for k in range(down.shape[1]):
            factor, line = down[i, k], across[k]
            for j in range(out.shape[0]):
                out[j] += factor * line[j]


@lean
def raise_to_noise(
    best: NDArray[np.float32], response: NDArray[np.floating], gain: float, noise: NDArray[np.floating]
) -> None:
    """Raise `best` (H, W) to the responses (H, W) of a filter in units of their standard deviation.

    Args:
        best: changed.
        response: of the filter.
        gain: its standard deviation in unit white noise.
        noise: (H, W) standard deviation of a pixel.
    """
    for i in range(best.shape[0]):
        for j in range(best.shape[1]):
            best[i, j] = max(best[i, j], response[i, j] / (gain * noise[i, j]))


@compiled
def in_noise(
    response: NDArray[np.floating], gain: float, noise: NDArray[np.floating], counted: BoolArray, step: int
) -> NDArray[np.float32]:
    """The responses (n,) as in `raise_to_noise`, of every `step`-th row and column where a pixel counts, (H, W)."""
    found = np.empty(response.size, np.float32)
    number = 0
    for i in range(0, response.shape[0], step):
        for j in range(0, response.shape[1], step):
            if counted[i, j]:
                found[number] = response[i, j] / (gain * noise[i, j])
                number += 1
    return found[:number].copy()


@lean
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
def local_maxima(values: NDArray[np.floating], threshold: float, reach: int) -> NDArray[np.int64]:
    """Rows and columns (n, 2) of the pixels at or above a threshold that no other within `reach` of both exceeds."""
    height, width = values.shape
    found = np.empty((height * width, 2), np.int64)  # memory that is not written costs nothing
    number = 0
    for i in range(height):
        line, some = values[i], False
        for j in range(width):
            some |= line[j] >= threshold
        if not some:
            continue
        for j in range(width):
            here = line[j]
            if here < threshold:
                continue
            highest = here
            for k in range(max(i - reach, 0), min(i + reach + 1, height)):
                for m in range(max(j - reach, 0), min(j + reach + 1, width)):
                    highest = max(highest, values[k, m])
            if here == highest:
                found[number, 0], found[number, 1] = i, j
                number += 1
    return found[:number].copy()


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
