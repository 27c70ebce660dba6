"""The PSF as tables and as polynomials.

Every PSF is a short sum of products of one-dimensional profiles (one product for the Gaussian, the leading singular
vectors otherwise), tabulated at fine sub-pixel phases and interpolated by cubic Hermite polynomials: at 1/64 px the
error is below 1e-7 of the flux, at a tenth of the cost of error functions. Chains that step together evaluate
polynomials over a whole pixel instead: one instruction serves many of them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline

from csist._types import FloatArray
from csist.methods.continuous.likelihood import profile
from csist.methods.continuous.model import Optics, SingleArray
from csist.physics.psf import PSF, GaussianPSF

PHASES = 64
"""Tabulated sub-pixel phases a pixel."""

DEGREES = (5, 7, 9, 11)
"""Degrees of the polynomials in the sub-pixel phase, of which the lowest that is right to `TOLERANCE` is taken."""
TOLERANCE = 2e-6
"""Error of the polynomials as a share of the flux, but for a PSF that even the highest degree does not follow."""
MIRROR_TOLERANCE = 1e-6
"""Difference of two coefficients that are taken as the same."""


@lru_cache(maxsize=32)
def optics_of(psf: PSF) -> Optics:
    """Tables and polynomials of a PSF."""
    tables = profile_tables(psf)
    return Optics(tables, profile_polynomials(tables))


def profile_tables(psf: PSF) -> FloatArray:
    """Tables (2 axes [y, x], ranks, phases + 1, value and slope, offsets) of a PSF's one-dimensional profiles."""
    if isinstance(psf, GaussianPSF):
        return _tables_of_gaussian(psf.sigma_px)
    return _decomposed_tables(psf)


@lru_cache(maxsize=32)
def _tables_of_gaussian(sigma_px: float) -> FloatArray:
    psf = GaussianPSF(sigma_px)
    reach = math.ceil(psf.reach_px)
    offsets = np.arange(-reach, reach + 1) - (np.arange(PHASES + 1) / PHASES - 0.5)[:, None]
    table = np.stack([psf.profile(offsets), psf.profile_gradient(offsets)], axis=1)
    return np.ascontiguousarray(np.broadcast_to(table, (2, 1, *table.shape)))


@lru_cache(maxsize=8)
def _decomposed_tables(psf: PSF, tolerance: float = 1e-5) -> FloatArray:
    """Singular vectors of the response, as many as its peak needs to be right to `tolerance`."""
    phases = PHASES // 4
    reach = math.ceil(psf.reach_px)
    fine = np.arange(-(reach + 1) * phases, (reach + 1) * phases + 1) / phases
    response = psf.response(fine[None, :], fine[:, None])
    left, strength, right = np.linalg.svd(response)
    ranks = max(1, int((strength > tolerance * strength[0]).sum()))
    offsets = np.arange(-reach, reach + 1) - (np.arange(PHASES + 1) / PHASES - 0.5)[:, None]
    tables = np.empty((2, ranks, PHASES + 1, 2, offsets.shape[1]))
    for rank in range(ranks):
        root = math.sqrt(strength[rank])
        for axis, vector in enumerate((left[:, rank], right[rank])):
            spline = CubicSpline(fine, root * vector)
            tables[axis, rank, :, 0] = spline(offsets)
            tables[axis, rank, :, 1] = -spline(offsets, 1)
    return tables


def profile_polynomials(tables: FloatArray) -> SingleArray:
    """The tables as polynomials (value and slope, 2 axes, ranks, offsets, degree + 1), lowest power first.

    The variable is the distance in px from the nearest pixel's centre, -0.5 to 0.5. Profiles of one parity are exactly
    so, and only theirs have a coefficient 0 or 1 of zero in the middle, which tells kernels to evaluate half of them.
    """
    axes, ranks, _, _, offsets = tables.shape
    nodes = 0.5 * np.polynomial.chebyshev.chebpts1(4 * DEGREES[-1])
    values = np.empty((len(nodes), axes, ranks, offsets))
    for axis in range(axes):
        for rank in range(ranks):
            for value, node in zip(values[:, axis, rank], nodes, strict=True):
                profile(tables[axis, rank], node, -(offsets // 2), value)
    wanted = values.reshape(len(nodes), -1)
    for degree in DEGREES:
        # At Chebyshev's nodes and these degrees a fit of plain powers is well conditioned.
        powers = np.polynomial.polynomial.polyfit(2.0 * nodes, wanted, degree)
        if np.abs(np.polynomial.polynomial.polyval(2.0 * nodes, powers).T - wanted).max() < TOLERANCE:
            break
    polynomials = (powers.T * 2.0 ** np.arange(degree + 1)).reshape(axes, ranks, offsets, degree + 1)
    result = np.zeros((2, axes, ranks, offsets, degree + 1), np.float32)
    for axis in range(axes):
        for rank in range(ranks):
            result[0, axis, rank] = _of_one_parity(polynomials[axis, rank])
    result[1, ..., :-1] = np.arange(1, degree + 1, dtype=np.float32) * result[0, ..., 1:]
    return result


def _of_one_parity(polynomials: FloatArray) -> FloatArray:
    """Polynomials (offsets, degree + 1) of a profile, made exactly even or odd where they are nearly so."""
    mirrored = polynomials[::-1] * (-1.0) ** np.arange(polynomials.shape[1])
    for parity in (1.0, -1.0):
        if np.abs(polynomials - parity * mirrored).max() < MIRROR_TOLERANCE:
            return 0.5 * (polynomials + parity * mirrored)
    result = polynomials.copy()
    middle, least = result[len(result) // 2, :3], float(np.finfo(np.float32).tiny)
    middle[np.abs(middle) < least] = least
    return result
