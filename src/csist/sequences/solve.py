"""`csist.unmix_sequence`: one posterior over all frames of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from csist._types import BoolArray, FloatArray
from csist.checks import InputError, check_not_negative, check_positive, check_stack
from csist.methods.continuous.sequence.solver import PATH_EFFORTS
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.sequences.fresh import Fresh
from csist.sequences.motion import check_motion
from csist.sequences.report import report_single
from csist.sequences.result import SequenceResult
from csist.sequences.window import Window, prepared, unmix_window
from csist.trajectories import MotionPrior
from csist.windows import as_array, check_window_values, default_sensor, is_window, window_noise


def unmix_sequence(
    stack: ArrayLike | Sequence[ArrayLike],
    sensor: Sensor | None = None,
    prior: ScenePrior | MotionPrior | None = None,
    motion: str = "linear",
    noise_std: float | None = None,
    *,
    mode: str = "accurate",
    times: ArrayLike | None = None,
    motion_std_px: float = 0.05,
    mask_nan: bool = False,
    **options: Any,
) -> SequenceResult:
    """Find the targets of groups in all frames of a sequence together, and their paths.

    The likelihood is the product over frames; number, starts, velocities and mean fluxes are shared by all of them, and
    the scintillation of each flux from frame to frame is integrated out. A target may appear or leave: the frames in
    which each is there are found from the data. A single frame is passed to `csist.unmix`.

    The camera may shake: the shifts of its frames are found from the light of the groups.

    Whole frames are unmixed one by one first, and their groups are linked. Each group gets a window that follows it, is
    solved in all its frames together, and its speed is not limited by the prior. Groups larger than a window, of no
    point targets, or that do not move as `motion` says keep the targets of their single frames.

    Args:
        stack: (T, H, W) in counts, in order: windows of at most 16 px per side with one group, or whole frames. A frame
            with only NaN or of one value counts as missing; a frame that repeats the one before is left out.
        sensor: as for `csist.unmix`.
        prior: prior of the first frame, or with speeds and scintillation as a `MotionPrior`; None for
            `ScenePrior.flat()` with the speeds and scintillation of `MotionPrior()`. Where those do not explain the
            frames and higher ones do, these are used, in windows with a note; a `MotionPrior` is kept to.
        motion: "linear" (constant velocities), "acceleration" (one that the group shares) or "free" (the group also
            walks at random, by `motion_std_px` a frame).
        noise_std: noise per pixel in counts; None: the sensor's, or if that is 0 estimated from the stack.
        mode: "accurate" or "fast".
        times: (T,) times of the frames, increasing; None for 0, 1, 2, ... Velocities are in px per unit of these times,
            as are the speeds of the prior and `motion_std_px`.
        motion_std_px: step of the random walk of "free" in px per frame.
        mask_nan: leave NaN pixels of windows out instead of refusing them; frames with only NaN are always left
            out, and so are NaN pixels of whole frames.
        **options: of whole frames, the fields of `csist.frames.FrameOptions`, as for `csist.unmix_frame`.

    Returns:
        targets of each frame and tracks.

    Raises:
        InputError: if the frames cannot be used or an option is out of range.

    >>> from csist.targets import Targets
    >>> sky = Sensor(read_noise=3.0)
    >>> path = [Targets(x=[5.0 + 0.1 * t], y=[4.0], intensity=[235]) for t in range(10)]
    >>> video = np.stack([sky.observe(targets, seed) for seed, targets in enumerate(path)])
    >>> found = unmix_sequence(video, sky, ScenePrior.csist_100k(), mode="fast")
    >>> found.count, abs(float(found.tracks[0].state[2]) - 0.1) < 0.02
    (1, True)
    """
    if mode not in PATH_EFFORTS:
        raise InputError(f"mode must be one of {', '.join(PATH_EFFORTS)}, got {mode!r}")
    check_motion(motion)
    check_positive("motion_std_px", motion_std_px)
    if noise_std is not None:
        check_not_negative("noise_std", noise_std)
    array = _one_array(stack)
    images = check_stack(array)
    if array.ndim == 2:
        raise InputError(f"a sequence is a stack (T, H, W), got one image of shape {array.shape}: use unmix")
    if not is_window(images.shape):
        return _whole_frames(
            images, sensor, prior, _check_times(times, len(images)), motion,
            {"mode": mode, "noise_std": noise_std, "motion_std_px": motion_std_px, **options},
        )  # fmt: skip
    if options:
        raise InputError(f"{next(iter(options))} is an option of whole frames, these are windows: leave it out")
    law = (
        prior
        if isinstance(prior, MotionPrior)
        else MotionPrior(start=prior if isinstance(prior, ScenePrior) else ScenePrior.flat())
    )
    time = _check_times(times, len(images))
    used, notes = _usable(images)
    check_window_values(images[used], mask_nan)
    sensor = sensor or default_sensor(images[used], array.dtype)
    sensor = sensor.with_shape((images.shape[1], images.shape[2]))
    noise = window_noise(images[used], sensor) if noise_std is None else noise_std
    if used.sum() == 1:
        return _single(
            images, (used, time), sensor, law, {"mode": mode, "noise_std": noise, "mask_nan": mask_nan}, notes
        )
    # A target that no single frame shows can be bright enough in all of them together.
    together = noise / np.sqrt(used.sum()) if law.start.intensity_range is None else noise
    frames = prepared(images, used, sensor, noise)
    window = Window(frames, time, sensor, law, motion, motion_std_px, max(float(together), 1e-9), mode)
    result = unmix_window(window, keeps_prior=isinstance(prior, MotionPrior))
    return replace(result, notes=notes + result.notes)


def _whole_frames(
    images: FloatArray,
    sensor: Sensor | None,
    prior: ScenePrior | MotionPrior | None,
    times: FloatArray,
    motion: str,
    options: dict[str, Any],
) -> SequenceResult:
    """`unmix_sequence` of frames larger than windows."""
    from csist.sequences.shots import empty_shot, shot_of
    from csist.sequences.whole import joint_options, unmix_shots

    settled = joint_options(sensor, prior, motion, options)
    used, notes = _usable(images)
    shots = [
        shot_of(image, settled.frame) if seen else empty_shot(image.shape)
        for image, seen in zip(images, used, strict=True)
    ]  # fmt: skip
    found = unmix_shots(shots, times, settled)
    return replace(found, notes=notes + found.notes)


def _one_array(stack: Any) -> Any:
    """The frames as one array; frames of another size are named."""
    if isinstance(stack, list | tuple) and stack:
        shapes = [np.shape(frame) for frame in stack]
        for place, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InputError(f"frame {place} is {shape} px, those before it {shapes[0]}: cut them to one size")
    return as_array(stack)


def _check_times(times: ArrayLike | None, number: int) -> FloatArray:
    if times is None:
        return np.arange(number, dtype=np.float64)
    values = np.asarray(times, dtype=np.float64)
    if values.shape != (number,) or not np.isfinite(values).all():
        raise InputError(f"times must be {number} finite numbers, one per frame, got shape {values.shape}")
    late = np.flatnonzero(np.diff(values) <= 0.0)
    if len(late):
        place = int(late[0]) + 1
        raise InputError(
            f"times must increase, got {values[place]:g} for frame {place} after {values[place - 1]:g}: sort the frames"
        )
    return values


def _usable(images: FloatArray) -> tuple[BoolArray, list[str]]:
    """Which frames (T,) hold something new, and what is wrong with the others.

    Raises:
        InputError: if none does.
    """
    fresh = Fresh()
    used = np.array([fresh.is_new(image) for image in images], np.bool_)
    if not used.any():
        raise InputError(f"none of the {len(images)} frames has a pixel that can be used")
    return used, fresh.notes()


def _single(
    images: FloatArray,
    frames: tuple[BoolArray, FloatArray],
    sensor: Sensor,
    law: MotionPrior,
    options: dict[str, Any],
    notes: list[str],
) -> SequenceResult:
    """The result of the only frame that can be used; `frames` says which can be, and holds their times."""
    from csist.create import create_method

    used, time = frames
    place = int(used.argmax())
    method = create_method("continuous", sensor=sensor, prior=law.start, **options)
    answer = method.solve(images[used])
    which = f"only frame {place} can be used" if len(images) > 1 else "there is one frame"
    notes.append(f"{which}: velocities are those of the prior")
    speeds = replace(law, frames=len(images))
    return report_single(answer.targets[0], answer.groups[0], (place, float(time[place])), speeds, notes)
