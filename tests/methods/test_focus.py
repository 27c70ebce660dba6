"""FOCUS against its published size and a naive version of its equations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from csist.create import create_method
from csist.grid import encode_arrays
from csist.methods.cost import multiply_adds
from csist.methods.crop import Cropper
from csist.methods.focus import NOISE_RANGE
from csist.methods.layers import INPUT_SCALE
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate

SENSOR = Sensor(shape=(7, 9), background=30.0)
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "published.json"


def build(ratio: int = 3, sensor: Sensor = SENSOR) -> Any:
    torch.manual_seed(0)
    return create_method("focus", sensor, ratio, pretrained=False)


def pairs(method: Any, count: int = 6) -> tuple[Tensor, Tensor]:
    images, targets = simulate(ScenePrior.csist_100k(), method.sensor, count, np.random.default_rng(1))
    maps = encode_arrays(method.grid, targets)
    return torch.as_tensor(images[:, None], dtype=torch.float32), torch.as_tensor(maps[:, None])


def test_it_costs_what_is_published() -> None:
    method = build(3, Sensor())
    assert sum(p.numel() for p in method.parameters()) == 46_037
    count = multiply_adds(method, torch.zeros(2, 1, 11, 11))
    assert count == 121 * (25 * 64 + 9 * 64 * 32 + 2 * 9 * 32 * 9) + 1089 * (25 * 64 + 9 * 64 * 32 + 2 * 9 * 32)
    if PUBLISHED.is_file():
        every = [row for part in json.loads(PUBLISHED.read_text())["beside"] for row in part["rows"]]
        (row,) = (row for row in every if row["name"] == "FOCUS")
        assert 64 * count == pytest.approx(1e9 * row["multiply_adds_G"], rel=0.005)


@torch.no_grad()
def test_the_map_follows_its_equations() -> None:
    method = build(2)
    image = pairs(method)[0]
    state = method.state_dict()

    def unit(name: str, x: Tensor, ratio: int) -> Tensor:
        def conv(layer: str, y: Tensor) -> Tensor:
            weight = state[f"{name}.{layer}.weight"]
            return functional.conv2d(y, weight, state[f"{name}.{layer}.bias"], padding=weight.shape[-1] // 2)

        features = conv("second", conv("first", x).relu()).relu()
        product = conv("intensity", features), conv("mask", features)
        cells = torch.zeros(len(x), 1, ratio * x.shape[2], ratio * x.shape[3])
        for i in range(ratio):  # cell (i, j) of a pixel is channel i ratio + j
            for j in range(ratio):
                value, mask = (each[:, i * ratio + j] for each in product)
                cells[:, 0, i::ratio, j::ratio] = value / (1.0 + torch.exp(-mask))
        return cells

    scaled = (image - 30.0) / INPUT_SCALE
    first = unit("generate", scaled, 2)
    first = torch.where(first > 0, first, state["activation.weight"] * first)
    torch.testing.assert_close(method(image), (first + unit("correct", first, 1)) * INPUT_SCALE, rtol=1e-4, atol=1e-3)


def test_the_loss_is_error_flux_and_sparsity_of_noisy_images(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build()
    image, truth = pairs(method)
    noisy = []
    enlarge = method.enlarge

    def noted(scaled: Tensor) -> Tensor:
        noisy.append(scaled)
        found: Tensor = enlarge(scaled)
        return found

    monkeypatch.setattr(method, "enlarge", noted)
    with torch.no_grad():
        discrepancy, constraint = method.loss_terms(image, truth)
        found, clean = enlarge(noisy[0]), (image - 30.0) / INPUT_SCALE
    spread = (noisy[0] - clean).std(dim=(1, 2, 3)) * INPUT_SCALE
    assert bool((spread > 0.5 * NOISE_RANGE[0]).all() and (spread < 1.5 * NOISE_RANGE[1]).all()) and spread.std() > 1e-3
    found, clean = found * INPUT_SCALE, clean * INPUT_SCALE
    torch.testing.assert_close(discrepancy, ((found - truth) ** 2).mean())
    flux = (found.sum((1, 2, 3)) - clean.sum((1, 2, 3))).abs().mean()
    torch.testing.assert_close(constraint, 0.1 * flux + 0.01 * found.abs().mean())


def test_windows_teach_it_and_it_learns_to_the_same_bits() -> None:
    losses = []
    for _ in range(2):
        method = build(sensor=Sensor())
        image, truth = pairs(method, 16)
        crop = Cropper(method.sensor, 3, 5)(truth)
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
        seen = []
        for step in range(15):
            optimizer.zero_grad()
            loss = sum(method.loss_terms(image, truth, crop=crop))
            loss.backward()
            # Later the first map may be positive everywhere, and the PReLU's weight without effect.
            assert step or all(bool((p.grad != 0).any()) for p in method.parameters())
            optimizer.step()
            seen.append(float(loss.detach()))
        losses.append(seen)
    assert losses[0] == losses[1] and losses[0][-1] < 0.9 * losses[0][0]
