"""What the solver of sequences is given: the frames of one group, the law of its motion, and arrays to work in.

A position in frame t is sum_m basis[m, t] (c_m + o_m): the group shares c_m, each target has its own o_m.
basis[0] is 1 and belongs to the target alone (its position in the first frame), basis[1] is the time, so that c_1 is
the group's velocity and o_1 what a target's differs from it.

Chains run in the parameters c_1x, c_1y, c_2x, ..., then for each target o_0x, o_0y, o_1x, ..., flux or its logarithm.
Arrays end with the chain, in single precision; see `csist.methods.continuous.population`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import boolean, float32, float64, int64

from csist._compiled import inner, lean, tuple_type
from csist._types import FloatArray, IntArray
from csist._vectors import WIDTH, aligned
from csist.methods.continuous.model import (
    PAIRS,
    SINGLE_CUBE,
    SINGLE_MATRIX,
    SINGLE_VECTOR,
    VECTOR,
    SingleArray,
)

Random = Any
"""States of `csist.methods.continuous.population.uniform`."""
LANES = 64
"""Chains that step together."""

SINGLE_4D, SINGLE_5D = float32[:, :, :, ::1], float32[:, :, :, :, ::1]


class Film(NamedTuple):
    """A square patch around the group in each frame.

    Args:
        data: (T, side, side) in counts, background subtracted, 0 where there is no value.
        weight: (T, side, side) one over the variance of each pixel, 0 where there is no value.
        origin: (T, 2) row and column of each patch's first pixel in the window; no whole numbers where the camera
            shakes.
        inside: (T, 4) first row, row after the last, and the same of columns, of the pixels with a value.
        even: (T,) the weight of these pixels where all of them have the same and fill that rectangle, else 0.
    """

    data: SingleArray
    weight: SingleArray
    origin: SingleArray
    inside: IntArray
    even: SingleArray


class MotionLaw(NamedTuple):
    """What is known of a group before its frames are seen.

    Args:
        basis: (M, T) functions of time.
        common: number of them that the group shares, with the constant, which it does not.
        own: number of them that each target has for itself.
        width: (2, M) of the common and the own coefficients: radius of the disc in which they are uniform, or standard
            deviation where normal.
        normal: (M,) 1 where the common coefficient is normal instead, else 0.
        area: (4,) lowest x and y and highest x and y in the first frame.
        one_pixel: whether all targets lie inside one pixel then.
        least_square: square of the smallest separation in px^2 then.
        flux: (2,) bounds of the mean flux, or of its logarithm.
        log_flux: whether chains run in the logarithm of the flux.
        scintillation: standard deviation of a flux from frame to frame, as a share of its mean.
    """

    basis: SingleArray
    common: int
    own: int
    width: SingleArray
    normal: SingleArray
    area: SingleArray
    one_pixel: bool
    least_square: float
    flux: SingleArray
    log_flux: bool
    scintillation: float


class PathPosterior(NamedTuple):
    """What the chains of one group sample.

    Args:
        targets: number of targets.
        film: the frames.
        law: what is known of the group.
        polynomials: of `csist.methods.continuous.model.Optics`.
        present: (targets, T) 1 in the frames in which a target is there, else 0.
    """

    targets: int
    film: Film
    law: MotionLaw
    polynomials: SingleArray
    present: SingleArray


class PathScratch(NamedTuple):
    """Arrays that chains work in: `WIDTH` at a time up to `moments`, `LANES` from there on."""

    scattered: SingleArray
    flux: SingleArray
    profiles: SingleArray
    response: SingleArray
    overlaps: SingleArray
    lit: SingleArray
    along: SingleArray
    volume: FloatArray
    gram: SingleArray
    ones: SingleArray
    slope: SingleArray
    half: SingleArray
    frame: SingleArray
    moments: SingleArray
    information: SingleArray
    trial: SingleArray
    trial_value: SingleArray
    trial_prior: SingleArray
    draw: SingleArray
    accepted: SingleArray


FILM = tuple_type(Film, SINGLE_CUBE, SINGLE_CUBE, SINGLE_MATRIX, PAIRS, SINGLE_VECTOR)
MOTION_LAW = tuple_type(
    MotionLaw, SINGLE_MATRIX, int64, int64, SINGLE_MATRIX, SINGLE_VECTOR, SINGLE_VECTOR, boolean, float64,
    SINGLE_VECTOR, boolean, float64,
)  # fmt: skip
PATH_POSTERIOR = tuple_type(PathPosterior, int64, FILM, MOTION_LAW, SINGLE_5D, SINGLE_MATRIX)
PATH_SCRATCH = tuple_type(
    PathScratch, SINGLE_MATRIX, SINGLE_MATRIX, SINGLE_4D, SINGLE_4D, SINGLE_4D, SINGLE_MATRIX, SINGLE_MATRIX, VECTOR,
    SINGLE_CUBE, SINGLE_MATRIX, SINGLE_MATRIX, SINGLE_CUBE, SINGLE_CUBE, SINGLE_4D, SINGLE_CUBE, SINGLE_MATRIX,
    *(SINGLE_VECTOR,) * 4,
)  # fmt: skip


@lean
def size_of(law: MotionLaw, targets: int) -> int:
    """Number of parameters of so many targets."""
    return int(2 * (law.common - 1) + targets * (2 * law.own + 1))


@lean
def first_of(law: MotionLaw, k: int) -> int:
    """Place of the first parameter of target k."""
    return int(2 * (law.common - 1) + k * (2 * law.own + 1))


@inner
def make_path_scratch(posterior: PathPosterior) -> PathScratch:
    """Scratch for `LANES` chains."""
    count, side, law = posterior.targets, posterior.film.data.shape[1], posterior.law
    size, pairs = size_of(law, count), law.basis.shape[0] ** 2
    ones = aligned((count, WIDTH))
    ones[:] = np.float32(1.0)
    return PathScratch(
        aligned((posterior.polynomials.shape[3], WIDTH)), aligned((count, WIDTH)), aligned((4, side, count, WIDTH)),
        aligned((3 * count, side, side, WIDTH)), aligned((2, 2 * count, 2 * count, WIDTH)), aligned((count, WIDTH)),
        aligned((count, WIDTH)), np.empty(WIDTH), aligned((count, count, WIDTH)), ones, aligned((count, WIDTH)),
        aligned((count, 3 * count, WIDTH)), aligned((3 * count, 3 * count, WIDTH)),
        aligned((pairs, 3 * count, 3 * count, WIDTH)), aligned((size, size, LANES)), aligned((size, LANES)),
        aligned((LANES,)), aligned((LANES,)), aligned((LANES,)), aligned((LANES,)),
    )  # fmt: skip


def film_around(data: FloatArray, weight: FloatArray, middle: FloatArray, side: int) -> Film:
    """Square patches of a stack around a place in each frame.

    Args:
        data: (T, H, W) in counts, background subtracted.
        weight: (T, H, W) inverse variances, 0 where there is no value.
        middle: (T, 2) x and y.
        side: of the patches in px, odd.
    """
    frames, rows, columns = data.shape
    origin = np.rint(middle[:, ::-1]).astype(np.int64) - side // 2
    row, column = (origin[:, axis, None] + np.arange(side) for axis in range(2))
    inside = ((row >= 0) & (row < rows))[:, :, None] & ((column >= 0) & (column < columns))[:, None, :]
    place = (
        np.arange(frames)[:, None, None],
        np.clip(row, 0, rows - 1)[:, :, None],
        np.clip(column, 0, columns - 1)[:, None, :],
    )
    return film_of(data[place], np.where(inside, weight[place], 0.0), origin)


def near(film: Film, middle: FloatArray, reach: FloatArray) -> Film:
    """A film without the pixels that lie farther along x or y from a place in each frame.

    Args:
        film: square patches.
        middle: (T, 2) x and y.
        reach: (T,) largest distance in px.
    """
    pixel = film.origin[:, :, None] + np.arange(film.data.shape[1])
    inside = np.abs(pixel - middle[:, ::-1, None]) <= reach[:, None, None]
    return film_of(film.data, np.where(inside[:, 0, :, None] & inside[:, 1, None, :], film.weight, 0.0), film.origin)


def film_of(data: FloatArray | SingleArray, weight: FloatArray | SingleArray, origin: IntArray | SingleArray) -> Film:
    """Square patches that have been cut already.

    Args:
        data: (T, side, side) in counts, background subtracted.
        weight: (T, side, side) inverse variances, 0 where there is no value.
        origin: (T, 2) row and column of each patch's first pixel.
    """
    weights = np.ascontiguousarray(weight, np.float32)
    rectangle, even = _rectangles(weights)
    patches = np.where(weights > 0.0, data, 0.0).astype(np.float32)
    return Film(patches, weights, np.ascontiguousarray(origin, np.float32), rectangle, even)


def moved_back(film: Film, shift: FloatArray) -> Film:
    """A film as a camera that stands would see it, of one that shifts each frame by (T, 2) px along x and y."""
    return film._replace(origin=film.origin - shift[:, ::-1].astype(np.float32))


def _rectangles(weight: SingleArray) -> tuple[IntArray, SingleArray]:
    """`inside` and `even` of `Film`, of weights (T, side, side)."""
    seen, side = np.asarray(weight > 0.0), weight.shape[1]
    inside = np.zeros((len(weight), 4), np.int64)
    for axis in range(2):
        some = np.asarray(seen.any(axis=2 - axis))
        inside[:, 2 * axis], inside[:, 2 * axis + 1] = some.argmax(axis=1), side - some[:, ::-1].argmax(axis=1)
    inside[~seen.any(axis=(1, 2))] = 0
    area = (inside[:, 1] - inside[:, 0]) * (inside[:, 3] - inside[:, 2])
    highest = weight.max(axis=(1, 2))
    equal = (~seen | (weight == highest[:, None, None])).all(axis=(1, 2))
    is_even = equal & (area == seen.sum(axis=(1, 2)))
    return inside, np.where(is_even, highest, np.float32(0.0)).astype(np.float32)
