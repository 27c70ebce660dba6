"""From the samples of a group's paths to targets of each frame and tracks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment

from csist._types import FloatArray, IntArray
from csist.methods.continuous.diagnostics import Diagnostics
from csist.methods.continuous.group import AMBIGUOUS, POOR_FIT_TRUST, Group, is_poor_fit
from csist.methods.continuous.posterior import Draws, empty_summary, summarise_stack
from csist.methods.continuous.sequence.model import MotionLaw
from csist.methods.continuous.sequence.solver import Paths
from csist.sequences.result import SequenceResult, Track
from csist.targets import Flag, Targets
from csist.trajectories import MotionPrior

MOST_PERMUTED = 5
"""Up to so many targets all orders are compared at once."""
ROUNDS = 3
"""Times that samples are put into the order of their means."""


def summarise_paths(
    paths: Paths,
    law: MotionLaw,
    time: FloatArray,
    weight: FloatArray,
    left_out: tuple[bool, bool],
    notes: list[str],
) -> SequenceResult:
    """Targets of each frame and tracks, from the samples of a group's paths.

    Args:
        paths: the posterior.
        law: of the motion.
        time: (T,) of the frames.
        weight: (T, H, W) inverse variances.
        left_out: whether saturated, and whether masked pixels were left out.
        notes: for the result.
    """
    basis, count = law.basis.astype(np.float64), paths.targets
    probability = np.exp(paths.log_evidence - paths.log_evidence.max())
    probability /= probability.sum()
    flags = Flag(0)
    if left_out[0]:
        flags |= Flag.SATURATED
    if left_out[1]:
        flags |= Flag.MASKED
    if probability[count] < 1.0 - AMBIGUOUS:
        flags |= Flag.AMBIGUOUS_COUNT
    freedom = max(int((weight > 0.0).sum()) - 5 * count, 1)
    diagnostics = Diagnostics()
    if count:
        _, effective, acceptance, stages, reduction = paths.outcome
        diagnostics = Diagnostics("annealing", effective, acceptance, stages, reduction)
    if not count:
        return SequenceResult([Targets.empty() for _ in time], [], probability, flags, diagnostics, notes)
    if bool(is_poor_fit(paths.misfit, freedom)):
        flags |= Flag.POOR_FIT
    samples, present = paths.samples.copy(), paths.present
    for kind in np.unique(present, axis=0):  # only targets that are there in the same frames can be confused
        alike = np.flatnonzero((present == kind).all(axis=1))
        samples[:, alike] = in_one_order(samples[:, alike], basis)
    trust = probability[count] * (POOR_FIT_TRUST if Flag.POOR_FIT in flags else 1.0)
    frames = _targets_of_frames(samples, paths, law, trust, flags)
    tracks = [
        _track(
            k, samples[:, k], (law, time, np.flatnonzero(present[k])), paths.widening,
            float(np.mean([each.score[k] for each, there in zip(frames, present[k], strict=True) if there])),
        )
        for k in range(count)
    ]  # fmt: skip
    frames = [each if there.all() else each[there] for each, there in zip(frames, present.T, strict=True)]
    return SequenceResult(frames, tracks, probability, flags, diagnostics, notes)


def in_one_order(samples: FloatArray, basis: FloatArray) -> FloatArray:
    """Samples (m, count, 2 M + 1) with the targets of each in the order that is nearest to the mean paths.

    Args:
        samples: coefficients x_0, y_0, x_1, ... and flux.
        basis: (M, T) functions of time.
    """
    count, frames = samples.shape[1], basis.shape[1]
    at = basis[:, np.unique([0, frames // 2, frames - 1])]  # (M, 3)
    place = np.einsum("mkfc,ft->mktc", samples[:, :, :-1].reshape(*samples.shape[:2], -1, 2), at)
    place = place.reshape(len(samples), count, -1)
    chosen = np.tile(np.arange(count), (len(samples), 1))
    reference = place[0]
    for _ in range(ROUNDS):
        cost = ((place[:, None] - reference[None, :, None]) ** 2).sum(axis=-1)  # sample, reference, target
        if count <= MOST_PERMUTED:
            orders = np.array(list(permutations(range(count))))
            total = sum(cost[:, a, orders[:, a]] for a in range(count))
            chosen = orders[np.argmin(total, axis=1)]
        else:
            chosen = np.array([linear_sum_assignment(each)[1] for each in cost])
        reference = np.take_along_axis(place, chosen[:, :, None], axis=1).mean(axis=0)
    return np.take_along_axis(samples, chosen[:, :, None], axis=1)


def _targets_of_frames(samples: FloatArray, paths: Paths, law: MotionLaw, trust: float, flags: Flag) -> list[Targets]:
    """One `Targets` per frame, summarised as those of a single frame."""
    basis = law.basis.astype(np.float64)
    number, count = samples.shape[:2]
    frames = basis.shape[1]
    place = np.einsum("mkfc,ft->tmkc", samples[:, :, :-1].reshape(number, count, -1, 2), basis)
    theta = np.empty((frames, number, count, 3))
    theta[..., :2], theta[..., 2] = place, samples[None, :, :, -1]
    draws = Draws(
        theta.reshape(frames, number, -1),
        np.tile(paths.value, (frames, 1)),
        np.full(frames, number),
        np.zeros((frames, 4)),
    )
    summary = empty_summary(frames, count)
    bound = np.full((frames, 3 * count), np.inf)
    summarise_stack(draws, np.full(frames, count), np.full(frames, paths.widening), -bound, bound, summary)
    result = []
    for estimate, deviation, score in zip(*summary, strict=True):
        flicker = law.scintillation * estimate[:, 2]
        result.append(
            Targets(
                estimate[:, 0],
                estimate[:, 1],
                estimate[:, 2],
                np.minimum(score * trust, 1.0),
                x_std=deviation[:, 0],
                y_std=deviation[:, 1],
                intensity_std=np.hypot(deviation[:, 2], flicker),
                flags=np.full(count, int(flags)),
                group=np.zeros(count, np.int64),
                track=np.arange(count),
            )
        )  # fmt: skip
    return result


def _track(
    k: int,
    samples: FloatArray,
    motion: tuple[MotionLaw, FloatArray, IntArray],
    widening: float,
    existence: float,
) -> Track:
    """The track of target k.

    Args:
        k: number of the target.
        samples: (m, 2 M + 1) of its path.
        motion: law, times (T,) of the frames, and numbers of those in which it is there.
        widening: factor on the spread of the samples.
        existence: probability that it exists.
    """
    law, times, there = motion
    first, last = int(there[0]), int(there[-1])
    basis, times = law.basis.astype(np.float64)[:, first : last + 1], times[first : last + 1]
    frames = basis.shape[1]
    time = times - times[0]
    coefficients = samples[:, :-1].reshape(len(samples), -1, 2)
    # Position and velocity in the first frame of the parabola through the path; exact for straight ones.
    degree = min(2 if len(basis) > 2 else 1, frames - 1)
    powers = np.stack([time**p for p in range(degree + 1)])
    fitted = np.einsum("mfc,fp->mpc", coefficients, basis @ np.linalg.pinv(powers))
    state = np.zeros((len(samples), 5))
    state[:, :2], state[:, 2:4], state[:, 4] = fitted[:, 0], fitted[:, 1], samples[:, -1]
    bend = 2.0 * fitted[:, 2].mean(axis=0) if degree > 1 else np.zeros(2)
    covariance = widening**2 * np.cov(state, rowvar=False)
    return Track(k, first, last, state.mean(axis=0), covariance, existence, bend, float(times[0]))


def report_single(
    targets: Targets, group: Group, frame: tuple[int, float], law: MotionPrior, notes: list[str]
) -> SequenceResult:
    """The result of a sequence of which one frame can be used.

    Args:
        targets: of that frame.
        group: likewise.
        frame: its number and time.
        law: speeds, and the number of frames.
        notes: for the result.
    """
    number, time = frame
    found = targets.replace(track=np.arange(len(targets)))
    spread = 0.25 * (law.group_speed_px**2 + law.own_speed_px**2)  # of a coordinate of a point in a disc: radius / 2
    tracks = []
    for k, one in enumerate(found):
        variance = [one.x_std[0] ** 2, one.y_std[0] ** 2, spread, spread, one.intensity_std[0] ** 2]
        state = np.array([one.x[0], one.y[0], 0.0, 0.0, one.intensity[0]])
        tracks.append(Track(k, number, number, state, np.diag(variance), float(one.score[0]), time=time))
    frames = [found if t == number else Targets.empty() for t in range(law.frames)]
    return SequenceResult(frames, tracks, group.count_probability, group.flags, group.diagnostics, notes)
