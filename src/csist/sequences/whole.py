"""The joint posterior of the groups of whole frames.

Every frame is unmixed alone first. Its groups are linked over the frames; a window follows each of them, with the light
of all others subtracted, and the group is solved in all frames together. A group that point targets do not explain, an
extended source, a streak or clutter, gets one track of its middle. So does one whose targets the joint posterior cannot
place, and one without a joint posterior whose number of targets changes from frame to frame. Other groups without one
keep the targets of their single frames: they do not move as the motion says, are larger than a window or are lost in
the error of the PSF. A camera may shake: its shifts are measured on the groups, see `csist.sequences.shake`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray
from csist.frames.options import FrameOptions
from csist.methods.continuous.sequence.model import MotionLaw
from csist.methods.continuous.sequence.modes import Cut
from csist.methods.continuous.sequence.solver import PATH_EFFORTS, PathSolver
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.sequences.chains import (
    MOST_HALF,
    Chain,
    Course,
    Cutout,
    chains_of,
    course_of,
    cut_out,
    merged_frames,
    middles_of,
)
from csist.sequences.fluxes import with_own_fluxes
from csist.sequences.lines import line_track
from csist.sequences.motion import SCINTILLATIONS, motion_law
from csist.sequences.report import summarise_paths
from csist.sequences.result import JointGroup, SequenceResult, Track
from csist.sequences.shake import Shake, shake_of, steady
from csist.sequences.shots import Shot, common_psf
from csist.targets import Flag, Targets
from csist.tracks.link import LEAST_LENGTH, Linker, is_confirmed
from csist.tracks.middles import group_middles
from csist.trajectories import MotionPrior

SPEED_ROOM = 1.25
"""The prior's largest speed of a group, in units of the speed with which it is seen to move."""
PIXEL_BITS = int(Flag.SATURATED | Flag.MASKED)
RESOLVED = 1.0 / 3.0
"""Least mean probability of the targets of a joint posterior of several: below it, most of them are wrong."""


@dataclass(frozen=True, eq=False)
class JointOptions:
    """How the groups of frames are solved together.

    Args:
        frame: how a frame is unmixed alone.
        prior: speeds and scintillation; its start is used where the frame's options have no prior.
        motion: one of `csist.sequences.motion.MOTIONS`.
        motion_std_px: step of the random walk of "free" in px per unit of time.
        keeps_prior: whether fluxes that vary more than the prior says are not tried where it does not explain a group.
    """

    frame: FrameOptions
    prior: MotionPrior
    motion: str = "linear"
    motion_std_px: float = 0.05
    keeps_prior: bool = False


class Together(NamedTuple):
    """What the groups of some frames share.

    Args:
        shots: the frames.
        times: (T,) of them.
        psf: of all.
        options: how a group is solved.
    """

    shots: Sequence[Shot]
    times: FloatArray
    psf: PSF
    options: JointOptions


class Solved(NamedTuple):
    """The joint posterior of a group.

    Args:
        result: the posterior.
        misfit: its chi-squared.
        shake: of the camera that it was solved for.
    """

    result: SequenceResult
    misfit: float
    shake: Shake


class Sorted(NamedTuple):
    """The groups of some frames by the way in which they are reported.

    Args:
        joint: those with a joint posterior.
        wide: those that point targets do not explain, or whose targets cannot be followed from frame to frame.
        alone: number of the others.
        shake: what all groups say of the camera, or the only one; None where it stands.
        moved: number of groups whose own light says how the camera shakes.
    """

    joint: list[tuple[Chain, SequenceResult]]
    wide: list[Chain]
    alone: int
    shake: Shake | None
    moved: int


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
        isinstance(prior, MotionPrior),
    )


def unmix_shots(shots: Sequence[Shot], times: FloatArray, options: JointOptions) -> SequenceResult:
    """Solve the groups of some frames together.

    Args:
        shots: the frames.
        times: (T,) increasing.
        options: how they are solved.
    """
    found = _sort(shots, times, options)
    chains = [chain for chain, _ in found.joint]
    frames, tracks, groups = _joint_frames(shots, found.joint)
    rest = [shot.targets[kept] for shot, kept in zip(shots, _kept(shots, [*chains, *found.wide]), strict=True)]
    wide = _wide_frames(shots, found.wide, len(tracks))
    outlines = {number: chain.outline(shots) for number, chain in enumerate(found.wide, len(tracks))}
    linked = _linked(rest, len(tracks) + len(found.wide))
    single = [Targets.concatenate(parts) for parts in zip(wide, linked, strict=True)]
    numbers = np.unique(np.concatenate([targets.track for targets in single]))
    for number in numbers[numbers >= 0].tolist():
        tracks.append(replace(line_track(number, single, times), outline=outlines.get(number)))
    for t, targets in enumerate(single):
        renumbered = np.where(targets.group >= 0, targets.group + len(groups), -1)
        frames[t] = Targets.concatenate([frames[t], targets.replace(group=renumbered)])
    probability = np.ones(1)
    for group in groups:
        probability = np.convolve(probability, group.count_probability)
    shift = None if found.shake is None else found.shake.shift
    return SequenceResult(frames, tracks, probability, notes=_notes(found, len(shots)), groups=groups, shift_px=shift)


def _notes(found: Sorted, frames: int) -> list[str]:
    """What is said of a camera that shakes, of groups without a joint posterior, and of a single frame."""
    total = len(found.joint) + len(found.wide) + found.alone
    notes = ["there is one frame: velocities are not known"] if frames == 1 else []
    if found.shake is not None and total > 1:
        notes.append(
            f"the frames are shifted against each other by {found.shake.rms_px:.2g} px (rms of x and of y): the joint "
            "posteriors allow for that, and tracks are paths without it"
        )
    if found.moved:
        notes.append(
            f"{found.moved} of {total} groups move beside their path: the camera is taken to shake, and their tracks "
            "are paths without that; if it is the groups that manoeuvre, state another motion"
        )
    if found.wide:
        notes.append(
            f"{len(found.wide)} of {total} groups are no point targets or cannot be followed target by target: each "
            "has one track of its middle"
        )
    if found.alone:
        notes.append(
            f"{found.alone} of {total} groups keep the targets of single frames: they are larger than a window, move "
            "otherwise, or are lost in the error of the PSF"
        )
    return notes


def _sort(shots: Sequence[Shot], times: FloatArray, options: JointOptions) -> Sorted:
    """Follow the groups of the frames, and solve those that can be."""
    psf, scatter = common_psf(shots)
    shots = [shot._replace(psf_error=math.hypot(shot.psf_error, scatter)) for shot in shots]
    chains = chains_of(shots)
    solver = Together(shots, times, psf, options)
    blends = merged_frames(chains, len(shots), psf)
    middles = middles_of(chains, shots, psf, options.motion).without(np.reshape(blends, (len(chains), len(shots))))
    shake = shake_of(middles, times) if len(chains) > 1 else None
    found = Sorted([], [], 0, shake, 0)
    for k, (chain, merged) in enumerate(zip(chains, blends, strict=True)):
        own = shake_of(middles.of(k), times)
        solved = None if chain.is_wide else _best_solved(solver, (chain, merged), shake, own)
        explained = solved is not None and Flag.POOR_FIT not in solved.result.flags
        if solved is not None and explained and _is_resolved(solved.result):
            found.joint.append((chain, _scored(solved.result, chain.score(shots))))
            if solved.shake is own:
                found = found._replace(moved=found.moved + 1, shake=own if len(chains) == 1 else shake)
        elif chain.is_wide or explained or chain.is_unsteady(shots):
            found.wide.append(chain)
        else:
            found = found._replace(alone=found.alone + 1)
    return found


def _best_solved(
    solver: Together, followed: tuple[Chain, BoolArray], shake: Shake | None, own: Shake | None
) -> Solved | None:
    """The first joint posterior of a group that explains its frames, or the last one; see `_solve_chain`.

    Where nothing is known of the camera, the group's own light can say that the frames are shifted against each other.
    Where the prior does not explain them, the frames in which the group is not seen between others in which it is are
    left out: a black frame, or one in which it is hidden. Then its light may move otherwise than the camera, and its
    fluxes may vary more, but not so that more targets than single frames show take the place of a motion that is not
    the assumed one.

    Args:
        solver: what all groups share.
        followed: the group, and the frames (T,) in which it is one blob with another.
        shake: of the camera, as all groups say.
        own: the same, as this group says.
    """
    (chain, merged), options, frames = followed, solver.options, len(solver.shots)
    used = steady(frames) if shake is None else shake
    solved = _solve_chain(solver, followed, used)
    if own is not None and (solved is None or shake is None):
        other = _solve_chain(solver, followed, own)
        if other is not None and (solved is None or other.misfit + own.price < solved.misfit):
            solved, used = other, own
    hidden, usual = chain.gaps(frames), options.prior.scintillation
    tries = [(used, usual)] if hidden.any() else []
    tries += [] if own is None or own is used else [(own, usual)]
    tries += [] if options.keeps_prior else [(used, each) for each in SCINTILLATIONS if each > usual]
    for moved, scintillation in tries:
        if solved is None or Flag.POOR_FIT not in solved.result.flags:
            break
        wider = replace(options, prior=replace(options.prior, scintillation=scintillation))
        other = _solve_chain(solver._replace(options=wider), (chain, merged | hidden), moved)
        if other is not None and len(other.result.tracks) <= chain.usual_count(solver.shots):
            solved = other
    return solved


def _is_resolved(solved: SequenceResult) -> bool:
    """Whether several targets are where they are said to be; clutter is spread over many places."""
    exists = [track.existence_probability for track in solved.tracks]
    return len(exists) < 2 or float(np.mean(exists)) >= RESOLVED


def _scored(solved: SequenceResult, score: float) -> SequenceResult:
    """A joint posterior with all probabilities multiplied by the score of the group's detections."""
    frames = [targets.replace(score=targets.score * score) for targets in solved.frames]
    tracks = [replace(each, existence_probability=each.existence_probability * score) for each in solved.tracks]
    return replace(solved, frames=frames, tracks=tracks)


def _kept(shots: Sequence[Shot], chains: Sequence[Chain]) -> list[BoolArray]:
    """Which targets of each frame belong to none of some groups."""
    kept = [np.ones(len(shot.targets), np.bool_) for shot in shots]
    for chain in chains:
        for t, number in zip(chain.frame, chain.group, strict=True):
            kept[t] &= shots[t].targets.group != number
    return kept


def _joint_frames(
    shots: Sequence[Shot], joint: Sequence[tuple[Chain, SequenceResult]]
) -> tuple[list[Targets], list[Track], list[JointGroup]]:
    """Targets of each frame, tracks and groups from the joint posteriors, numbered one after the other."""
    parts: list[list[Targets]] = [[Targets.empty()] for _ in shots]
    tracks: list[Track] = []
    groups: list[JointGroup] = []
    for number, (chain, solved) in enumerate(joint):
        seen = dict(zip(chain.frame.tolist(), chain.targets(shots), strict=True))
        for t, targets in enumerate(solved.frames, chain.part(len(shots)).start):
            pixels = int(np.bitwise_or.reduce(seen[t].flags)) & PIXEL_BITS if t in seen else 0
            parts[t].append(
                targets.replace(
                    track=targets.track + len(tracks),
                    group=np.full(len(targets), number),
                    flags=targets.flags | pixels,
                )
            )
        tracks += [replace(track, id=track.id + len(tracks)) for track in solved.tracks]
        first, last = int(chain.frame[0]), int(chain.frame[-1])
        groups.append(
            JointGroup(number, first, last, solved.count_probability, solved.flags, solved.diagnostics)
        )  # fmt: skip
    return [Targets.concatenate(each) for each in parts], tracks, groups


def _wide_frames(shots: Sequence[Shot], chains: Sequence[Chain], started: int) -> list[Targets]:
    """One target a frame for each group that point targets do not explain: its middle, with the flags of its targets.

    Args:
        shots: the frames.
        chains: the groups.
        started: number of the first one's track.
    """
    parts: list[list[Targets]] = [[Targets.empty()] for _ in shots]
    for number, chain in enumerate(chains, started):
        for t, targets in zip(chain.frame.tolist(), chain.targets(shots), strict=True):
            flags = int(np.bitwise_or.reduce(targets.flags))
            parts[t].append(group_middles(targets).replace(track=[number], flags=[flags]))
    return [Targets.concatenate(each) for each in parts]


def _solve_chain(solver: Together, followed: tuple[Chain, BoolArray], shake: Shake) -> Solved | None:
    """The joint posterior of one group in the frames in which it may be; None where there is none.

    Its tracks count the frames of the whole sequence.

    Args:
        solver: what all groups share.
        followed: the group, and the frames (T,) that are left out because it is one blob with another.
        shake: of the camera.
    """
    (chain, merged), psf, options = followed, solver.psf, solver.options
    part, half = chain.part(len(solver.shots)), chain.half_px(psf)
    shots, times, shift = solver.shots[part], solver.times[part], shake.shift[part]
    here = chain._replace(frame=chain.frame - part.start)
    course = None if half > MOST_HALF else course_of(here, times - times[0], options.motion, shift)
    if course is None:
        return None
    cutout = cut_out(shots, here, course.place + shift, half, psf, merged[part])
    if (cutout.weight > 0.0).any(axis=(1, 2)).sum() < 2:
        return None
    law, start = _law(cutout, course, times - times[0], psf, options)
    sensor = _sensor(cutout, course, psf)
    cut = _cut(cutout, course, law)
    effort = PATH_EFFORTS[options.frame.mode]
    found = PathSolver(sensor, start, law, effort).solve(cutout.data, cutout.weight, cut, shift)
    if not found.targets:
        return None
    solved = summarise_paths(found, law, times, cutout.weight, (False, False), [])
    beside = shift + (cutout.corner[0] - cutout.corner)[:, ::-1]
    seen = [targets.shifted(x, y) for targets, (x, y) in zip(solved.frames, beside.tolist(), strict=True)]
    own = with_own_fluxes(cutout.data, cutout.weight, seen, sensor.psf, options.prior.scintillation)
    frames = [
        targets.replace(intensity=each.intensity, intensity_std=each.intensity_std)
        for targets, each in zip(solved.frames, own, strict=True)
    ]
    moved = _in_frame(
        replace(solved, frames=frames), cutout.corner[0], shots[0].data.shape, part.start, shake.of(part)
    )  # fmt: skip
    return Solved(moved, found.misfit, shake)


def _sensor(cutout: Cutout, course: Course, psf: PSF) -> Sensor:
    """The sensor of the windows: the PSF is that at the group's first place."""
    x, y = course.place[0].tolist()
    return Sensor(psf.at(x, y), shape=(cutout.data.shape[1], cutout.data.shape[2]))


def _law(
    cutout: Cutout, course: Course, since: FloatArray, psf: PSF, options: JointOptions
) -> tuple[MotionLaw, ScenePrior]:
    """The law of a group's paths, with room for the speed that is seen, and the prior of its first frame."""
    noise = float(np.sqrt(1.0 / np.median(cutout.weight[cutout.weight > 0.0])))
    start = options.frame.prior or options.prior.start
    if start.single_pixel:
        start = ScenePrior.flat()
    speed = max(options.prior.group_speed_px, SPEED_ROOM * course.speed + 0.02)
    prior = replace(options.prior, start=start, group_speed_px=speed)
    # A target that no single frame shows can be bright enough in all of them together.
    together = noise / math.sqrt(len(since)) if start.intensity_range is None else noise
    sensor = _sensor(cutout, course, psf)
    return motion_law(since, options.motion, prior, sensor, together, options.motion_std_px), start


def _cut(cutout: Cutout, course: Course, law: MotionLaw) -> Cut:
    """How the windows move with the group."""
    steady = law.normal == 0.0
    path = np.zeros((len(law.basis), 2))
    place = course.place - cutout.corner[0][::-1]
    path[steady] = np.linalg.lstsq(law.basis[steady].astype(np.float64).T, place, rcond=None)[0]
    return Cut(cutout.corner - cutout.corner[0], path)


def _in_frame(
    solved: SequenceResult, corner: FloatArray, shape: tuple[int, ...], first: int, shake: Shake
) -> SequenceResult:
    """The joint posterior of a window in coordinates of the frame; targets outside it are left out.

    Args:
        solved: the result.
        corner: (2,) row and column of the window's first pixel in its first frame.
        shape: (H, W) of the frame.
        first: number of the window's first frame.
        shake: of the window's frames; tracks are without it.
    """
    dy, dx = (float(each) for each in corner)
    frames = []
    for targets in shake.applied(solved.frames):
        moved = targets.shifted(dx, dy)
        inside = (moved.x >= -0.5) & (moved.x <= shape[1] - 0.5) & (moved.y >= -0.5) & (moved.y <= shape[0] - 0.5)
        frames.append(moved[inside])
    tracks = [
        replace(track.shifted(dx, dy), first=first + track.first, last=first + track.last) for track in solved.tracks
    ]
    return replace(solved, frames=frames, tracks=tracks)


def _linked(frames: Sequence[Targets], started: int) -> list[Targets]:
    """Targets of single frames with the numbers of their tracks; -1 for targets seen too rarely.

    Args:
        frames: targets of each frame.
        started: number of the first track.
    """
    linker = Linker()
    numbers = [linker.update(t, targets) for t, targets in enumerate(frames)]
    seen: dict[int, list[int]] = {}
    for t, found in enumerate(numbers):
        for number in found.tolist():
            seen.setdefault(number, []).append(t)
    least = min(LEAST_LENGTH, len(frames))
    kept = [number for number, places in seen.items() if is_confirmed(places, least)]
    new = np.full(linker.started, -1)
    new[kept] = started + np.arange(len(kept))
    return [targets.replace(track=new[number]) for targets, number in zip(frames, numbers, strict=True)]
