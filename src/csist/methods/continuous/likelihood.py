"""The likelihood of a group of point targets and its derivatives, compiled with Numba.

Each pixel adds log p(z | mu) with first derivative g and expected curvature c; Fisher scoring then needs only J^T g
and J^T diag(c) J. A measured pixel has Gaussian noise of variance s^2 / w + mu / gain, w its weight; one at the ceiling
or the floor is censored: its value is only a bound.
"""

from __future__ import annotations

import math

from csist._compiled import fused, lean
from csist._types import FloatArray
from csist.methods.continuous.model import AT_CEILING, AT_FLOOR, IGNORED, MEASURED, Noise, Window


@lean
def profile(table: FloatArray, position: float, start: int, value: FloatArray) -> None:
    """Response of a target along one axis.

    Args:
        table: (phases + 1, value and slope, offsets).
        position: of the target in px.
        start: first pixel.
        value: filled, (pixels,).
    """
    phases, offsets, size = table.shape[0] - 1, table.shape[2], value.shape[0]
    nearest = math.floor(position + 0.5)
    phase = (position - nearest + 0.5) * phases
    q = min(int(phase), phases - 1)
    t = phase - q
    v0, d0 = (1.0 + 2.0 * t) * (1.0 - t) ** 2, t * (1.0 - t) ** 2 / phases
    v1, d1 = t * t * (3.0 - 2.0 * t), t * t * (t - 1.0) / phases
    shift = int(nearest) - offsets // 2 - start
    value[:] = 0.0
    for o in range(max(0, -shift), min(offsets, size - shift)):
        value[o + shift] = v0 * table[q, 0, o] + d0 * table[q, 1, o] + v1 * table[q + 1, 0, o] + d1 * table[q + 1, 1, o]


@lean
def profile_slope(table: FloatArray, position: float, start: int, slope: FloatArray) -> None:
    """Derivative of `profile` by the position.

    Args:
        table: (phases + 1, value and slope, offsets).
        position: of the target in px.
        start: first pixel.
        slope: filled, (pixels,) in 1/px.
    """
    phases, offsets, size = table.shape[0] - 1, table.shape[2], slope.shape[0]
    nearest = math.floor(position + 0.5)
    phase = (position - nearest + 0.5) * phases
    q = min(int(phase), phases - 1)
    t = phase - q
    sv = 6.0 * t * (t - 1.0) * phases
    s0, s1 = (1.0 - t) * (1.0 - 3.0 * t), t * (3.0 * t - 2.0)
    shift = int(nearest) - offsets // 2 - start
    slope[:] = 0.0
    for o in range(max(0, -shift), min(offsets, size - shift)):
        slope[o + shift] = sv * (table[q, 0, o] - table[q + 1, 0, o]) + s0 * table[q, 1, o] + s1 * table[q + 1, 1, o]


@lean
def count_of(theta: FloatArray, window: Window) -> int:
    """Number of targets of a parameter vector."""
    return int((theta.shape[0] - window.basis.shape[0]) // 3)


@lean
def render(theta: FloatArray, window: Window, tables: FloatArray, profiles: FloatArray, image: FloatArray) -> None:
    """Expected image of a group.

    Args:
        theta: (parameters,).
        window: gives place, shape and background terms.
        tables: of `Optics`.
        profiles: scratch, (4, max(h, w)).
        image: filled, (h, w) in counts.
    """
    h, w = image.shape
    count = count_of(theta, window)
    image[:] = 0.0
    for term in range(window.basis.shape[0]):
        coefficient = theta[3 * count + term]
        for i in range(h):
            for j in range(w):
                image[i, j] += coefficient * window.basis[term, i, j]
    for k in range(count):
        for rank in range(tables.shape[1]):
            profile(tables[0, rank], theta[3 * k + 1], window.row, profiles[0, :h])
            profile(tables[1, rank], theta[3 * k], window.column, profiles[2, :w])
            for i in range(h):
                scaled = theta[3 * k + 2] * profiles[0, i]
                if scaled != 0.0:
                    for j in range(w):
                        image[i, j] += scaled * profiles[2, j]


@fused
def _add_products(flux: float, profiles: FloatArray, jacobian: FloatArray) -> None:
    """Add the derivatives of one product of profiles by x, y and flux to `jacobian` (3, h, w)."""
    _, h, w = jacobian.shape
    for i in range(h):
        vy, sy = profiles[0, i], profiles[1, i]
        if vy != 0.0 or sy != 0.0:
            for j in range(w):
                jacobian[0, i, j] += flux * vy * profiles[3, j]
                jacobian[1, i, j] += flux * sy * profiles[2, j]
                jacobian[2, i, j] += vy * profiles[2, j]


@lean
def render_with_jacobian(
    theta: FloatArray,
    window: Window,
    tables: FloatArray,
    profiles: FloatArray,
    image: FloatArray,
    jacobian: FloatArray,
) -> None:
    """As `render`, with the derivatives of the image.

    Args:
        theta: (parameters,).
        window: gives place, shape and background terms.
        tables: of `Optics`.
        profiles: scratch, (4, max(h, w)).
        image: filled, (h, w) in counts.
        jacobian: filled, (parameters, h, w) derivatives by theta.
    """
    h, w = image.shape
    count = count_of(theta, window)
    image[:] = 0.0
    jacobian[: theta.shape[0]] = 0.0
    for k in range(count):
        flux = theta[3 * k + 2]
        for rank in range(tables.shape[1]):
            profile(tables[0, rank], theta[3 * k + 1], window.row, profiles[0, :h])
            profile_slope(tables[0, rank], theta[3 * k + 1], window.row, profiles[1, :h])
            profile(tables[1, rank], theta[3 * k], window.column, profiles[2, :w])
            profile_slope(tables[1, rank], theta[3 * k], window.column, profiles[3, :w])
            _add_products(flux, profiles, jacobian[3 * k : 3 * k + 3])
        for i in range(h):
            for j in range(w):
                image[i, j] += flux * jacobian[3 * k + 2, i, j]
    for term in range(window.basis.shape[0]):
        for i in range(h):
            for j in range(w):
                jacobian[3 * count + term, i, j] = window.basis[term, i, j]
                image[i, j] += theta[3 * count + term] * window.basis[term, i, j]


@lean
def _log_normal_tail(a: float) -> tuple[float, float]:
    """Log of the normal distribution function at a, and its derivative (the inverse Mills ratio)."""
    if a > -30.0:
        below = max(0.5 * math.erfc(-a * 0.7071067811865476), 1e-300)
        return math.log(below), math.exp(-0.5 * a * a) * 0.3989422804014327 / below
    return -0.5 * a * a - math.log(-a) - 0.9189385332046727, -a


@lean
def log_likelihood(image: FloatArray, window: Window, noise: Noise) -> float:
    """Sum over pixels of log p(data | image), up to a constant where the noise is constant."""
    total = 0.0
    h, w = image.shape
    for i in range(h):
        for j in range(w):
            c = window.code[i, j]
            if c == MEASURED:
                residual = window.data[i, j] - image[i, j]
                dark = noise.variance / window.weight[i, j]
                if noise.inverse_gain == 0.0:
                    total -= 0.5 * residual * residual / dark
                else:
                    v = dark + max(image[i, j], 0.0) * noise.inverse_gain
                    total -= 0.5 * (residual * residual / v + math.log(v / dark))
            elif c != IGNORED:
                sign = 1.0 if c == AT_CEILING else -1.0
                dark = noise.variance / window.weight[i, j]
                s = math.sqrt(dark + max(image[i, j], 0.0) * noise.inverse_gain)
                total += _log_normal_tail(sign * (image[i, j] - window.data[i, j]) / s)[0]
    return total


@fused
def _is_contradicted(c: int, residual: float) -> bool:
    """Whether a pixel of code `c` is measured, or its bound on the wrong side of the image."""
    return c == MEASURED or (c == AT_CEILING and residual > 0.0) or (c == AT_FLOOR and residual < 0.0)


@lean
def chi_squared(image: FloatArray, window: Window, noise: Noise) -> float:
    """Sum over pixels of the squared residual in units of the noise.

    A censored pixel has a residual only where the image contradicts its bound: what it adds to the likelihood
    otherwise says nothing of the fit, and neither does the logarithm of a noise that grows with the light.
    """
    total = 0.0
    h, w = image.shape
    for i in range(h):
        for j in range(w):
            residual = window.data[i, j] - image[i, j]
            if _is_contradicted(window.code[i, j], residual):
                dark = noise.variance / window.weight[i, j]
                total += residual * residual / (dark + max(image[i, j], 0.0) * noise.inverse_gain)
    return total


@lean
def pixel_terms(image: FloatArray, window: Window, noise: Noise, slope: FloatArray, curvature: FloatArray) -> float:
    """Log likelihood of an image, with its derivatives by the light of each pixel.

    Args:
        image: (h, w) expected light in counts.
        window: the data.
        noise: of a pixel.
        slope: filled, (h, w), d log p / d mu.
        curvature: filled, (h, w), the expected -d2 log p / d mu2.
    """
    h, w = image.shape
    inverse_gain = noise.inverse_gain
    total = 0.0
    for i in range(h):
        for j in range(w):
            c = window.code[i, j]
            mu = image[i, j]
            variance = noise.variance / window.weight[i, j]
            if c == MEASURED:
                residual = window.data[i, j] - mu
                if inverse_gain == 0.0:
                    total -= 0.5 * residual * residual / variance
                    slope[i, j] = residual / variance
                    curvature[i, j] = 1.0 / variance
                else:
                    v = variance + max(mu, 0.0) * inverse_gain
                    dv = inverse_gain if mu > 0.0 else 0.0
                    total -= 0.5 * (residual * residual / v + math.log(v / variance))
                    slope[i, j] = residual / v + 0.5 * dv * (residual * residual / v - 1.0) / v
                    curvature[i, j] = 1.0 / v + 0.5 * (dv / v) ** 2
            elif c != IGNORED:
                sign = 1.0 if c == AT_CEILING else -1.0
                s = math.sqrt(variance + max(mu, 0.0) * inverse_gain)
                a = sign * (mu - window.data[i, j]) / s
                log_tail, mills = _log_normal_tail(a)
                total += log_tail
                slope[i, j] = sign * mills / s
                curvature[i, j] = max(mills * (mills + a), 0.0) / (s * s)
            else:
                slope[i, j] = 0.0
                curvature[i, j] = 0.0
    return total


@lean
def information_matrix(
    jacobian: FloatArray, curvature: FloatArray, weighted: FloatArray, information: FloatArray
) -> None:
    """Fisher information of the parameters.

    Args:
        jacobian: (parameters, h, w).
        curvature: (h, w) of `pixel_terms`.
        weighted: scratch, (h w,).
        information: filled, (parameters, parameters), J^T diag(curvature) J.
    """
    pixels = curvature.size
    flat = jacobian.reshape(jacobian.shape[0], pixels)
    c = curvature.reshape(pixels)
    for a in range(information.shape[0]):
        for p in range(pixels):
            weighted[p] = flat[a, p] * c[p]
        for b in range(a + 1):
            total = 0.0
            for p in range(pixels):
                total += weighted[p] * flat[b, p]
            information[a, b] = total
            information[b, a] = total
