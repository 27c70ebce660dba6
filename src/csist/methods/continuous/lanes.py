"""Many chains of one group that step together: their likelihoods, step shapes and moves.

Arrays end with the lane, one chain each, in single precision, so that one processor instruction serves 8 or
16 chains. Chains run in coordinates in which the prior is uniform: x, y, and the flux or its logarithm. The
parameters are ordered x_1, x_2, ..., y_1, ..., f_1, ..., b_0, ...; positions are in px from the window's
first pixel. A move is a random-walk Metropolis step scaled by the local Fisher information.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.likelihood import (
    MEASURED,
    compiled,
    log_likelihood,
    pixel_terms,
    profile,
    profile_tables,
)
from csist.physics.psf import PSF

FloatArray = NDArray[np.float64]
LaneArray = NDArray[np.float32]

DEGREE = 11
"""Of the polynomials in the sub-pixel phase that stand for the profiles."""

WIDEST_STEP = 2.0

PRIOR_INFORMATION = 12.0
"""Of a uniform distribution of width 1: one over its variance."""


class Problem(NamedTuple):
    """What the chains of one group share.

    Args:
        targets: how many.
        log_flux: whether chains run in the logarithm of the flux.
        polynomials: of `profile_polynomials`.
        row, column: the pixel of the window in which all positions lie, or -1 where they may lie in any.
        basis: background terms (terms, h, w).
        data: window (h, w).
        code: pixel codes (h, w).
        variance: of a pixel without shot noise.
        inverse_gain: counts per electron, 0 without shot noise.
        plain: whether all pixels are measured, with one noise.
        low, high: bounds (size,) in the chains' coordinates.
        least_square: square of the smallest separation in px^2.
    """

    targets: int
    log_flux: bool
    polynomials: LaneArray
    row: int
    column: int
    basis: LaneArray
    data: FloatArray
    code: Any
    variance: float
    inverse_gain: float
    plain: bool
    low: LaneArray
    high: LaneArray
    least_square: float


class Work(NamedTuple):
    """Scratch of the chains."""

    phase: LaneArray
    loose: LaneArray
    flux: LaneArray
    along_y: LaneArray
    along_x: LaneArray
    slope_y: LaneArray
    slope_x: LaneArray
    image: LaneArray
    curvature: LaneArray
    jacobian: LaneArray
    weighted: LaneArray
    information: LaneArray
    trial: LaneArray
    trial_value: LaneArray
    allowed: LaneArray
    draw: LaneArray
    one: FloatArray


@lru_cache(maxsize=32)
def polynomials_of(psf: PSF) -> LaneArray:
    """`profile_polynomials` of a PSF."""
    return profile_polynomials(profile_tables(psf))


def profile_polynomials(tables: FloatArray) -> LaneArray:
    """Tables of the likelihood as polynomials (2 axes, ranks, offsets, DEGREE + 1), lowest power first.

    The variable is the distance in px from the nearest pixel's centre, -0.5 to 0.5. For a Gaussian of
    sigma >= 0.3 px they are right to 2e-6 of the flux.
    """
    axes, ranks, _, _, offsets = tables.shape
    nodes = 0.5 * np.polynomial.chebyshev.chebpts1(4 * DEGREE)
    values = np.empty((len(nodes), axes, ranks, offsets))
    for axis in range(axes):
        for rank in range(ranks):
            for value, node in zip(values[:, axis, rank], nodes, strict=True):
                profile(tables[axis, rank], node, -(offsets // 2), value)
    # At Chebyshev's nodes and this degree a fit of plain powers is well conditioned.
    powers = np.polynomial.polynomial.polyfit(2.0 * nodes, values.reshape(len(nodes), -1), DEGREE)
    polynomials = powers.T * 2.0 ** np.arange(DEGREE + 1)
    return polynomials.reshape(axes, ranks, offsets, DEGREE + 1).astype(np.float32)


@compiled
def pose(
    count: int, low: FloatArray, high: FloatArray, log_flux: bool, least_square: float, polynomials: LaneArray,
    row: int, column: int, basis: FloatArray, data: FloatArray, code: Any, variance: float, inverse_gain: float,
) -> Problem:  # fmt: skip
    """The problem of a group whose bounds (x_1, y_1, f_1, x_2, ...) are in frame coordinates.

    Args:
        row, column: frame coordinates of the window's first pixel.
    """
    low_v, high_v = np.empty((low.shape[0], 1), np.float32), np.empty((low.shape[0], 1), np.float32)
    to_lane(low, count, log_flux, row, column, low_v, 0)
    to_lane(high, count, log_flux, row, column, high_v, 0)
    centre_row = centre_column = -1
    if count > 0 and high[0] - low[0] <= 1.0 and high[1] - low[1] <= 1.0:
        centre_column = math.floor(0.5 * (low[0] + high[0]) + 0.5) - column
        centre_row = math.floor(0.5 * (low[1] + high[1]) + 0.5) - row
    plain = inverse_gain == 0.0
    for i in range(data.shape[0]):
        for j in range(data.shape[1]):
            plain = plain and code[i, j] == MEASURED
    return Problem(
        count, log_flux, polynomials, centre_row, centre_column, basis.astype(np.float32), data, code, variance,
        inverse_gain, plain, low_v[:, 0].copy(), high_v[:, 0].copy(), least_square,
    )  # fmt: skip


@compiled
def make_work(problem: Problem, lanes: int) -> Work:
    """Scratch for so many lanes."""
    h, w = problem.data.shape
    size, count, f32 = problem.low.shape[0], problem.targets, np.float32
    number = count * lanes
    return Work(
        np.empty(number, f32), np.empty((problem.polynomials.shape[2], number), f32), np.empty((count, lanes), f32),
        np.empty((h, count, lanes), f32), np.empty((w, count, lanes), f32), np.empty((h, count, lanes), f32),
        np.empty((w, count, lanes), f32), np.empty((h, w, lanes), f32), np.empty((h, w, lanes), f32),
        np.empty((size, h, w, lanes), f32), np.empty((h * w, lanes), f32), np.empty((size, size, lanes), f32),
        np.empty((size, lanes), f32), np.empty(lanes, f32), np.empty(lanes, f32), np.empty(lanes, f32),
        np.empty((h, w)),
    )  # fmt: skip


@compiled
def to_lane(theta: FloatArray, count: int, log_flux: bool, row: int, column: int, state: LaneArray, lane: int) -> None:
    """Put the parameters theta (x_1, y_1, f_1, x_2, ...) of the frame into a lane of `state` (size, lanes)."""
    for k in range(count):
        state[k, lane] = theta[3 * k] - column
        state[count + k, lane] = theta[3 * k + 1] - row
        state[2 * count + k, lane] = math.log(theta[3 * k + 2]) if log_flux else theta[3 * k + 2]
    for p in range(3 * count, theta.shape[0]):
        state[p, lane] = theta[p]


@compiled
def from_lane(
    state: LaneArray, lane: int, count: int, log_flux: bool, row: int, column: int, theta: FloatArray
) -> None:
    """The inverse of `to_lane`."""
    for k in range(count):
        theta[3 * k] = float(state[k, lane]) + column
        theta[3 * k + 1] = float(state[count + k, lane]) + row
        flux = float(state[2 * count + k, lane])
        theta[3 * k + 2] = math.exp(flux) if log_flux else flux
    for p in range(3 * count, theta.shape[0]):
        theta[p] = state[p, lane]


@compiled
def seed_lanes(seed: int, lanes: int) -> Any:
    """States (lanes,) of `uniform`."""
    random = np.empty(lanes, np.uint64)
    for lane in range(lanes):
        random[lane] = np.uint64(seed * 1_000_003 + lane + 1) * np.uint64(0xD1342543DE82EF95)
    return random


@compiled
def uniform(random: Any, out: LaneArray) -> None:
    """Fill `out` with numbers in [0, 1), one a lane, from SplitMix64 (Steele, Lea & Flood 2014)."""
    for lane in range(random.shape[0]):
        random[lane] += np.uint64(0x9E3779B97F4A7C15)
        z = random[lane]
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        out[lane] = np.float32(np.int64(z >> np.uint64(40))) * np.float32(5.9604644775390625e-08)


@compiled
def _evaluate(c: LaneArray, t: LaneArray, out: LaneArray) -> None:
    """The polynomial with coefficients c (DEGREE + 1,) at every t."""
    c0, c1, c2, c3, c4, c5 = c[0], c[1], c[2], c[3], c[4], c[5]
    c6, c7, c8, c9, c10, c11 = c[6], c[7], c[8], c[9], c[10], c[11]
    for j in range(t.shape[0]):
        x = t[j]
        high = c6 + x * (c7 + x * (c8 + x * (c9 + x * (c10 + x * c11))))
        out[j] = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * high)))))


@compiled
def _profiles(polynomial: LaneArray, position: LaneArray, pixel: int, work: Work, out: LaneArray) -> None:
    """Fill `out` (pixels, targets * lanes) with a profile along one axis.

    Args:
        polynomial: (offsets, DEGREE + 1).
        position: (targets * lanes,).
        pixel: in which all positions lie, or -1.
    """
    phase, loose = work.phase, work.loose
    offsets, size, number = polynomial.shape[0], out.shape[0], position.shape[0]
    if pixel >= 0:
        for j in range(number):
            phase[j] = position[j] - np.float32(pixel)
        for i in range(size):
            o = i - pixel + offsets // 2
            if 0 <= o < offsets:
                _evaluate(polynomial[o], phase, out[i])
            else:
                out[i] = np.float32(0.0)
        return
    for j in range(number):
        phase[j] = position[j] - np.float32(math.floor(position[j] + np.float32(0.5)))
    for o in range(offsets):
        _evaluate(polynomial[o], phase, loose[o])
    out[:] = np.float32(0.0)
    for j in range(number):
        shift = math.floor(position[j] + np.float32(0.5)) - offsets // 2
        for o in range(max(0, -shift), min(offsets, size - shift)):
            out[o + shift, j] = loose[o, j]


@compiled
def slopes(polynomials: LaneArray) -> LaneArray:
    """The derivatives of the polynomials, in the same form."""
    derived = np.zeros_like(polynomials)
    for power in range(1, DEGREE + 1):
        derived[:, :, :, power - 1] = np.float32(power) * polynomials[:, :, :, power]
    return derived


@compiled
def _fluxes(problem: Problem, state: LaneArray, flux: LaneArray) -> None:
    """Fill `flux` (count, lanes) with the targets' fluxes in counts."""
    for k in range(problem.targets):
        values, out = state[2 * problem.targets + k], flux[k]
        for lane in range(values.shape[0]):
            out[lane] = math.exp(values[lane]) if problem.log_flux else values[lane]


@compiled
def _add_products(along_y: LaneArray, along_x: LaneArray, first: bool, image: LaneArray) -> None:
    """Add sum_k along_y[i, k] along_x[j, k] to image (h, w, lanes); set it where `first`."""
    h, targets, lanes = along_y.shape
    for i in range(h):
        for j in range(along_x.shape[0]):
            out = image[i, j]
            begin = 0
            if first:
                a, b = along_y[i, 0], along_x[j, 0]
                for lane in range(lanes):
                    out[lane] = a[lane] * b[lane]
                begin = 1
            for k in range(begin, targets):
                a, b = along_y[i, k], along_x[j, k]
                for lane in range(lanes):
                    out[lane] += a[lane] * b[lane]


@compiled
def render_lanes(problem: Problem, state: LaneArray, work: Work) -> None:
    """Fill work.image (h, w, lanes) with what each lane's parameters (size, lanes) expect."""
    image, along_y, along_x, flux, basis = work.image, work.along_y, work.along_x, work.flux, problem.basis
    h, w, lanes = image.shape
    count, number = problem.targets, problem.targets * lanes
    _fluxes(problem, state, flux)
    if basis.shape[0] > 0 or count == 0:
        image[:] = np.float32(0.0)
        for term in range(basis.shape[0]):
            coefficient = state[3 * count + term]
            for i in range(h):
                for j in range(w):
                    out = image[i, j]
                    for lane in range(lanes):
                        out[lane] += coefficient[lane] * basis[term, i, j]
    x, y = state[:count].reshape(number), state[count : 2 * count].reshape(number)
    for rank in range(problem.polynomials.shape[1]):
        _profiles(problem.polynomials[0, rank], y, problem.row, work, along_y.reshape(h, number))
        _profiles(problem.polynomials[1, rank], x, problem.column, work, along_x.reshape(w, number))
        for i in range(h):
            for k in range(count):
                a, f = along_y[i, k], flux[k]
                for lane in range(lanes):
                    a[lane] *= f[lane]
        _add_products(along_y, along_x, rank == 0 and basis.shape[0] == 0, image)


@compiled
def log_likelihoods(problem: Problem, state: LaneArray, work: Work, value: LaneArray) -> None:
    """Fill `value` (lanes,) with the log likelihood of each lane of `state` (size, lanes)."""
    render_lanes(problem, state, work)
    image, data = work.image, problem.data
    h, w, lanes = image.shape
    if problem.plain:
        value[:] = np.float32(0.0)
        for i in range(h):
            for j in range(w):
                z, model = np.float32(data[i, j]), image[i, j]
                for lane in range(lanes):
                    residual = z - model[lane]
                    value[lane] += residual * residual
        factor = np.float32(-0.5 / problem.variance)
        for lane in range(lanes):
            value[lane] *= factor
        return
    for lane in range(lanes):
        for i in range(h):
            for j in range(w):
                work.one[i, j] = image[i, j, lane]
        value[lane] = log_likelihood(work.one, data, problem.code, problem.variance, problem.inverse_gain)


@compiled
def _curvatures(problem: Problem, work: Work) -> None:
    """Fill work.curvature with the expected -d2 log p / d mu2 of each pixel of work.image."""
    if problem.plain:
        work.curvature[:] = np.float32(1.0 / problem.variance)
        return
    h, w, lanes = work.image.shape
    slope, bend = np.empty((h, w)), np.empty((h, w))
    for lane in range(lanes):
        for i in range(h):
            for j in range(w):
                work.one[i, j] = work.image[i, j, lane]
        pixel_terms(work.one, problem.data, problem.code, problem.variance, problem.inverse_gain, slope, bend)
        for i in range(h):
            for j in range(w):
                work.curvature[i, j, lane] = bend[i, j]


@compiled
def _jacobian(problem: Problem, derived: LaneArray, state: LaneArray, work: Work) -> None:
    """Fill work.jacobian (size, h, w, lanes) with the derivatives of the image by the chains' coordinates."""
    jacobian, flux = work.jacobian, work.flux
    size, h, w, lanes = jacobian.shape
    count, number = problem.targets, problem.targets * lanes
    x, y = state[:count].reshape(number), state[count : 2 * count].reshape(number)
    _fluxes(problem, state, flux)
    jacobian[:] = np.float32(0.0)
    for rank in range(derived.shape[1]):
        _profiles(problem.polynomials[0, rank], y, problem.row, work, work.along_y.reshape(h, number))
        _profiles(problem.polynomials[1, rank], x, problem.column, work, work.along_x.reshape(w, number))
        _profiles(derived[0, rank], y, problem.row, work, work.slope_y.reshape(h, number))
        _profiles(derived[1, rank], x, problem.column, work, work.slope_x.reshape(w, number))
        for k in range(count):
            f = flux[k]
            for i in range(h):
                vy, sy = work.along_y[i, k], work.slope_y[i, k]
                for j in range(w):
                    vx, sx = work.along_x[j, k], work.slope_x[j, k]
                    by_x, by_y, by_f = jacobian[k, i, j], jacobian[count + k, i, j], jacobian[2 * count + k, i, j]
                    for lane in range(lanes):
                        by_x[lane] += f[lane] * vy[lane] * sx[lane]
                        by_y[lane] += f[lane] * sy[lane] * vx[lane]
                        by_f[lane] += vy[lane] * vx[lane] * (f[lane] if problem.log_flux else np.float32(1.0))
    for term in range(size - 3 * count):
        for i in range(h):
            for j in range(w):
                jacobian[3 * count + term, i, j] = problem.basis[term, i, j]


@compiled
def step_shapes(
    problem: Problem,
    derived: LaneArray,
    state: LaneArray,
    power: LaneArray,
    floor: LaneArray,
    work: Work,
    root: LaneArray,
) -> None:
    """Fill `root` (size, size, lanes) with the inverse Cholesky factor of the Fisher information times `power`.

    Before, floor / width^2 is added. With PRIOR_INFORMATION, that of a uniform prior, no step is much longer than
    the prior; with more, steps are short in the directions that the image leaves open, where long ones would leave
    a curved valley.

    Args:
        derived: `slopes` of the problem's polynomials.
        power: (lanes,) inverse temperatures.
        floor: (lanes,).
    """
    render_lanes(problem, state, work)
    _curvatures(problem, work)
    _jacobian(problem, derived, state, work)
    information = work.information
    size, h, w, lanes = work.jacobian.shape
    flat, bend = work.jacobian.reshape(size, h * w, lanes), work.curvature.reshape(h * w, lanes)
    for a in range(size):
        for p in range(h * w):
            out, j, c = work.weighted[p], flat[a, p], bend[p]
            for lane in range(lanes):
                out[lane] = j[lane] * c[lane] * power[lane]
        for b in range(a + 1):
            total = information[a, b]
            total[:] = np.float32(0.0)
            for p in range(h * w):
                one, other = work.weighted[p], flat[b, p]
                for lane in range(lanes):
                    total[lane] += one[lane] * other[lane]
        width = problem.high[a] - problem.low[a]
        diagonal = information[a, a]
        for lane in range(lanes):
            diagonal[lane] += floor[lane] / (width * width)
    for i in range(size):
        for j in range(i + 1):
            total = information[i, j]
            for k in range(j):
                one, other = information[i, k], information[j, k]
                for lane in range(lanes):
                    total[lane] -= one[lane] * other[lane]
            pivot = information[j, j]
            if i == j:
                # single precision can lose a weak direction: the prior's information is its lower bound
                width = problem.high[i] - problem.low[i]
                for lane in range(lanes):
                    total[lane] = math.sqrt(max(total[lane], floor[lane] / (width * width)))
            else:
                for lane in range(lanes):
                    total[lane] /= pivot[lane]
    for c in range(size):
        for i in range(c, size):
            out, pivot = root[i, c], information[i, i]
            out[:] = np.float32(1.0) if i == c else np.float32(0.0)
            for j in range(c, i):
                one, other = information[i, j], root[j, c]
                for lane in range(lanes):
                    out[lane] -= one[lane] * other[lane]
            for lane in range(lanes):
                out[lane] /= pivot[lane]


@compiled
def _allow(problem: Problem, state: LaneArray, allowed: LaneArray) -> None:
    """Fill `allowed` (lanes,): 1 where all parameters are within bounds and all targets far enough apart, else 0."""
    size, lanes = state.shape
    count, least_square = problem.targets, np.float32(problem.least_square)
    allowed[:] = np.float32(1.0)
    for p in range(size):
        row, bottom, top = state[p], problem.low[p], problem.high[p]
        for lane in range(lanes):
            allowed[lane] = allowed[lane] if (row[lane] >= bottom) & (row[lane] <= top) else np.float32(0.0)
    for a in range(count):
        for b in range(a):
            xa, xb, ya, yb = state[a], state[b], state[count + a], state[count + b]
            for lane in range(lanes):
                dx, dy = xa[lane] - xb[lane], ya[lane] - yb[lane]
                allowed[lane] = allowed[lane] if dx * dx + dy * dy >= least_square else np.float32(0.0)


@compiled
def accepts(gain: float, number: float) -> bool:
    """Whether a uniform number is below exp(gain)."""
    return gain >= 0.0 or (gain > -20.0 and number < math.exp(gain))


@compiled
def move(
    problem: Problem, state: LaneArray, value: LaneArray, power: LaneArray, scale: LaneArray, root: LaneArray,
    random: Any, work: Work,
) -> None:  # fmt: skip
    """One Metropolis step of every lane; changes `state` and `value`, and leaves 1 in work.allowed where accepted.

    Args:
        state: (size, lanes).
        value: (lanes,) its log likelihoods.
        power: (lanes,) inverse temperatures.
        scale: (lanes,) of the steps, about 2.4 / sqrt(size) times sqrt(size) / sqrt(size).
        root: (size, size, lanes) of `step_shapes`.
        random: (lanes,) of `uniform`.
    """
    size, lanes = state.shape
    trial, draw, allowed = work.trial, work.draw, work.allowed
    trial[:] = state
    for i in range(size):
        uniform(random, draw)
        for lane in range(lanes):
            draw[lane] = (draw[lane] - np.float32(0.5)) * np.float32(3.4641016151377544) * scale[lane]
        for c in range(i + 1):
            out, shape = trial[c], root[i, c]
            for lane in range(lanes):
                out[lane] += draw[lane] * shape[lane]
    _allow(problem, trial, allowed)
    log_likelihoods(problem, trial, work, work.trial_value)
    uniform(random, draw)
    for lane in range(lanes):
        if allowed[lane] > np.float32(0.0):
            if accepts((work.trial_value[lane] - value[lane]) * power[lane], draw[lane]):
                value[lane] = work.trial_value[lane]
                for p in range(size):
                    state[p, lane] = trial[p, lane]
            else:
                allowed[lane] = np.float32(0.0)
