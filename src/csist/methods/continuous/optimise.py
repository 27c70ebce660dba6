"""The search for a mode of the likelihood from a start: Levenberg-Marquardt with Fisher curvature, within bounds."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float64, int64

from csist._compiled import fused, inner, lean, linked, tuple_of, tuple_type
from csist._types import FloatArray, IntArray
from csist.methods.continuous.likelihood import (
    count_of,
    information_matrix,
    log_likelihood,
    pixel_terms,
    render,
    render_with_jacobian,
)
from csist.methods.continuous.model import BOUNDS, NOISE, TABLES, VECTOR, WINDOW, Bounds, Noise, Window, copy_into

SEPARATION_STIFFNESS = 2500.0
"""Weight in 1/px^2 of the penalty that keeps targets at the prior's separation while a mode is sought."""

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e12


class Stop(NamedTuple):
    """When a climb ends.

    Args:
        iterations: most steps.
        tolerance: gain in log likelihood at which it has converged.
    """

    iterations: int
    tolerance: float


STOP = tuple_type(Stop, int64, float64)


class Scratch(NamedTuple):
    """Arrays that one climb works in."""

    profiles: FloatArray
    image: FloatArray
    slope: FloatArray
    curvature: FloatArray
    jacobian: FloatArray
    weighted: FloatArray
    information: FloatArray
    system: FloatArray
    gradient: FloatArray
    step: FloatArray
    trial: FloatArray
    free: IntArray


@inner
def make_scratch(size: int, window: Window) -> Scratch:
    """Scratch for so many parameters."""
    h, w = window.data.shape
    return Scratch(
        np.empty((4, max(h, w))),
        np.empty((h, w)),
        np.empty((h, w)),
        np.empty((h, w)),
        np.empty((size, h, w)),
        np.empty(h * w),
        np.empty((size, size)),
        np.empty((size, size)),
        np.empty(size),
        np.empty(size),
        np.empty(size),
        np.empty(size, np.int64),
    )


@lean
def cholesky(matrix: FloatArray, size: int) -> bool:
    """Replace the lower triangle of matrix[:size, :size] by its Cholesky factor; False if not positive definite."""
    for i in range(size):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if total <= 0.0:
                    return False
                matrix[i, i] = math.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    return True


@lean
def cholesky_solve(factor: FloatArray, size: int, vector: FloatArray) -> None:
    """Replace vector[:size] by the solution of (L L^T) v = vector."""
    for i in range(size):
        total = vector[i]
        for k in range(i):
            total -= factor[i, k] * vector[k]
        vector[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = vector[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * vector[k]
        vector[i] = total / factor[i, i]


@fused
def separation_penalty(theta: FloatArray, count: int, min_separation: float) -> float:
    """Penalty (>= 0) on the log likelihood of targets that are closer than the smallest separation."""
    total = 0.0
    for a in range(count):
        for b in range(a):
            dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
            gap = min_separation - math.sqrt(dx * dx + dy * dy)
            if gap > 0.0:
                total += 0.5 * SEPARATION_STIFFNESS * gap * gap
    return total


@fused
def _push_apart(theta: FloatArray, count: int, min_separation: float, scratch: Scratch) -> None:
    """Add the penalty's downhill gradient and its Gauss-Newton curvature to those of the likelihood."""
    gradient, information = scratch.gradient, scratch.information
    for a in range(count):
        for b in range(a):
            dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
            d = math.sqrt(dx * dx + dy * dy)
            gap = min_separation - d
            if gap > 0.0:
                ux, uy = (dx / d, dy / d) if d > 1e-9 else (1.0, 0.0)
                force = SEPARATION_STIFFNESS * gap
                for axis, u in ((0, ux), (1, uy)):
                    gradient[3 * a + axis] += force * u
                    gradient[3 * b + axis] -= force * u
                    for axis2, u2 in ((0, ux), (1, uy)):
                        stiff = SEPARATION_STIFFNESS * u * u2
                        information[3 * a + axis, 3 * a + axis2] += stiff
                        information[3 * b + axis, 3 * b + axis2] += stiff
                        information[3 * a + axis, 3 * b + axis2] -= stiff
                        information[3 * b + axis, 3 * a + axis2] -= stiff


@fused
def _linearise(
    theta: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray, scratch: Scratch
) -> float:
    """The penalised log likelihood at theta; its gradient and information go to `scratch`."""
    count = count_of(theta, window)
    jacobian, slope, gradient = scratch.jacobian, scratch.slope, scratch.gradient
    render_with_jacobian(theta, window, tables, scratch.profiles, scratch.image, jacobian)
    value = pixel_terms(scratch.image, window, noise, slope, scratch.curvature)
    information_matrix(jacobian, scratch.curvature, scratch.weighted, scratch.information)
    h, w = slope.shape
    for a in range(theta.shape[0]):
        total = 0.0
        for i in range(h):
            for j in range(w):
                total += jacobian[a, i, j] * slope[i, j]
        gradient[a] = total
    _push_apart(theta, count, bounds.min_separation, scratch)
    return value - separation_penalty(theta, count, bounds.min_separation)


@fused
def _penalised(
    theta: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray, scratch: Scratch
) -> float:
    """The penalised log likelihood at theta."""
    render(theta, window, tables, scratch.profiles, scratch.image)
    value = log_likelihood(scratch.image, window, noise)
    return value - separation_penalty(theta, count_of(theta, window), bounds.min_separation)


@fused
def _solve_damped(theta: FloatArray, bounds: Bounds, damping: float, scratch: Scratch) -> int:
    """Put the damped step of the free parameters into `scratch`; returns how many, or -1 where there is no solution.

    A parameter at a bound whose gradient points outwards is held there (projected active set).
    """
    gradient, information = scratch.gradient, scratch.information
    free, system, step = scratch.free, scratch.system, scratch.step
    number: Any = int64(0)  # a literal would compile `cholesky` once more
    for a in range(theta.shape[0]):
        held_low = theta[a] <= bounds.low[a] and gradient[a] < 0.0
        held_high = theta[a] >= bounds.high[a] and gradient[a] > 0.0
        if not (held_low or held_high):
            free[number] = a
            number += 1
    for i in range(number):
        for j in range(number):
            system[i, j] = information[free[i], free[j]]
        system[i, i] += damping * information[free[i], free[i]] + 1e-12
        step[i] = gradient[free[i]]
    if not cholesky(system, number):
        return -1
    cholesky_solve(system, number, step)
    return int(number)


@linked(tuple_of(float64, boolean)(VECTOR, BOUNDS, WINDOW, NOISE, TABLES, STOP))
def maximise(
    theta: FloatArray, bounds: Bounds, window: Window, noise: Noise, tables: FloatArray, stop: Stop
) -> tuple[float, bool]:
    """Climb from `theta`, which is changed in place, to a mode of the likelihood within the bounds.

    Args:
        theta: (parameters,) start.
        bounds: of the parameters.
        window: the data.
        noise: of a pixel.
        tables: of `Optics`.
        stop: when to end.

    Returns:
        the penalised log likelihood, and whether the climb converged.
    """
    scratch = make_scratch(theta.shape[0], window)
    damping, value, is_stale = FIRST_DAMPING, -np.inf, True
    for _ in range(stop.iterations):
        if is_stale:
            value = _linearise(theta, bounds, window, noise, tables, scratch)
            is_stale = False
        number = _solve_damped(theta, bounds, damping, scratch)
        if number < 0:
            damping = max(10.0 * damping, 1e-6)
            continue
        trial, expected = scratch.trial, 0.0
        copy_into(trial, theta)
        for i in range(number):
            a = scratch.free[i]
            trial[a] = min(max(theta[a] + scratch.step[i], bounds.low[a]), bounds.high[a])
            expected += (trial[a] - theta[a]) * scratch.gradient[a]
        if expected < stop.tolerance:
            return value, True
        trial_value = _penalised(trial, bounds, window, noise, tables, scratch)
        if trial_value > value:
            copy_into(theta, trial)
            damping, is_stale = max(0.2 * damping, LEAST_DAMPING), True
        else:
            damping *= 8.0
            if damping > MOST_DAMPING:
                return value, False
    if is_stale:
        value = _penalised(theta, bounds, window, noise, tables, scratch)
    return value, False
