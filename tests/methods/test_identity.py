"""The identity start: an untrained network is plain gradient descent from the linear start, and can learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from csist.checks import InputError
from csist.create import create_method
from csist.grid import encode_arrays
from csist.methods.crop import Cropper
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate
from csist.weights.cards import make_card
from csist.weights.files import save_weights
from csist.weights.pretrained import list_pretrained

SENSOR = Sensor(shape=(7, 9), background=20.0)
RATIO = 3

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("dista-net", {"stages": 3}),
    ("dista-net", {"stages": 2, "dynamic_transform": False}),
    ("dista-net", {"stages": 2, "dynamic_transform": False, "dynamic_weight": 1.0}),
    ("dista-net", {"stages": 2, "dynamic_threshold": False}),
    ("dista-net", {"stages": 2, "dynamic_transform": False, "dynamic_threshold": False}),
    ("dista-net", {"stages": 2, "dynamic_weight": 0.8}),
    ("ista-net", {"stages": 3}),
    ("ista-net-plus", {"stages": 3}),
    ("fista-net", {"stages": 4}),
]


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return create_method(name, sensor=SENSOR, ratio=RATIO, pretrained=False, **options)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 7, 9) and true maps (N, 1, 21, 27) in counts."""
    images, targets = simulate(ScenePrior.csist_100k(), SENSOR, count, np.random.default_rng(2))
    grid = create_method("ista", sensor=SENSOR, ratio=RATIO).grid
    return torch.as_tensor(images[:, None]), torch.as_tensor(encode_arrays(grid, targets)[:, None]).double()


def gradient_descent(name: str, method: Any, stages: int, cells: Tensor, image: Tensor, matrix: Tensor) -> Tensor:
    """Steps of 1/L on |G s - z|^2 / 2 from a start, with the momentum and the bound of FISTA-Net; G is dense."""
    s = ahead = cells.flatten(1)
    z, step = image.flatten(1), 1.0 / method.operator.lipschitz
    for k in range(stages):
        r = ahead - step * (ahead @ matrix.T - z) @ matrix
        if name == "fista-net":
            weight = 1.0 - math.log(2.0) / math.log1p(math.exp(0.5 * k))
            s, before = r.clamp(min=0.0), s
            ahead = s + weight * (s - before)
        else:
            s = ahead = r
    return s.view_as(cells)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@torch.no_grad()
def test_an_untrained_network_is_gradient_descent(name: str, options: dict[str, Any]) -> None:
    method = build(name, **options).double()
    image, truth = batch()
    scaled = (image - SENSOR.background) / method.input_scale
    cells = method.linear_start(scaled)
    expected = gradient_descent(name, method, options["stages"], cells, scaled, method.operator.dense())
    # To 1e-6 of a target: 1 / (1 - dynamic_weight) is stored in single precision.
    torch.testing.assert_close(method(image) / method.input_scale, expected, rtol=0.0, atol=1e-6)
    assert float(expected.abs().max()) > 0.1

    crop = Cropper(SENSOR, RATIO, 5).double()(truth)
    windows, residuals = method.forward_with_residuals(image, crop=crop)
    start, z = crop.map(cells), crop.image(scaled)
    expected = gradient_descent(name, method, options["stages"], start, z, crop.operator.dense())
    torch.testing.assert_close(windows / method.input_scale, expected, rtol=0.0, atol=1e-6)
    if name == "ista-net" or options.get("dynamic_transform") is False:
        assert all(float(residual.abs().max()) < 1e-6 * method.input_scale for residual in residuals)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_every_parameter_learns_after_two_steps(name: str, options: dict[str, Any]) -> None:
    method = build(name, **options)
    image, truth = (each.float() for each in batch())
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        cells, residuals = method.forward_with_residuals(image)
        loss = ((cells - truth) ** 2).mean() + 0.01 * sum((residual**2).mean() for residual in residuals)
        loss.backward()
        optimizer.step()
    dead = [key for key, p in method.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not dead


@pytest.mark.parametrize("name", ["dista-net", "ista-net", "ista-net-plus", "fista-net"])
@torch.no_grad()
def test_the_published_start_is_random_and_unchanged(name: str) -> None:
    method, other = build(name, stages=2, start="xavier"), build(name, stages=2)
    same = [torch.equal(p, other.get_parameter(key)) for key, p in method.named_parameters()]
    assert not all(same) and any(same)
    weights = [p for key, p in method.named_parameters() if p.ndim == 4]
    assert all(bool((p != 0).all()) for p in weights)
    image = batch(2)[0].float()
    assert not torch.allclose(method(image), other(image), atol=1.0)


def test_an_unknown_or_impossible_start_is_refused() -> None:
    for name in ("dista-net", "ista-net", "ista-net-plus", "fista-net"):
        with pytest.raises(InputError, match="start must be one of identity, xavier, got 'zero'"):
            build(name, start="zero")
    for options in ({"dynamic_weight": 1.0}, {"published_code": True}):
        with pytest.raises(InputError, match="give start='xavier' with published_code=True or dynamic_weight=1"):
            build("dista-net", start="identity", **options)
        assert torch.equal(build("dista-net", **options)(torch.zeros(1, 1, 7, 9)).isfinite().all(), torch.tensor(True))


@pytest.mark.parametrize("options", [{}, {"start": "xavier"}, {"start": "identity"}])
def test_weights_load_whatever_their_start_was(options: dict[str, str], tmp_path: Path) -> None:
    method = build("ista-net", stages=1, start="xavier")
    path = save_weights(tmp_path / "w", method, make_card("ista-net", SENSOR, RATIO, {"stages": 1, **options}))
    loaded = create_method("ista-net", pretrained=path)
    assert all(torch.equal(p, method.get_parameter(key)) for key, p in loaded.named_parameters())


def test_the_package_s_weights_load() -> None:
    cards = [card for _, card in list_pretrained() if card["method"] in ("dista-net", "ista-net", "fista-net")]
    assert cards
    for card in cards:
        method = create_method(card["method"], Sensor.from_card(card["sensor"]), card["ratio"])
        assert "start" in method.state_dict() and bool(method.start.any())
