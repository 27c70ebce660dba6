"""What stands still, taken out of a sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError

if TYPE_CHECKING:
    pass

REFRESHES = 5
"""The static background is renewed so many times while its window of frames passes."""


def without_static(frames: Iterator[FloatArray], window: int) -> Iterator[FloatArray]:
    """Frames (H, W) minus what stood still before them: the median of the last `window` frames.

    What moves stays, everything that does not (clutter of a fixed camera, fixed-pattern noise, and targets that
    stand still) is taken out. The median is renewed every fifth of the window; the first frames take that of the
    first window. Pixels at a converter's full scale, whose value is only a bound, become NaN.

    Args:
        frames: of one size, in counts.
        window: number of frames, at least 3.

    Raises:
        InputError: if the window is shorter than 3 frames.
    """
    if int(window) != window or window < 3:
        raise InputError(f"temporal must be a whole number of frames >= 3, got {window}")
    from csist.frames.mask import find_ceiling

    def moving(frame: FloatArray, static: FloatArray) -> FloatArray:
        ceiling = np.inf if np.isnan(frame).all() else find_ceiling(frame)
        return np.where(frame >= ceiling, np.nan, frame - static)

    frames = iter(frames)
    past = deque(islice(frames, window), maxlen=window)
    if not past:
        return
    static = _median(list(past))
    yield from (moving(frame, static) for frame in list(past))
    for number, frame in enumerate(frames):
        if number % max(1, window // REFRESHES) == 0:
            static = _median(list(past))
        yield moving(frame, static)
        past.append(frame)


def _median(frames: list[FloatArray]) -> FloatArray:
    """Median (H, W), NaN left out; NaN where nothing is valid."""
    stack = np.sort(np.stack(frames), axis=0)  # NaN goes to the end
    count = np.isfinite(stack).sum(axis=0)
    low, high = (np.maximum(count - 1, 0) // 2)[None], (count // 2).clip(max=len(frames) - 1)[None]
    middle = 0.5 * (np.take_along_axis(stack, low, 0) + np.take_along_axis(stack, high, 0))[0]
    return np.where(count > 0, middle, np.nan)
