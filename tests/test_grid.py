"""The sub-pixel grid: the published rule, inverses, the steering matrix."""

import numpy as np
import pytest

from csist import grid as grid_module
from csist.checks import InputError
from csist.grid import SubPixelGrid, least_squares_start
from csist.physics.psf import AiryPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets


@pytest.mark.parametrize("ratio", [1, 3, 5, 7])
def test_published_rule_for_odd_ratios(ratio: int) -> None:
    grid = SubPixelGrid((11, 11), ratio)
    x = np.random.default_rng(0).uniform(-0.5, 10.5, 2000)
    published = np.round(ratio * x + (ratio - 1) // 2)
    assert (grid.cell_of(x) == published).all()
    cells = np.arange(11 * ratio)
    assert grid.position_of(cells) == pytest.approx((cells - (ratio - 1) // 2) / ratio)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5, 7])
def test_cell_centres_are_their_own_cells(ratio: int) -> None:
    grid = SubPixelGrid((11, 8), ratio)
    cells = np.arange(11 * ratio)
    assert (grid.cell_of(grid.position_of(cells)) == cells).all()
    x = np.random.default_rng(1).uniform(-0.5, 7.5, 500)
    assert np.abs(grid.position_of(grid.cell_of(x)) - x).max() <= 0.5 / ratio + 1e-12


def test_targets_in_one_cell_add() -> None:
    grid = SubPixelGrid((11, 11), 3)
    cells = grid.encode(Targets(x=[5.0, 5.05, 2.0], y=[5.0, 5.02, 3.0], intensity=[100.0, 50.0, 70.0]))
    assert cells[16, 16] == 150.0
    assert cells.sum() == 220.0


def test_encode_decode_round_trip_keeps_axes() -> None:
    grid = SubPixelGrid((9, 14), 3)
    targets = Targets(x=[12.0, 1.3333333], y=[2.0, 7.6666667], intensity=[220.0, 240.0])
    back = grid.decode(grid.encode(targets))
    assert back.x == pytest.approx(targets.x, abs=1e-6)
    assert back.y == pytest.approx(targets.y, abs=1e-6)
    assert (back.score == back.intensity).all()


def test_threshold_is_inclusive() -> None:
    cells = np.zeros((9, 9))
    cells[1, 1], cells[2, 2], cells[3, 3] = 49.999, 50.0, np.nan
    assert len(SubPixelGrid((3, 3), 3).decode(cells)) == 1


def map_of(*cells: tuple[int, int, float]) -> np.ndarray:
    """A map (15, 18) with (row, column, value) given."""
    values = np.zeros((15, 18))
    for row, column, value in cells:
        values[row, column] = value
    return values


GRID = SubPixelGrid((5, 6), 3)


@pytest.mark.parametrize(
    ("cells", "groups"),
    [
        ([(4, 4, 120.0), (4, 5, 110.0)], 1),
        ([(4, 4, 60.0), (4, 5, 60.0), (5, 4, 60.0), (5, 5, 60.0), (10, 10, 220.0)], 2),
        ([(4, 4, 230.0), (4, 5, 240.0)], 2),
        ([(4, 4, 230.0), (5, 5, 240.0)], 2),
        ([(4, 4, 230.0), (5, 5, 50.0)], 1),
        ([(4, 4, 9000.0), (4, 9, 50.0)], 2),
        ([(4, 4, 230.0), (4, 5, 49.0), (9, 9, np.nan)], 1),
    ],
    ids=["halves", "quarters", "side-by-side", "corner", "faint-corner", "far", "threshold"],
)
def test_cells_of_one_target_are_merged(cells: list[tuple[int, int, float]], groups: int) -> None:
    # Two halves are one target where something shows how bright a target is.
    reference = [(13, 16, 235.0)]
    found = GRID.centroids(map_of(*cells, *reference))
    assert len(found) == groups + 1
    kept = [value for _, _, value in cells + reference if value >= 50.0]
    assert found.intensity.sum() == pytest.approx(sum(kept))
    assert (np.diff(found.score) <= 0).all() and (found.score == found.intensity).all()


def test_a_centroid_is_weighted_by_flux() -> None:
    found = GRID.centroids(map_of((4, 4, 150.0), (4, 5, 50.0)))
    assert found.x == pytest.approx(GRID.position_of([4.25])) and found.y == pytest.approx(GRID.position_of([4]))
    assert found.intensity.tolist() == [200.0]


@pytest.mark.parametrize(("fewest", "most"), [(1, None), (1, 3), (6, 6), (40, None), (1, 1)])
def test_merging_keeps_flux_and_centre_and_treats_both_axes_alike(fewest: int, most: int | None) -> None:
    cells = np.random.default_rng(3).exponential(40.0, (12, 12))
    grid = SubPixelGrid((4, 4), 3)
    found = grid.centroids(cells, fewest=fewest, most=most)
    kept = grid.decode(cells)
    assert min(fewest, len(kept)) <= len(found) <= (len(kept) if most is None else max(most, fewest))
    for axis in ("x", "y"):
        centre = (getattr(found, axis) * found.intensity).sum()
        assert centre == pytest.approx((getattr(kept, axis) * kept.intensity).sum())
    turned = grid.centroids(cells.T, fewest=fewest, most=most)
    assert turned.intensity == pytest.approx(found.intensity)
    assert turned.x == pytest.approx(found.y) and turned.y == pytest.approx(found.x)


def test_the_brightest_cells_are_merged_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = map_of((1, 1, 90.0), (5, 5, 100.0), (9, 9, 60.0), (13, 13, 110.0))
    monkeypatch.setattr(grid_module, "MOST_CELLS", 3)
    assert GRID.centroids(cells).intensity.tolist() == [110.0, 100.0, 90.0]


def test_an_empty_map_has_no_centroid_and_another_shape_is_refused() -> None:
    assert len(GRID.centroids(np.zeros((15, 18)), threshold=0.0)) == 0
    with pytest.raises(InputError, match="the map must have shape"):
        GRID.centroids(np.zeros((15, 15)))


@pytest.mark.parametrize("x", [-0.51, 10.5, 40.0])
def test_target_outside_is_refused(x: float) -> None:
    with pytest.raises(InputError, match="outside the image"):
        SubPixelGrid((11, 11), 3).encode(Targets(x=[x], y=[5.0], intensity=[1.0]))


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), AiryPSF(1.2)])
def test_steering_matrix_renders_cell_centres(psf: GaussianPSF) -> None:
    grid = SubPixelGrid((6, 5), 3)
    targets = grid.snap(Targets(x=[1.2, 3.3], y=[2.2, 4.1], intensity=[200.0, 100.0]))
    image = grid.steering_matrix(psf) @ grid.encode(targets).ravel()
    assert image.reshape(6, 5) == pytest.approx(Sensor(psf=psf, shape=(6, 5)).render(targets), abs=1e-9)


def test_factors_equal_the_dense_matrix() -> None:
    grid = SubPixelGrid((6, 5), 2)
    rows, columns = grid.steering_factors(GaussianPSF(0.7))
    cells = np.random.default_rng(0).random(grid.map_shape)
    dense = (grid.steering_matrix(GaussianPSF(0.7)) @ cells.ravel()).reshape(6, 5)
    assert rows @ cells @ columns.T == pytest.approx(dense, abs=1e-12)
    with pytest.raises(InputError, match="separable"):
        grid.steering_factors(AiryPSF(1.0))


def test_least_squares_start_is_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    images, maps = rng.random((60, 3, 4)), rng.random((60, 6, 8))
    z, s = images.reshape(60, -1).T, maps.reshape(60, -1).T
    expected = s @ z.T @ np.linalg.inv(z @ z.T)
    assert least_squares_start(images, maps) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match="at least 12 pairs"):
        least_squares_start(images[:5], maps[:5])


@pytest.mark.parametrize("ratio", [0, -1, 2.5])
def test_bad_ratio(ratio: float) -> None:
    with pytest.raises(InputError, match="ratio must be a whole number >= 1"):
        SubPixelGrid((11, 11), ratio)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [1, 2, 3, 5])
def test_coordinates_on_the_map_undo_positions_and_round_to_cells(ratio: int) -> None:
    grid = SubPixelGrid((11, 11), ratio)
    x = np.random.default_rng(0).uniform(-0.5, 10.5, 200)
    np.testing.assert_allclose(grid.position_of(grid.coordinate_of(x)), x, atol=1e-12)
    np.testing.assert_array_equal(np.floor(grid.coordinate_of(x) + 0.5), grid.cell_of(x))
