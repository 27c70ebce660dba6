"""Meshes of boxes that stand for a smooth function all over a frame, and how they are interpolated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from csist._types import FloatArray, IntArray
from csist.frames.kernels import spread_lines

SURFACE_ROUNDS = 5
FEWEST_BOXES = 4
"""Boxes along an axis from which the surface may bend along it."""


@dataclass(frozen=True, eq=False)
class SmoothMesh:
    """A surface of second order all over a frame, and what the boxes differ from it by.

    The surface follows a slope or a vignetting beyond the centres of the outer boxes, where boxes alone say nothing.

    Args:
        surface: (6,) coefficients of 1, x, y, x^2, y^2 and x y, with x and y from -1 to 1 over the frame, in counts.
        rest: (r, c) at the box centres in counts.
    """

    surface: FloatArray
    rest: FloatArray

    def factors(self, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Matrices (H, k) and (k, W) whose product is the function in counts.

        The rest is interpolated by cubic splines and continued linearly.
        """
        rows, columns = (_spline(n, boxes) for n, boxes in zip(shape, self.rest.shape, strict=True))
        one, along_x, along_y, xx, yy, xy = self.surface
        y, x = (places_along(np.arange(n, dtype=np.float64), n) for n in shape)
        down = np.stack([one + along_y * y + yy * y**2, np.ones(shape[0]), y], axis=1)
        across = np.stack([np.ones(shape[1]), along_x * x + xx * x**2, xy * x])
        return np.concatenate([rows @ self.rest, down], axis=1), np.concatenate([columns.T, across])

    def in_counts(self, unit: float, constant: float) -> SmoothMesh:
        """The function times a number, with a constant added."""
        surface = unit * self.surface
        surface[0] += constant
        return SmoothMesh(surface, unit * self.rest)


def smooth_mesh(mesh: FloatArray, shape: tuple[int, int], scatter: FloatArray) -> SmoothMesh:
    """Surface and rest of the levels of boxes; a box that a source fills takes the median of its neighbours.

    Args:
        mesh: (r, c) in counts.
        shape: (rows, columns) of the frame.
        scatter: (r, c) of the pixels in the boxes in counts.
    """
    places = [places_along(_centres(n, boxes), n) for n, boxes in zip(shape, mesh.shape, strict=True)]
    surface, fitted = _surface(mesh, places[0], places[1])
    rest = mesh - fitted
    # About the surface: on a slope the outer boxes differ from the median of their neighbours.
    usual = ndimage.median_filter(rest, size=3, mode="nearest")
    rest = np.where(np.abs(rest - usual) > scatter, usual, rest)
    # A box's mean differs from the value at its centre by a 24th of the second difference.
    for axis, bends in ((0, surface[4]), (1, surface[3])):
        boxes = mesh.shape[axis]
        if boxes >= 3:
            ends = [(1, 1) if k == axis else (0, 0) for k in (0, 1)]
            rest = rest - np.pad(np.diff(rest, 2, axis=axis), ends) / 24.0 - 2.0 * bends * (2.0 / boxes) ** 2 / 24.0
    return SmoothMesh(surface, rest)


def places_along(pixels: NDArray[np.floating] | IntArray, length: int) -> FloatArray:
    """Places along an axis, from -1 to 1 over its length."""
    return np.asarray((2.0 * pixels - (length - 1.0)) / max(length - 1.0, 1.0))


def _surface(mesh: FloatArray, y: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients (6,) of the surface through most boxes of a mesh, least absolute differences nearly; its values."""
    rows, columns = mesh.shape
    y, x = np.repeat(y, columns), np.tile(x, rows)
    bends = [columns >= FEWEST_BOXES, rows >= FEWEST_BOXES, min(rows, columns) >= FEWEST_BOXES]
    used = np.array([True, columns > 1, rows > 1, *bends])
    if mesh.size < 2 * used.sum():
        used[1:] = False
    design = np.stack([np.ones(mesh.size), x, y, x**2, y**2, x * y], axis=1)[:, used]
    values, weight = mesh.ravel(), np.ones(mesh.size)
    found = np.array([np.median(values)])
    for _ in range(SURFACE_ROUNDS if used.sum() > 1 else 0):
        # The columns are nearly orthogonal: the normal equations lose nothing.
        weighted = design.T * weight
        found = np.linalg.solve(weighted @ design, weighted @ values)
        rest = np.abs(values - design @ found)
        weight = 1.0 / np.maximum(rest, max(0.1 * float(np.median(rest)), 1e-300))
        weight /= weight.max()
    coefficients = np.zeros(6)
    coefficients[used] = found
    return coefficients, (design @ found).reshape(mesh.shape)


def fill_mesh(mesh: FloatArray, otherwise: float) -> FloatArray:
    """A mesh whose NaN boxes take the value of the nearest valid box, or `otherwise` if there is none."""
    empty = np.isnan(mesh)
    if empty.all():
        return np.full_like(mesh, otherwise)
    if empty.any():
        nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        mesh = mesh[tuple(nearest)]
    return mesh


def _centres(length: int, boxes: int) -> FloatArray:
    """Centres (boxes,) in px of the boxes along an axis."""
    size = -(-length // boxes)
    starts = np.minimum(np.arange(boxes) * size, length)
    return np.asarray(0.5 * (starts + np.minimum(starts + size, length) - 1.0))


@lru_cache(maxsize=32)
def _spline(length: int, boxes: int) -> FloatArray:
    """Matrix (length, boxes) that interpolates between box centres by a cubic spline, continued linearly."""
    if boxes == 1:
        return np.ones((length, 1))
    centres = _centres(length, boxes)
    inside = np.clip(np.arange(length, dtype=np.float64), centres[0], centres[-1])
    spline = CubicSpline(centres, np.eye(boxes), bc_type="natural")
    return np.asarray(spline(inside) + (np.arange(length) - inside)[:, None] * spline(inside, 1))


@lru_cache(maxsize=32)
def _between(length: int, boxes: int) -> tuple[IntArray, FloatArray]:
    """The box centre before each pixel of an axis (length,) and the share of the way to the next one, from 0 to 1."""
    place = np.interp(np.arange(length), _centres(length, boxes), np.arange(boxes))
    before = np.minimum(place.astype(np.int64), max(boxes - 2, 0))
    return before, place - before


def spread_mesh(mesh: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """A mesh (r, c) interpolated linearly to a frame (H, W); it never leaves the range of the mesh."""
    (above, down), (left, right) = (_between(n, boxes) for n, boxes in zip(shape, mesh.shape, strict=True))
    lines = mesh[above] + down[:, None] * (mesh[np.minimum(above + 1, len(mesh) - 1)] - mesh[above])
    return spread_lines(lines, left, right)
