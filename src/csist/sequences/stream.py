"""Sequences without an end: windows of the last frames that grow, slide and keep the numbers of their tracks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from csist._types import FloatArray
from csist.checks import InputError, check_stack
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.sequences.fresh import Fresh
from csist.sequences.result import SequenceResult, Track
from csist.sequences.solve import unmix_sequence
from csist.targets import Targets
from csist.tracks.link import GATE_PX, MOST_PATIENCE, patience_of
from csist.trajectories import MotionPrior
from csist.windows import as_array, is_window

Item = TypeVar("Item")

LEAST_GATE_PX = 1.5
"""Distance in px within which a track of one window of frames goes on in the next, whatever the errors state."""
GATE_SIGMAS = 4.0


class Part(NamedTuple):
    """What is new in a stream.

    Args:
        first: number of the first new frame in the stream.
        result: targets of the new frames, and the tracks of the window that they end: numbers of tracks hold for the
            whole stream, as do the numbers of their frames.
    """

    first: int
    result: SequenceResult


class Sliding(Generic[Item]):
    """The last frames of a stream.

    Args:
        solve: gives the result of some frames and their times.
        window: most frames that are solved together.
        step: frames after which they are solved again; `window` for windows that do not overlap.

    Raises:
        InputError: if `window` or `step` is no whole number of at least 1, or `step` is the larger one.
    """

    def __init__(self, solve: Callable[[Sequence[Item], FloatArray], SequenceResult], window: int, step: int) -> None:
        if int(window) != window or window < 1:
            raise InputError(f"window must be a whole number of frames >= 1, got {window}")
        if int(step) != step or not 1 <= step <= window:
            raise InputError(f"step must be a whole number of frames from 1 to the window's {window}, got {step}")
        self._solve, self._step = solve, step
        self._items: deque[Item] = deque(maxlen=window)
        self._times: deque[float] = deque(maxlen=window)
        self._done, self._seen, self._started = 0, 0, 0
        self._before: list[Track] = []

    def add(self, item: Item, time: float | None = None) -> Part | None:
        """Add a frame; gives what is new after every step.

        Args:
            item: the frame.
            time: of it, larger than that of the frame before; None for its number.

        Raises:
            InputError: if the time does not increase.
        """
        now = float(self._seen) if time is None else float(time)
        if self._times and not now > self._times[-1]:
            raise InputError(f"times must increase, got {now:g} for frame {self._seen} after {self._times[-1]:g}")
        self._items.append(item)
        self._times.append(now)
        self._seen += 1
        return self._part() if self._seen - self._done >= self._step else None

    def finish(self) -> Part | None:
        """What is new since the last step."""
        return self._part() if self._seen > self._done else None

    def _part(self) -> Part:
        times = np.array(self._times)
        origin, new = self._seen - len(times), self._done
        found = self._solve(list(self._items), times)
        tracks = [replace(track, first=origin + track.first, last=origin + track.last) for track in found.tracks]
        numbers = self._numbers(tracks, new, float(times[new - origin]))
        tracks = [replace(track, id=numbers[track.id]) for track in tracks]
        frames = []
        for targets in found.frames[new - origin :]:
            frames.append(targets.replace(track=[numbers.get(int(number), -1) for number in targets.track]))
        self._done = self._seen
        known = {track.id for track in tracks}
        recent = [track for track in self._before if track.last >= origin - MOST_PATIENCE and track.id not in known]
        self._before = recent + tracks
        return Part(new, replace(found, frames=frames, tracks=[track for track in tracks if track.last >= new]))

    def _numbers(self, tracks: list[Track], new: int, time: float) -> dict[int, int]:
        """Numbers in the stream by numbers in the window.

        Args:
            tracks: of the window.
            new: number of the first new frame.
            time: of that frame.
        """
        alive = [track for track in self._before if track.last >= new - 1 - MOST_PATIENCE]
        here = [track for track in tracks if track.first <= new + MOST_PATIENCE]
        numbers: dict[int, int] = {}
        if alive and here:
            cost = np.full((len(here), len(alive)), 1e9)
            for i, one in enumerate(here):
                for j, other in enumerate(alive):
                    if one.first - other.last - 1 > patience_of(other.last - other.first + 1):
                        continue
                    moment = max(time, one.time)
                    (state, error), (past, wrong) = one.at(moment), other.at(moment)
                    spread = float(np.sqrt(max(np.trace(error[:2, :2] + wrong[:2, :2]), 0.0)))
                    gate = min(max(LEAST_GATE_PX, GATE_SIGMAS * spread), GATE_PX)
                    apart = float(np.hypot(*(state[:2] - past[:2])))
                    cost[i, j] = apart**2 if apart <= gate else 1e9
            for i, j in np.transpose(linear_sum_assignment(cost)).tolist():
                if cost[i, j] < 1e9:
                    numbers[here[i].id] = alive[j].id
        for track in tracks:
            if track.id not in numbers:
                numbers[track.id] = self._started
                self._started += 1
        return numbers


def unmix_stream(
    frames: Iterable[ArrayLike],
    sensor: Sensor | None = None,
    prior: ScenePrior | MotionPrior | None = None,
    motion: str = "linear",
    noise_std: float | None = None,
    *,
    window: int = 20,
    step: int | None = None,
    times: Iterable[float] | None = None,
    **options: Any,
) -> Iterator[Part]:
    """Unmix a sequence of any length, of which no more than a window of frames is in memory.

    Until `window` frames have come, the window grows; then it slides. After every `step` frames, those in the window
    are solved together by `csist.unmix_sequence`, and the results of the new ones are given.

    Args:
        frames: windows or whole frames (H, W) in counts, of one size.
        sensor: as for `csist.unmix_sequence`, as are `prior`, `motion`, `noise_std` and the other options.
        prior: see there.
        motion: see there.
        noise_std: see there.
        window: most frames that are solved together.
        step: new frames of each result; None for `window`, so that each frame is solved once.
        times: of the frames, increasing; None for 0, 1, 2, ...
        **options: see `csist.unmix_sequence`.

    Yields:
        the number of the first new frame, and targets and tracks.

    Raises:
        InputError: if the frames cannot be used, or an option is out of range.

    >>> from csist.targets import Targets
    >>> sky = Sensor(read_noise=1.0)
    >>> path = [Targets(x=[3.0 + 0.1 * t], y=[5.0], intensity=[240]) for t in range(12)]
    >>> video = (sky.observe(targets, seed) for seed, targets in enumerate(path))
    >>> parts = unmix_stream(video, sky, ScenePrior.csist_100k(), window=6, mode="fast")
    >>> [(part.first, [track.id for track in part.result.tracks]) for part in parts]
    [(0, [0]), (6, [0])]
    """
    solve_windows = partial(_windows, sensor=sensor, prior=prior, motion=motion, noise_std=noise_std, options=options)
    sliding: Sliding[Any] | None = None
    unmix_alone: Callable[[FloatArray], Any] = _as_it_is
    fresh = Fresh()
    moments = None if times is None else iter(times)
    shape: tuple[int, ...] = ()
    for number, frame in enumerate(frames):
        image = check_stack(as_array(frame))[0]
        if sliding is None:
            shape = image.shape
            solve: Callable[..., SequenceResult] = solve_windows
            if not is_window(shape):
                from csist.sequences.shots import shot_if_new
                from csist.sequences.whole import joint_options, unmix_shots

                settled = joint_options(sensor, prior, motion, {"noise_std": noise_std, **options})
                solve = partial(unmix_shots, options=settled)
                unmix_alone = partial(shot_if_new, fresh=fresh, options=settled.frame)
            sliding = Sliding(solve, window, window if step is None else step)
        if image.shape != shape:
            raise InputError(f"frame {number} is {image.shape} px, those before it {shape}: cut them to one size")
        moment = None if moments is None else next(moments, None)
        if moments is not None and moment is None:
            raise InputError(f"times must hold one number per frame, got {number} for more frames")
        part = sliding.add(unmix_alone(image), moment)
        if part is not None:
            yield _with_notes(part, fresh.notes())
    rest = None if sliding is None else sliding.finish()
    if rest is not None:
        yield _with_notes(rest, fresh.notes())


def _with_notes(part: Part, notes: list[str]) -> Part:
    """A part with what is wrong with its frames."""
    return part._replace(result=replace(part.result, notes=notes + part.result.notes))


def _as_it_is(image: FloatArray) -> FloatArray:
    return image


def _windows(images: Sequence[FloatArray], times: FloatArray, **known: Any) -> SequenceResult:
    """The joint posterior of some windows; none where no frame has a value."""
    stack = np.stack(images)
    if np.isnan(stack).all():
        return SequenceResult([Targets.empty() for _ in images], [], np.ones(1), notes=["no frame has a value"])
    options = known.pop("options")
    return unmix_sequence(stack, times=times, **known, **options)
