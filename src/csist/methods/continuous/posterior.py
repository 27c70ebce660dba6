"""What to report of a group, from samples of its posterior."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.likelihood import compiled

FloatArray = NDArray[np.float64]

TOLERANCES_PX = np.array([0.05, 0.10, 0.15, 0.20, 0.25])
"""The distances at which CSO-mAP counts a detection as right."""

TIE_BREAK = 0.02
"""Share of the score that ranks targets which are all certain to 0.25 px by how well they hold tighter tolerances."""

SHIFT_WIDTH_PX = 0.25
"""Width of the kernel whose mode is reported: between the posterior mean (wide) and mode (narrow)."""


@compiled
def _align(sample: FloatArray, count: int, reference: FloatArray, distance: FloatArray, scratch: FloatArray) -> None:
    """Reorder the targets of `sample` to those of `reference`: closest pairs first, then exchanges that help.

    What remains is nearly always the assignment with the least sum of squared distances, which is how truths are
    assigned to detections when errors are measured; only then do the samples' spreads describe those errors.
    """
    for a in range(count):
        for b in range(count):
            dx, dy = sample[3 * a] - reference[3 * b], sample[3 * a + 1] - reference[3 * b + 1]
            distance[a, b] = dx * dx + dy * dy
    place = np.full(count, -1)
    used = np.zeros(count, np.bool_)
    for _ in range(count):
        best, best_a, best_b = np.inf, 0, 0
        for a in range(count):
            if place[a] < 0:
                for b in range(count):
                    if not used[b] and distance[a, b] < best:
                        best, best_a, best_b = distance[a, b], a, b
        place[best_a] = best_b
        used[best_b] = True
    improved = True
    while improved:
        improved = False
        for a in range(count):
            for b in range(a):
                now = distance[a, place[a]] + distance[b, place[b]]
                if distance[a, place[b]] + distance[b, place[a]] < now - 1e-12:
                    place[a], place[b] = place[b], place[a]
                    improved = True
    for a in range(count):
        scratch[3 * place[a] : 3 * place[a] + 3] = sample[3 * a : 3 * a + 3]
    sample[: 3 * count] = scratch[: 3 * count]


@compiled
def summarise(
    samples: FloatArray,
    values: FloatArray,
    kept: int,
    count: int,
    widening: float,
    low: FloatArray,
    high: FloatArray,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
) -> None:
    """Fill what is reported, (count, 3) estimate and deviation and (count,) score, from `kept` samples.

    The samples' targets are put into the order of the estimates (in place). The position is the mode of the
    posterior smoothed to the metric's tolerance, the flux its mean; the score is the share of samples with a
    target within 0.25 px of the position, but for TIE_BREAK, which goes by the mean over all five tolerances.

    Args:
        widening: factor on the samples' distance from their mean (in place, between the bounds `low` and `high`)
            before their spread is taken: an estimate from few or short chains errs by more than they show.
    """
    reference = samples[np.argmax(values[:kept])].copy()
    distance, scratch = np.empty((count, count)), np.empty(3 * count)
    for _ in range(3):
        for m in range(kept):
            _align(samples[m], count, reference, distance, scratch)
        for p in range(3 * count):
            reference[p] = samples[:kept, p].mean()
    for k in range(count):
        x, y = reference[3 * k], reference[3 * k + 1]
        for _ in range(6):
            total, sum_x, sum_y = 1e-300, 0.0, 0.0
            for m in range(kept):
                dx, dy = samples[m, 3 * k] - x, samples[m, 3 * k + 1] - y
                weight = math.exp(-0.5 * (dx * dx + dy * dy) / SHIFT_WIDTH_PX**2)
                total += weight
                sum_x += weight * samples[m, 3 * k]
                sum_y += weight * samples[m, 3 * k + 1]
            if total < 0.02 * kept:
                break
            x, y = sum_x / total, sum_y / total
        reference[3 * k], reference[3 * k + 1] = x, y
    for m in range(kept):
        _align(samples[m], count, reference, distance, scratch)
    for k in range(count):
        x, y = reference[3 * k], reference[3 * k + 1]
        estimate[k, 0], estimate[k, 1], estimate[k, 2] = x, y, samples[:kept, 3 * k + 2].mean()
        within, tight = 0.0, 0.0
        for m in range(kept):
            nearest = np.inf
            for other in range(count):
                dx, dy = samples[m, 3 * other] - x, samples[m, 3 * other + 1] - y
                nearest = min(nearest, dx * dx + dy * dy)
            for tolerance in TOLERANCES_PX:
                if nearest <= tolerance * tolerance:
                    tight += 1.0 / TOLERANCES_PX.shape[0]
            if nearest <= TOLERANCES_PX[-1] ** 2:
                within += 1.0
        score[k] = min(((1.0 - TIE_BREAK) * within + TIE_BREAK * tight) / max(kept, 1), 1.0)
    for k in range(count):
        for p in range(3):
            q, total = 3 * k + p, 0.0
            mean = samples[:kept, q].mean()
            for m in range(kept):
                samples[m, q] = min(max(mean + widening * (samples[m, q] - mean), low[q]), high[q])
                total += (samples[m, q] - mean) ** 2
            deviation[k, p] = math.sqrt(total / max(kept - 1, 1))
