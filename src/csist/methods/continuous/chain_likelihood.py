"""The likelihood of chains that step together: their images and log likelihoods."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import int64, types

from csist._compiled import calling, fused, inner, linked, tuple_type
from csist.methods.continuous.likelihood import log_likelihood
from csist.methods.continuous.model import SINGLE_MATRIX, SINGLE_VECTOR, SingleArray
from csist.methods.continuous.population import POSTERIOR, SCRATCH, Posterior, Scratch


class Kernels(NamedTuple):
    """Addresses of the kernels that both samplers call; see `csist.methods.continuous.kernels`."""

    render: int
    log_likelihoods: int
    shape_proposals: int
    move: int
    weigh_by_rounding: int


KERNELS = tuple_type(Kernels, *(int64,) * 5)


@inner
def _evaluate(c: SingleArray, t: SingleArray, out: SingleArray) -> None:
    """The polynomial with coefficients c (12,) at every t."""
    c0, c1, c2, c3, c4, c5 = c[0], c[1], c[2], c[3], c[4], c[5]
    c6, c7, c8, c9, c10, c11 = c[6], c[7], c[8], c[9], c[10], c[11]
    for j in range(t.shape[0]):
        x = t[j]
        high = c6 + x * (c7 + x * (c8 + x * (c9 + x * (c10 + x * c11))))
        out[j] = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * high)))))


@fused
def fill_profile(polynomial: SingleArray, position: SingleArray, pixel: int, scratch: Any, out: SingleArray) -> None:
    """Profile, or its derivative, of every target of every chain along one axis.

    Args:
        polynomial: (offsets, powers).
        position: (targets * chains,) in px from the window's first pixel.
        pixel: in which all positions lie, or -1.
        scratch: its arrays `phase` and `scattered` are used.
        out: filled, (pixels, targets * chains).
    """
    phase, scattered = scratch.phase, scratch.scattered
    offsets, size, number = polynomial.shape[0], out.shape[0], position.shape[0]
    for j in range(number):
        nearest = np.float32(pixel) if pixel >= 0 else np.floor(position[j] + np.float32(0.5))
        phase[j] = position[j] - nearest
    for o in range(offsets):
        i = o + pixel - offsets // 2
        if pixel < 0 or 0 <= i < size:
            _evaluate(polynomial[o], phase, scattered[o] if pixel < 0 else out[i])
    if pixel >= 0:
        for i in range(size):
            if not 0 <= i - pixel + offsets // 2 < offsets:
                out[i] = np.float32(0.0)
        return
    out[:] = np.float32(0.0)
    half = offsets // 2
    low, high = size - 1 + half, half - offsets + 1  # of nearest pixels whose profiles reach the window
    first, last = low, high
    for j in range(number):
        nearest = np.int64(position[j] - phase[j])
        first, last = min(first, nearest), max(last, nearest)
    for nearest in range(max(first, high), min(last, low) + 1):
        for o in range(max(0, half - nearest), min(offsets, size + half - nearest)):
            row, values = out[o + nearest - half], scattered[o]
            for j in range(number):  # both values are read and one is kept, which serves many chains at once
                before, value = row[j], values[j]
                row[j] = value if position[j] - phase[j] == np.float32(nearest) else before


@fused
def fill_profiles(posterior: Posterior, state: SingleArray, rank: int, kinds: Any, scratch: Scratch) -> None:
    """Fill `scratch.profiles` with the profiles of every target of every chain along y and x.

    Args:
        posterior: what is sampled.
        state: (size, chains).
        rank: of the PSF's products.
        kinds: number of profiles as int64: 2 for values along y and x, 4 for their slopes too.
        scratch: `profiles` (4, side, targets, chains) gets values along y, along x, slopes along y, along x.
    """
    h, w, chains = scratch.image.shape
    count, number = posterior.targets, posterior.targets * chains
    for n in range(kinds):
        axis = n % 2
        position = state[(1 - axis) * count : (2 - axis) * count].reshape(number)
        length = h if axis == 0 else w
        fill_profile(
            posterior.polynomials[n // 2, axis, rank], position, posterior.pixel[axis], scratch,
            scratch.profiles[n, :length].reshape(length, number),
        )  # fmt: skip


@fused
def _fill_fluxes(posterior: Posterior, state: SingleArray, flux: SingleArray) -> None:
    """Fill `flux` (targets, chains) with the targets' fluxes in counts."""
    for k in range(posterior.targets):
        values, out = state[2 * posterior.targets + k], flux[k]
        for chain in range(values.shape[0]):
            out[chain] = math.exp(values[chain]) if posterior.log_flux else values[chain]


@fused
def _add_products(along_y: SingleArray, along_x: SingleArray, first: bool, image: SingleArray) -> None:
    """Add sum_k along_y[i, k] along_x[j, k] to image (h, w, chains); set it where `first`."""
    h, w, chains = image.shape
    for i in range(h):
        for j in range(w):
            out = image[i, j]
            begin = 0
            if first:
                a, b = along_y[i, 0], along_x[j, 0]
                for chain in range(chains):
                    out[chain] = a[chain] * b[chain]
                begin = 1
            for k in range(begin, along_y.shape[1]):
                a, b = along_y[i, k], along_x[j, k]
                for chain in range(chains):
                    out[chain] += a[chain] * b[chain]


@fused
def _fill_image(posterior: Posterior, state: SingleArray, scratch: Scratch) -> None:
    """Fill `scratch.image` (h, w, chains) with what the parameters `state` (size, chains) of each chain expect."""
    image, flux, basis = scratch.image, scratch.flux, posterior.basis
    h, w, chains = image.shape
    count = posterior.targets
    _fill_fluxes(posterior, state, flux)
    if basis.shape[0] > 0 or count == 0:
        image[:] = np.float32(0.0)
        for term in range(basis.shape[0]):
            coefficient = state[3 * count + term]
            for i in range(h):
                for j in range(w):
                    out = image[i, j]
                    for chain in range(chains):
                        out[chain] += coefficient[chain] * basis[term, i, j]
    for rank in range(posterior.polynomials.shape[2]):
        fill_profiles(posterior, state, rank, int64(2), scratch)
        along_y = scratch.profiles[0, :h]
        for i in range(h):
            for k in range(count):
                a, f = along_y[i, k], flux[k]
                for chain in range(chains):
                    a[chain] *= f[chain]
        _add_products(along_y, scratch.profiles[1, :w], rank == 0 and basis.shape[0] == 0, image)


@fused
def fill_log_likelihoods(posterior: Posterior, state: SingleArray, scratch: Scratch, value: SingleArray) -> None:
    """Fill `value` (chains,) with the log likelihood of the parameters `state` (size, chains) of each chain."""
    _fill_image(posterior, state, scratch)
    image, data, noise = scratch.image, posterior.window.data, posterior.noise
    weight = posterior.window.weight
    rows, columns, chains = image.shape
    if posterior.is_plain:
        value[:] = np.float32(0.0)
        for i in range(rows):
            for j in range(columns):
                z, w, model = np.float32(data[i, j]), np.float32(weight[i, j]), image[i, j]
                for chain in range(chains):
                    residual = z - model[chain]
                    value[chain] += w * residual * residual
        factor = np.float32(-0.5 / noise.variance)
        for chain in range(chains):
            value[chain] *= factor
        return
    for chain in range(chains):
        for i in range(rows):
            for j in range(columns):
                scratch.one[i, j] = image[i, j, chain]
        value[chain] = log_likelihood(scratch.one, posterior.window, noise)


@linked(types.none(POSTERIOR, SINGLE_MATRIX, SCRATCH))
def render_chains(posterior: Posterior, state: SingleArray, scratch: Scratch) -> None:
    """Fill `scratch.image` (h, w, chains) with what the parameters `state` (size, chains) of each chain expect."""
    _fill_image(posterior, state, scratch)


@linked(types.none(POSTERIOR, SINGLE_MATRIX, SCRATCH, SINGLE_VECTOR))
def log_likelihoods(posterior: Posterior, state: SingleArray, scratch: Scratch, value: SingleArray) -> None:
    """The same as `fill_log_likelihoods`."""
    fill_log_likelihoods(posterior, state, scratch, value)


call_render, call_log_likelihoods = calling(render_chains), calling(log_likelihoods)
