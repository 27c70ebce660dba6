"""Rows of numbers in kernels, against NumPy."""

import numpy as np
import pytest

from csist._compiled import compiled
from csist._vectors import (
    ALIGNMENT,
    WIDTH,
    aligned,
    floor_of,
    larger_of,
    largest_of,
    least_of,
    put,
    root_of,
    smaller_of,
    spread,
    sum_of,
    take,
    where_above,
    where_equal,
)


@compiled
def apply_all(one, two, out):
    for part in range(0, one.shape[1], WIDTH):
        x, y = take(one, (0, part)), take(two, (part,))
        total = spread(0.0)
        for k in range(one.shape[0]):
            total += take(one, (k, part)) * y
        put(out, (0, part), total)
        put(out, (1, part), floor_of(x) - np.float32(2.0) * y)
        put(out, (2, part), root_of(larger_of(x, y) * larger_of(x, y)))
        put(out, (3, part), where_equal(floor_of(x), 0, x, x / y))
        put(out, (4, part), spread(least_of(floor_of(x))) + np.float32(largest_of(floor_of(y))))
        put(out, (6, part), where_above(x, y, smaller_of(x, spread(1.5)), spread(sum_of(y))))
        x -= y
        x *= np.float32(3.0)
        x /= y
        put(out, (5, part), x)


@compiled
def make(rows):
    return aligned((rows, 3, WIDTH)), aligned((rows,))


@pytest.fixture
def numbers():
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, 3 * WIDTH)).astype(np.float32), rng.uniform(0.5, 2.0, 3 * WIDTH).astype(np.float32)


def test_operations_are_those_of_numpy(numbers):
    one, two = numbers
    out = np.empty((7, 3 * WIDTH), np.float32)
    apply_all(one, two, out)
    x = one[0]
    np.testing.assert_allclose(out[0], (one * two).sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(out[1], np.floor(x) - 2.0 * two, atol=1e-5)
    np.testing.assert_allclose(out[2], np.abs(np.maximum(x, two)), rtol=1e-6)
    np.testing.assert_allclose(out[3], np.where(np.floor(x) == 0.0, x, x / two), rtol=1e-5)
    extremes = np.floor(x).reshape(3, WIDTH).min(axis=1) + np.floor(two).reshape(3, WIDTH).max(axis=1)
    np.testing.assert_allclose(out[4], np.repeat(extremes, WIDTH), atol=1e-5)
    sums = np.repeat(two.reshape(3, WIDTH).sum(axis=1), WIDTH)
    np.testing.assert_allclose(out[6], np.where(x > two, np.minimum(x, 1.5), sums), rtol=1e-5)
    assert (x > two).any()
    np.testing.assert_allclose(out[5], 3.0 * (x - two) / two, rtol=1e-4, atol=1e-5)


def test_rows_do_not_touch_their_neighbours(numbers):
    one, two = numbers
    room = np.full(9 * 3 * WIDTH, 9.0, np.float32)
    apply_all(one, two, room[3 * WIDTH : -3 * WIDTH].reshape(7, 3 * WIDTH))
    assert (room[: 3 * WIDTH] == 9.0).all()
    assert (room[-3 * WIDTH :] == 9.0).all()
    assert (room[3 * WIDTH : -3 * WIDTH] != 9.0).all()


def test_arrays_begin_where_a_cache_line_does():
    for rows in range(1, 40):
        cube, line = make(rows)
        assert cube.shape == (rows, 3, WIDTH)
        assert line.shape == (rows,)
        for array in (cube, line):
            assert array.dtype == np.float32
            assert array.ctypes.data % ALIGNMENT == 0


@compiled
def extremes_of(numbers):
    return least_of(take(numbers, (0,))), largest_of(take(numbers, (0,)))


@pytest.mark.parametrize(
    ("number", "whole"), [(np.nan, 0), (np.inf, 2**30), (-np.inf, -(2**30)), (1e30, 2**30), (-3.0, -3)]
)
def test_no_number_makes_an_endless_loop(number, whole):
    """A NaN among the positions of chains once made the bounds of a loop anything."""
    row = np.zeros(WIDTH, np.float32)
    row[7] = number
    assert extremes_of(row) == (min(whole, 0), max(whole, 0))
