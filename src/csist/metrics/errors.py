"""Errors of detections and of their stated uncertainties: counts, matched errors, coverage, calibration.

Errors are computed for pairs of an optimal assignment instead of the ranked matching of CSO-mAP, so that the pairs do
not depend on the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_positive
from csist.metrics.functional import (
    check_pair,
    column,
    lengths,
    match_detections,
    paired_indices,
    starts,
)
from csist.targets import Targets

MAD_TO_STD = 1.482602218505602
"""Standard deviation of a normal distribution in units of its median absolute deviation."""

CALIBRATION_BINS = 15


def count_accuracy(predictions: Sequence[Targets], truths: Sequence[Targets]) -> float:
    """Fraction of images, 0 to 1, with as many detections as targets; NaN without images.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.

    Raises:
        InputError: if the batches differ in length or hold other things than `Targets`.

    >>> one, two = Targets(x=[1.0], y=[1.0], intensity=[9.0]), Targets(x=[1, 2], y=[1, 2], intensity=[9, 9])
    >>> count_accuracy([one, one], [one, two])
    0.5
    """
    check_pair(predictions, truths)
    if not predictions:
        return float("nan")
    return float(np.mean(lengths(predictions) == lengths(truths)))


@dataclass(frozen=True, eq=False)
class MatchErrors:
    """Errors (detection minus truth) of the matched pairs of a batch; arrays of shape (pairs,).

    Args:
        image: image of each pair.
        prediction: index of the detection in its image.
        truth: index of the target in its image.
        dx: error of the column in px.
        dy: error of the row in px.
        intensity: error of the intensity in counts.
        relative_intensity: error of the intensity in units of the true one; not finite if that is 0 or
            unknown.
        x_std: standard error of x stated by the detection, in px; NaN if there is none.
        y_std: the same for y.
        intensity_std: the same for the intensity, in counts.
        missed: number of targets without a partner.
        spurious: number of detections without a partner.
    """

    image: IntArray = field(repr=False)
    prediction: IntArray = field(repr=False)
    truth: IntArray = field(repr=False)
    dx: FloatArray = field(repr=False)
    dy: FloatArray = field(repr=False)
    intensity: FloatArray = field(repr=False)
    relative_intensity: FloatArray = field(repr=False)
    x_std: FloatArray = field(repr=False)
    y_std: FloatArray = field(repr=False)
    intensity_std: FloatArray = field(repr=False)
    missed: int
    spurious: int

    def __len__(self) -> int:
        return len(self.dx)

    @property
    def distance_px(self) -> FloatArray:
        """Distance of each pair in px, shape (pairs,)."""
        return np.hypot(self.dx, self.dy)


def match_errors(
    predictions: Sequence[Targets], truths: Sequence[Targets], max_distance_px: float | None = None
) -> MatchErrors:
    """Pair detections and targets in each image by the least total squared distance and return the errors.

    The assignment is optimal (Hungarian method). Distances are squared, because plain distances leave ties between
    collinear targets and accept one distant pair in exchange for closer others. With `max_distance_px`, no pair is
    farther apart than that; the number of pairs is maximised first, then their total squared distance minimised.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        max_distance_px: largest distance of a pair in px; None for no limit.

    Raises:
        InputError: if the batches differ in length or hold other things than `Targets`, or the limit is
            not > 0.

    >>> truth = Targets(x=[5.0, 6.0], y=[5.0, 5.0], intensity=[200, 200])
    >>> found = Targets(x=[6.25, 5.0], y=[5.0, 5.5], intensity=[210, 200])
    >>> errors = match_errors([found], [truth])
    >>> errors.prediction.tolist(), errors.truth.tolist(), errors.dx.tolist(), errors.dy.tolist()
    ([0, 1], [1, 0], [0.25, 0.0], [0.0, 0.5])
    """
    check_pair(predictions, truths)
    if max_distance_px is not None:
        check_positive("max_distance_px", max_distance_px)
    found_count, truth_count = lengths(predictions), lengths(truths)
    found_start, truth_start = starts(found_count), starts(truth_count)
    image_of = np.repeat(np.arange(len(predictions)), found_count)
    found, truth = paired_indices(truth_start[image_of], truth_count[image_of])
    position = {name: (column(predictions, name), column(truths, name)) for name in ("x", "y", "intensity")}
    apart = np.hypot(*(position[name][0][found] - position[name][1][truth] for name in ("x", "y")))
    cost = apart**2
    if max_distance_px is not None:
        # A pair beyond the limit costs more than all allowed pairs together, so that no allowed pair is given up.
        most = int(np.minimum(found_count, truth_count).max(initial=0))
        cost = np.where(apart <= max_distance_px, cost, (most + 1) * max_distance_px**2)

    pair_start = starts(found_count * truth_count)
    chosen: list[NDArray[np.int64]] = []
    for index in np.flatnonzero(found_count * truth_count):
        rows, columns = int(found_count[index]), int(truth_count[index])
        start = int(pair_start[index])
        if rows * columns == 1:
            chosen.append(np.array([start]))
            continue
        row, col = linear_sum_assignment(cost[start : start + rows * columns].reshape(rows, columns))
        chosen.append(start + row * columns + col)
    pair = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    if max_distance_px is not None:
        pair = pair[apart[pair] <= max_distance_px]

    found, truth = found[pair], truth[pair]
    image = image_of[found]
    difference = {name: values[found] - true[truth] for name, (values, true) in position.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = difference["intensity"] / position["intensity"][1][truth]
    return MatchErrors(
        image=image,
        prediction=found - found_start[image],
        truth=truth - truth_start[image],
        dx=difference["x"],
        dy=difference["y"],
        intensity=difference["intensity"],
        relative_intensity=relative,
        x_std=column(predictions, "x_std")[found],
        y_std=column(predictions, "y_std")[found],
        intensity_std=column(predictions, "intensity_std")[found],
        missed=int(truth_count.sum()) - len(pair),
        spurious=int(found_count.sum()) - len(pair),
    )


def error_summary(errors: MatchErrors) -> dict[str, float]:
    """Summarise matched errors.

    Returns:
        pairs, missed, spurious; distance_rms in px; and for each of dx, dy (px) and intensity (relative, 0.01 is one
        percent) the root mean square _rms, the _median (bias) and the robust _scatter, 1.4826 times the median
        absolute deviation from the median. NaN if no pair has a finite value.

    >>> one = Targets(x=[5.0], y=[5.0], intensity=[200])
    >>> summary = error_summary(match_errors([one.shifted(0.03, -0.04)], [one]))
    >>> summary["pairs"], round(summary["distance_rms"], 6), round(summary["dy_median"], 6)
    (1, 0.05, -0.04)
    """
    result: dict[str, float] = {"pairs": len(errors), "missed": errors.missed, "spurious": errors.spurious}
    result["distance_rms"] = _rms(errors.distance_px)
    for name, values in (("dx", errors.dx), ("dy", errors.dy), ("intensity", errors.relative_intensity)):
        finite = values[np.isfinite(values)]
        middle = float(np.median(finite)) if finite.size else float("nan")
        result[f"{name}_rms"] = _rms(finite)
        result[f"{name}_median"] = middle
        result[f"{name}_scatter"] = MAD_TO_STD * float(np.median(np.abs(finite - middle))) if finite.size else middle
    return result


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def coverage(errors: MatchErrors, widths: Sequence[float] = (1.0, 1.96)) -> dict[str, float]:
    """Fraction of pairs, 0 to 1, whose error is within a given number of stated standard errors.

    Well calibrated Gaussian errors give 0.683 at 1 and 0.950 at 1.96. Pairs without a stated error are left out.

    Args:
        errors: matched errors.
        widths: half-widths of the intervals in standard errors.

    Returns:
        x_within_1, x_within_1.96, y_within_1, ..., intensity_within_1.96; NaN if no error is stated.

    Raises:
        InputError: if a width is not > 0.
    """
    result = {}
    stated = (
        ("x", errors.dx, errors.x_std),
        ("y", errors.dy, errors.y_std),
        ("intensity", errors.intensity, errors.intensity_std),
    )
    for name, error, std in stated:
        known = np.isfinite(std) & np.isfinite(error)
        for width in widths:
            check_positive("width", width)
            inside = np.abs(error[known]) <= width * std[known]
            result[f"{name}_within_{width:g}"] = float(np.mean(inside)) if inside.size else float("nan")
    return result


class ReliabilityCurve(NamedTuple):
    """Stated and observed probability per bin, lowest bin first; arrays of shape (non-empty bins,)."""

    score: FloatArray
    """Mean score of the bin."""
    right: FloatArray
    """Fraction of the bin's detections with a true target within the matching distance."""
    detections: IntArray
    """Number of detections in the bin."""


def binned_reliability(score: FloatArray, right: NDArray[np.bool_], bins: int = CALIBRATION_BINS) -> ReliabilityCurve:
    """Compute the reliability curve of stated probabilities in bins of equal mass.

    Equal scores share a bin, so that the result does not depend on their order.

    Args:
        score: stated probabilities, (N,).
        right: whether each detection is correct, (N,).
        bins: number of bins.
    """
    if not score.size:
        return ReliabilityCurve(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    middle = (np.cumsum(size) - 0.5 * size)[group]  # number of scores below, equal ones counted half
    part = (middle * bins / len(score)).astype(np.int64)
    count = np.bincount(part, minlength=bins)
    filled = count > 0
    return ReliabilityCurve(
        score=np.bincount(part, weights=score, minlength=bins)[filled] / count[filled],
        right=np.bincount(part, weights=right, minlength=bins)[filled] / count[filled],
        detections=count[filled].astype(np.int64),
    )


def reliability_curve(
    predictions: Sequence[Targets],
    truths: Sequence[Targets],
    distance_px: float = 0.25,
    bins: int = CALIBRATION_BINS,
) -> ReliabilityCurve:
    """Compute the reliability curve of the scores as probabilities of a true target within `distance_px`.

    Bins hold equal numbers of detections, except that equal scores always share a bin, so that the result does not
    depend on the order of the detections. Detections with score NaN are left out.

    Args:
        predictions: detections with scores in [0, 1], one `Targets` per image.
        truths: true targets, one `Targets` per image.
        distance_px: largest distance in px to a true target of a correct detection.
        bins: number of bins.

    Raises:
        InputError: if a score is not a probability, the batches differ in length, or distance or bins are out of
            range.
    """
    if int(bins) != bins or bins < 1:
        raise InputError(f"bins must be a whole number >= 1, got {bins}")
    check_positive("distance_px", distance_px)
    matches = match_detections(predictions, truths)
    known = ~np.isnan(matches.key)
    score, right = matches.key[known], matches.distance_px[known] <= distance_px
    outside = (score < 0) | (score > 1)
    if outside.any():
        raise InputError(f"calibration needs scores that are probabilities in [0, 1], got {score[outside][0]}")
    return binned_reliability(score, right, bins)


def expected_calibration_error(
    predictions: Sequence[Targets],
    truths: Sequence[Targets],
    distance_px: float = 0.25,
    bins: int = CALIBRATION_BINS,
) -> float:
    """Mean over the detections of |stated - observed| probability of a true target within `distance_px`.

    Args:
        predictions: detections with scores in [0, 1] (NaN is left out), one `Targets` per image.
        truths: true targets, one `Targets` per image.
        distance_px: largest distance in px to a true target of a correct detection.
        bins: number of bins of equal mass, see `reliability_curve`.

    Returns:
        0 (perfect) to 1; NaN if no detection has a score.

    Raises:
        InputError: if a score is not a probability, the batches differ in length, or distance or bins are out of
            range.

    >>> truth = Targets(x=[5.0], y=[5.0], intensity=[230])
    >>> expected_calibration_error([Targets(x=[5.0], y=[5.1], intensity=[230], score=[0.75])], [truth])
    0.25
    """
    return mean_deviation(reliability_curve(predictions, truths, distance_px, bins))


def mean_deviation(curve: ReliabilityCurve) -> float:
    """Mean of |stated - observed| probability over the detections of a reliability curve; NaN if there are none."""
    if not curve.detections.size:
        return float("nan")
    return float(np.average(np.abs(curve.score - curve.right), weights=curve.detections))


def interval_coverage(
    predictions: Sequence[Targets], intervals: Sequence[FloatArray], truths: Sequence[Targets]
) -> dict[str, float]:
    """Fraction of targets inside their interval, for `x`, `y` and `intensity`, in images with the correct count.

    Detections and targets are paired by `match_errors` without a distance limit.

    Args:
        predictions: detections, one `Targets` per image.
        intervals: (2, k, 3) lower and upper ends of x, y and intensity of each detection, one array per image.
        truths: true targets, one `Targets` per image.

    Returns:
        Fractions from 0 to 1; NaN without any pair.

    Raises:
        InputError: if the batches differ in length.
    """
    if len(intervals) != len(predictions):
        raise InputError(f"intervals must hold one array per image, got {len(intervals)} for {len(predictions)} images")
    right = [n for n, (found, true) in enumerate(zip(predictions, truths, strict=True)) if len(found) == len(true)]
    errors = match_errors([predictions[n] for n in right], [truths[n] for n in right])
    inside = np.zeros((len(errors.image), 3), dtype=bool)
    for pair, (place, found, true) in enumerate(zip(errors.image, errors.prediction, errors.truth, strict=True)):
        low, high = np.asarray(intervals[right[place]])[:, found]
        target = truths[right[place]]
        value = np.array([target.x[true], target.y[true], target.intensity[true]])
        inside[pair] = (low <= value) & (value <= high)
    shares = inside.mean(axis=0) if len(inside) else np.full(3, np.nan)
    return dict(zip(("x", "y", "intensity"), shares.tolist(), strict=True))
