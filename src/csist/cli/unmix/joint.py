"""Sequences of windows in `csist unmix --joint`: runs of frames, each unmixed as one posterior, and their tracks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from csist.checks import InputError
from csist.cli.unmix.blocks import Block, image_name, joint_row
from csist.cli.unmix.measured import measured_windows
from csist.cli.unmix.settings import Settings
from csist.cli.unmix.windows import settle_windows, store_truths, window_view

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.io import ImageStack
    from csist.io.sequences import FrameSequence
    from csist.physics.sensor import Sensor
    from csist.plots import View
    from csist.scenes import ScenePrior
    from csist.sequences.result import SequenceResult
    from csist.targets import Targets
    from csist.trajectories import MotionPrior


def joint_windows(stack: ImageStack, sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """The windows of a file, run by run; in a store, a run does not go beyond its trajectory.

    Args:
        stack: the file.
        sequence: the same, with the times of its images; its notes get what the user should know.
        settings: of the command.
    """
    frames, recipe, _ = settle_windows(stack, settings, sequence.notes)
    motion, edges = _trajectories(stack)
    prior = settings.prior or motion
    truths = store_truths(stack)
    number = settings.joint or 1
    runs = [(a, min(a + number, end)) for first, end in edges for a in range(first, end, number)]
    started = 0
    known = measured_windows(stack, settings, recipe["sensor"], recipe["noise_std"])
    for first, last in runs:
        times = sequence.in_intervals(first, last - first)
        found = _unmix(
            frames[first:last], recipe["sensor"], prior, recipe["noise_std"], settings, sequence.notes, times=times
        )
        block = _block(found, frames[first:last], (first, started), recipe["sensor"], stack.name, truths)
        yield block if first else replace(block, measured=known)
        started += len(found.tracks)


def joint_sequence(sequence: FrameSequence, settings: Settings, notes: list[str]) -> Iterator[Block]:
    """The windows of a sequence that is read as it comes, run by run; only one run is in memory."""
    import numpy as np

    from csist.unmixing import window_recipe

    frames = iter(sequence)
    sensor: Sensor | None = None
    noise, first, started = 0.0, 0, 0
    while run := list(islice(frames, settings.joint)):
        values = np.stack([frame for _, frame in run])
        usable = values[~np.isnan(values).all(axis=(1, 2))]
        if sensor is None and len(usable):
            given = settings.instrument.window_sensor(sequence, usable, values.dtype)
            stated = settings.instrument.window_noise(sequence, given)
            recipe = window_recipe(usable, values.dtype, given, mask_nan=settings.masks, noise_std=stated)
            sensor, noise = recipe["sensor"], recipe["noise_std"]
        if sensor is None:
            raise InputError(f"{sequence.path}: its first {len(run)} frames contain only NaN: leave them out")
        times = sequence.in_intervals(first, len(run))
        found = _unmix(values, sensor, settings.prior, noise, settings, notes, times=times)
        block = _block(found, values, (first, started), sensor, sequence.name, None)
        yield block if first else replace(block, measured=measured_windows(sequence, settings, sensor, noise))
        first, started = first + len(run), started + len(found.tracks)


def _trajectories(stack: ImageStack) -> tuple[MotionPrior | None, list[tuple[int, int]]]:
    """Motion prior of a file and the first frame and the one after the last of each of its sequences."""
    from itertools import pairwise

    import numpy as np

    whole = [(0, len(stack))]
    if stack.kind != "store":
        return None, whole
    from csist.io.store import load

    store = load(stack.path)
    if store.motion is None or len(store["test"]) != len(stack):
        return None, whole
    ends = (np.flatnonzero(np.diff(store["test"].trajectory)) + 1).tolist()
    return store.motion, list(pairwise([0, *ends, len(stack)]))


def _unmix(
    frames: FloatArray,
    sensor: Sensor,
    prior: ScenePrior | MotionPrior | None,
    noise_std: float,
    settings: Settings,
    notes: list[str],
    *,
    times: FloatArray,
) -> SequenceResult:
    """One run of frames; one without any value has no targets."""
    import numpy as np

    from csist.sequences.result import SequenceResult
    from csist.sequences.solve import unmix_sequence
    from csist.targets import Targets

    if np.isnan(frames).all():
        return SequenceResult([Targets.empty() for _ in frames], [], np.ones(1))
    found = unmix_sequence(
        frames, sensor, prior, settings.motion, noise_std, mode=settings.mode or "accurate", times=times,
        mask_nan=settings.masks,
    )  # fmt: skip
    notes.extend(found.notes)
    return found


def _block(
    found: SequenceResult,
    frames: FloatArray,
    place: tuple[int, int],
    sensor: Sensor,
    name: str,
    truths: list[Targets] | None,
) -> Block:
    """A run of frames as a block of the table.

    Args:
        found: what was found.
        frames: (n, H, W).
        place: number of the first frame, and of the first track.
        sensor: of the frames.
        name: of the file.
        truths: true targets of all frames of the file, if known.
    """
    import numpy as np

    first, started = place

    def view(index: int) -> View:
        truth = None if truths is None else truths[first + index]
        return window_view(
            image_name(name, "frame", first + index, 0), frames[index], found.frames[index], sensor, truth
        )

    targets = [each.replace(track=np.where(each.track >= 0, each.track + started, -1)) for each in found.frames]
    tracks = [replace(track, id=track.id + started) for track in found.tracks]
    return Block(first, targets, [joint_row(first, 0, found)], int(np.isnan(frames).sum()), view, tracks=tracks)
