"""What the solver is given: windows, noise, optics and bounds, as tuples that compiled functions take.

A group is a vector theta = (x_1, y_1, f_1, x_2, ..., b_0, b_1, ...): position and flux of each target, then the
coefficients of the background terms. Positions are in px of the whole image, fluxes in counts.

Each type has its Numba type beside it, in capitals: kernels that are called through their address declare their
arguments, see `csist._compiled.linked`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import boolean, float32, float64, int8, int64
from numpy.typing import NDArray

from csist._compiled import compiled, fused, tuple_type
from csist._types import FloatArray, IntArray
from csist.physics.sensor import Sensor

CodeArray = NDArray[np.int8]
SingleArray = NDArray[np.float32]

MEASURED, AT_CEILING, AT_FLOOR, IGNORED = 0, 1, 2, 3
"""Codes of a pixel: measured, or known only to reach its ceiling or its floor (censored), or masked."""

VECTOR, MATRIX, CUBE = float64[::1], float64[:, ::1], float64[:, :, ::1]
SINGLE_VECTOR, SINGLE_MATRIX, SINGLE_CUBE = float32[::1], float32[:, ::1], float32[:, :, ::1]
INTEGERS, PAIRS = int64[::1], int64[:, ::1]
TABLES = float64[:, :, :, :, ::1]


class Stack(NamedTuple):
    """Windows of one shape.

    Args:
        data: (N, H, W) in counts, background subtracted.
        code: (N, H, W) codes of the pixels.
        weight: (N, H, W) `Noise.variance` over a pixel's own; 1 where all pixels have one noise.
        basis: (terms, H, W) background terms whose coefficients are unknown.
    """

    data: FloatArray
    code: CodeArray
    weight: FloatArray
    basis: FloatArray


def choose(stack: Stack, places: IntArray) -> Stack:
    """The windows (n,) of a stack at these places, in this order."""
    return Stack(stack.data[places], stack.code[places], stack.weight[places], stack.basis)


class Window(NamedTuple):
    """A window or a patch of one.

    Args:
        data: (h, w) in counts, background subtracted.
        code: (h, w) codes of the pixels.
        weight: (h, w) `Noise.variance` over a pixel's own.
        row: of the first pixel in the whole image.
        column: likewise.
        basis: (terms, h, w) background terms whose coefficients are unknown.
    """

    data: FloatArray
    code: CodeArray
    weight: FloatArray
    row: int
    column: int
    basis: FloatArray


class Noise(NamedTuple):
    """Noise of a pixel.

    Args:
        variance: of a pixel of weight 1, without shot noise, in counts^2, rounding included.
        inverse_gain: counts per electron; 0 without shot noise.
        before_rounding: standard deviation in counts before rounding, where that is so low that rounding is no
            Gaussian noise; else negative.
    """

    variance: float
    inverse_gain: float
    before_rounding: float


class Optics(NamedTuple):
    """The PSF in two forms; see `csist.methods.continuous.optics`.

    Args:
        tables: (2 axes [y, x], ranks, phases + 1, value and slope, offsets) for single images.
        polynomials: (value and slope, 2 axes, ranks, offsets, powers) for chains that step together.
    """

    tables: FloatArray
    polynomials: SingleArray


class Bounds(NamedTuple):
    """Where the parameters of a group may lie.

    Args:
        low: (parameters,) lower bounds.
        high: (parameters,) upper bounds.
        log_flux: whether the prior is uniform in the logarithm of the flux instead of the flux.
        min_separation: smallest distance in px of two targets.
    """

    low: FloatArray
    high: FloatArray
    log_flux: bool
    min_separation: float


STACK = tuple_type(Stack, CUBE, int8[:, :, ::1], CUBE, CUBE)
WINDOW = tuple_type(Window, MATRIX, int8[:, ::1], MATRIX, int64, int64, CUBE)
NOISE = tuple_type(Noise, float64, float64, float64)
OPTICS = tuple_type(Optics, TABLES, TABLES.copy(dtype=float32))
BOUNDS = tuple_type(Bounds, VECTOR, VECTOR, boolean, float64)


@fused
def copy_into(target: FloatArray, source: FloatArray) -> None:
    """Copy a vector into one that does not overlap; NumPy's assignment would have to look, which compiles slowly."""
    for p in range(source.shape[0]):
        target[p] = source[p]


@compiled
def cut(stack: Stack, place: int, region: IntArray) -> Window:
    """A patch of the window `place` of a stack, copied.

    Args:
        stack: the windows.
        place: which of them.
        region: (4,) first row, row after the last, first column, column after the last.
    """
    top, bottom, left, right = region[0], region[1], region[2], region[3]
    return Window(
        stack.data[place, top:bottom, left:right].copy(),
        stack.code[place, top:bottom, left:right].copy(),
        stack.weight[place, top:bottom, left:right].copy(),
        top,
        left,
        stack.basis[:, top:bottom, left:right].copy(),
    )


@compiled
def region_around(row: int, column: int, reach: int, rows: int, columns: int) -> IntArray:
    """Region (4,) of the pixels within `reach` of a pixel, inside an image of so many rows and columns."""
    region = np.empty(4, np.int64)
    region[0], region[1] = max(row - reach, 0), min(row + reach + 1, rows)
    region[2], region[3] = max(column - reach, 0), min(column + reach + 1, columns)
    return region


@compiled
def whole_region(stack: Stack) -> IntArray:
    """Region (4,) of the whole windows of a stack."""
    region = np.zeros(4, np.int64)
    region[1], region[3] = stack.data.shape[1], stack.data.shape[2]
    return region


def inverse_gain(sensor: Sensor) -> float:
    """Counts per electron; 0 where the sensor has no shot noise."""
    return 0.0 if sensor.gain is None else 1.0 / sensor.gain


def pixel_codes(images: FloatArray, sensor: Sensor) -> tuple[FloatArray, CodeArray]:
    """Images with the masked pixels at 0 and the censored ones at their bound, and the code of each pixel.

    Rounding to whole counts puts the bound half a count inside the value that a clipped pixel shows.
    """
    codes = np.full(images.shape, MEASURED, np.int8)
    half = 0.5 if sensor.quantised else 0.0
    data = images.copy()
    at_ceiling, at_floor = images >= sensor.ceiling, images <= sensor.floor
    codes[at_ceiling], codes[at_floor] = AT_CEILING, AT_FLOOR
    data[at_ceiling] -= half
    data[at_floor] += half
    codes[np.isnan(images)] = IGNORED
    data[np.isnan(images)] = 0.0
    return data, codes


def stack_of(
    images: FloatArray, sensor: Sensor, basis: FloatArray | None = None, weight: FloatArray | None = None
) -> Stack:
    """The windows (N, H, W) of a sensor as the solver takes them.

    Args:
        images: in counts, NaN where masked.
        sensor: gives background, ceiling and floor.
        basis: (terms, H, W) unknown background terms; None for a background that is known.
        weight: (N, H, W) of the pixels, see `Stack`; None for one noise.
    """
    data, code = pixel_codes(images, sensor)
    if basis is None:
        basis = np.zeros((0, *images.shape[1:]))
    weight = np.ones(images.shape) if weight is None else np.ascontiguousarray(weight)
    return Stack(np.ascontiguousarray(data - sensor.background), np.ascontiguousarray(code), weight, basis)
