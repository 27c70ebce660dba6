"""Removal of the static background of a sequence."""

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
"""Number of updates of the static background per window of frames."""


def without_static(frames: Iterator[FloatArray], window: int) -> Iterator[FloatArray]:
    """Subtract the static background, the median of the last `window` frames, from frames (H, W).

    Moving objects remain; everything static (clutter of a fixed camera, fixed-pattern noise, static targets) is
    removed. The median is updated every fifth of the window; the first frames use that of the first window. Pixels at
    the full scale of a converter, whose value is only a lower bound, become NaN.

    Args:
        frames: frames of equal size in counts.
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
    """Return the median (H, W) without NaN; NaN where no value is valid."""
    stack = np.sort(np.stack(frames), axis=0)  # NaN goes to the end
    count = np.isfinite(stack).sum(axis=0)
    low, high = (np.maximum(count - 1, 0) // 2)[None], (count // 2).clip(max=len(frames) - 1)[None]
    middle = 0.5 * (np.take_along_axis(stack, low, 0) + np.take_along_axis(stack, high, 0))[0]
    return np.where(count > 0, middle, np.nan)
