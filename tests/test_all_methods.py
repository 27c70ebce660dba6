"""What every grid method of the registry must do; a new line in the registry is tested here by itself.

A method may declare `small_options`, the options of a quick version, on its class, and what does not apply to it:
`exportable = False` where no fixed graph computes it; `trained=False` in the table where it has nothing to train.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from csist.checks import InputError
from csist.create import create_method
from csist.grid import encode_arrays
from csist.methods.base import GridMethod
from csist.methods.layers import UnfoldedMethod, without_start
from csist.methods.table import METHODS, SUFFIXES
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate
from csist.targets import Targets
from csist.weights.cards import make_card
from csist.weights.files import save_weights

SENSOR = Sensor(shape=(7, 9))


def method_class(name: str) -> Any:
    module, _, attribute = METHODS[name].target.partition(":")
    return getattr(importlib.import_module(f"csist.methods.{module}"), attribute)


def is_grid_method(name: str) -> bool:
    # Continuous methods live in a package of their own.
    if METHODS[name].target.startswith("continuous"):
        return False
    return isinstance(method_class(name), type) and issubclass(method_class(name), GridMethod)


GRID_METHODS = [name for name in METHODS if is_grid_method(name)]
TRAINED = [name for name in GRID_METHODS if METHODS[name].trained]

over_all = pytest.mark.parametrize("name", GRID_METHODS)
over_trained = pytest.mark.parametrize("name", TRAINED)


def build(name: str, sensor: Sensor = SENSOR, ratio: int = 3, **more: Any) -> GridMethod:
    torch.manual_seed(0)
    options = {**getattr(method_class(name), "small_options", {}), **more}
    method = create_method(name, sensor=sensor, ratio=ratio, pretrained=False, **options)
    assert isinstance(method, GridMethod)
    return method


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Sixteen images (16, 1, 7, 9) and true maps (16, 1, 21, 27), float32, in counts."""
    images, targets = simulate(ScenePrior.csist_100k(), SENSOR, 16, np.random.default_rng(0))
    maps = encode_arrays(build("ista").grid, targets)
    return torch.as_tensor(images[:, None], dtype=torch.float32), torch.as_tensor(maps[:, None])


def losses(method: GridMethod, image: Tensor, truth: Tensor) -> Tensor:
    if isinstance(method, UnfoldedMethod):
        cells, residuals = method.forward_with_residuals(image)
        terms = [(residual**2).mean() for residual in residuals]
        return ((cells - truth) ** 2).mean() + 0.01 * sum(terms, torch.zeros(()))
    return ((method(image) - truth) ** 2).mean()


@over_all
@torch.no_grad()
def test_a_sample_gets_the_same_answer_in_every_batch_and_order(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    method = build(name).eval()
    image = pairs[0][:3]
    together = method(image)
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * float(together.abs().max())}
    for i in range(3):
        torch.testing.assert_close(method(image[i : i + 1])[0], together[i], **tolerance)
    torch.testing.assert_close(method(image[:2]), together[:2], **tolerance)
    torch.testing.assert_close(method(image[[2, 0, 1]]), together[[2, 0, 1]], **tolerance)


@over_all
@pytest.mark.parametrize("ratio", [3, 4, 5])
@pytest.mark.parametrize("shape", [(7, 9), (11, 11)])
@torch.no_grad()
def test_the_map_has_the_grid_s_shape(name: str, ratio: int, shape: tuple[int, int]) -> None:
    with without_start():
        method = build(name, Sensor(shape=shape), ratio).eval()
    image = torch.rand(2, 1, *shape) * 100.0
    cells = method(image)
    assert cells.shape == (2, 1, ratio * shape[0], ratio * shape[1])
    assert cells.dtype == image.dtype and bool(torch.isfinite(cells).all())


@over_trained
def test_every_parameter_gets_a_gradient(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    # From the identity the last layers learn first and the others from the second step on: see test_identity.py.
    random = "start" in inspect.signature(method_class(name)).parameters
    method = build(name, **({"start": "xavier"} if random else {}))
    losses(method, *pairs).backward()
    dead = [key for key, p in method.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not dead
    assert all(bool(torch.isfinite(p.grad).all()) for p in method.parameters() if p.grad is not None)


@over_trained
def test_the_loss_falls_within_twenty_steps(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    method = build(name)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-4)
    seen = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = losses(method, *pairs)
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert np.isfinite(seen).all() and seen[-1] < 0.99 * seen[0]


@over_trained
@torch.no_grad()
def test_saved_weights_give_the_same_answer(name: str, pairs: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    method = build(name).eval()
    options = getattr(method_class(name), "small_options", {})
    path = save_weights(tmp_path / "weights", method, make_card(name, SENSOR, 3, options))
    loaded = create_method(name, sensor=SENSOR, ratio=3, pretrained=path).eval()
    assert torch.equal(loaded(pairs[0][:2]), method(pairs[0][:2]))


@over_all
@torch.no_grad()
def test_onnxruntime_gives_the_same_map_for_every_batch(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from csist.onnx.graph import to_onnx
    from csist.onnx.runtime import OnnxMethod, open_session

    method = build(name).eval()
    if not method.exportable:
        with pytest.raises(InputError, match=f"cannot export '{name}'"):
            to_onnx(method, {"method": name}, None)
        return
    graph = OnnxMethod(open_session(to_onnx(method, {"method": name}, None)), SENSOR, 3, SENSOR.background)
    for size in (1, 2, 3):
        image = pairs[0][:size]
        expected = method(image)
        torch.testing.assert_close(graph(image), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@over_all
@torch.no_grad()
def test_works_in_double_precision(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    method = build(name).eval()
    single = method(pairs[0][:2])
    double = method.double()(pairs[0][:2].double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-3 * float(single.abs().max()))


@over_all
def test_predicts_one_targets_an_image_and_keeps_its_mode(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    method = build(name).train()
    images = pairs[0][:2, 0].double().numpy()
    found = method.predict(images)
    assert len(found) == 2 and all(isinstance(each, Targets) for each in found) and method.training
    assert method.predict(images[:0]) == []


@over_all
@pytest.mark.parametrize("suffix", [name for name, suffix in SUFFIXES.items() if not suffix.trained])
def test_every_suffix_follows_and_leaves_the_number_of_cells_or_less(
    name: str, suffix: str, pairs: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    options = getattr(method_class(name), "small_options", {})
    method = create_method(f"{name}+{suffix}", sensor=SENSOR, pretrained=False, **options)
    images = pairs[0][:3, 0].double().numpy()
    found = method.predict(images, threshold=20.0)
    cells = build(name).predict(images, threshold=20.0)
    assert method.sensor == SENSOR and len(found) == 3
    for targets, each in zip(found, cells, strict=True):
        assert isinstance(targets, Targets)
        assert suffix == "ensemble" or len(targets) <= len(each)  # another map may have more cells
        assert np.isfinite(targets.score).all() and (targets.intensity >= 20.0).all()
    assert method.predict(images[:0]) == []


@over_all
def test_the_read_out_is_chosen_by_name(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    method, images = build(name), pairs[0][:2, 0].double().numpy()
    maps = method.predict_maps(images)
    assert method.predict(images, readout="cells") == method.predict(images)
    assert method.predict(images, readout="centroid") == [method.grid.centroids(cells) for cells in maps]
    with pytest.raises(InputError, match="readout must be one of cells, centroid, got 'peak'"):
        method.predict(images, readout="peak")


@over_all
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises(InputError, match="does not take colour"):
        create_method(name, pretrained=False, colour=3)


def test_every_line_of_the_table_is_filled_in() -> None:
    for name, entry in METHODS.items():
        assert name == name.lower() and "_" not in name and entry.summary and entry.source
