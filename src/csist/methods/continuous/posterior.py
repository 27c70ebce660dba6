"""What to report of a group, from samples of its posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled, inlined, lean
from csist._types import BoolArray, FloatArray, IntArray

TOLERANCES_PX = np.array([0.05, 0.10, 0.15, 0.20, 0.25])
"""The distances at which CSO-mAP counts a detection as right."""

TIE_BREAK = 0.02
"""Share of the score that ranks targets which are all certain to 0.25 px by how well they hold tighter tolerances."""

SHIFT_WIDTH_PX = 0.25
"""Width of the kernel whose mode is reported: between the posterior mean (wide) and mode (narrow)."""

SHIFTS = 6
"""Steps of the mean shift that finds the mode."""
ROUNDS = 3
"""Rounds in which targets are put into the order of their means."""


class Draws(NamedTuple):
    """Posterior samples of the groups of a stack.

    Args:
        theta: (N, m, parameters) samples; unused parameters are at the end.
        value: (N, m) log likelihoods.
        kept: (N,) number of samples.
        quality: (N, 4) effective sample size, acceptance, temperatures, potential scale reduction.
    """

    theta: FloatArray
    value: FloatArray
    kept: IntArray
    quality: FloatArray


def empty_draws(windows: int, samples: int, parameters: int) -> Draws:
    """Room for so many samples."""
    return Draws(
        np.empty((windows, samples, parameters)),
        np.empty((windows, samples)),
        np.zeros(windows, np.int64),
        np.zeros((windows, 4)),
    )


class Summary(NamedTuple):
    """What is reported of the targets of each group.

    Args:
        estimate: (N, Kmax, 3) x, y in px and flux in counts.
        deviation: (N, Kmax, 3) their standard errors.
        score: (N, Kmax).
    """

    estimate: FloatArray
    deviation: FloatArray
    score: FloatArray


def empty_summary(windows: int, most: int) -> Summary:
    """Room for so many windows and targets."""
    return Summary(np.full((windows, most, 3), np.nan), np.full((windows, most, 3), np.nan), np.zeros((windows, most)))


class Room(NamedTuple):
    """Arrays that `_align` works in, for `most` targets.

    Args:
        distance: (most, most) squared distances.
        place: (most,) to which column each row goes.
        used: (most,) whether a column is taken.
        sample: (3 most,) parameters in their new order.
    """

    distance: FloatArray
    place: IntArray
    used: BoolArray
    sample: FloatArray


@lean
def _goes_to_nearest(distance: FloatArray, place: IntArray, used: BoolArray) -> bool:
    """Fill `place` with each row's least column; whether they are all different, so that no sum can be less."""
    used[:] = False
    for a in range(place.shape[0]):
        best = 0
        for b in range(1, place.shape[0]):
            if distance[a, b] < distance[a, best]:
                best = b
        if used[best]:
            return False
        used[best], place[a] = True, best
    return True


@lean
def _assign(distance: FloatArray, place: IntArray, used: BoolArray) -> None:
    """Fill `place` (count,): to which column of `distance` (count, count) each row goes.

    Closest pairs first, then exchanges that help. What remains is nearly always the assignment with the least sum.
    """
    if _goes_to_nearest(distance, place, used):
        return
    count = place.shape[0]
    used[:], place[:] = False, -1
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


@lean
def _align(samples: FloatArray, reference: FloatArray, room: Room) -> None:
    """Put the targets of each sample (m, parameters or more) into the order of those of `reference` (3 count,).

    By the least sum of squared distances, which is how truths are assigned to detections when errors are measured;
    only then do the samples' spreads describe those errors.
    """
    count = reference.shape[0] // 3
    distance, place, used = room.distance[:count, :count], room.place[:count], room.used[:count]
    for m in range(samples.shape[0]):
        sample = samples[m]
        for a in range(count):
            for b in range(count):
                dx, dy = sample[3 * a] - reference[3 * b], sample[3 * a + 1] - reference[3 * b + 1]
                distance[a, b] = dx * dx + dy * dy
        _assign(distance, place, used)
        for a in range(count):
            for p in range(3):
                room.sample[3 * place[a] + p] = sample[3 * a + p]
        for p in range(3 * count):
            sample[p] = room.sample[p]


@lean
def _mean(samples: FloatArray, p: int) -> float:
    """Mean of parameter p."""
    total = 0.0
    for m in range(samples.shape[0]):
        total += samples[m, p]
    return float(total / max(samples.shape[0], 1))


@inlined
def _shift_to_mode(samples: FloatArray, k: int, reference: FloatArray) -> None:
    """Move the position of target k in `reference` to the mode of the smoothed posterior, by mean shift."""
    x, y = reference[3 * k], reference[3 * k + 1]
    for _ in range(SHIFTS):
        total, sum_x, sum_y = 1e-300, 0.0, 0.0
        for m in range(samples.shape[0]):
            dx, dy = samples[m, 3 * k] - x, samples[m, 3 * k + 1] - y
            weight = math.exp(-0.5 * (dx * dx + dy * dy) / SHIFT_WIDTH_PX**2)
            total += weight
            sum_x += weight * samples[m, 3 * k]
            sum_y += weight * samples[m, 3 * k + 1]
        if total < 0.02 * samples.shape[0]:
            break
        x, y = sum_x / total, sum_y / total
    reference[3 * k], reference[3 * k + 1] = x, y


@inlined
def _score(samples: FloatArray, count: int, x: float, y: float) -> float:
    """Share of the samples with a target within tolerance of a position."""
    within, tight = 0.0, 0.0
    for m in range(samples.shape[0]):
        nearest = np.inf
        for other in range(count):
            dx, dy = samples[m, 3 * other] - x, samples[m, 3 * other + 1] - y
            nearest = min(nearest, dx * dx + dy * dy)
        for tolerance in TOLERANCES_PX:
            if nearest <= tolerance * tolerance:
                tight += 1.0 / TOLERANCES_PX.shape[0]
        if nearest <= TOLERANCES_PX[-1] ** 2:
            within += 1.0
    share = ((1.0 - TIE_BREAK) * within + TIE_BREAK * tight) / max(samples.shape[0], 1)
    return float(min(share, 1.0))


@inlined
def _widen(samples: FloatArray, p: int, widening: float, low: float, high: float) -> float:
    """Scale the distance of parameter p from its mean, within bounds; returns its standard deviation then."""
    mean, total = _mean(samples, p), 0.0
    for m in range(samples.shape[0]):
        samples[m, p] = min(max(mean + widening * (samples[m, p] - mean), low), high)
        total += (samples[m, p] - mean) ** 2
    return math.sqrt(total / max(samples.shape[0] - 1, 1))


@compiled
def summarise_stack(
    draws: Draws, counts: IntArray, widening: FloatArray, low: FloatArray, high: FloatArray, summary: Summary
) -> None:
    """What is reported of the group in each window, from its posterior samples.

    The samples' targets are put into the order of the estimates (in place). The position is the mode of the
    posterior smoothed to the metric's tolerance, the flux its mean; the score is the share of samples with a
    target within 0.25 px of the position, but for TIE_BREAK, which goes by the mean over all five tolerances.

    Args:
        draws: the samples.
        counts: (N,) number of targets; 0 is left out.
        widening: (N,) factor on the samples' distance from their mean (in place, between the bounds) before their
            spread is taken: an estimate from few or short chains errs by more than they show.
        low: (N, parameters) bounds.
        high: (N, parameters) likewise.
        summary: filled.
    """
    most = summary.score.shape[1]
    room = Room(np.empty((most, most)), np.empty(most, np.int64), np.empty(most, np.bool_), np.empty(3 * most))
    for n in range(counts.shape[0]):
        count = counts[n]
        if count == 0:
            continue
        samples, value = draws.theta[n, : draws.kept[n]], draws.value[n, : draws.kept[n]]
        estimate, deviation, score = summary.estimate[n], summary.deviation[n], summary.score[n]
        reference = samples[np.argmax(value), : 3 * count].copy()
        for _ in range(ROUNDS):
            _align(samples, reference, room)
            for p in range(3 * count):
                reference[p] = _mean(samples, p)
        for k in range(count):
            _shift_to_mode(samples, k, reference)
        _align(samples, reference, room)
        for k in range(count):
            x, y = reference[3 * k], reference[3 * k + 1]
            estimate[k, 0], estimate[k, 1], estimate[k, 2] = x, y, _mean(samples, 3 * k + 2)
            score[k] = _score(samples, count, x, y)
        for k in range(count):
            for p in range(3):
                q = 3 * k + p
                deviation[k, p] = _widen(samples, q, widening[n], low[n, q], high[n, q])
