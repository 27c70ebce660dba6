"""CSO-mAP and map fidelity as pure functions: matching first, scoring second.

CSO-mAP is the benchmark's metric (Han et al., DISTA-Net, ICCV 2025, arXiv 2505.19148): the mean over five
distances, 0.05 to 0.25 px, of the area under the precision-recall curve of all detections of all images.
`match_detections` finds the nearest target of each detection and ranks the detections; average precision, curves,
calibration and bootstrap all start from its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from csist._types import BoolArray, FloatArray, IntArray
from csist.checks import InputError, check_not_negative, check_positive
from csist.targets import Targets

if TYPE_CHECKING:
    from torch import Tensor

CSO_DISTANCES_PX = (0.05, 0.10, 0.15, 0.20, 0.25)
"""Matching distances in px of a true positive; CSO-mAP is the mean over them."""

RANK_KEYS = ("score", "intensity")
"""Columns of `Targets` by which detections can be ranked."""

PAIRS_AT_ONCE = 1 << 21
"""Number of detection-target pairs held in memory at a time."""

SSIM_WINDOW_PX = 11
"""Side of the Gaussian window (sigma 1.5) of SSIM; smaller maps have no SSIM."""

SSIM_BLOCK_CELLS = 1 << 14
"""Cells of the maps whose SSIM is computed at a time, one map at least: the library takes up to 5 kB for each."""


def average_precision_name(distance_px: float) -> str:
    """Return the name of the average precision at a distance: hundredths of a pixel, two digits.

    >>> average_precision_name(0.05)
    'AP05'
    """
    return f"AP{round(100 * distance_px):02d}"


def check_pair(predictions: Sequence[Targets], truths: Sequence[Targets]) -> None:
    """Check that two batches are lists of `Targets`, one per image, of equal length.

    Raises:
        InputError: if they are not.
    """
    batches: tuple[tuple[str, Any], ...] = (("predictions", predictions), ("truths", truths))
    for name, batch in batches:
        if isinstance(batch, Targets):
            raise InputError(f"{name} must be a list with one Targets per image, got a single Targets: write [{name}]")
        for index, item in enumerate(batch):
            if not isinstance(item, Targets):
                raise InputError(f"{name} must be a list of Targets, got {type(item).__name__} at index {index}")
    if len(predictions) != len(truths):
        raise InputError(
            f"predictions and truths must be equally long, got {len(predictions)} and {len(truths)} images"
        )


def check_rank_by(rank_by: str) -> str:
    """Return the name if it is that of a ranking column.

    Raises:
        InputError: if it is not.
    """
    if rank_by not in RANK_KEYS:
        raise InputError(f"rank_by must be one of {', '.join(RANK_KEYS)}, got {rank_by!r}")
    return rank_by


def lengths(batch: Sequence[Targets]) -> IntArray:
    """Number of targets in each image of a batch, shape (images,)."""
    return np.fromiter((part.x.size for part in batch), dtype=np.int64, count=len(batch))


def column(batch: Sequence[Targets], name: str) -> FloatArray:
    """Return one column of a batch, concatenated over the images, shape (targets of all images,)."""
    if not batch:
        return np.zeros(0)
    return np.asarray(np.concatenate([getattr(part, name) for part in batch]), dtype=np.float64)


def starts(counts: IntArray) -> IntArray:
    """Return the start index of each run when runs of the given lengths are concatenated."""
    return np.cumsum(counts) - counts


def ranking(key: FloatArray) -> IntArray:
    """Return the indices from the highest key to the lowest; equal keys keep their order, NaN comes last.

    >>> ranking(np.array([1.0, np.nan, 3.0, 1.0])).tolist()
    [2, 0, 3, 1]
    """
    return np.argsort(-key, kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class Matches:
    """Nearest target and ranking value of the detections of a batch.

    The D detections and K targets of all images are numbered consecutively.

    Args:
        image: image of each detection, shape (D,).
        nearest: number of the nearest target of the same image, the lowest of equally near ones; -1 in an
            image without targets. Shape (D,).
        distance_px: distance to the nearest target; infinite if there is none. Shape (D,).
        key: value by which detections are ranked, highest first. Shape (D,).
        truth_count: number of targets in each image, shape (images,).
    """

    image: IntArray = field(repr=False)
    nearest: IntArray = field(repr=False)
    distance_px: FloatArray = field(repr=False)
    key: FloatArray = field(repr=False)
    truth_count: IntArray = field(repr=False)

    @cached_property
    def order(self) -> IntArray:
        """Detections from the highest key to the lowest, shape (D,); see `ranking`."""
        return ranking(self.key)

    def hits(self, distance_px: float) -> BoolArray:
        """Return which detections are true positives, shape (D,), in the order of the detections (not ranked).

        In order of rank, a detection is a true positive if its nearest target is at most `distance_px` away and not yet
        taken. The nearest target does not depend on other detections, so each target goes to the best-ranked detection
        within the distance, and no loop is needed.

        Raises:
            InputError: if the distance is negative or not finite.
        """
        check_not_negative("distance_px", distance_px)
        ranked = self.order[self.distance_px[self.order] <= distance_px]
        first = np.full(int(self.truth_count.sum()), len(ranked))
        np.minimum.at(first, self.nearest[ranked], np.arange(len(ranked)))
        hit = np.zeros(len(self.key), dtype=np.bool_)
        hit[ranked[first[first < len(ranked)]]] = True
        return hit


def match_detections(predictions: Sequence[Targets], truths: Sequence[Targets], rank_by: str = "score") -> Matches:
    """Find the nearest true target of every detection.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        rank_by: "score" or "intensity", the column that ranks detections.

    Raises:
        InputError: if the batches differ in length, hold other things than `Targets`, or `rank_by` is
            unknown.

    >>> truth = Targets(x=[5.0, 5.6], y=[5.0, 5.0], intensity=[230, 240])
    >>> found = Targets(x=[5.1, 5.5], y=[5.0, 5.0], intensity=[230, 240], score=[0.9, 0.8])
    >>> matches = match_detections([found], [truth])
    >>> matches.nearest.tolist(), matches.distance_px.round(6).tolist(), matches.hits(0.15).tolist()
    ([0, 1], [0.1, 0.1], [True, True])
    """
    check_pair(predictions, truths)
    key = column(predictions, check_rank_by(rank_by))
    truth_count = lengths(truths)
    image = np.repeat(np.arange(len(predictions)), lengths(predictions))
    nearest, distance = _nearest(
        column(predictions, "x"),
        column(predictions, "y"),
        column(truths, "x"),
        column(truths, "y"),
        starts(truth_count)[image],
        truth_count[image],
    )
    return Matches(image=image, nearest=nearest, distance_px=distance, key=key, truth_count=truth_count)


def paired_indices(first: IntArray, count: IntArray) -> tuple[IntArray, IntArray]:
    """Return all pairs of a detection with a target of its image; the pairs of a detection are consecutive.

    Args:
        first: number of the first target of each detection's image, shape (D,).
        count: number of targets of that image, shape (D,).

    Returns:
        Detection and target of each pair, both of shape (sum of count,).
    """
    detection = np.repeat(np.arange(len(first)), count)
    return detection, np.arange(len(detection)) + np.repeat(first - starts(count), count)


def _nearest(
    x: FloatArray, y: FloatArray, truth_x: FloatArray, truth_y: FloatArray, first: IntArray, count: IntArray
) -> tuple[IntArray, FloatArray]:
    """Return the nearest target (-1: none) of each detection and its distance in px (infinite: none), shapes (D,)."""
    nearest = np.full(len(x), -1, dtype=np.int64)
    distance = np.full(len(x), np.inf)
    chosen = np.flatnonzero(count)
    begin = 0
    reached = np.cumsum(count[chosen])
    while begin < len(chosen):
        done = reached[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(reached, done + PAIRS_AT_ONCE, side="right")))
        part = chosen[begin:end]
        owner, target = paired_indices(first[part], count[part])
        apart = np.hypot(truth_x[target] - x[part][owner], truth_y[target] - y[part][owner])
        run = starts(count[part])
        best = np.minimum.reduceat(apart, run)
        # Pairs are in the order of the targets, so the first pair at the minimum has the lowest index.
        candidates = np.flatnonzero(apart == best[owner])
        nearest[part] = target[candidates[np.searchsorted(candidates, run)]]
        distance[part] = best
        begin = end
    return nearest, distance


def envelope_area(seen: FloatArray, gain: FloatArray, total: float) -> float:
    """Compute the area in percent under the precision-recall curve with the monotone envelope of the precision.

    Only true positives are needed, best first: recall changes only there, and precision falls between two of them, so
    that a false positive never sets the envelope. The result equals the sum over all points.

    Args:
        seen: total weight of the detections up to and including each true positive, shape (hits,).
        gain: weight of each true positive, shape (hits,).
        total: weight of all true targets.

    Returns:
        0 to 100; NaN if `total` is 0.
    """
    if total <= 0:
        return float("nan")
    # With weights of 0 (images not drawn by the bootstrap) seen can be 0, and then the sum of gains is 0 as well.
    precision = np.cumsum(gain) / np.maximum(seen, np.finfo(np.float64).tiny)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(100.0 * (gain @ envelope) / total)


def average_precision(matches: Matches, distance_px: float) -> float:
    """Average precision in percent at one distance: all-points area under the monotone envelope.

    Args:
        matches: result of `match_detections`.
        distance_px: largest distance in px of a true positive to its target.

    Returns:
        0 to 100: 0 without any detection, NaN without any true target.

    Raises:
        InputError: if the distance is negative or not finite.
    """
    ranked = matches.hits(distance_px)[matches.order]
    return ranked_average_precision(ranked, int(matches.truth_count.sum()))


def ranked_average_precision(ranked_hits: BoolArray, truths: int) -> float:
    """Return the average precision in percent from the hits (D,), best detection first, and the number of targets."""
    position = np.flatnonzero(ranked_hits)
    return envelope_area((position + 1).astype(np.float64), np.ones(len(position)), float(truths))


def cso_map(predictions: Sequence[Targets], truths: Sequence[Targets], rank_by: str = "score") -> dict[str, float]:
    """Compute CSO-mAP and the average precision at each of its five distances, in percent.

    Detections of all images are ranked by `rank_by`, highest first, equal ones in the given order, NaN last. In this
    order, a detection is a true positive if its nearest true target in the image (the lowest index of equally near
    ones) is within the distance and not yet taken; otherwise it is a false positive. AP is the area under the
    precision-recall curve over all points, with the precision replaced by its monotone envelope; CSO-mAP is the mean
    of AP at 0.05, 0.10, 0.15, 0.20 and 0.25 px. All detections in an image without targets are false positives. The
    authors' code sums the area in single precision, this function in double.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        rank_by: "score" (as published; the score of a grid read-out is the cell value) or "intensity".

    Returns:
        CSO-mAP, AP05, AP10, AP15, AP20, AP25, each 0 to 100: 0 without any detection, NaN without any true
        target.

    Raises:
        InputError: if the batches differ in length, hold other things than `Targets`, or `rank_by` is
            unknown.

    >>> truth = Targets(x=[5.0, 5.6], y=[5.0, 5.0], intensity=[230, 240])
    >>> found = Targets(x=[5.0, 5.5], y=[5.0, 5.0], intensity=[230, 240], score=[0.9, 0.8])
    >>> cso_map([found], [truth])
    {'CSO-mAP': 90.0, 'AP05': 50.0, 'AP10': 100.0, 'AP15': 100.0, 'AP20': 100.0, 'AP25': 100.0}
    """
    matches = match_detections(predictions, truths, rank_by)
    return summarise([average_precision(matches, distance_px) for distance_px in CSO_DISTANCES_PX])


def summarise(average_precisions: Sequence[float]) -> dict[str, float]:
    """Return the result of `cso_map` from the average precisions at `CSO_DISTANCES_PX`."""
    named = zip(CSO_DISTANCES_PX, average_precisions, strict=True)
    return {
        "CSO-mAP": float(np.mean(average_precisions)),
        **{average_precision_name(distance_px): float(value) for distance_px, value in named},
    }


class PrecisionRecallCurve(NamedTuple):
    """Precision-recall curve with one point per detection, best first; all arrays of shape (D,)."""

    recall: FloatArray
    """Fraction of the true targets found up to this point; NaN if there are no true targets."""
    precision: FloatArray
    """Fraction of true positives among the detections up to this point."""
    envelope: FloatArray
    """Highest precision from this point on; AP is the area under it."""
    key: FloatArray
    """Value of the ranking column at this point."""


def precision_recall_curve(matches: Matches, distance_px: float) -> PrecisionRecallCurve:
    """Compute precision and recall, 0 to 1, after each detection of the ranking.

    Args:
        matches: result of `match_detections`.
        distance_px: largest distance in px of a true positive to its target.

    Raises:
        InputError: if the distance is negative or not finite.

    >>> truth = Targets(x=[5.0, 5.6], y=[5.0, 5.0], intensity=[230, 240])
    >>> found = Targets(x=[5.0, 7.0, 5.6], y=[5.0, 5.0, 5.0], intensity=[230, 9, 240], score=[0.9, 0.8, 0.7])
    >>> curve = precision_recall_curve(match_detections([found], [truth]), 0.25)
    >>> curve.recall.tolist(), curve.envelope.round(3).tolist()
    ([0.5, 0.5, 1.0], [1.0, 0.667, 0.667])
    """
    found = np.cumsum(matches.hits(distance_px)[matches.order], dtype=np.float64)
    total = float(matches.truth_count.sum())
    precision = found / np.arange(1, len(found) + 1)
    return PrecisionRecallCurve(
        recall=found / total if total else np.full(len(found), np.nan),
        precision=precision,
        envelope=np.maximum.accumulate(precision[::-1])[::-1],
        key=matches.key[matches.order],
    )


def psnr(predicted: ArrayLike | Tensor, true: ArrayLike | Tensor, data_range: float = 255.0) -> float:
    """Peak signal-to-noise ratio of maps, 10 log10(data_range^2 / mean squared error) in dB, mean over maps.

    Args:
        predicted: one map (H, W) or a stack (N, H, W) or (N, 1, H, W), counts; array or tensor on any device.
        true: maps of the same shape.
        data_range: span of the values in counts.

    Returns:
        Mean over the maps; infinite if any map is reproduced exactly.

    Raises:
        InputError: if the shapes differ or are none of the above, or the range is not positive.

    >>> round(psnr(np.full((11, 11), 1.0), np.zeros((11, 11))), 2)
    48.13
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    check_positive("data_range", data_range)
    value = peak_signal_noise_ratio(*_map_stacks(predicted, true), data_range=data_range, dim=(1, 2, 3))
    return float(value)


def ssim(predicted: ArrayLike | Tensor, true: ArrayLike | Tensor, data_range: float = 255.0) -> float:
    """Structural similarity of maps (Wang et al. 2004), mean over the maps.

    The window is Gaussian, 11 x 11 with sigma 1.5; the constants are 0.01 and 0.03. Only cells whose window lies inside
    the map count, so that a border of 5 cells is left out.

    Args:
        predicted: one map (H, W) or a stack (N, H, W) or (N, 1, H, W), counts; array or tensor on any device.
        true: maps of the same shape.
        data_range: span of the values in counts.

    Returns:
        Mean over the maps, at most 1.

    Raises:
        InputError: if the shapes differ or are none of the above, a side is below 11, or the range is not
            positive.

    >>> ssim(np.eye(11), np.eye(11))
    1.0
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_positive("data_range", data_range)
    pair = _map_stacks(predicted, true)
    if min(pair[0].shape[2:]) < SSIM_WINDOW_PX:
        raise InputError(f"SSIM needs maps of at least 11 x 11, got {tuple(pair[0].shape[2:])}")
    # The library's mean includes the border, where the window covers mirrored cells; the definition excludes it.
    border, total = SSIM_WINDOW_PX // 2, 0.0
    block = max(1, SSIM_BLOCK_CELLS // pair[0][0].numel())
    for start in range(0, len(pair[0]), block):
        first, second = (each[start : start + block] for each in pair)
        result: Any = structural_similarity_index_measure(first, second, data_range=data_range, return_full_image=True)
        total += float(result[1][..., border:-border, border:-border].mean()) * len(first)
    return total / len(pair[0])


def _map_stacks(predicted: ArrayLike | Tensor, true: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps as (N, 1, H, W) float64 tensors on the device of the first; NumPy arrays stay on the CPU."""
    import torch

    def stack(value: ArrayLike | Tensor) -> Tensor:
        if isinstance(value, torch.Tensor):
            return value.detach().to(torch.float64)
        return torch.from_numpy(np.array(value, dtype=np.float64))

    first, second = stack(predicted), stack(true)
    if first.shape != second.shape:
        raise InputError(f"maps must have the same shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    given = tuple(first.shape)
    if len(given) not in (2, 3, 4) or (len(given) == 4 and given[1] != 1) or 0 in given:
        raise InputError(f"maps must be (H, W), (N, H, W) or (N, 1, H, W) and not empty, got shape {given}")
    shape = (-1, 1, *given[-2:])
    return first.reshape(shape), second.to(first.device).reshape(shape)
