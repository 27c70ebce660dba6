"""The contrast detector: spots that stand out of the clutter around them.

The scale-normalised Laplacian of Gaussian (Lindeberg, IJCV 30, 79, 1998) compares each spot with the ring around it,
and its response is turned into standard deviations by the tail of the responses NEARBY. In clutter these have much
heavier tails than a Gaussian, so two upper quantiles are measured and a Weibull tail through both is mapped onto the
Gaussian one:

    z = z_hi * (r / r_hi)^k,   k = log(z_hi / z_lo) / log(r_hi / r_lo), at most 1,

with r_lo, r_hi the responses at the quantiles that a normal variable reaches at z_lo, z_hi, from r_hi on; below it
z is piecewise linear. White noise gives k = 1.

Where clear sky and clutter meet, a wide neighbourhood judges the one by the other, and a narrow one holds too little of
a tail. A peak's significance is therefore the geometric mean of two: by the neighbourhood, and by a ring around the
peak. Where most of a frame's strong spots have the shape of the PSF they are not clutter, however many; the tail is
then measured beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtri

from csist._types import BoolArray, FloatArray, IntArray
from csist.checks import check_positive
from csist.frames.background import Background, noise_floor
from csist.frames.clutter import least_probability, target_probability
from csist.frames.kernels import (
    Tail,
    box_values,
    quantiles_of_sorted,
    ring_values,
    sum_of_products,
    tail_map,
    tail_of,
)
from csist.frames.peaks import Peaks, find_peaks, keep_strongest, threshold_sigmas
from csist.frames.spots import typical_sigma
from csist.physics.psf import PSF, GaussianPSF, equivalent_sigma

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
"""Rows and columns of a neighbourhood that are sampled: adjacent responses are strongly correlated."""
RING_PX = (6.0, 16.0)
"""Radii of the ring around a peak that its response is also compared with; the inner one clears the peak itself."""
LEAST_WIDE_SHARE = 0.5
"""Peaks that the neighbourhood gives less than this share of the threshold are dropped before the ring is measured."""

SPOT_SIGMAS = 10.0
"""Significance against the noise alone from which a spot's shape is examined."""
POINT_CORRELATION = 0.8
"""Correlation with the PSF from which a spot looks like a point source."""
POINT_SHARE = 0.5
"""Share of the strongest spots that must look like point sources, for the frame to be taken as a field of them."""
BRIGHT_SIGMAS = 300.0
"""Significance from which a source's light is spread farther by the filters than its own disc."""
WIDEST_RESPONSE = 2.2
"""Width of the widest filter in units of the PSF's sigma, about."""
MOST_JUDGED_SPOTS = 200
"""Strongest spots that this share is taken of."""
FEWEST_TAIL_PIXELS = 100
WHITE_FILTERS = 3
"""Filters, the narrowest ones, whose scatter tells white noise from clutter."""
WHITE_SCATTER = (0.88, 1.15)
"""Scatter of the responses in units of that of white noise, within which a frame is limited by noise."""
WHITE_QUANTILE, WHITE_TAIL = 0.998, 1.2
"""Largest upper quantile of the responses there, in units of the Gaussian one."""
MOST_TEXTURE_PIXELS = 60_000


class Response(NamedTuple):
    """Response of a frame to one filter.

    Args:
        values: (H, W).
        gain: standard deviation of the response to unit white noise.
    """

    values: FloatArray
    gain: float


@dataclass(frozen=True, eq=False)
class ContrastFrame:
    """A frame as the contrast detector sees it.

    Args:
        flattened: (H, W) background-subtracted counts, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        valid: (H, W) pixels that count.
        floor: smallest noise of a pixel in counts.
        sigma_px: of the PSF; None looks for spots of all usual sizes.
    """

    flattened: FloatArray
    noise: FloatArray
    valid: BoolArray
    floor: float
    sigma_px: float | None

    @classmethod
    def of(cls, frame: FloatArray, background: Background, masked: BoolArray | None, psf: PSF | None) -> ContrastFrame:
        """A frame (H, W) in counts, NaN allowed, with further pixels to leave out (H, W)."""
        valid = np.isfinite(frame) if masked is None else np.isfinite(frame) & ~masked
        flattened = np.where(valid, frame - background.level, 0.0)
        floor = noise_floor(frame if valid.all() else np.where(valid, frame, np.nan))
        return cls(flattened, background.noise, valid, floor, None if psf is None else equivalent_sigma(psf))

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Widths of the filters in px."""
        if self.sigma_px is None:
            return UNKNOWN_PSF_SCALES_PX
        return tuple(self.sigma_px * factor for factor in KNOWN_PSF_SCALES)

    @cached_property
    def responses(self) -> list[Response]:
        """Responses to the Laplacians of Gaussian."""
        return [contrast_response(self.flattened, scale) for scale in self.scales]

    @cached_property
    def sources(self) -> PointSources | None:
        """The spots that look like point sources, if most of the strong ones do."""
        return point_sources(self.flattened, self.noise, self.responses, self.sigma_px)

    @cached_property
    def beside(self) -> BoolArray:
        """Pixels (H, W) on which the tail is measured."""
        if self.sources is None:
            return self.valid
        beside = self.valid & ~self.sources.pixels
        return beside if beside.sum() >= FEWEST_TAIL_PIXELS else self.valid

    @cached_property
    def noise_limited(self) -> bool:
        """Whether nothing but white noise is beside the point sources: all filters scatter as in it, without a tail.

        Clutter scatters more in the wider filters, compression less in the narrower ones.
        """
        step = max(1, round((self.flattened.size / MOST_TEXTURE_PIXELS) ** 0.5))
        part = np.s_[::step, ::step]
        beside = self.beside[part]
        for values, gain in self.responses[:WHITE_FILTERS]:
            unit = values[part][beside] / (gain * self.noise[part][beside])
            scatter = 1.4826 * float(np.median(np.abs(unit)))
            if not WHITE_SCATTER[0] <= scatter <= WHITE_SCATTER[1]:
                return False
            if float(np.quantile(unit, WHITE_QUANTILE)) > WHITE_TAIL * float(ndtri(WHITE_QUANTILE)) * scatter:
                return False
        return True

    def significant(self, false_alarm_rate: float) -> tuple[Peaks, float]:
        """Spots by their significance alone, and the threshold in standard deviations."""
        threshold = threshold_sigmas(false_alarm_rate, len(self.scales))
        return _significant_peaks(self.responses, self.valid, self.beside, self.floor, threshold), threshold

    def peaks(self, false_alarm_rate: float) -> tuple[Peaks, float]:
        """Spots, most significant first, and the threshold; in clutter those that are likely targets."""
        peaks, threshold = self.significant(false_alarm_rate)
        if not len(peaks) or self.noise_limited:
            return peaks, threshold
        seen = self.flattened if self.valid.all() else np.where(self.valid, self.flattened, np.nan)
        probability = target_probability(seen, peaks, self.floor, self.sigma_px)
        return replace(peaks, score=probability)[probability >= least_probability(false_alarm_rate)], threshold


def _local_quantiles(response: FloatArray, valid: BoolArray, box: int) -> FloatArray:
    """Median, lower and upper quantile (3, rows, columns) of the response in overlapping boxes all over the frame."""
    counts = [max(2, round(2 * n / box)) for n in response.shape]
    rows, columns = (
        np.linspace(0.0, n - 1.0, count).astype(int) for n, count in zip(response.shape, counts, strict=True)
    )
    half, step = box // 2, max(box // TAIL_SAMPLES, 1)
    # A frame no larger than a box is a single box: in a part of it one wide source would fill the tail.
    reach = [half if n > box else n for n in response.shape]
    values, numbers = box_values(response, valid, rows, columns, (reach[0], reach[1]), step)
    mesh = _quantiles(values, numbers)
    few = np.isnan(mesh[0])
    if few.any():
        mesh[:, few] = np.quantile(response[valid], (0.5, *TAIL_QUANTILES))[:, None]
    return mesh.reshape(3, *counts)


def _quantiles(values: NDArray[np.float32], counts: IntArray) -> FloatArray:
    """Median, lower and upper tail quantile (3, n) of the first `counts` values of each row (n, m), which get sorted.

    NaN where there are fewer than `FEWEST_TAIL_PIXELS`.
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
    tail = Tail(*_TAIL_SIGMAS, floor, smallest_exponent)
    return tail_map(response, _local_quantiles(response, valid, box_px), tail)


def _significant_peaks(
    responses: Sequence[Response], valid: BoolArray, beside: BoolArray, floor: float, threshold: float
) -> Peaks:
    """Peaks at or above a threshold by the contrast measure (see the module's text), most significant first.

    Args:
        responses: of the Laplacians of Gaussian.
        valid: (H, W) pixels that count.
        beside: (H, W) pixels on which the tail is measured.
        floor: smallest noise of a pixel in counts.
        threshold: smallest significance.
    """
    wide = [tail_significance(values, beside, floor * gain) for values, gain in responses]
    best = np.maximum.reduce(wide)
    best[~valid] = 0.0
    peaks = find_peaks(best, LEAST_WIDE_SHARE * threshold)
    if not len(peaks):
        return peaks
    places = np.rint(peaks.positions[:, ::-1]).astype(np.int64)
    beside = beside & (best < threshold)  # other sources are not clutter
    significance = np.zeros(len(peaks))
    for (values, gain), significant in zip(responses, wide, strict=True):
        near = _ring_significance(values, places, beside, floor * gain)
        far = significant[tuple(places.T)]
        np.maximum(significance, np.where(np.isnan(near), far, np.sqrt(near * far)), out=significance)
    order = np.argsort(-significance, kind="stable")
    judged = Peaks.beyond(threshold, peaks.x, peaks.y, significance)
    return judged[order[significance[order] >= threshold]]


def _ring_significance(response: FloatArray, places: IntArray, beside: BoolArray, floor: float) -> FloatArray:
    """Significance (n,) of the highest response within one pixel of each position, by the tail in a ring around it.

    NaN where the ring has too few pixels.

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
    result[enough] = tail_of(excess, low, high, Tail(*_TAIL_SIGMAS, floor, SMALLEST_TAIL_EXPONENT))
    return result


@lru_cache(maxsize=8)
def _ring(inner_px: float, outer_px: float) -> IntArray:
    """Offsets (m, 2) along rows and columns of the pixels between two radii, on a checkerboard."""
    reach = np.arange(-int(outer_px), int(outer_px) + 1)
    distance = np.hypot(reach[:, None], reach)
    chosen = (distance > inner_px) & (distance <= outer_px) & ((reach[:, None] + reach) % 2 == 0)
    return reach[np.stack(np.nonzero(chosen), axis=1)]


class PointSources(NamedTuple):
    """Spots that look like point sources.

    Args:
        pixels: (H, W) that hold their light.
        number: of them.
        sigma_px: of the PSF, or their typical one.
    """

    pixels: BoolArray
    number: int
    sigma_px: float


def contrast_response(flattened: FloatArray, scale: float) -> Response:
    """Scale-normalised Laplacian of Gaussian of a frame (H, W), bright spots positive; `scale` is its sigma in px."""
    smooth, bend = _gaussian_taps(check_positive("scales_px", scale))
    padded = np.pad(flattened, len(smooth) // 2, mode="reflect")
    kernel = np.outer(smooth, bend) + np.outer(bend, smooth)
    gain = float(scale**2 * np.sqrt((kernel**2).sum()))
    return Response(sum_of_products(padded, smooth, -(scale**2) * bend), gain)


@lru_cache(maxsize=32)
def _gaussian_taps(scale: float) -> tuple[FloatArray, FloatArray]:
    """A sampled Gaussian out to four sigma, and its second derivative."""
    impulse = np.zeros(2 * int(4.0 * scale + 0.5) + 1)
    impulse[len(impulse) // 2] = 1.0
    smooth, bend = (ndimage.gaussian_filter1d(impulse, scale, order=order, mode="constant") for order in (0, 2))
    return smooth, bend


def shape_correlation(flattened: FloatArray, rows: IntArray, columns: IntArray, sigma_px: float) -> FloatArray:
    """Correlation (n,), from -1 to 1, of pixels' surroundings with a Gaussian spot on an unknown constant.

    The highest value of the pixel and its eight neighbours within the frame.
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
    responses: Sequence[Response],
    sigma_px: float | None,
) -> PointSources | None:
    """The spots that look like point sources, if most of the frame's strong spots do; else None.

    Args:
        flattened: (H, W) background-subtracted counts, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        responses: of the Laplacians of Gaussian to `flattened`.
        sigma_px: of the PSF; None takes the typical sigma of the strongest spots.
    """
    significance = np.full(flattened.shape, -np.inf)
    for values, gain in responses:
        np.maximum(significance, values / gain, out=significance)
    significance /= noise
    spots = keep_strongest(find_peaks(significance, SPOT_SIGMAS), 3.0)
    if not len(spots):
        return None
    if sigma_px is None:
        sigma_px = typical_sigma(flattened, spots, noise)
    rows, columns = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    point_like = shape_correlation(flattened, rows, columns, sigma_px) >= POINT_CORRELATION
    if point_like[:MOST_JUDGED_SPOTS].mean() < POINT_SHARE:
        return None
    mask = _discs(flattened.shape, rows[point_like], columns[point_like], 3.0 * sigma_px + 1.0)
    # The filters spread the light of a very bright source.
    spread = float(np.hypot(sigma_px, WIDEST_RESPONSE * sigma_px))
    for k in np.flatnonzero(point_like & (spots.significance > BRIGHT_SIGMAS)):
        radius = spread * (2.0 * np.log(spots.significance[k])) ** 0.5 + 1.0
        mask |= _discs(flattened.shape, rows[k : k + 1], columns[k : k + 1], radius)
    return PointSources(mask, int(point_like.sum()), sigma_px)


def _discs(shape: tuple[int, ...], rows: IntArray, columns: IntArray, radius_px: float) -> BoolArray:
    """Pixels (H, W) within a radius of the given positions."""
    reach = np.arange(-int(radius_px), int(radius_px) + 1)
    down, right = (reach[v] for v in np.nonzero(np.hypot(reach[:, None], reach) <= radius_px))
    i, j = rows[:, None] + down, columns[:, None] + right
    inside = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1])
    mask = np.zeros(shape, dtype=bool)
    mask[i[inside], j[inside]] = True
    return mask
