"""Where in a frame point-like sources stand out, how significantly, and which of them overlap.

Two measures of "standing out" exist. "contrast" is for real infrared scenes: the scale-normalised Laplacian of
Gaussian (Lindeberg, IJCV 30, 79, 1998) compares each spot with the ring around it, and its response is turned into
standard deviations by the tail of the responses NEARBY. In clutter these have much heavier tails than a Gaussian,
so two upper quantiles are measured and a Weibull tail through both is mapped onto the Gaussian one:

    z = z_hi * (r / r_hi)^k,   k = log(z_hi / z_lo) / log(r_hi / r_lo), at most 1,

with r_lo, r_hi the responses at the quantiles that a normal variable reaches at z_lo, z_hi, from r_hi on; below it
z is linear in pieces. White noise gives k = 1.
Where clear sky and clutter meet, a wide neighbourhood judges the one by the other, and a narrow one holds too little of
a tail. So a peak's significance is the geometric mean of two: by the neighbourhood, and by a ring around the peak.
Where most of a frame's strong spots have the shape of the PSF they are no clutter, however many; the tail is then
measured beside them.
"matched" is for frames limited by noise, star fields among them: the matched filter in white noise (North, 1943; Turin,
IRE Trans. Inf. Theory 6, 311, 1960) on the background-subtracted frame, in units of its own noise.
Either way the threshold is the Gaussian quantile of the stated false-alarm rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import oaconvolve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import ndtri

from csist.checks import InputError, check_positive
from csist.frames.background import Background, local_scatter, noise_floor
from csist.frames.kernels import (
    box_values,
    local_maxima,
    quantiles_of_sorted,
    ring_values,
    sum_of_products,
    tail_map,
    tail_of,
)
from csist.frames.spots import HALF_WINDOW_PX, fit_spot
from csist.physics.psf import PSF, GaussianPSF, equivalent_sigma, pixel_kernel

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

DETECTORS = ("contrast", "matched")

UNKNOWN_PSF_SCALES_PX = (0.7, 1.0, 1.5, 2.2)
"""Widths of the Laplacian of Gaussian where nothing is known of the PSF."""
KNOWN_PSF_SCALES = (1.0, 1.7)
"""The same in units of the PSF's sigma: the narrow one tells clutter best, the wide one is best in white noise."""

TAIL_QUANTILES = (0.90, 0.98)
_TAIL_SIGMAS = (float(ndtri(TAIL_QUANTILES[0])), float(ndtri(TAIL_QUANTILES[1])))
SMALLEST_TAIL_EXPONENT = 0.4
TAIL_BOX_PX = 96
"""Side of the neighbourhood whose responses set the scale."""
TAIL_SAMPLES = 32
"""Rows and columns of a neighbourhood that are looked at: responses next to each other say nearly the same."""
RING_PX = (6.0, 16.0)
"""Radii of the ring around a peak that its response is compared with, too; the inner one clears the peak itself."""
LEAST_WIDE_SHARE = 0.5
"""Peaks that the neighbourhood gives less than this share of the threshold are not looked at further."""

DEFAULT_SIGMA_PX = 1.0
"""Sigma assumed where a frame has no isolated spot to measure it on."""
MOST_SIGMA_SPOTS = 40

SPOT_SIGMAS = 10.0
"""Significance against the noise alone from which a spot's shape is looked at."""
POINT_CORRELATION = 0.8
"""Correlation with the PSF from which a spot looks like a point source."""
POINT_SHARE = 0.5
"""Share of the strongest spots that must, for a frame to be taken as a field of point sources."""
MOST_JUDGED_SPOTS = 200
FEWEST_TAIL_PIXELS = 100

VALLEY = 0.7
"""Two peaks are one extended source if the light between them stays above this share of the lower one."""

FALSE_ALARM_RATE = 1e-9
"""Stated false alarms a pixel; a real scene has some tens of times more, because clutter holds real small spots."""


@dataclass(frozen=True)
class Peaks:
    """Detections before any fit, most significant first.

    Args:
        x: columns in px, (n,).
        y: rows in px, (n,).
        significance: in Gaussian standard deviations, (n,).
    """

    x: FloatArray
    y: FloatArray
    significance: FloatArray

    def __len__(self) -> int:
        return int(self.x.size)

    def __getitem__(self, key: IntArray | BoolArray | slice) -> Peaks:
        return Peaks(self.x[key], self.y[key], self.significance[key])

    def merged(self, *others: Peaks) -> Peaks:
        """These and others, most significant first."""
        x, y, z = (
            np.concatenate([getattr(peaks, name) for peaks in (self, *others)]) for name in ("x", "y", "significance")
        )
        order = np.argsort(-z, kind="stable")
        return Peaks(x[order], y[order], z[order])

    @property
    def positions(self) -> FloatArray:
        """(n, 2) columns x, y in px."""
        return np.stack([self.x, self.y], axis=1)


def threshold_sigmas(false_alarm_rate: float, scales: int = 1) -> float:
    """Significance that noise exceeds at `false_alarm_rate` a pixel, shared equally between independent scales.

    Raises:
        InputError: if the rate is not between 0 and 0.1.

    >>> round(threshold_sigmas(1e-3), 2)
    3.09
    """
    if not 0.0 < false_alarm_rate < 0.1:
        raise InputError(f"false_alarm_rate must be between 0 and 0.1 false alarms a pixel, got {false_alarm_rate}")
    return float(-ndtri(false_alarm_rate / scales))


def _local_quantiles(response: FloatArray, valid: BoolArray, box: int) -> FloatArray:
    """Median, lower and upper quantile (3, rows, columns) of the response in overlapping boxes all over the frame."""
    counts = [max(2, round(2 * n / box)) for n in response.shape]
    rows, columns = (
        np.linspace(0.0, n - 1.0, count).astype(int) for n, count in zip(response.shape, counts, strict=True)
    )
    half, step = box // 2, max(box // TAIL_SAMPLES, 1)
    # A frame no larger than a box is one: in a part of it a single wide source would fill the tail.
    reach = [half if n > box else n for n in response.shape]
    values, numbers = box_values(response, valid, rows, columns, (reach[0], reach[1]), step)
    mesh = _quantiles(values, numbers)
    few = np.isnan(mesh[0])
    if few.any():
        mesh[:, few] = np.quantile(response[valid], (0.5, *TAIL_QUANTILES))[:, None]
    return mesh.reshape(3, *counts)


def _quantiles(values: NDArray[np.float32], counts: IntArray) -> FloatArray:
    """Median, lower and upper tail quantile (3, n) of the first `counts` values of each row (n, m), which get sorted.

    NaN where they are fewer than `FEWEST_TAIL_PIXELS`.
    """
    values.sort(axis=1)
    return quantiles_of_sorted(values, counts, (0.5, *TAIL_QUANTILES), FEWEST_TAIL_PIXELS)


def tail_significance(
    response: FloatArray,
    valid: BoolArray,
    floor: float,
    box_px: int = TAIL_BOX_PX,
    smallest_exponent: float = SMALLEST_TAIL_EXPONENT,
) -> FloatArray:
    """Turn filter responses into Gaussian standard deviations by the local tail (see the module's text).

    Args:
        response: (H, W) of a filter that sums to zero.
        valid: (H, W) pixels that count.
        floor: smallest standard deviation of the response that the frame's rounding allows, > 0.
        box_px: side of the neighbourhood in px.
        smallest_exponent: lower bound of the tail's exponent k; 1 makes it Gaussian everywhere.
    """
    return tail_map(response, _local_quantiles(response, valid, box_px), *_TAIL_SIGMAS, floor, smallest_exponent)


def _contrast_peaks(
    frame: FloatArray,
    valid: BoolArray,
    responses: Sequence[tuple[FloatArray, float]],
    sources: BoolArray | None,
    threshold: float,
) -> Peaks:
    """Peaks at or above a threshold by the contrast measure (see the module's text), most significant first.

    Args:
        frame: (H, W) in counts.
        valid: (H, W) pixels that count.
        responses: of the Laplacians of Gaussian, each (H, W), and to unit white noise.
        sources: (H, W) pixels that hold point sources, left out where the tail is measured.
        threshold: smallest significance.
    """
    beside = valid if sources is None else valid & ~sources
    if beside.sum() < FEWEST_TAIL_PIXELS:
        beside = valid
    rounding = noise_floor(frame if valid.all() else np.where(valid, frame, np.nan))
    wide = [tail_significance(response, beside, rounding * gain) for response, gain in responses]
    best = np.maximum.reduce(wide)
    best[~valid] = 0.0
    peaks = find_peaks(best, LEAST_WIDE_SHARE * threshold)
    if not len(peaks):
        return peaks
    places = np.rint(peaks.positions[:, ::-1]).astype(np.int64)
    beside = beside & (best < threshold)  # other sources are no clutter
    significance = np.zeros(len(peaks))
    for (response, gain), significant in zip(responses, wide, strict=True):
        near = _ring_significance(response, places, beside, rounding * gain)
        far = significant[tuple(places.T)]
        np.maximum(significance, np.where(np.isnan(near), far, np.sqrt(near * far)), out=significance)
    order = np.argsort(-significance, kind="stable")
    return Peaks(peaks.x, peaks.y, significance)[order[significance[order] >= threshold]]


def _ring_significance(response: FloatArray, places: IntArray, beside: BoolArray, floor: float) -> FloatArray:
    """Significance (n,) of the highest response within one pixel of each place, by the tail in a ring around it.

    NaN where the ring holds too little.

    Args:
        response: (H, W) of a filter.
        places: (n, 2) rows and columns.
        beside: (H, W) pixels that a ring may hold.
        floor: smallest standard deviation of the response.
    """
    middle, low, high = _quantiles(*ring_values(response, beside, places, _ring(*RING_PX)))
    rows, columns = (
        np.clip(place[:, None] + [-1, 0, 1], 0, n - 1) for place, n in zip(places.T, response.shape, strict=True)
    )
    top = response[rows[:, :, None], columns[:, None, :]].max(axis=(1, 2))
    enough = np.isfinite(middle)
    result = np.full(len(places), np.nan)
    excess, low, high = (value[enough] for value in (top - middle, low - middle, high - middle))
    result[enough] = tail_of(excess, low, high, *_TAIL_SIGMAS, floor, SMALLEST_TAIL_EXPONENT)
    return result


@lru_cache(maxsize=8)
def _ring(inner_px: float, outer_px: float) -> IntArray:
    """Offsets (m, 2) along rows and columns of the pixels between two radii, every other one, as on a chessboard."""
    reach = np.arange(-int(outer_px), int(outer_px) + 1)
    distance = np.hypot(reach[:, None], reach)
    chosen = (distance > inner_px) & (distance <= outer_px) & ((reach[:, None] + reach) % 2 == 0)
    return reach[np.stack(np.nonzero(chosen), axis=1)]


def _contrast(flattened: FloatArray, scale: float) -> tuple[FloatArray, float]:
    """Scale-normalised Laplacian of Gaussian, bright spots positive, and its response to unit white noise."""
    smooth, bend = _gaussian_taps(check_positive("scales_px", scale))
    padded = np.pad(flattened, len(smooth) // 2, mode="reflect")
    kernel = np.outer(smooth, bend) + np.outer(bend, smooth)
    return sum_of_products(padded, smooth, -(scale**2) * bend), float(scale**2 * np.sqrt((kernel**2).sum()))


@lru_cache(maxsize=32)
def _gaussian_taps(scale: float) -> tuple[FloatArray, FloatArray]:
    """A sampled Gaussian out to four sigma, and its second derivative."""
    impulse = np.zeros(2 * int(4.0 * scale + 0.5) + 1)
    impulse[len(impulse) // 2] = 1.0
    smooth, bend = (ndimage.gaussian_filter1d(impulse, scale, order=order, mode="constant") for order in (0, 2))
    return smooth, bend


def shape_correlation(flattened: FloatArray, rows: IntArray, columns: IntArray, sigma_px: float) -> FloatArray:
    """Correlation (n,), from -1 to 1, of pixels' surroundings with a Gaussian spot on an unknown constant.

    It is the highest of the pixel and its eight neighbours, within the frame.
    """
    reach = int(np.ceil(2.5 * sigma_px))
    offsets = np.arange(-reach, reach + 1)
    disc = np.hypot(offsets[None, :], offsets[:, None]) <= reach + 0.3
    template = GaussianPSF(sigma_px).response(offsets[None, :], offsets[:, None])[disc]
    template = template - template.mean()
    template /= np.sqrt((template**2).sum())
    windows = sliding_window_view(np.pad(flattened, reach, mode="reflect"), disc.shape)
    best = np.full(len(rows), -1.0)
    for down, right in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        row = np.clip(rows + down, 0, flattened.shape[0] - 1)
        column = np.clip(columns + right, 0, flattened.shape[1] - 1)
        values = windows[row, column][:, disc]
        values = values - values.mean(axis=1, keepdims=True)
        power = np.maximum((values**2).sum(axis=1), 1e-300)
        np.maximum(best, values @ template / np.sqrt(power), out=best)
    return best


def point_sources(
    flattened: FloatArray,
    noise: FloatArray,
    responses: Sequence[tuple[FloatArray, float]],
    sigma_px: float | None,
) -> BoolArray | None:
    """Pixels (H, W) of the spots that look like point sources, if most of the frame's strong spots do; else None.

    Args:
        flattened: (H, W) background-subtracted counts, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        responses: of the Laplacians of Gaussian to `flattened`, each (H, W), and to unit white noise.
        sigma_px: of the PSF; None measures it on the strongest spots.
    """
    significance = np.full(flattened.shape, -np.inf)
    for response, gain in responses:
        np.maximum(significance, response / gain, out=significance)
    significance /= noise
    spots = keep_strongest(find_peaks(significance, SPOT_SIGMAS), 3.0)
    if not len(spots):
        return None
    if sigma_px is None:
        sigma_px = measure_sigma(flattened, spots, noise)
    rows, columns = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    point_like = shape_correlation(flattened, rows, columns, sigma_px) >= POINT_CORRELATION
    if point_like[:MOST_JUDGED_SPOTS].mean() < POINT_SHARE:
        return None
    return _discs(flattened.shape, rows[point_like], columns[point_like], 3.0 * sigma_px + 1.0)


def _discs(shape: tuple[int, ...], rows: IntArray, columns: IntArray, radius_px: float) -> BoolArray:
    """Pixels (H, W) within a radius of some places."""
    reach = np.arange(-int(radius_px), int(radius_px) + 1)
    down, right = (reach[v] for v in np.nonzero(np.hypot(reach[:, None], reach) <= radius_px))
    i, j = rows[:, None] + down, columns[:, None] + right
    inside = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1])
    mask = np.zeros(shape, dtype=bool)
    mask[i[inside], j[inside]] = True
    return mask


def matched_map(frame: FloatArray, background: Background, psf: PSF, masked: BoolArray | None = None) -> FloatArray:
    """Significance (H, W) of the matched filter.

    Each pixel is divided by its own noise first; near edges and masked pixels the filter is renormalised to what
    it still sees, z = sum(p d / s) / sqrt(sum(p^2)) over the valid pixels. That is right in
    white noise; where z scatters by more than 1 between the sources (correlated noise, confusion) it is divided by
    its own clipped local scatter.

    Args:
        frame: (H, W) in counts.
        background: level and noise in counts.
        psf: point spread function.
        masked: (H, W) pixels to leave out; they have no significance.
    """
    normalised = (frame - background.level) / background.noise
    valid = np.isfinite(normalised) if masked is None else np.isfinite(normalised) & ~masked
    kernel = pixel_kernel(psf)[::-1, ::-1]
    top = oaconvolve(np.where(valid, normalised, 0.0), kernel, mode="same")
    seen = oaconvolve(valid.astype(np.float64), kernel**2, mode="same")
    # Where the centre's own share is missing there is nothing to measure.
    z = np.where(valid, top / np.sqrt(np.maximum(seen, 0.1 * (kernel**2).sum())), np.nan)
    return np.nan_to_num(z / np.maximum(local_scatter(z, TAIL_BOX_PX, 1.0), 1.0), nan=0.0)


def measure_sigma(flattened: FloatArray, peaks: Peaks, noise: FloatArray) -> float:
    """Median sigma in px of the Gaussians that fit the strongest isolated spots of a frame.

    Args:
        flattened: (H, W) background-subtracted counts, NaN where masked.
        peaks: detections, most significant first.
        noise: (H, W) standard deviation of a pixel in counts.
    """
    if not len(peaks):
        return DEFAULT_SIGMA_PX
    distance = np.asarray(KDTree(peaks.positions).query(peaks.positions, k=[2])[0])[:, 0]
    isolated = peaks[distance > 1.5 * HALF_WINDOW_PX][:MOST_SIGMA_SPOTS]
    spots = (fit_spot(flattened, noise, x, y) for x, y in isolated.positions)
    sigmas = [spot.sigma_px for spot in spots if spot is not None]
    return float(np.median(sigmas)) if sigmas else DEFAULT_SIGMA_PX


def find_peaks(significance: FloatArray, threshold: float, reach_px: int = 1) -> Peaks:
    """Local maxima of a map at or above a threshold, one for each plateau, refined to a fraction of a pixel.

    Args:
        significance: (H, W).
        threshold: smallest significance, > 0.
        reach_px: a maximum is the largest value within so many pixels along rows and columns.
    """
    check_positive("threshold", threshold)
    tops = np.nonzero(local_maxima(significance, threshold, reach_px))
    if not tops[0].size:
        return Peaks(np.empty(0), np.empty(0), np.empty(0))
    plateau = link(np.stack(tops, axis=1).astype(np.float64), 1.5)  # neighbours, diagonal ones too
    size = np.bincount(plateau)
    centres = np.stack([np.bincount(plateau, weights=place) / size for place in tops], axis=1)
    rows, columns = np.rint(centres).astype(np.int64).T
    values = np.zeros(len(size))
    np.maximum.at(values, plateau, significance[tops])
    x, y = centres[:, 1].copy(), centres[:, 0].copy()
    for position, index, other, axis in ((x, columns, rows, 1), (y, rows, columns, 0)):
        # Vertex of the parabola through the maximum and its two neighbours along this axis.
        inside = (index > 0) & (index < significance.shape[axis] - 1)
        i, o = index[inside], other[inside]
        before, here, after = (significance[(o, i + step) if axis == 1 else (i + step, o)] for step in (-1, 0, 1))
        bend = before - 2.0 * here + after
        shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
        position[inside] += np.clip(shift, -0.5, 0.5)
    order = np.argsort(-np.asarray(values), kind="stable")
    return Peaks(x[order], y[order], np.asarray(values, dtype=np.float64)[order])


def keep_strongest(peaks: Peaks, distance_px: float) -> Peaks:
    """Peaks without those that have a stronger kept one within `distance_px`."""
    if len(peaks) < 2:
        return peaks
    tree = KDTree(peaks.positions)
    kept = np.ones(len(peaks), dtype=bool)
    for i, position in enumerate(peaks.positions):  # strongest first
        if kept[i]:
            close = np.array(tree.query_ball_point(position, distance_px), dtype=np.int64)
            kept[close[close > i]] = False
    return peaks[kept]


def ridges(peaks: Peaks, flattened: FloatArray, reach_px: float, depth: float = VALLEY) -> IntArray:
    """Pairs (m, 2) of peaks with no valley between them: an extended source, not two.

    Args:
        peaks: detections.
        flattened: (H, W) background-subtracted counts, no NaN.
        reach_px: pairs farther apart are not looked at.
        depth: a valley is where the line between two peaks falls below this share of the lower peak.
    """
    if len(peaks) < 2:
        return np.empty((0, 2), dtype=np.int64)
    pairs = KDTree(peaks.positions).query_pairs(reach_px, output_type="ndarray").astype(np.int64)
    along = np.linspace(0.0, 1.0, 2 * int(np.ceil(reach_px)) + 1)
    x, y = (v[pairs[:, :1]] + along * (v[pairs[:, 1:]] - v[pairs[:, :1]]) for v in (peaks.x, peaks.y))
    line = ndimage.map_coordinates(flattened, [y, x], order=1, mode="nearest")
    lower = np.minimum(line[:, 0], line[:, -1])
    return np.asarray(pairs[(line.min(axis=1, initial=np.inf) >= depth * lower) & (lower > 0.0)])


def link(positions: FloatArray, distance_px: float, more_pairs: IntArray | None = None) -> IntArray:
    """Number of the group, 0, 1, ..., of each position (n, 2): closer than `distance_px` is the same group.

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
    """Members of a group cut in two, across its longer side, until no part is too large.

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
    # The widest gap in the middle half separates best; peaks on top of each other are cut in the middle.
    first, last = max(len(order) // 4, 1), max(-(-3 * len(order) // 4), 2)
    gaps = sorted_along[first:last] - sorted_along[first - 1 : last - 1]
    cut = first + int(gaps.argmax())
    return [part for half in (order[:cut], order[cut:]) for part in split(positions, members[half], most, extent_px)]


def detect_peaks(
    frame: FloatArray,
    background: Background,
    masked: BoolArray | None = None,
    psf: PSF | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    detector: str = "contrast",
) -> tuple[Peaks, float]:
    """Point-like spots of a frame.

    Args:
        frame: (H, W) in counts, NaN allowed.
        background: of this frame.
        masked: (H, W) further pixels to leave out.
        psf: point spread function; None looks for spots of all usual sizes.
        false_alarm_rate: stated false alarms a pixel in Gaussian noise.
        detector: "contrast" or "matched".

    Returns:
        The peaks, most significant first, and the threshold in standard deviations.

    Raises:
        InputError: if the detector is unknown, the rate out of range, or "matched" is asked for without a PSF.
    """
    if detector not in DETECTORS:
        raise InputError(f"detector must be one of {', '.join(DETECTORS)}, got {detector!r}")
    if detector == "matched":
        if psf is None:
            raise InputError("the matched detector needs the PSF: give psf or sensor, or use detector='contrast'")
        threshold = threshold_sigmas(false_alarm_rate)
        return find_peaks(matched_map(frame, background, psf, masked), threshold), threshold
    scales: Sequence[float] = UNKNOWN_PSF_SCALES_PX
    if psf is not None:
        scales = [equivalent_sigma(psf) * factor for factor in KNOWN_PSF_SCALES]
    threshold = threshold_sigmas(false_alarm_rate, len(scales))
    valid = np.isfinite(frame) if masked is None else np.isfinite(frame) & ~masked
    flattened = np.where(valid, frame - background.level, 0.0)
    responses = [_contrast(flattened, scale) for scale in scales]
    sources = point_sources(flattened, background.noise, responses, None if psf is None else equivalent_sigma(psf))
    return _contrast_peaks(frame, valid, responses, sources, threshold), threshold
