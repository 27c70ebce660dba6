"""Whole frames in `csist unmix --joint`: their groups are solved in the last frames together, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from csist.cli.unmix.blocks import Block, Solved, image_name, joint_row
from csist.cli.unmix.frames import frame_view, frames_of, settle_frames, unmix_frame
from csist.cli.unmix.settings import Settings

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.frames.result import FrameResult
    from csist.io.sequences import FrameSequence
    from csist.plots import View
    from csist.sequences.stream import Part
    from csist.targets import Targets


class Waiting(NamedTuple):
    """A frame that was unmixed alone and waits for the joint result."""

    name: str
    frame: FloatArray
    solved: Solved


def joint_frames(sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """Unmix the frames of a sequence; no more than a window of them is in memory."""
    from csist.sequences.fresh import Fresh
    from csist.sequences.shots import empty_shot, shot_of_result
    from csist.sequences.stream import Sliding
    from csist.sequences.whole import JointOptions, unmix_shots
    from csist.trajectories import MotionPrior

    options, psf = settle_frames(sequence, settings)
    window = settings.joint or 1
    step = settings.joint_step or window
    solve = partial(unmix_shots, options=JointOptions(options, MotionPrior(), settings.motion))
    sliding: Sliding[Any] = Sliding(solve, window, step)
    waiting: list[Waiting] = []
    results: list[FrameResult] = []
    fresh = Fresh()
    for index, (name, frame) in enumerate(frames_of(sequence, settings.temporal)):
        results.clear()
        solved = unmix_frame(frame, index, len(sequence), options, sequence.error(index), keep=results.append)
        known = solved.psf or (psf if index == 0 else None)
        waiting.append(Waiting(name, frame, replace(solved, psf=known)))
        new = fresh.is_new(frame)
        shot = shot_of_result(results[0]) if new and results else empty_shot(frame.shape)
        part = sliding.add(shot, float(sequence.in_intervals(index)[0]))
        if part is not None:
            yield from _blocks(part, waiting, sequence)
            waiting = []
    sequence.notes.extend(fresh.notes())
    rest = sliding.finish()
    if rest is not None:
        yield from _blocks(rest, waiting, sequence)


def _blocks(part: Part, waiting: list[Waiting], sequence: FrameSequence) -> Iterator[Block]:
    """A block for each new frame; the last one holds the tracks, whose frames count from it."""
    sequence.notes.extend(part.result.notes)
    final = len(waiting) - 1
    for place, (each, targets) in enumerate(zip(waiting, part.result.frames, strict=True)):
        index = part.first + place
        solved = _with_targets(each.solved, targets)

        def view(_: int, each: Waiting = each, solved: Solved = solved, index: int = index) -> View | None:
            return frame_view(image_name(each.name, "frame", index, len(sequence)), each.frame, solved)

        rows = [] if place else [joint_row(part.first, group.number, group) for group in part.result.groups]
        rows += _rows_alone(each.solved.groups, targets, len(part.result.groups))
        tracks = [replace(track, first=track.first - index, last=track.last - index) for track in part.result.tracks]
        block = Block(index, [targets], rows, solved.masked, view, each.name, solved.psf)
        yield replace(
            block, kinds=solved.kinds, measured=solved.measured, tracks=tracks if place == final else None
        )  # fmt: skip


def _with_targets(solved: Solved, targets: Targets) -> Solved:
    """A frame with the targets of the joint posterior, which its model shows too; a frame in tiles keeps its own."""
    model = solved.model
    if model is not None and len(model.parts) == 1:
        model = replace(model, parts=[replace(model.parts[0], targets=targets)])
    return replace(solved, targets=[targets], model=model)


def _rows_alone(rows: list[dict[str, Any]], targets: Targets, joint: int) -> list[dict[str, Any]]:
    """Rows of a frame's groups whose targets are those of the frame alone, numbered after the joint ones."""
    alone = set(targets.group.tolist())
    return [row | {"group": row["group"] + joint} for row in rows if row["group"] + joint in alone]
