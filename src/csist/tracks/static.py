"""Removal of the static background of a sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.metrics.errors import MAD_TO_STD

REFRESHES = 5
"""Number of updates of the static background per window of frames."""
FITTED_PIXELS = 20_000
"""About so many pixels, spread over the frame, determine level, gain and shift."""
CLIP = 3.0
"""Pixels farther from the fit, in robust standard deviations, are moving objects."""
ROUNDS = 3
MOST = 10.0
"""Larger remainders, in robust standard deviations, count as so large when fits are compared."""
GAINED = 0.95
"""The fit is used where it lowers the root mean square of what remains below this share."""


def without_static(frames: Iterator[FloatArray], window: int) -> Iterator[FloatArray]:
    """Subtract the static background, the median of the last `window` frames, from frames (H, W).

    Moving objects remain; everything static (clutter of a fixed camera, fixed-pattern noise, static targets) is
    removed. Level, gain and a small shift of each frame against the median are fitted and removed with it: an automatic
    gain control, a shutter or a shaking camera do not leave the scene's edges behind. The median is updated every fifth
    of the window; the first frames use that of the first window. Pixels at
    the full scale of a converter, whose value is only a lower bound, become NaN.

    Args:
        frames: frames of equal size in counts.
        window: number of frames, at least 3.

    Raises:
        InputError: if the window is shorter than 3 frames.
    """
    if int(window) != window or window < 3:
        raise InputError(f"temporal must be a whole number of frames >= 3, got {window}")
    from csist.frames.masks.mask import find_ceiling

    def moving(frame: FloatArray, static: FloatArray) -> FloatArray:
        ceiling = np.inf if np.isnan(frame).all() else find_ceiling(frame)
        return np.where(frame >= ceiling, np.nan, frame - static_in(frame, static))

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


def static_in(frame: FloatArray, static: FloatArray) -> FloatArray:
    """The static background (H, W) as a frame shows it: at the frame's level and gain, shifted by a part of a pixel.

    Args:
        frame: (H, W) in counts.
        static: (H, W) likewise, NaN where it is not known.
    """
    by_y, by_x = np.gradient(static) if min(static.shape) > 1 else (np.zeros_like(static), np.zeros_like(static))
    terms = np.stack([np.ones_like(static), static, by_x, by_y])
    usable = np.flatnonzero(np.isfinite(terms).all(axis=0) & np.isfinite(frame))
    usable = usable[:: max(1, len(usable) // FITTED_PIXELS)]
    if len(usable) <= 4 * len(terms):
        return static
    design, values = terms.reshape(len(terms), -1)[:, usable], frame.ravel()[usable]
    rest = values - static.ravel()[usable]
    before, near = rest, np.ones(len(rest), np.bool_)  # the edges of a scene at another gain must not be clipped
    coefficients = np.array([0.0, 1.0, 0.0, 0.0])
    for _ in range(ROUNDS):
        coefficients = np.linalg.lstsq(design[:, near].T, values[near], rcond=None)[0]
        rest = values - coefficients @ design
        near = np.abs(rest - np.median(rest)) <= CLIP * max(_spread(rest), 1e-12)
    most = MOST * _spread(rest)
    if _clipped_rms(rest, most) >= GAINED * _clipped_rms(before, most):
        return static
    fitted = np.tensordot(coefficients, terms, 1)
    # Beside a pixel without a value there is no slope.
    return np.where(np.isfinite(fitted), fitted, coefficients[0] + coefficients[1] * static)


def _spread(values: FloatArray) -> float:
    """Robust standard deviation."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


def _clipped_rms(values: FloatArray, most: float) -> float:
    return float(np.sqrt(np.mean(np.minimum(np.abs(values), most) ** 2)))


def _median(frames: list[FloatArray]) -> FloatArray:
    """Return the median (H, W) without NaN; NaN where no value is valid."""
    stack = np.sort(np.stack(frames), axis=0)  # NaN goes to the end
    count = np.isfinite(stack).sum(axis=0)
    low, high = (np.maximum(count - 1, 0) // 2)[None], (count // 2).clip(max=len(frames) - 1)[None]
    middle = 0.5 * (np.take_along_axis(stack, low, 0) + np.take_along_axis(stack, high, 0))[0]
    return np.where(count > 0, middle, np.nan)
