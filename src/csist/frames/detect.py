"""Where in a frame point-like sources stand out, how significantly, and which of them overlap.

Two measures of "standing out" exist. "contrast" is for real infrared scenes: the scale-normalised Laplacian of
Gaussian (Lindeberg, IJCV 30, 79, 1998) compares each spot with the ring around it, and its response is turned into
standard deviations by the tail of the responses NEARBY. In clutter these have much heavier tails than a Gaussian,
so two upper quantiles are measured and a Weibull tail through both is mapped onto the Gaussian one:

    z = z_hi * (r / r_hi)^k,   k = log(z_hi / z_lo) / log(r_hi / r_lo), at most 1,

with r_lo, r_hi the responses at the quantiles that a normal variable reaches at z_lo, z_hi. White noise gives k = 1.
"matched" is for frames limited by noise, star fields among them: the matched filter in white noise (North, 1943; Turin,
IRE Trans. Inf. Theory 6, 311, 1960) on the background-subtracted frame, in units of its own noise.
Either way the threshold is the Gaussian quantile of the stated false-alarm rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import oaconvolve
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import ndtri

from csist.checks import InputError, check_positive
from csist.frames.background import Background, noise_floor
from csist.physics.psf import PSF, GaussianPSF

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

DETECTORS = ("contrast", "matched")

UNKNOWN_PSF_SCALES_PX = (0.7, 1.0, 1.5, 2.2)
"""Widths of the Laplacian of Gaussian where nothing is known of the PSF."""
KNOWN_PSF_SCALES = (1.0, 1.7)
"""The same in units of the PSF's sigma: the narrow one tells clutter best, the wide one is best in white noise."""

TAIL_QUANTILES = (0.90, 0.98)
SMALLEST_TAIL_EXPONENT = 0.4
TAIL_BOX_PX = 96
"""Side of the neighbourhood whose responses set the scale."""

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

    @property
    def positions(self) -> FloatArray:
        """(n, 2) columns x, y in px."""
        return np.stack([self.x, self.y], axis=1)


def equivalent_sigma(psf: PSF) -> float:
    """Sigma in px of the Gaussian with the same noise-equivalent area, 4 pi sigma^2 = 1 / sum(response^2)."""
    if isinstance(psf, GaussianPSF):
        return psf.sigma_px
    reach = np.arange(-np.ceil(psf.radius_px), np.ceil(psf.radius_px) + 1)
    response = psf.response(reach[None, :], reach[:, None])
    return float(np.sqrt((response.sum() ** 2 / (response**2).sum()) / (4.0 * np.pi)))


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


def _local_quantiles(response: FloatArray, valid: BoolArray, box: int) -> list[FloatArray]:
    """Median, lower and upper quantile of the response in overlapping boxes, interpolated to every pixel."""
    counts = [max(2, round(2 * n / box)) for n in response.shape]
    centres = [np.linspace(0.0, n - 1.0, count) for n, count in zip(response.shape, counts, strict=True)]
    mesh = np.empty((3, *counts))
    half = box // 2
    everything = np.quantile(response[valid], (0.5, *TAIL_QUANTILES))
    for i, row in enumerate(centres[0].astype(int)):
        for j, column in enumerate(centres[1].astype(int)):
            part = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
            values = response[part][valid[part]]
            mesh[:, i, j] = np.quantile(values, (0.5, *TAIL_QUANTILES)) if values.size >= 100 else everything
    rows, columns = (
        np.maximum(1.0 - np.abs(np.linspace(0.0, count - 1.0, n)[:, None] - np.arange(count)), 0.0)
        for n, count in zip(response.shape, counts, strict=True)
    )
    return [rows @ part @ columns.T for part in mesh]


def tail_significance(response: FloatArray, valid: BoolArray, floor: float, box_px: int = TAIL_BOX_PX) -> FloatArray:
    """Turn filter responses into Gaussian standard deviations by the local tail (see the module's text).

    Args:
        response: (H, W) of a filter that sums to zero.
        valid: (H, W) pixels that count.
        floor: smallest standard deviation of the response that the frame's rounding allows, > 0.
        box_px: side of the neighbourhood in px.
    """
    z_low, z_high = ndtri(np.array(TAIL_QUANTILES))
    middle, low, high = _local_quantiles(response, valid, box_px)
    low = np.maximum(low - middle, floor * z_low)
    high = np.maximum(high - middle, floor * z_high)
    exponent = np.log(z_high / z_low) / np.log(np.maximum(high / low, 1.001))
    exponent = np.clip(exponent, SMALLEST_TAIL_EXPONENT, 1.0)
    return np.asarray(z_high * (np.maximum(response - middle, 0.0) / high) ** exponent)


def contrast_map(
    frame: FloatArray,
    scales_px: Sequence[float],
    masked: BoolArray | None = None,
    background: FloatArray | None = None,
) -> FloatArray:
    """Significance (H, W) of the brightest-scale Laplacian-of-Gaussian response at each pixel.

    Args:
        frame: (H, W) in counts.
        scales_px: widths of the Laplacian in px.
        masked: (H, W) pixels to leave out: they take the background's value and have no significance.
        background: (H, W) level in counts; needed where a pixel is masked, and it makes little difference elsewhere.

    Raises:
        InputError: if there is no scale or one is not positive.
    """
    if not len(scales_px):
        raise InputError("scales_px must hold at least one width in px, got none")
    flattened = frame if background is None else frame - background
    valid = np.isfinite(flattened) if masked is None else np.isfinite(flattened) & ~masked
    flattened = np.where(valid, flattened, 0.0 if background is not None else np.median(flattened[valid]))
    rounding = noise_floor(np.where(valid, frame, np.nan))
    best = np.zeros(frame.shape)
    for scale in scales_px:
        check_positive("scales_px", scale)
        response = -(scale**2) * ndimage.gaussian_laplace(flattened, scale, mode="mirror")
        impulse = np.zeros(2 * [2 * int(np.ceil(4 * scale)) + 1])
        impulse[impulse.shape[0] // 2, impulse.shape[1] // 2] = 1.0
        gain = scale**2 * np.sqrt((ndimage.gaussian_laplace(impulse, scale, mode="constant") ** 2).sum())
        np.maximum(best, tail_significance(response, valid, rounding * float(gain)), out=best)
    best[~valid] = 0.0
    return best


def matched_map(frame: FloatArray, background: Background, psf: PSF, masked: BoolArray | None = None) -> FloatArray:
    """Significance (H, W) of the matched filter in white noise.

    Each pixel is divided by its own noise first; near edges and masked pixels the filter is renormalised to what
    it still sees, z = sum(p d / s) / sqrt(sum(p^2)) over the valid pixels.

    Args:
        frame: (H, W) in counts.
        background: level and noise in counts.
        psf: point spread function.
        masked: (H, W) pixels to leave out; they have no significance.
    """
    normalised = (frame - background.level) / background.noise
    valid = np.isfinite(normalised) if masked is None else np.isfinite(normalised) & ~masked
    reach = np.arange(-np.ceil(psf.radius_px), np.ceil(psf.radius_px) + 1)
    kernel = psf.response(reach[None, :], reach[:, None])[::-1, ::-1]
    top = oaconvolve(np.where(valid, normalised, 0.0), kernel, mode="same")
    seen = oaconvolve(valid.astype(np.float64), kernel**2, mode="same")
    # Where the centre's own share is missing there is nothing to measure.
    return np.where(valid, top / np.sqrt(np.maximum(seen, 0.1 * (kernel**2).sum())), 0.0)


def find_peaks(significance: FloatArray, threshold: float, reach_px: int = 1) -> Peaks:
    """Local maxima of a map at or above a threshold, one for each plateau, refined to a fraction of a pixel.

    Args:
        significance: (H, W).
        threshold: smallest significance, > 0.
        reach_px: a maximum is the largest value within so many pixels along rows and columns.
    """
    check_positive("threshold", threshold)
    top = ndimage.maximum_filter(significance, size=2 * reach_px + 1, mode="nearest")
    candidates = (significance == top) & (significance >= threshold)
    labels, number = ndimage.label(candidates, structure=np.ones((3, 3)))
    if number == 0:
        return Peaks(np.empty(0), np.empty(0), np.empty(0))
    centres = np.array(ndimage.center_of_mass(candidates, labels, np.arange(1, number + 1)))
    rows, columns = np.rint(centres).astype(np.int64).T
    values = ndimage.maximum(significance, labels, np.arange(1, number + 1))
    x, y = centres[:, 1].copy(), centres[:, 0].copy()
    for position, index, other, axis in ((x, columns, rows, 1), (y, rows, columns, 0)):
        # Vertex of the parabola through the maximum and its two neighbours along this axis.
        inside = (index > 0) & (index < significance.shape[axis] - 1)
        i, o = index[inside], other[inside]
        before, here, after = (
            significance[(o, i + step) if axis == 1 else (i + step, o)] for step in (-1, 0, 1)
        )
        bend = before - 2.0 * here + after
        shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
        position[inside] += np.clip(shift, -0.5, 0.5)
    order = np.argsort(-np.asarray(values), kind="stable")
    return Peaks(x[order], y[order], np.asarray(values, dtype=np.float64)[order])


def keep_strongest(peaks: Peaks, distance_px: float) -> Peaks:
    """Peaks without those that have a stronger kept one within `distance_px`."""
    if len(peaks) < 2:
        return peaks
    neighbours = KDTree(peaks.positions).query_ball_point(peaks.positions, distance_px)
    kept = np.ones(len(peaks), dtype=bool)
    for i, close in enumerate(neighbours):  # strongest first
        if kept[i]:
            kept[[j for j in close if j > i]] = False
    return peaks[kept]


def link(positions: FloatArray, distance_px: float) -> IntArray:
    """Number of the group, 0, 1, ..., of each position (n, 2): closer than `distance_px` is the same group.

    >>> link(np.array([[0.0, 0.0], [9.0, 0.0], [2.0, 0.0]]), 3.0).tolist()
    [0, 1, 0]
    """
    if len(positions) == 0:
        return np.empty(0, dtype=np.int64)
    pairs = KDTree(positions).query_pairs(distance_px, output_type="ndarray")
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


def detect(
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
    return find_peaks(contrast_map(frame, scales, masked, background.level), threshold), threshold
