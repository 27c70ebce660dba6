"""ISTA and FISTA against a plain loop with the dense matrix, and against the optimality conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid
from csist.physics.psf import AiryPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate

SENSOR = Sensor(shape=(6, 5), quantised=False)


def plain_loop(
    sensor: Sensor, z: NDArray[np.float64], penalty: float, iterations: int, nonnegative: bool, momentum: bool
) -> NDArray[np.float64]:
    g = SubPixelGrid(sensor.shape, 3).steering_matrix(sensor.psf)
    step = 1.0 / np.linalg.norm(g, 2) ** 2
    s = y = np.linalg.pinv(g) @ z.ravel()
    t = 1.0
    for _ in range(iterations):
        v = y - step * g.T @ (g @ y - z.ravel())
        if nonnegative:
            new = np.maximum(v - step * penalty, 0.0)
        else:
            new = np.sign(v) * np.maximum(np.abs(v) - step * penalty, 0.0)
        later = (1.0 + np.sqrt(1.0 + 4.0 * t**2)) / 2.0 if momentum else 1.0
        y = new + (t - 1.0) / later * (new - s)
        s, t = new, later
    return s


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    images, _ = simulate(ScenePrior.csist_100k(), SENSOR, 5, np.random.default_rng(0))
    return torch.as_tensor(images)[:, None]


@pytest.mark.parametrize("name", ["ista", "fista"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("psf", [GaussianPSF(0.5), AiryPSF(1.2)])
def test_equals_the_plain_loop(name: str, nonnegative: bool, psf: Any, images: torch.Tensor) -> None:
    sensor = Sensor(psf=psf, shape=(6, 5))
    method = create_method(
        name, sensor, 3, setting="paper", penalty=3.0, iterations=25, tolerance=0.0, nonnegative=nonnegative
    )
    cells = method(images)[:, 0].numpy()
    for image, found in zip(images[:, 0].numpy(), cells, strict=True):
        expected = plain_loop(sensor, image, 3.0, 25, nonnegative, name == "fista")
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_fista_reaches_the_minimum(nonnegative: bool, images: torch.Tensor) -> None:
    penalty = 5.0
    method = create_method(
        "fista", SENSOR, 3, penalty=penalty, iterations=4000, tolerance=1e-6, nonnegative=nonnegative
    )
    cells = method(images[:2])
    slope = method.operator.adjoint(images[:2] - method.operator(cells))
    active = cells.abs() > 1e-3
    # Where a cell is on, the correlation with the residual is lambda; elsewhere it is not above.
    signs = torch.ones_like(cells) if nonnegative else cells.sign()
    assert bool(((slope - penalty * signs)[active].abs() < 0.05).all())
    off = slope if nonnegative else slope.abs()
    assert float(off[~active].max()) < penalty + 0.05


@pytest.mark.parametrize("name", ["ista", "fista"])
def test_each_image_stops_by_itself(name: str, images: torch.Tensor) -> None:
    method = create_method(name, SENSOR, 3, penalty=20.0, tolerance=0.3, iterations=2000)
    together = method.minimise(images)
    alone = [method.minimise(images[i : i + 1]) for i in range(len(images))]
    counts = [int(solution.iterations) for solution in alone]
    assert together.iterations.tolist() == counts and len(set(counts)) > 1 and max(counts) < 2000
    torch.testing.assert_close(together.cells, torch.cat([solution.cells for solution in alone]))


def test_a_warm_start_saves_iterations(images: torch.Tensor) -> None:
    method = create_method("ista", SENSOR, 3, penalty=20.0, tolerance=0.01)
    cold = method.minimise(images)
    warm = method.minimise(images, start=cold.cells)
    assert int(warm.iterations.sum()) < int(cold.iterations.sum()) / 2


def test_settings_and_starts(images: torch.Tensor) -> None:
    paper = create_method("ista", SENSOR, 3, setting="paper")
    assert (paper.penalty, paper.iterations, paper.tolerance) == (1.0, 3000, 1e-4)
    assert not paper.nonnegative and paper.start == "pinv"
    maps = [create_method("ista", SENSOR, 3, start=s, iterations=1)(images) for s in ("zero", "pinv")]
    assert not torch.equal(*maps)
    assert float(create_method("ista", SENSOR, 3, iterations=50)(images).min()) >= 0.0


def test_the_background_is_taken_off(images: torch.Tensor) -> None:
    lifted = Sensor(shape=(6, 5), quantised=False, background=30.0)
    one, other = (create_method("ista", s, 3, iterations=50, start="pinv") for s in (SENSOR, lifted))
    torch.testing.assert_close(other(images + 30.0), one(images))


def test_single_precision_and_an_empty_batch(images: torch.Tensor) -> None:
    one, other = (create_method("fista", SENSOR, 3, iterations=50, dtype=d) for d in ("float32", "float64"))
    torch.testing.assert_close(one(images), other(images), rtol=1e-2, atol=0.05)
    assert other(images[:0]).shape == (0, 1, 18, 15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "best"}, "setting must be one of"),
        ({"penalty": -1.0}, "penalty must be"),
        ({"iterations": 0}, "iterations must be"),
        ({"start": "ones"}, "start must be one of"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"pretrained": "some.safetensors"}, "no weights to load"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_method("ista", SENSOR, 3, **options)


def test_refuses_other_shapes(images: torch.Tensor) -> None:
    method = create_method("ista", SENSOR, 3)
    with pytest.raises(InputError, match="images must be"):
        method.minimise(images[:, :, :4])
    with pytest.raises(InputError, match="start must have shape"):
        method.minimise(images, start=images)
