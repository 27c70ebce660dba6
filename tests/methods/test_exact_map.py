"""The exact map is the mean of the posterior's maps, keeps the flux, and errs less than any other map."""

from __future__ import annotations

import numpy as np
import pytest

from csist._types import FloatArray
from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid, encode_arrays
from csist.methods.exact_map import exact_maps, mean_map
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate

SENSOR, PRIOR = Sensor(), ScenePrior.csist_100k()


@pytest.fixture(scope="module")
def batch() -> tuple[FloatArray, FloatArray]:
    return simulate(PRIOR, SENSOR, 80, np.random.default_rng(3))


@pytest.mark.parametrize("ratio", [3, 5])
def test_it_errs_less_than_a_sample_and_than_the_best_fit(batch: tuple[FloatArray, FloatArray], ratio: int) -> None:
    images, targets = batch
    grid = SubPixelGrid(SENSOR.shape, ratio)
    true = encode_arrays(grid, targets)
    exact = exact_maps(images, grid, SENSOR, PRIOR, workers=1)
    found, groups = create_method("continuous", SENSOR, prior=PRIOR, noise_std=0.0).solve(images, keep_samples=True)
    errors = [((maps - true) ** 2).mean() for maps in (
        exact,
        np.stack([grid.encode(targets) for targets in found]),
        np.stack([mean_map(grid, group.samples[:1]) for group in groups]),
    )]  # fmt: skip
    assert errors[0] < errors[1] and errors[0] < errors[2]
    # Truth and sample are two draws from one posterior, apart by twice the variance about its mean.
    assert errors[2] / errors[0] == pytest.approx(2.0, rel=0.3)
    assert (exact >= 0.0).all()
    lost = np.abs(exact.sum((1, 2)) - np.nansum(targets[:, :, 2], axis=1))
    assert np.median(lost) < 2.0 and lost.max() < 60.0  # at the border light falls beside the image


def test_photons_of_the_background_are_part_of_the_noise() -> None:
    sensor = Sensor(GaussianPSF(0.5), shape=(7, 7), read_noise=0.5, background=100.0, gain=2.0)
    images, _ = simulate(PRIOR, sensor, 3, np.random.default_rng(5))
    grid = SubPixelGrid((7, 7), 3)
    method = create_method("continuous", sensor, prior=PRIOR, noise_std=sensor.pixel_noise)
    _, groups = method.solve(images, keep_samples=True)
    expected = [encode_arrays(grid, group.samples).mean(axis=0) for group in groups]
    np.testing.assert_allclose(exact_maps(images, grid, sensor, PRIOR), expected, rtol=1e-4, atol=1e-3)


def test_it_is_the_mean_of_the_maps_of_the_samples(batch: tuple[FloatArray, FloatArray]) -> None:
    grid = SubPixelGrid(SENSOR.shape, 3)
    method = create_method("continuous", SENSOR, prior=PRIOR, noise_std=0.0)
    _, groups = method.solve(batch[0][:2], keep_samples=True)
    maps = exact_maps(batch[0][:2], grid, SENSOR, PRIOR)
    for cells, group in zip(maps, groups, strict=True):
        np.testing.assert_allclose(cells, encode_arrays(grid, group.samples).mean(axis=0), rtol=1e-4, atol=1e-3)


def test_no_image_no_map() -> None:
    assert exact_maps(np.zeros((0, 11, 11)), SubPixelGrid((11, 11), 3), SENSOR, PRIOR).shape == (0, 33, 33)


def test_samples_on_the_outer_edge_are_kept() -> None:
    grid = SubPixelGrid((3, 4), 2)
    cells = mean_map(grid, np.array([[[3.5, 2.5, 10.0]], [[-0.5, -0.5, 20.0]]]))
    assert (cells[-1, -1], cells[0, 0], cells.sum()) == (5.0, 10.0, 15.0)


def test_a_prior_without_an_exact_map_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs groups inside one pixel \(single_pixel of the prior\)"):
        exact_maps(np.zeros((1, 11, 11)), SubPixelGrid((11, 11), 3), SENSOR, ScenePrior.flat())
