"""Chains of one group that step together: what they sample, their state, their random numbers and resampling.

Arrays end with the chain, in single precision, so that one processor instruction serves 8 or 16 chains. Chains run in
coordinates in which the prior is uniform: x, y, and the flux or its logarithm. The parameters are ordered
x_1, x_2, ..., y_1, ..., f_1, ..., b_0, ...; positions are in px from the window's first pixel.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, int64, uint32

from csist._compiled import inner, lean, tuple_of, tuple_type
from csist._types import FloatArray, IntArray
from csist._vectors import WIDTH, aligned
from csist.methods.continuous.model import (
    MATRIX,
    MEASURED,
    NOISE,
    SINGLE_CUBE,
    SINGLE_MATRIX,
    SINGLE_VECTOR,
    WINDOW,
    Bounds,
    Noise,
    SingleArray,
    Window,
)


class Posterior(NamedTuple):
    """What the chains of one group sample.

    Args:
        targets: number of targets.
        log_flux: whether chains run in the logarithm of the flux.
        low: (size,) bounds in the chains' coordinates.
        high: (size,) likewise.
        least_square: square of the smallest separation in px^2.
        pixel: (row, column) of the window in which all positions lie, or (-1, -1) where they may lie in any.
        polynomials: of `Optics`.
        window: the data.
        basis: (terms, h, w) background terms in single precision.
        noise: of a pixel.
        is_plain: whether all pixels are measured, with a noise that does not depend on the light.
    """

    targets: int
    log_flux: bool
    low: SingleArray
    high: SingleArray
    least_square: float
    pixel: tuple[int, int]
    polynomials: SingleArray
    window: Window
    basis: SingleArray
    noise: Noise
    is_plain: bool


class Chains(NamedTuple):
    """Chains that step together.

    Args:
        state: (size, chains) parameters.
        value: (chains,) log likelihood of each.
        root: (size, size, chains) inverse Cholesky factor of the information, which shapes the proposals.
        power: (chains,) inverse temperatures.
        scale: (chains,) proposal scales, about 2.4 / sqrt(size).
        random: (2, chains) states of `uniform`.
    """

    state: SingleArray
    value: SingleArray
    root: SingleArray
    power: SingleArray
    scale: SingleArray
    random: Any


class Scratch(NamedTuple):
    """Arrays that chains work in.

    `scattered`, `lit`, `profiles` and `weighted` have room for `WIDTH` chains, the others for all. `accepted` (chains,)
    is 1 after a step where it was accepted, else 0.
    """

    scattered: SingleArray
    flux: SingleArray
    lit: SingleArray
    profiles: SingleArray
    image: SingleArray
    curvature: SingleArray
    jacobian: SingleArray
    weighted: SingleArray
    information: SingleArray
    trial: SingleArray
    trial_value: SingleArray
    accepted: SingleArray
    draw: SingleArray
    one: FloatArray
    slope: FloatArray
    bend: FloatArray


SINGLE_4D, SINGLE_5D = float32[:, :, :, ::1], float32[:, :, :, :, ::1]
POSTERIOR = tuple_type(
    Posterior, int64, boolean, SINGLE_VECTOR, SINGLE_VECTOR, float64, tuple_of(int64, int64), SINGLE_5D, WINDOW,
    SINGLE_CUBE, NOISE, boolean,
)  # fmt: skip
CHAINS = tuple_type(Chains, SINGLE_MATRIX, SINGLE_VECTOR, SINGLE_CUBE, SINGLE_VECTOR, SINGLE_VECTOR, uint32[:, ::1])
SCRATCH = tuple_type(
    Scratch, SINGLE_MATRIX, SINGLE_MATRIX, SINGLE_MATRIX, SINGLE_4D, SINGLE_CUBE, SINGLE_CUBE, SINGLE_4D, SINGLE_MATRIX,
    SINGLE_CUBE, SINGLE_MATRIX, SINGLE_VECTOR, SINGLE_VECTOR, SINGLE_VECTOR, MATRIX, MATRIX, MATRIX,
)  # fmt: skip


@inner
def pose(bounds: Bounds, least_square: float, polynomials: SingleArray, window: Window, noise: Noise) -> Posterior:
    """The posterior of a group whose bounds (x_1, y_1, f_1, x_2, ...) are in coordinates of the image."""
    low, high = bounds.low, bounds.high
    size = low.shape[0]
    count = (size - window.basis.shape[0]) // 3
    ends = np.empty((size, 2), np.float32)
    for end in range(2):
        to_chain(low if end == 0 else high, count, bounds.log_flux, window, ends, end)
    row = column = -1
    if count > 0 and high[0] - low[0] <= 1.0 and high[1] - low[1] <= 1.0:
        column = math.floor(0.5 * (low[0] + high[0]) + 0.5) - window.column
        row = math.floor(0.5 * (low[1] + high[1]) + 0.5) - window.row
    is_plain = noise.inverse_gain == 0.0
    for i in range(window.code.shape[0]):
        for j in range(window.code.shape[1]):
            is_plain = is_plain and window.code[i, j] == MEASURED
    return Posterior(
        count, bounds.log_flux, ends[:, 0].copy(), ends[:, 1].copy(), least_square, (row, column), polynomials, window,
        window.basis.astype(np.float32), noise, is_plain,
    )  # fmt: skip


@inner
def make_scratch(posterior: Posterior, chains: int) -> Scratch:
    """Scratch for so many chains, a multiple of `WIDTH`."""
    h, w = posterior.window.data.shape
    size, count, offsets = posterior.low.shape[0], posterior.targets, posterior.polynomials.shape[3]
    return Scratch(
        aligned((offsets, WIDTH)), aligned((count, chains)), aligned((count, WIDTH)),
        aligned((4, max(h, w), count, WIDTH)), aligned((h, w, chains)), aligned((h, w, chains)),
        aligned((size, h, w, chains)), aligned((h * w, WIDTH)), aligned((size, size, chains)), aligned((size, chains)),
        aligned((chains,)), aligned((chains,)), aligned((chains,)), np.empty((h, w)), np.empty((h, w)),
        np.empty((h, w)),
    )  # fmt: skip


@lean
def to_chain(theta: FloatArray, count: int, log_flux: bool, window: Window, state: SingleArray, chain: int) -> None:
    """Put parameters theta (x_1, y_1, f_1, x_2, ...) of the image into a column of `state` (size, chains)."""
    for k in range(count):
        state[k, chain] = theta[3 * k] - window.column
        state[count + k, chain] = theta[3 * k + 1] - window.row
        state[2 * count + k, chain] = math.log(theta[3 * k + 2]) if log_flux else theta[3 * k + 2]
    for p in range(3 * count, theta.shape[0]):
        state[p, chain] = theta[p]


@lean
def to_chains(theta: FloatArray, posterior: Posterior, state: SingleArray) -> None:
    """Put samples (m, size) into the columns of `state` (size, chains), the last one again where there are fewer."""
    for chain in range(state.shape[1]):
        one = theta[min(chain, theta.shape[0] - 1)]
        to_chain(one, posterior.targets, posterior.log_flux, posterior.window, state, chain)


@lean
def from_chain(posterior: Posterior, state: SingleArray, chain: int, theta: FloatArray) -> None:
    """The inverse of `to_chain`: fill `theta`."""
    count, window = posterior.targets, posterior.window
    for k in range(count):
        theta[3 * k] = float(state[k, chain]) + window.column
        theta[3 * k + 1] = float(state[count + k, chain]) + window.row
        flux = float(state[2 * count + k, chain])
        theta[3 * k + 2] = math.exp(flux) if posterior.log_flux else flux
    for p in range(3 * count, theta.shape[0]):
        theta[p] = state[p, chain]


@inner
def seed_chains(seed: int, blocks: int, chains: int) -> Any:
    """States (blocks, 2, chains) of `uniform`, from SplitMix64 (Steele, Lea & Flood 2014)."""
    random = np.empty((blocks, 2, chains), np.uint32)
    for n in range(blocks * chains):
        z = np.uint64(seed * 1_000_003 + n + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        random[n // chains, 0, n % chains] = np.uint32(z | np.uint64(1))  # both words of zero would stay so
        random[n // chains, 1, n % chains] = np.uint32(z >> np.uint64(32))
    return random


@lean
def uniform(random: Any, out: SingleArray) -> None:
    """Fill `out` with numbers in [0, 1), one a chain, from xoroshiro64* (Blackman & Vigna 2021).

    Words of 32 bits, like the numbers, so that one instruction serves as many chains as everywhere else.
    """
    for chain in range(random.shape[1]):
        first, second = random[0, chain], random[1, chain]
        number = np.uint32(first * np.uint32(0x9E3779BB))
        second = np.uint32(second ^ first)
        random[0, chain] = (
            np.uint32((first << np.uint32(26)) | (first >> np.uint32(6))) ^ second ^ np.uint32(second << np.uint32(9))
        )
        random[1, chain] = np.uint32((second << np.uint32(13)) | (second >> np.uint32(19)))
        out[chain] = np.float32(np.int32(number >> np.uint32(8))) * np.float32(5.9604644775390625e-08)


@lean
def resample(weight: FloatArray, start: float, chosen: IntArray) -> float:
    """Fill `chosen` (n,) with places of `weight` (m,) by systematic resampling from `start` in [0, 1).

    Returns:
        the sum of the weights.
    """
    total = 0.0
    for m in range(weight.shape[0]):
        total += weight[m]
    step = total / chosen.shape[0]
    running, source = weight[0], 0
    for n in range(chosen.shape[0]):
        target = (n + start) * step
        while running < target and source + 1 < weight.shape[0]:
            source += 1
            running += weight[source]
        chosen[n] = source
    return total
