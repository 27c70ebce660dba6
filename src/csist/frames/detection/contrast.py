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
peak. In clutter every spot that stands out of the noise alone is a candidate, too, and a candidate becomes a peak by
its probability to be a target (`csist.frames.detection.clutter`). Where most of a frame's strong spots have the shape
of the PSF they are not clutter, however many; the tail is then measured beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import ndtri

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.background.estimate import Background
from csist.frames.detection.clutter import clutter_features, least_probability, target_probability
from csist.frames.detection.likeness import likeness_to_sources, transformed
from csist.frames.detection.peaks import Peaks, find_peaks, threshold_sigmas
from csist.frames.detection.point_sources import (
    GROUPED_CORRELATION,
    POINT_CORRELATION,
    SPOT_SIGMAS,
    SPOTS_APART_PX,
    PointSources,
    faint_sources,
    light_of,
    point_sources,
    shape_correlation,
    spots_above,
)
from csist.frames.detection.responses import Response, contrast_response
from csist.frames.detection.spots import DEFAULT_SIGMA_PX
from csist.frames.detection.tails import (
    LocalTail,
    Tail,
    box_values,
    mark_tail,
    outdone_by_ring,
    quantiles_of_sorted,
    raise_to_tail,
    ring_values,
    tail_map,
    tail_of,
    tail_values,
)
from csist.frames.kernels import in_noise
from csist.frames.options import FALSE_ALARM_RATE
from csist.physics.psf import PSF, equivalent_sigma

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

FEWEST_TAIL_PIXELS = 100
WHITE_FILTERS = 3
"""Filters, the narrowest ones, whose scatter tells white noise from clutter."""
WHITE_SCATTER = (0.12, 0.15)
"""How far the scatter of the responses may be below and above that of white noise where a frame is limited by noise."""
CERTAIN_PIXELS = 2500
"""Pixels by which the scatter is known well enough for that. Of fewer it has a larger error of its own."""
WHITE_QUANTILE, WHITE_TAIL = 0.998, 1.2
"""Largest upper quantile of the responses there, in units of the Gaussian one."""
WHITE_PIXELS = 6
"""Pixels that may be above it in any frame: a single excursion of noise has some."""
MOST_TEXTURE_PIXELS = 60_000
FAINT_SIGMAS = 5.0
"""Significance against the noise alone from which a spot may be one of many faint point sources."""
LEAST_DARK_SHARE = 0.2
"""Share of a frame that must be without their light."""


@dataclass(frozen=True, eq=False)
class ContrastFrame:
    """A frame as the contrast detector sees it.

    Args:
        flattened: (H, W) background-subtracted counts in single precision, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        valid: (H, W) pixels that count.
        floor: smallest noise of a pixel in counts.
        psf: point spread function; None looks for spots of all usual sizes.
    """

    flattened: NDArray[np.float32]
    noise: FloatArray
    valid: BoolArray
    floor: float
    psf: PSF | None

    @classmethod
    def of(cls, frame: FloatArray, background: Background, masked: BoolArray | None, psf: PSF | None) -> ContrastFrame:
        """A frame (H, W) in counts, NaN allowed, with further pixels to leave out (H, W)."""
        valid = np.isfinite(frame) if masked is None else np.isfinite(frame) & ~masked
        flattened = np.empty(frame.shape, dtype=np.float32)
        np.subtract(frame, background.level, out=flattened, casting="same_kind")
        if not valid.all():
            flattened[~valid] = 0.0
        return cls(flattened, background.noise, valid, background.floor_of(frame), psf)

    @property
    def sigma_px(self) -> float | None:
        """Of the PSF; None where it is not known."""
        return None if self.psf is None else equivalent_sigma(self.psf)

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
    def spots(self) -> Peaks:
        """The spots that stand out of the noise alone, strongest first."""
        return spots_above(SPOT_SIGMAS, self.noise, self.responses)

    @cached_property
    def sources(self) -> PointSources | None:
        """The spots that look like point sources, if most of the strong ones do."""
        return point_sources(self.flattened, self.noise, self.spots, self.sigma_px)

    @cached_property
    def faint_sources(self) -> PointSources | None:
        """All spots that look like point sources, if beside their light there is nothing but white noise.

        Many faint sources are a tail of the responses, and the light of brighter ones is spread by the filters. None
        where the bright ones alone explain the frame, or nothing does.
        """
        if self._is_white_beside_bright:
            return None
        spots = spots_above(FAINT_SIGMAS, self.noise, self.responses)
        sigma_px = self.sigma_px if self.sources is None else self.sources.sigma_px
        # Most frames of clutter are not white beside all spots either, which takes less to find out than their shapes.
        if not self._is_dark_beside(light_of(self.valid.shape, spots, sigma_px or DEFAULT_SIGMA_PX)):
            return None
        found = faint_sources(self.flattened, self.noise, spots, sigma_px)
        return found if found is not None and self._is_dark_beside(found.pixels) else None

    def _is_dark_beside(self, light: BoolArray) -> bool:
        """Whether there is only white noise beside some pixels (H, W), and enough of it."""
        darker = self.valid & ~light
        return bool(darker.mean() >= LEAST_DARK_SHARE) and self._is_white(darker)

    @cached_property
    def _beside_bright(self) -> BoolArray:
        """Pixels (H, W) beside the bright point sources."""
        beside = self.valid if self.sources is None else self.valid & ~self.sources.pixels
        return beside if beside.sum() >= FEWEST_TAIL_PIXELS else self.valid

    @cached_property
    def _is_white_beside_bright(self) -> bool:
        """Whether there is only white noise beside the bright point sources."""
        return self._is_white(self._beside_bright)

    @cached_property
    def beside(self) -> BoolArray:
        """Pixels (H, W) on which the tail is measured."""
        return self._beside_bright if self.faint_sources is None else self.valid & ~self.faint_sources.pixels

    @cached_property
    def noise_limited(self) -> bool:
        """Whether nothing but white noise is beside the point sources: all filters scatter as in it, without a tail.

        Clutter scatters more in the wider filters, compression less in the narrower ones.
        """
        return self._is_white_beside_bright or self.faint_sources is not None

    def _is_white(self, pixels: BoolArray) -> bool:
        """Whether the responses of some pixels (H, W) are those of white noise."""
        step = max(1, round((self.flattened.size / MOST_TEXTURE_PIXELS) ** 0.5))
        for values, gain in self.responses[:WHITE_FILTERS]:
            unit = in_noise(values, gain, self.noise, pixels, step)
            scatter = 1.4826 * float(np.median(np.abs(unit)))
            wider = max(1.0, (CERTAIN_PIXELS / max(unit.size, 1)) ** 0.5)
            if not 1.0 - wider * WHITE_SCATTER[0] <= scatter <= 1.0 + wider * WHITE_SCATTER[1]:
                return False
            outside = int((unit > WHITE_TAIL * float(ndtri(WHITE_QUANTILE)) * scatter).sum())
            if outside > max((1.0 - WHITE_QUANTILE) * unit.size, WHITE_PIXELS):
                return False
        return True

    def significant(self, false_alarm_rate: float) -> tuple[Peaks, float]:
        """Spots by their significance alone, and the threshold in standard deviations."""
        threshold = threshold_sigmas(false_alarm_rate, len(self.scales))
        tails = _tails(self.responses, self.beside, self.floor)
        return _significant_peaks(tails, self.valid, self.beside, threshold, Peaks(*np.empty((4, 0)))), threshold

    def candidates(self, false_alarm_rate: float) -> tuple[Peaks, float]:
        """Spots by their significance or by what they are above the noise alone, and the threshold.

        A few long edges or wires hide a target from the former.
        """
        threshold = threshold_sigmas(false_alarm_rate, len(self.scales))
        tails = _tails(self.responses, self.beside, self.floor)
        return _significant_peaks(tails, self.valid, self.beside, threshold, self.spots), threshold

    def clutter_features(self, candidates: Peaks) -> FloatArray:
        """What tells targets from clutter (n, features) at each candidate, see `csist.frames.detection.clutter`."""
        seen = self.flattened if self.valid.all() else np.where(self.valid, self.flattened, np.nan)
        rows, columns = np.rint(candidates.y).astype(int), np.rint(candidates.x).astype(int)
        # Neither point sources nor what is a candidate only at a larger false-alarm rate.
        counted = candidates.significance >= threshold_sigmas(FALSE_ALARM_RATE, len(self.scales))
        if len(self.spots):
            distance, _ = KDTree(self.spots.positions).query(candidates.positions)
            counted |= np.asarray(distance <= SPOTS_APART_PX)
        counted &= self.beside[rows, columns]
        if self.psf is None:
            nobody = np.zeros(len(candidates), dtype=bool)
            return clutter_features(seen, candidates, self.floor, None, counted, nobody)
        # What has the shape of a known PSF may be a faint target: it is no evidence of clutter.
        sigma_px = equivalent_sigma(self.psf)
        likeness = shape_correlation(self.flattened, rows, columns, sigma_px)
        counted &= likeness < POINT_CORRELATION
        targets = likeness >= GROUPED_CORRELATION
        features = clutter_features(seen, candidates, self.floor, sigma_px, counted, targets)
        grouped = likeness_to_sources(self.flattened, rows, columns, self.psf)
        return np.concatenate([features, transformed(np.stack([likeness, grouped], axis=1))], axis=1)

    def peaks(self, false_alarm_rate: float) -> tuple[Peaks, float]:
        """Spots, most significant first, and the threshold; in clutter those that are likely targets."""
        if self.noise_limited:
            peaks, threshold = self.significant(false_alarm_rate)
            return peaks.in_white_noise(), threshold
        peaks, threshold = self.candidates(false_alarm_rate)
        if not len(peaks):
            return peaks, threshold
        probability = target_probability(self.clutter_features(peaks))
        least = least_probability(false_alarm_rate, known_psf=self.psf is not None)
        return replace(peaks, score=probability)[probability >= least], threshold


def _local_quantiles(response: NDArray[np.floating], valid: BoolArray, box: int) -> FloatArray:
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
    response: NDArray[np.floating],
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


def _tails(responses: Sequence[Response], beside: BoolArray, floor: float) -> list[LocalTail]:
    """The local tails of the responses on some pixels (H, W); the floor is the smallest noise of a pixel in counts."""
    return [
        LocalTail(
            values,
            _local_quantiles(values, beside, TAIL_BOX_PX),
            Tail(*_TAIL_SIGMAS, floor * gain, SMALLEST_TAIL_EXPONENT),
        )
        for values, gain in responses
    ]


def _significant_peaks(
    every: Sequence[LocalTail], valid: BoolArray, beside: BoolArray, threshold: float, spots: Peaks
) -> Peaks:
    """Peaks at or above a threshold by the contrast measure (see the module's text), and spots, most significant first.

    Args:
        every: local tails of the filters' responses.
        valid: (H, W) pixels that count.
        beside: (H, W) pixels on which the tail is measured.
        threshold: smallest significance.
        spots: further ones, which are kept whatever their significance, unless a peak is next to them.
    """
    marks, best = np.zeros(valid.shape, dtype=bool), np.zeros(valid.shape, dtype=np.float32)
    for values, mesh, tail in every:
        mark_tail(values, mesh, tail, LEAST_WIDE_SHARE * threshold, marks)
    marks &= valid
    for values, mesh, tail in every:
        raise_to_tail(values, mesh, tail, marks, best)
    beside = beside & (best < threshold)  # other sources are not clutter
    peaks = find_peaks(best, LEAST_WIDE_SHARE * threshold)
    peaks = _judged(every, peaks[_may_reach(every, peaks, beside, threshold)], beside, threshold)
    peaks = peaks[peaks.significance >= threshold]
    if len(spots) and len(peaks):
        spots = spots[np.asarray(KDTree(peaks.positions).query(spots.positions)[0]) > SPOTS_APART_PX]
    return peaks.merged(_judged(every, spots, beside, threshold))


def _may_reach(every: Sequence[LocalTail], peaks: Peaks, beside: BoolArray, threshold: float) -> BoolArray:
    """Which peaks (n,) may be as significant as a threshold: most are not, which takes less than to judge them."""
    places, ring = _places(peaks), _ring(*RING_PX)
    below = np.ones(len(peaks), dtype=bool)
    for local in every:
        below &= outdone_by_ring(local, beside, places, ring, TAIL_QUANTILES[1], threshold)
    return ~below


def _places(peaks: Peaks) -> IntArray:
    """Rows and columns (n, 2) of the pixels of peaks."""
    return np.rint(peaks.positions[:, ::-1]).astype(np.int64)


def _judged(every: Sequence[LocalTail], peaks: Peaks, beside: BoolArray, threshold: float) -> Peaks:
    """Peaks with their significance by the contrast measure, most significant first.

    Args:
        every: local tails of the filters' responses.
        peaks: n positions.
        beside: (H, W) pixels that a ring around a peak may hold.
        threshold: significance at which the score is a half.
    """
    if not len(peaks):
        return peaks
    places = _places(peaks)
    significance = np.full(len(peaks), 1e-3)
    for values, mesh, tail in every:
        near = _ring_significance(values, places, beside, tail)
        far = tail_values(values, mesh, tail, places)
        np.maximum(significance, np.where(np.isnan(near), far, np.sqrt(near * far)), out=significance)
    judged = Peaks.beyond(threshold, peaks.x, peaks.y, significance)
    return judged[np.argsort(-significance, kind="stable")]


def _ring_significance(response: NDArray[np.floating], places: IntArray, beside: BoolArray, tail: Tail) -> FloatArray:
    """Significance (n,) of the highest response within one pixel of each position, by the tail in a ring around it.

    NaN where the ring has too few pixels.

    Args:
        response: (H, W) of a filter.
        places: (n, 2) rows and columns.
        beside: (H, W) pixels that a ring may hold.
        tail: how responses are mapped onto standard deviations.
    """
    middle, low, high = _quantiles(*ring_values(response, beside, places, _ring(*RING_PX)))
    rows, columns = (
        np.clip(place[:, None] + [-1, 0, 1], 0, n - 1) for place, n in zip(places.T, response.shape, strict=True)
    )
    top = response[rows[:, :, None], columns[:, None, :]].max(axis=(1, 2))
    enough = np.isfinite(middle)
    result = np.full(len(places), np.nan)
    excess, low, high = (value[enough] for value in (top - middle, low - middle, high - middle))
    result[enough] = tail_of(excess, low, high, tail)
    return result


@lru_cache(maxsize=8)
def _ring(inner_px: float, outer_px: float) -> IntArray:
    """Offsets (m, 2) along rows and columns of the pixels between two radii, on a checkerboard."""
    reach = np.arange(-int(outer_px), int(outer_px) + 1)
    distance = np.hypot(reach[:, None], reach)
    chosen = (distance > inner_px) & (distance <= outer_px) & ((reach[:, None] + reach) % 2 == 0)
    return reach[np.stack(np.nonzero(chosen), axis=1)]
