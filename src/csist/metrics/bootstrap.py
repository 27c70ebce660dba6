"""Percentile intervals of a score, or of the difference of two scores, by a bootstrap over images.

Images are resampled, because the detections of one image are not independent. Matches are computed once: in a
resample, each image is weighted by the number of times it was drawn (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.metrics.functional import CSO_DISTANCES_PX, envelope_area, match_detections, summarise
from csist.targets import Targets

Scorer = Callable[[FloatArray], dict[str, float]]


class Interval(NamedTuple):
    """Value and bounds of its interval, all in the same unit."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    predictions: Sequence[Targets],
    truths: Sequence[Targets],
    seed: int | np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    rank_by: str = "score",
    together: int = 1,
) -> Interval:
    """Compute CSO-mAP in percent with its interval.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        seed: seed or generator of the resampling.
        level: fraction of the resamples inside the interval, between 0 and 1.
        resamples: number of resamples.
        rank_by: "score" or "intensity", as for `cso_map`.
        together: consecutive images that are drawn together, such as the frames of a sequence.

    Returns:
        Value and interval; NaN if there are no true targets.

    Raises:
        InputError: if the batches differ in length, level or resamples are out of range, or `together` does not divide
            the number of images.
    """
    return bootstrap_scores(
        predictions, truths, seed, level=level, resamples=resamples, rank_by=rank_by, together=together
    )["CSO-mAP"]


def bootstrap_scores(
    predictions: Sequence[Targets],
    truths: Sequence[Targets],
    seed: int | np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    rank_by: str = "score",
    together: int = 1,
) -> dict[str, Interval]:
    """Compute CSO-mAP and AP05 to AP25 in percent, each with its interval from the same resamples.

    Args:
        predictions: detections, one `Targets` per image.
        truths: true targets, one `Targets` per image.
        seed: seed or generator of the resampling.
        level: fraction of the resamples inside the interval, between 0 and 1.
        resamples: number of resamples.
        rank_by: "score" or "intensity", as for `cso_map`.
        together: consecutive images that are drawn together, such as the frames of a sequence.

    Returns:
        Values and intervals with the names of `cso_map`; NaN if there are no true targets.

    Raises:
        InputError: if the batches differ in length, level or resamples are out of range, or `together` does not divide
            the number of images.

    >>> found = Targets(x=[5.0], y=[5.1], intensity=[230])
    >>> bootstrap_scores([found], [found.replace(y=[5.0])], seed=0, resamples=5)["AP25"]
    Interval(value=100.0, low=100.0, high=100.0)
    """
    _check(level, resamples)
    if together < 1 or len(truths) % together:
        raise InputError(f"together must divide the number of images, {len(truths)}, got {together}")
    scorer = _scorer(predictions, truths, rank_by)
    value, drawn = scorer(np.ones(len(truths))), _drawn([scorer], len(truths), seed, resamples, together)[:, 0]
    return {name: _interval(value[name], drawn[:, place], level) for place, name in enumerate(value)}


def bootstrap_difference(
    first: Sequence[Targets],
    second: Sequence[Targets],
    truths: Sequence[Targets],
    seed: int | np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    rank_by: str = "score",
) -> Interval:
    """Compute the difference in CSO-mAP, `first` minus `second`, in percent with its interval.

    Both are scored on the same resamples, so that effects common to both cancel: the interval is much narrower than the
    two separate intervals suggest.

    Args:
        first: detections, one `Targets` per image.
        second: other detections of the same images.
        truths: true targets, one `Targets` per image.
        seed: seed or generator of the resampling.
        level: fraction of the resamples inside the interval, between 0 and 1.
        resamples: number of resamples.
        rank_by: "score" or "intensity", as for `cso_map`.

    Returns:
        Value and interval; NaN if there are no true targets.

    Raises:
        InputError: if the batches differ in length, or level or resamples are out of range.
    """
    _check(level, resamples)
    scorers = [_scorer(each, truths, rank_by) for each in (first, second)]
    one, other = (scorer(np.ones(len(truths)))["CSO-mAP"] for scorer in scorers)
    drawn = _drawn(scorers, len(truths), seed, resamples)[:, :, 0]
    return _interval(one - other, drawn[:, 0] - drawn[:, 1], level)


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    if int(resamples) != resamples or resamples < 1:
        raise InputError(f"resamples must be a whole number >= 1, got {resamples}")


def _scorer(predictions: Sequence[Targets], truths: Sequence[Targets], rank_by: str) -> Scorer:
    """Return a function from weights of the images, shape (images,), to the scores of `cso_map`."""
    matches = match_detections(predictions, truths, rank_by)
    ranked_image = matches.image[matches.order]
    positions = [np.flatnonzero(matches.hits(distance_px)[matches.order]) for distance_px in CSO_DISTANCES_PX]

    def score(weight: FloatArray) -> dict[str, float]:
        ranked_weight = weight[ranked_image]
        seen = np.cumsum(ranked_weight)
        total = float(weight @ matches.truth_count)
        return summarise([envelope_area(seen[hit], ranked_weight[hit], total) for hit in positions])

    return score


def _drawn(
    scorers: Sequence[Scorer], images: int, seed: int | np.random.Generator, resamples: int, together: int = 1
) -> FloatArray:
    """Return the scores (resamples, scorers, 6), CSO-mAP first, with all scorers on the same resamples."""
    rng, draws = np.random.default_rng(seed), images // together
    drawn = np.full((int(resamples), len(scorers), 1 + len(CSO_DISTANCES_PX)), np.nan)
    for resample in drawn if images else ():
        weight = np.bincount(rng.integers(0, draws, draws), minlength=draws).astype(np.float64).repeat(together)
        for place, scorer in enumerate(scorers):
            resample[place] = list(scorer(weight).values())
    return drawn


def _interval(value: float, drawn: FloatArray, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]  # a resample without targets has no score
    if np.isnan(value) or not drawn.size:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.5 * (1 - level), 0.5 * (1 + level)])
    return Interval(float(value), float(low), float(high))
