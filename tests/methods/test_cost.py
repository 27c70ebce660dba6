"""Multiply-adds and parameters, against the published columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from csist.create import create_method
from csist.methods.cost import multiply_adds
from csist.methods.layers import without_start

PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "published.json"
PUBLISHED_BATCH = 64

pytestmark = pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs the repository around it")


@pytest.mark.parametrize(
    ("name", "published_name", "options"),
    [
        ("ista-net", "ISTA-Net", {}),
        ("ista-net-plus", "ISTA-Net+", {}),
        ("fista-net", "FISTA-Net", {"published_code": True}),
        ("dista-net", "DISTA-Net", {}),
    ],
)
def test_networks_cost_no_more_than_published(name: str, published_name: str, options: dict[str, Any]) -> None:
    rows = json.loads(PUBLISHED.read_text())["rows"]
    (row,) = (each for each in rows if (each["name"], each["ratio"]) == (published_name, 3))
    with without_start():
        method = create_method(name, pretrained=False, **options)
    count = multiply_adds(method, torch.zeros(1, 1, 11, 11))
    published = 1e9 * row["multiply_adds_G"] / PUBLISHED_BATCH
    assert 0.9 * published < count <= 1.05 * published
    parameters = sum(each.numel() for each in method.parameters())
    assert parameters / 1e6 == pytest.approx(row["parameters_M"], abs=0.001)


def test_the_cost_of_an_image_does_not_depend_on_the_batch() -> None:
    with without_start():
        method = create_method("dista-net", pretrained=False, stages=1)
    one, three = (multiply_adds(method, torch.zeros(size, 1, 11, 11)) for size in (1, 3))
    assert one == three
