"""The path of a group as a whole: the line along which its frames add up to the most, and the path of its light."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter

from csist._compiled import compiled
from csist._types import FloatArray, IntArray

HALF_SIDE = 3
"""Pixels on each side of the group's middle over which the light's centroid is taken."""
ROUNDS = 3
"""Times that the path of the centroid is fitted."""


@compiled
def add_along(light: FloatArray, shift: IntArray, total: FloatArray) -> None:
    """Fill `total` (H, W) with the sum of frames (T, H, W), each moved back by whole pixels (T, 2) in x and y."""
    rows, columns = total.shape
    total[:] = 0.0
    for t in range(light.shape[0]):
        dx, dy = shift[t, 0], shift[t, 1]
        for i in range(max(0, -dy), min(rows, rows - dy)):
            for j in range(max(0, -dx), min(columns, columns - dx)):
                total[i, j] += light[t, i + dy, j + dx]


@compiled
def brightest_shift(light: FloatArray, shifts: IntArray, total: FloatArray) -> int:
    """Number of the trial, of shifts (n, T, 2), for which the sum of frames (T, H, W) has the highest peak."""
    best, highest = 0, -np.inf
    for n in range(shifts.shape[0]):
        add_along(light, shifts[n], total)
        peak = total.max()
        if peak > highest:
            best, highest = n, peak
    return best


def brightest_line(
    light: FloatArray, time: FloatArray, speed_px: float, step_px: float
) -> tuple[FloatArray, FloatArray]:
    """The straight path along which the sum of frames has the highest peak.

    Args:
        light: (T, H, W).
        time: (T,).
        speed_px: largest velocity in px a unit of time.
        step_px: of the trials, at the end of the path.

    Returns:
        velocity (2,), and place (2,) x, y in the first frame.
    """
    span = float(np.ptp(time))
    steps = max(1, math.ceil(speed_px * span / step_px)) if span > 0.0 else 0
    trial = np.linspace(-speed_px, speed_px, 2 * steps + 1) if steps else np.zeros(1)
    u, v = (each.ravel() for each in np.meshgrid(trial, trial))
    velocity = np.stack([u, v], axis=1)[np.hypot(u, v) <= 1.01 * speed_px + 1e-12]
    shifts = np.rint((time - time[0])[None, :, None] * velocity[:, None]).astype(np.int64)
    total = np.empty((light.shape[1], light.shape[2]))
    best = brightest_shift(np.ascontiguousarray(light, np.float64), shifts, total)
    add_along(np.ascontiguousarray(light, np.float64), shifts[best], total)
    row, column = divmod(int(total.argmax()), total.shape[1])
    return velocity[best], np.array([float(column), float(row)])


def common_path(light: FloatArray, basis: FloatArray, speed_px: float, shift: FloatArray) -> FloatArray:
    """Path of the light's centroid, fitted to all frames together.

    Args:
        light: (T, H, W) in counts, background subtracted, 0 where there is no value.
        basis: (M, T) functions of time, 1 and the time first.
        speed_px: largest velocity in px a unit of time.
        shift: (T, 2) x, y in px by which the camera shifts each frame.

    Returns:
        coefficients (M, 2) of x and y, were the camera still.
    """
    path = np.zeros((len(basis), 2))
    frames, rows, columns = light.shape
    time = basis[1] if len(basis) > 1 else np.zeros(frames)
    velocity, place = brightest_line(uniform_filter(light, (0, 3, 3), mode="constant"), time, speed_px, 1.0)
    path[0] = place - velocity * time[0]
    path[1:2] = velocity
    x, y = np.arange(columns), np.arange(rows)
    for _ in range(ROUNDS):
        middle = np.rint(basis.T @ path + shift)  # (T, 2): the square moves by whole pixels
        near_x = np.where(np.abs(x - middle[:, :1]) <= HALF_SIDE, 1.0, 0.0)
        near_y = np.where(np.abs(y - middle[:, 1:]) <= HALF_SIDE, 1.0, 0.0)
        along_x = np.einsum("trc,tr,tc->tc", light, near_y, near_x)
        along_y = np.einsum("trc,tr,tc->tr", light, near_y, near_x)
        # One flux for all frames: the ratio of two noisy sums would favour frames whose sum is small.
        level = max(float(along_x.sum()) / frames, 1e-9)
        seen_x = middle[:, 0] + (along_x * (x - middle[:, :1])).sum(axis=1) / level
        seen_y = middle[:, 1] + (along_y * (y - middle[:, 1:])).sum(axis=1) / level
        seen = np.clip(np.stack([seen_x, seen_y], axis=1), -1.0, [columns, rows])
        path = np.linalg.lstsq(basis.T, seen - shift, rcond=None)[0]
    return path
