"""The joint posterior of the groups of whole frames.

Every frame is unmixed alone first. Its groups are linked over the frames; a window follows each of them, with the light
of all others subtracted, and the group is solved in all frames together. A group that does not move as the motion says,
that is larger than a window or that point targets do not explain keeps the targets of its single frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from csist._types import FloatArray, IntArray
from csist.frames.options import FrameOptions
from csist.frames.result import WIDE, FrameResult, add_light
from csist.frames.solve import solve_frame
from csist.methods.continuous.sequence.modes import Cut
from csist.methods.continuous.sequence.solver import PATH_EFFORTS, PathSolver
from csist.physics.psf import PSF, GaussianPSF, equivalent_sigma, spread_px
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.sequences.lines import line_track
from csist.sequences.motion import motion_law
from csist.sequences.report import summarise_paths
from csist.sequences.result import JointGroup, SequenceResult, Track
from csist.targets import Flag, Targets
from csist.tracks.link import LEAST_LENGTH, Linker
from csist.tracks.middles import group_middles
from csist.trajectories import MotionPrior
from csist.windows import WINDOW_SIDE_PX

REACH_SPREADS = 3.0
"""Pixels on each side of a group's targets in a window, in spreads of the PSF."""
LEAST_HALF, MOST_HALF = 4, (WINDOW_SIDE_PX - 1) // 2
OFF_PATH_PX = 0.5
"""Root mean square distance of a group from its fitted path, beyond which it does not move as the motion says."""
SPEED_ROOM = 1.25
"""The prior's largest speed of a group, in units of the speed with which it is seen to move."""
BEFORE = 3
"""Frames before the first and after the last in which a group was seen, in which its light is looked for."""


class Shot(NamedTuple):
    """What is kept of one frame.

    Args:
        data: (H, W) in counts, background subtracted, 0 where masked.
        weight: (H, W) inverse variances, 0 where masked.
        targets: of the frame alone.
        psf: that they were fitted with.
        psf_error: its error as a share of the light in a window's brightest pixel.
        flagged: numbers of the groups that point targets do not explain.
    """

    data: FloatArray
    weight: FloatArray
    targets: Targets
    psf: PSF
    psf_error: float
    flagged: frozenset[int]


@dataclass(frozen=True, eq=False)
class JointOptions:
    """How the groups of frames are solved together.

    Args:
        frame: how a frame is unmixed alone.
        prior: speeds and scintillation; its start is used where the frame's options have no prior.
        motion: one of `csist.sequences.motion.MOTIONS`.
        motion_std_px: step of the random walk of "free" in px per unit of time.
    """

    frame: FrameOptions
    prior: MotionPrior
    motion: str = "linear"
    motion_std_px: float = 0.05


class Chain(NamedTuple):
    """A group in some frames.

    Args:
        frame: (n,) numbers of the frames.
        middle: (n, 2) x, y of its light.
        extent_px: largest distance of one of its targets from the middle.
        group: (n,) its number in each of them.
    """

    frame: IntArray
    middle: FloatArray
    extent_px: float
    group: IntArray

    def part(self, frames: int) -> slice:
        """Frames of a sequence of so many in which the group may be."""
        return slice(max(int(self.frame[0]) - BEFORE, 0), min(int(self.frame[-1]) + 1 + BEFORE, frames))


def shot_of(image: FloatArray, options: FrameOptions, error: FloatArray | None = None) -> Shot:
    """Unmix a frame (H, W) in counts alone.

    Raises:
        InputError: if the frame cannot be used.
    """
    return shot_of_result(solve_frame(image, options, error=error))


def shot_of_result(result: FrameResult) -> Shot:
    """What is kept of a frame that was unmixed alone."""
    usable = ~(result.mask | result.saturated)
    data = np.where(usable, result.image - result.background, 0.0)
    weight = np.where(usable, 1.0 / np.maximum(result.noise, 1e-12) ** 2, 0.0)
    flagged = frozenset(group.number for group in result.groups if group.flags & Flag.POOR_FIT or group.sources)
    return Shot(data, weight, result.targets, result.psf, result.psf_error, flagged)


def joint_options(
    sensor: Sensor | None,
    prior: ScenePrior | MotionPrior | None,
    motion: str,
    options: dict[str, Any],
) -> JointOptions:
    """The options of whole frames from those of `csist.unmix_sequence`.

    Args:
        sensor: of the frames.
        prior: of targets, and of their motion.
        motion: one of `csist.sequences.motion.MOTIONS`.
        options: `motion_std_px`, and the fields of `FrameOptions`.

    Raises:
        InputError: if an option is unknown or out of range.
    """
    start = prior.start if isinstance(prior, MotionPrior) else prior
    if start is not None and start.single_pixel:
        start = replace(start, single_pixel=False)
    given = {name: value for name, value in options.items() if name not in ("motion_std_px", "mask_nan")}
    return JointOptions(
        FrameOptions.of(sensor=sensor, prior=start, **given),
        prior if isinstance(prior, MotionPrior) else MotionPrior(),
        motion,
        options.get("motion_std_px", JointOptions.motion_std_px),
    )


def shot_or_empty(image: FloatArray, options: JointOptions) -> Shot:
    """`shot_of`; of a frame (H, W) of nothing but NaN, one without targets."""
    return empty_shot(image.shape) if np.isnan(image).all() else shot_of(image, options.frame)


def empty_shot(shape: tuple[int, ...]) -> Shot:
    """A frame (H, W) without any value."""
    nothing = np.zeros(shape)
    return Shot(nothing, nothing, Targets.empty(), GaussianPSF(1.0), 0.0, frozenset())


def unmix_shots(shots: Sequence[Shot], times: FloatArray, options: JointOptions) -> SequenceResult:
    """Solve the groups of some frames together.

    Args:
        shots: the frames.
        times: (T,) increasing.
        options: how they are solved.
    """
    psf = common_psf(shots)
    chains = list(_chains(shots))
    joined: list[list[Targets]] = [[] for _ in shots]
    tracks: list[Track] = []
    groups: list[JointGroup] = []
    alone = [np.ones(len(shot.targets), np.bool_) for shot in shots]
    probability = np.ones(1)
    kept_alone = 0
    for chain in chains:
        solved = _solve_chain(shots, times, (chain, psf), options)
        if solved is None:
            kept_alone += 1
            continue
        first = chain.part(len(shots)).start
        for frame, group in zip(chain.frame, chain.group, strict=True):
            alone[frame] &= shots[frame].targets.group != group
        for t, targets in enumerate(solved.frames):
            number = np.full(len(targets), len(groups))
            joined[first + t].append(targets.replace(track=targets.track + len(tracks), group=number))
        own = [replace(track, id=track.id + len(tracks), first=first + track.first, last=first + track.last)
               for track in solved.tracks]  # fmt: skip
        groups.append(
            JointGroup(
                len(groups),
                int(chain.frame[0]),
                int(chain.frame[-1]),
                solved.count_probability,
                solved.flags,
                solved.diagnostics,
            )
        )
        tracks += own
        probability = np.convolve(probability, solved.count_probability)
    rest = [shot.targets[kept] for shot, kept in zip(shots, alone, strict=True)]
    linked, lines = _linked_alone(rest, times, len(tracks), len(groups))
    frames = [
        Targets.concatenate([*parts, own]) if parts else own for parts, own in zip(joined, linked, strict=True)
    ]  # fmt: skip
    notes = []
    if kept_alone:
        notes.append(
            f"{kept_alone} of {len(chains)} groups keep the targets of single frames: they are larger than a window, "
            "no point targets, or move otherwise"
        )
    return SequenceResult(frames, tracks + lines, probability, notes=notes, groups=groups)


def common_psf(shots: Sequence[Shot]) -> PSF:
    """The PSF of some frames: that of the first where all have the same, else the Gaussian of the median width."""
    shots = [shot for shot in shots if shot.weight.any()] or shots
    first = shots[0].psf
    if all(shot.psf == first for shot in shots):
        return first
    return GaussianPSF(float(np.median([equivalent_sigma(shot.psf) for shot in shots])))


def _chains(shots: Sequence[Shot]) -> Iterator[Chain]:
    """Groups that are seen in at least `LEAST_LENGTH` of the frames, or in both of two."""
    linker = Linker()
    seen: dict[int, list[tuple[int, int, float, float, float]]] = {}
    for t, shot in enumerate(shots):
        middles = group_middles(shot.targets)
        found = linker.update(t, middles)
        for track, number, x, y in zip(found.tolist(), middles.group.tolist(), middles.x, middles.y, strict=True):
            own = shot.targets[shot.targets.group == number]
            extent = float(np.hypot(own.x - x, own.y - y).max())
            seen.setdefault(track, []).append((t, number, float(x), float(y), extent))
    for links in seen.values():
        if len(links) >= min(LEAST_LENGTH, max(len(shots), 2)):
            frames, groups, *places, extents = (np.array(each) for each in zip(*links, strict=True))
            yield Chain(frames, np.stack(places, axis=1), float(np.quantile(extents, 0.9)), groups)


def _solve_chain(
    shots: Sequence[Shot], times: FloatArray, known: tuple[Chain, PSF], options: JointOptions
) -> SequenceResult | None:
    """The joint posterior of one group in the frames from its first to its last; None where it cannot be solved so."""
    chain, psf = known
    poor = [number in shots[t].flagged for t, number in zip(chain.frame, chain.group, strict=True)]
    half = max(LEAST_HALF, math.ceil(chain.extent_px + REACH_SPREADS * spread_px(psf) + 0.5))
    if 2 * sum(poor) > len(poor) or half > MOST_HALF:
        return None
    part = chain.part(len(shots))
    used, own = shots[part], times[part]
    since = own - own[0]
    chain = chain._replace(frame=chain.frame - part.start)
    place, speed = _path_of(chain, since, options.motion)
    if place is None:
        return None
    side = 2 * half + 1
    shape = shots[0].data.shape
    corner = np.rint(place[:, ::-1]).astype(np.int64) - half
    data, weight = _windows(used, corner, (side, chain, psf))
    if not (weight.sum(axis=(1, 2)) > 0.0).sum() > 1:
        return None
    noise = float(np.sqrt(1.0 / np.median(weight[weight > 0.0])))
    start = options.frame.prior or options.prior.start
    if start.single_pixel:
        start = ScenePrior.flat()
    law = replace(
        options.prior, start=start, group_speed_px=max(options.prior.group_speed_px, SPEED_ROOM * speed + 0.02)
    )
    sensor = Sensor(psf.at(float(place[0, 0]), float(place[0, 1])), shape=(side, side))
    together = noise / math.sqrt(len(used)) if start.intensity_range is None else noise
    paths = motion_law(since, options.motion, law, sensor, together, options.motion_std_px)
    moved = corner - corner[0]
    steady = paths.basis.astype(np.float64)[paths.normal == 0.0]
    path = np.zeros((len(paths.basis), 2))
    path[paths.normal == 0.0] = np.linalg.lstsq(steady.T, place - corner[0][::-1], rcond=None)[0]
    found = PathSolver(sensor, start, paths, PATH_EFFORTS[options.frame.mode]).solve(data, weight, Cut(moved, path))
    if not found.targets:
        return None
    solved = summarise_paths(found, paths, own, weight, (False, False), [])
    if Flag.POOR_FIT in solved.flags:
        return None
    dx, dy = float(corner[0, 1]), float(corner[0, 0])
    seen = max(
        float(np.nan_to_num(used[t].targets.score[used[t].targets.group == number], nan=1.0).max())
        for t, number in zip(chain.frame, chain.group, strict=True)
    )
    frames = [_inside(each.shifted(dx, dy), shape, seen) for each in solved.frames]
    tracks = [
        replace(track.shifted(dx, dy), existence_probability=track.existence_probability * seen)
        for track in solved.tracks
    ]
    return replace(solved, frames=frames, tracks=tracks)


def _inside(targets: Targets, shape: tuple[int, ...], score: float) -> Targets:
    """The targets inside a frame, with their scores times that of their group's detection."""
    kept = (np.abs(targets.x - 0.5 * (shape[1] - 1)) <= 0.5 * shape[1]) & (
        np.abs(targets.y - 0.5 * (shape[0] - 1)) <= 0.5 * shape[0]
    )
    return targets.replace(score=targets.score * score)[kept]


def _path_of(chain: Chain, since: FloatArray, motion: str) -> tuple[FloatArray | None, float]:
    """Place (T, 2) of a group's middle in every frame, and its speed; None where it does not follow the motion.

    Args:
        chain: the group.
        since: (T,) times of the frames in which it may be.
        motion: one of `csist.sequences.motion.MOTIONS`.
    """
    seen = chain.frame
    degree = min(1 if motion == "linear" else 2, len(seen) - 2)
    powers = since[:, None] ** np.arange(degree + 1)
    fitted = np.linalg.lstsq(powers[seen], chain.middle, rcond=None)[0]
    rest = chain.middle - powers[seen] @ fitted
    near = np.hypot(*rest.T) <= 3.0 * max(float(np.median(np.hypot(*rest.T))), 0.1)
    if near.sum() > degree + 1:
        fitted = np.linalg.lstsq(powers[seen[near]], chain.middle[near], rcond=None)[0]
        rest = chain.middle[near] - powers[seen[near]] @ fitted
    if float(np.sqrt((rest**2).sum(axis=1).mean())) > OFF_PATH_PX * math.sqrt(2.0):
        return None, 0.0
    speed = np.hypot(*(np.diff(powers @ fitted, axis=0) / np.diff(since)[:, None]).T)
    return powers @ fitted, float(speed.max())


def _windows(shots: Sequence[Shot], corner: IntArray, known: tuple[int, Chain, PSF]) -> tuple[FloatArray, FloatArray]:
    """Windows (T, side, side) that follow a group, without the light of the other groups, and their weights.

    Args:
        shots: the frames in which the group may be.
        corner: (T, 2) row and column of each window's first pixel.
        known: side of the windows, the group, and the PSF.
    """
    side, chain, psf = known
    numbers = dict(zip(chain.frame.tolist(), chain.group.tolist(), strict=True))
    data, weight = np.zeros((len(shots), side, side)), np.zeros((len(shots), side, side))
    reach = side + math.ceil(psf.reach_px)
    for t, (shot, (top, left)) in enumerate(zip(shots, corner.tolist(), strict=True)):
        rows, columns = shot.data.shape
        inside = (
            slice(max(top, 0), max(min(top + side, rows), 0)),
            slice(max(left, 0), max(min(left + side, columns), 0)),
        )
        if inside[0].start >= inside[0].stop or inside[1].start >= inside[1].stop:
            continue
        own = slice(inside[0].start - top, inside[0].stop - top), slice(inside[1].start - left, inside[1].stop - left)
        data[t][own], weight[t][own] = shot.data[inside], shot.weight[inside]
        others = shot.targets[(shot.targets.group != numbers.get(t, -2)) & (shot.targets.flags & WIDE == 0)]
        near = np.maximum(np.abs(others.x - left - side / 2), np.abs(others.y - top - side / 2)) < reach
        if near.any() and t in numbers:
            light = np.zeros((side, side))
            add_light(light, others[near].shifted(-left, -top), psf)
            data[t] -= np.where(weight[t] > 0.0, light, 0.0)
        if shot.psf_error > 0.0:
            wrong = shot.psf_error * max(float(data[t].max()), 0.0)
            seen = np.maximum(data[t], 0.0) / max(float(data[t].max()), 1e-12)
            weight[t] = np.where(weight[t] > 0.0, 1.0 / (1.0 / np.maximum(weight[t], 1e-30) + wrong**2 * seen), 0.0)
    return data, weight


def _linked_alone(
    frames: Sequence[Targets], times: FloatArray, started: int, groups: int
) -> tuple[list[Targets], list[Track]]:
    """Targets of single frames with the numbers of their tracks, and these tracks; -1 for targets seen too rarely.

    Args:
        frames: targets that are in no joint posterior.
        times: (T,) of the frames.
        started: number of the first track.
        groups: number that their groups get at least.
    """
    linker = Linker()
    numbers = [linker.update(t, targets) for t, targets in enumerate(frames)]
    length = np.bincount(np.concatenate(numbers), minlength=linker.started) if linker.started else np.zeros(0, int)
    kept = np.flatnonzero(length >= min(LEAST_LENGTH, len(frames)))
    new = np.full(linker.started, -1)
    new[kept] = started + np.arange(len(kept))
    linked = [
        targets.replace(track=new[number], group=np.where(targets.group >= 0, targets.group + groups, -1))
        for targets, number in zip(frames, numbers, strict=True)
    ]
    return linked, [line_track(int(new[track]), linked, times) for track in kept]
