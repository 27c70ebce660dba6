"""Medians of short rows against NumPy's, surroundings against a padded image."""

import numpy as np
import pytest

from csist.frames.medians import row_medians, side_medians, surroundings


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_medians_of_rows_are_those_of_numpy(length, holes):
    rng = np.random.default_rng(length)
    rows = rng.normal(size=(4, 30, length))
    rows[rng.random(rows.shape) < holes] = np.nan
    rows[..., 0] = 0.5  # nothing but NaN has its own case
    np.testing.assert_allclose(row_medians(rows), np.nanmedian(rows, axis=-1))


def test_a_row_of_nan_has_no_median():
    assert np.isnan(row_medians(np.full((1, 3), np.nan))).all()


def test_medians_on_the_sides_leave_the_line_itself_out():
    levels = np.random.default_rng(1).normal(size=(2, 40))
    before, after = side_medians(levels, 4)
    np.testing.assert_allclose(before[:, 10], np.median(levels[:, 6:10], axis=1))
    np.testing.assert_allclose(after[:, 10], np.median(levels[:, 11:15], axis=1))
    slope = np.arange(20.0)
    before, after = side_medians(slope, 4)  # continued beyond the ends
    np.testing.assert_allclose(before, slope - 2.5)
    np.testing.assert_allclose(after, slope + 2.5)


@pytest.mark.parametrize("shape", [(1, 9), (3, 3), (20, 12)])
@pytest.mark.parametrize("reach", [1, 4])
def test_surroundings_are_mirrored_at_the_borders(shape, reach):
    image = np.random.default_rng(2).normal(size=shape)
    rows, columns = (place.ravel() for place in np.indices(shape))
    padded = np.pad(image, reach, mode="reflect")
    for row, column, found in zip(rows, columns, surroundings(image, rows, columns, reach), strict=True):
        np.testing.assert_array_equal(found, padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1])
