"""Detections before any fit: local maxima of a significance map, and the threshold they must reach."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import expit, log_ndtr, ndtri

from csist._types import BoolArray, FloatArray, IntArray
from csist.checks import check_positive
from csist.frames.grouping import link
from csist.frames.kernels import local_maxima
from csist.frames.options import check_false_alarm_rate

TARGETS_PER_PIXEL = 1e-4
"""Targets that are expected, before a frame is seen."""


@dataclass(frozen=True)
class Peaks:
    """Detections before any fit, most significant first.

    Args:
        x: columns in px, (n,).
        y: rows in px, (n,).
        significance: in Gaussian standard deviations, (n,).
        score: from 0 to 1, (n,): the probability of a target, or z / (z + threshold), z the significance, where more
            than noise is in the frame and nothing tells what it is.
    """

    x: FloatArray
    y: FloatArray
    significance: FloatArray
    score: FloatArray

    @classmethod
    def beyond(cls, threshold: float, x: FloatArray, y: FloatArray, significance: FloatArray) -> Peaks:
        """Peaks whose score is z / (z + threshold)."""
        return cls(x, y, significance, significance / (significance + threshold))

    def in_white_noise(self) -> Peaks:
        """The same where nothing but noise is beside targets: with the probability of a target as the score.

        >>> peaks = Peaks.beyond(4.0, np.zeros(3), np.zeros(3), np.array([3.7, 4.5, 6.0]))
        >>> peaks.in_white_noise().score.round(3).tolist()
        [0.481, 0.967, 1.0]
        """
        return replace(self, score=expit(np.log(TARGETS_PER_PIXEL) - log_ndtr(-self.significance)))

    def __len__(self) -> int:
        return int(self.x.size)

    def __getitem__(self, key: IntArray | BoolArray | slice) -> Peaks:
        return Peaks(self.x[key], self.y[key], self.significance[key], self.score[key])

    def merged(self, *others: Peaks) -> Peaks:
        """These and others, most significant first."""
        parts = (self, *others)
        every = Peaks(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(self)))
        return every[np.argsort(-every.significance, kind="stable")]

    @property
    def positions(self) -> FloatArray:
        """(n, 2) columns x, y in px."""
        return np.stack([self.x, self.y], axis=1)


def threshold_sigmas(false_alarm_rate: float, scales: int = 1) -> float:
    """Significance that noise exceeds `false_alarm_rate` times per pixel, shared equally between independent scales.

    Raises:
        InputError: if the rate is not between 0 and 0.1.

    >>> round(threshold_sigmas(1e-3), 2)
    3.09
    """
    return float(-ndtri(check_false_alarm_rate(false_alarm_rate) / scales))


def find_peaks(significance: NDArray[np.floating], threshold: float, reach_px: int = 1) -> Peaks:
    """Local maxima of a map at or above a threshold, one for each plateau, refined to a fraction of a pixel.

    Args:
        significance: (H, W).
        threshold: smallest significance, > 0.
        reach_px: a maximum is the largest value within so many pixels along rows and columns.
    """
    check_positive("threshold", threshold)
    significance = significance.astype(np.float32, copy=False)
    tops = local_maxima(significance, threshold, reach_px)
    if not len(tops):
        return Peaks(*np.empty((4, 0)))
    plateau = _plateaus(tops, significance.shape[1])
    size = np.bincount(plateau)
    centres = np.stack([np.bincount(plateau, weights=place) / size for place in tops.T], axis=1)
    rows, columns = np.rint(centres).astype(np.int64).T
    values = np.zeros(len(size))
    np.maximum.at(values, plateau, significance[tops[:, 0], tops[:, 1]])
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
    return Peaks.beyond(threshold, x[order], y[order], np.asarray(values, dtype=np.float64)[order])


def _plateaus(tops: IntArray, width: int) -> IntArray:
    """Label of the plateau, 0, 1, ..., of each maximum: neighbours, diagonal ones too, are one.

    Args:
        tops: (n, 2) rows and columns, in row order.
        width: of the map.
    """
    place = tops[:, 0] * (width + 2) + tops[:, 1]
    for step in (1, width + 1, width + 2, width + 3):
        following = np.searchsorted(place, place + step)
        if (place[np.minimum(following, len(place) - 1)] == place + step).any():
            return link(tops.astype(np.float64), 1.5)
    return np.arange(len(tops))


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
