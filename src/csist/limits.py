"""Physical limits on labelled images: the posterior limit and the Cramer-Rao bound, printed by `csist limits`.

The posterior limit is the score of the exact posterior in the benchmark's metric, count known, bracketed by two sets of
Markov chains (`csist.methods.continuous.limit`). The Cramer-Rao bound is the smallest standard error of each target
(`csist.physics.bounds`). It holds only for unbiased estimates, and where targets overlap strongly the prior constrains
them more than the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.evaluation import LabelledImages
from csist.metrics import Interval, bootstrap_difference, bootstrap_scores
from csist.physics.bounds import Bound, cramer_rao_bound
from csist.targets import Targets

if TYPE_CHECKING:
    import pandas as pd
Progress = Callable[[str, int, int], None]

BLOCK = 64
"""Number of images sampled at a time: Ctrl-C takes effect at the end of a block."""

BOUND_FIELDS = ("x", "y", "intensity")
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class PosteriorLimit:
    """CSO-mAP and AP05 to AP25 in percent of the exact posterior, sampled by two sets of chains.

    Args:
        from_truth: values and intervals of the chains that start at the truth, with the names of `cso_map`.
        from_modes: the same for the chains that find their own start.
        difference: CSO-mAP of the first set minus that of the second, on the same resamples.
    """

    from_truth: dict[str, Interval]
    from_modes: dict[str, Interval]
    difference: Interval

    @property
    def bracket(self) -> tuple[float, float]:
        """Lower and upper end of the limit on CSO-mAP in percent."""
        first, second = self.from_truth["CSO-mAP"].value, self.from_modes["CSO-mAP"].value
        return min(first, second), max(first, second)

    @property
    def agree(self) -> bool:
        """Whether the interval of the difference contains 0; chains that disagree have not converged."""
        return self.difference.low <= 0.0 <= self.difference.high


@dataclass(frozen=True)
class BoundSummary:
    """Quartiles of the Cramer-Rao bound over the targets of all images with a given number of targets.

    Args:
        count: number of targets per image; None for all images.
        images: number of images.
        targets: number of targets.
        unresolved: targets with an infinite bound.
        x: first quartile, median and third quartile in px.
        y: the same in px.
        intensity: the same in counts.
    """

    count: int | None
    images: int
    targets: int
    unresolved: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    intensity: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Limits:
    """Physical limits on a set of labelled images.

    Args:
        data: description of the images.
        steps: sampling steps per image and set of chains.
        posterior: posterior limit; None if there is none.
        posterior_missing: reason why there is no posterior limit.
        bounds: Cramer-Rao bound of the targets of each image.
        summary: quartiles of the bounds by number of targets, those of all images last.
    """

    data: dict[str, Any]
    steps: int
    posterior: PosteriorLimit | None
    posterior_missing: str | None
    bounds: list[Bound] = field(repr=False)
    summary: list[BoundSummary]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-ready except for NaN and infinity; an interval is value, low, high."""
        found = self.posterior
        posterior = None if found is None else {
            "from_truth": found.from_truth,
            "from_modes": found.from_modes,
            "bracket": found.bracket,
            "difference": found.difference,
            "agree": found.agree,
        }  # fmt: skip
        return {
            "data": self.data,
            "steps": self.steps,
            "posterior": posterior,
            "posterior_missing": self.posterior_missing,
            "cramer_rao": [vars(row) for row in self.summary],
        }


def measure_limits(
    data: LabelledImages,
    steps: int = 500_000,
    workers: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Limits:
    """Compute the posterior limit and the Cramer-Rao bound of labelled images.

    Args:
        data: images with their true targets, sensor and prior.
        steps: sampling steps per image and set of chains.
        workers: number of threads; None for one per core.
        resamples: number of resamples of the bootstrap intervals.
        seed: seed of the bootstrap.
        progress: called with (name of the limit, images done, images in all).

    Raises:
        InputError: if a number is below 1, or the sensor has neither noise nor rounding.
    """
    for name, value in (("steps", steps), ("workers", workers), ("resamples", resamples)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be a whole number >= 1, got {value}")
    if not float(data.sensor.noise_variance(max(data.sensor.background, 0.0))) > 0:
        raise InputError(f"the sensor of {data.path} has neither noise nor rounding: there is no limit to compute")
    bounds = []
    for done, truth in enumerate(data.truths, 1):
        bounds.append(_bound(truth, data))
        if progress is not None:
            progress("Cramer-Rao bound", done, len(data))
    missing = None if any(map(len, data.truths)) else "the images hold no target"
    posterior = None if missing else _posterior(data, steps, workers, resamples, seed, progress)
    return Limits(data.describe(), steps, posterior, missing, bounds, summarise_bounds(bounds))


def _bound(truth: Targets, data: LabelledImages) -> Bound:
    if not len(truth):
        return Bound(np.zeros(0), np.zeros(0), np.zeros(0))
    return cramer_rao_bound(truth, data.sensor)


def _posterior(
    data: LabelledImages, steps: int, workers: int | None, resamples: int, seed: int, progress: Progress | None
) -> PosteriorLimit:
    # Imported here: it compiles code that the bound does not need.
    from csist.methods.continuous.limit import posterior_limit

    from_truth: list[Targets] = []
    from_modes: list[Targets] = []
    for start in range(0, len(data), BLOCK):
        part = slice(start, start + BLOCK)

        def report(done: int, _: int, start: int = start) -> None:
            if progress is not None:
                progress("posterior", start + done, len(data))

        first, second = posterior_limit(
            data.images[part], data.truths[part], data.sensor, data.prior, steps=steps, workers=workers, progress=report
        )
        from_truth += first
        from_modes += second
    return PosteriorLimit(
        bootstrap_scores(from_truth, data.truths, seed, resamples=resamples),
        bootstrap_scores(from_modes, data.truths, seed, resamples=resamples),
        bootstrap_difference(from_truth, from_modes, data.truths, seed, resamples=resamples),
    )


def summarise_bounds(bounds: Sequence[Bound]) -> list[BoundSummary]:
    """Return the quartiles of the bounds by number of targets per image, then those of all images.

    Args:
        bounds: one `Bound` per image.
    """
    counts = np.array([bound.x.size for bound in bounds], dtype=np.int64)
    return [
        *(_summary(int(count), [bound for bound in bounds if bound.x.size == count]) for count in np.unique(counts)),
        _summary(None, bounds),
    ]


def _summary(count: int | None, bounds: Sequence[Bound]) -> BoundSummary:
    values = np.concatenate([np.zeros((3, 0)), *[[bound.x, bound.y, bound.intensity] for bound in bounds]], axis=1)
    infinite = ~np.isfinite(values).all(axis=0)
    x, y, intensity = (_quartiles(row) for row in values)
    return BoundSummary(count, len(bounds), values.shape[1], int(infinite.sum()), x, y, intensity)


def _quartiles(values: FloatArray) -> tuple[float, float, float]:
    if not values.size:
        return float("nan"), float("nan"), float("nan")
    with np.errstate(invalid="ignore"):
        low, middle, high = np.quantile(values, QUARTILES)
    # NumPy interpolates to NaN between two infinities.
    low, middle, high = (float(value) if value == value else float("inf") for value in (low, middle, high))
    return low, middle, high


def bound_table(data: LabelledImages, bounds: Sequence[Bound]) -> pd.DataFrame:
    """Return a table with one row per true target: image, frame, x, y, intensity and their bounds.

    An infinite bound is a missing value.

    Args:
        data: images with their true targets.
        bounds: one `Bound` per image.
    """
    import pandas as pd

    from csist.io import targets_table

    named = zip(data.names, data.truths, strict=False)  # with a limit there are more names than images
    table = targets_table([(image, frame, truth) for (image, frame), truth in named])
    table = table[["image", "frame", *BOUND_FIELDS]]
    columns = {
        f"bound_{name}": np.concatenate([np.zeros(0), *[getattr(bound, name) for bound in bounds]])
        for name in BOUND_FIELDS
    }
    return table.join(pd.DataFrame(columns).replace(np.inf, np.nan))
