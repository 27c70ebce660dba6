"""The exact likelihood of rounded and clipped counts, by importance resampling of posterior samples.

Where the noise is below a count, rounding is no Gaussian noise: light and noise lie in the interval that rounds to
the count seen. That likelihood has edges, along which chains move badly. So chains take rounding as noise of variance
1/12, and their samples are weighed by the ratio of the exact to that likelihood, which is bounded, and resampled.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64

from csist._compiled import inlined, lean, linked, tuple_of
from csist._types import FloatArray
from csist.methods.continuous.chain_likelihood import KERNELS, Kernels, call_render
from csist.methods.continuous.model import (
    AT_CEILING,
    AT_FLOOR,
    IGNORED,
    MATRIX,
    MEASURED,
    VECTOR,
    Noise,
    SingleArray,
    inverse_gain,
)
from csist.methods.continuous.population import POSTERIOR, SCRATCH, Posterior, Scratch, resample, to_chains
from csist.physics.sensor import Sensor

NOT_EXACT = -1.0
"""Instead of a noise: rounding stays Gaussian noise, part of the variance."""

DITHERED = 0.5
"""Noise in counts from which rounding is as good as Gaussian noise of variance 1/12."""

SHARP = 0.01
"""Noise in counts below which the ends of the interval are as soft as this: the profiles' own errors are hidden."""

LEAST_EFFECTIVE = 8.0
"""Effective sample size below which the samples stay as they are: the model is wrong by fractions of a count."""


def noise_before_rounding(sensor: Sensor, variance: float) -> float:
    """Noise in counts where it is so low that rounding is no Gaussian noise; else `NOT_EXACT`.

    Args:
        sensor: tells whether counts are rounded.
        variance: of a pixel without shot noise in counts^2, rounding included.
    """
    if not sensor.quantised or sensor.gain is not None:
        return NOT_EXACT
    noise = max(variance - sensor.rounding_variance, 0.0) ** 0.5
    return float(noise) if noise < DITHERED else NOT_EXACT


def noise_of(sensor: Sensor, variance: float) -> Noise:
    """Noise of a pixel of a sensor; `variance` in counts^2 without shot noise, rounding included."""
    return Noise(float(variance), inverse_gain(sensor), noise_before_rounding(sensor, variance))


@lean
def log_normal_interval(above: float, below: float) -> float:
    """Log of the probability that a normal variable lies less than `above` above and `below` below zero.

    One of them may be negative; their sum is at least 2.
    """
    short, long = min(above, below), max(above, below)
    if short < -30.0:
        return -0.5 * short * short - math.log(-short) - 0.9189385332046727
    if short < 0.0:
        outside = math.erfc(-0.7071067811865476 * short) - math.erfc(0.7071067811865476 * long)
        return math.log(max(0.5 * outside, 1e-300))
    return math.log(0.5 * (math.erf(0.7071067811865476 * long) + math.erf(0.7071067811865476 * short)))


@inlined
def rounded_log_likelihoods(posterior: Posterior, image: SingleArray, value: SingleArray) -> None:
    """Log probability that light and noise round to the counts seen, or are clipped.

    A measured pixel also has the constant that the Gaussian's logarithm leaves out, so that evidences compare.

    Args:
        posterior: gives the data and the noise before rounding.
        image: (h, w, chains) light in counts.
        value: filled, (chains,).
    """
    noise = posterior.noise.before_rounding
    h, w, chains = image.shape
    constant = 0.5 * math.log(2.0 * math.pi * posterior.noise.variance)
    stiffness = np.float32(0.5 / SHARP**2)
    value[:] = np.float32(0.0)
    for i in range(h):
        for j in range(w):
            c, z, model = posterior.window.code[i, j], posterior.window.data[i, j], image[i, j]
            if c == IGNORED:
                continue
            low = np.float32(-1e30 if c == AT_FLOOR else (z if c == AT_CEILING else z - 0.5))
            high = np.float32(1e30 if c == AT_CEILING else (z if c == AT_FLOOR else z + 0.5))
            added = np.float32(constant if c == MEASURED else 0.0)
            if noise < SHARP:
                for chain in range(chains):
                    outside = max(max(low - model[chain], model[chain] - high), np.float32(0.0))
                    value[chain] += added - stiffness * outside * outside
            else:
                for chain in range(chains):
                    value[chain] += added + log_normal_interval(
                        (high - model[chain]) / noise, (model[chain] - low) / noise
                    )


@linked(tuple_of(float64, float64)(KERNELS, POSTERIOR, MATRIX, VECTOR, SCRATCH))
def weigh_by_rounding(
    call: Kernels, posterior: Posterior, theta: FloatArray, values: FloatArray, scratch: Scratch
) -> tuple[float, float]:
    """Resample posterior samples by the exact likelihood of rounded counts.

    Args:
        call: addresses of kernels.
        posterior: under which they were drawn.
        theta: (m, parameters or more) samples, changed in place.
        values: (m,) their log likelihoods, likewise.
        scratch: arrays to work in; its trial states are overwritten.

    Returns:
        what the exact likelihood adds to the log evidence, and the share of the samples that is effective.
    """
    state, value = scratch.trial, scratch.trial_value
    kept, (size, chains) = theta.shape[0], state.shape
    weight = np.empty(kept)
    for start in range(0, kept, chains):
        to_chains(theta[start:kept, :size], posterior, state)
        call_render(call.render, posterior, state, scratch)
        rounded_log_likelihoods(posterior, scratch.image, value)
        for m in range(start, min(start + chains, kept)):
            weight[m] = value[m - start] - values[m]
    highest = weight.max()
    total, squares = 0.0, 0.0
    for m in range(kept):
        weight[m] = math.exp(weight[m] - highest)
        total += weight[m]
        squares += weight[m] * weight[m]
    if total * total < LEAST_EFFECTIVE * squares:
        return 0.0, 1.0
    old, old_values, chosen = theta.copy(), values.copy(), np.empty(kept, np.int64)
    resample(weight, 0.5, chosen)
    for m in range(kept):
        values[m] = old_values[chosen[m]]
        for p in range(theta.shape[1]):
            theta[m, p] = old[chosen[m], p]
    return float(highest) + math.log(total / kept), total * total / (squares * kept)
