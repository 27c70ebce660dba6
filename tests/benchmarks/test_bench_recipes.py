"""The comparison of recipes: what is kept, what is repeated, and the samples needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import bench_recipes
from csist.physics.sensor import Sensor
from csist.training import TrainingConfig


def runs(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"recipe": "new", "seed": 0, "samples": samples, "cso_map": score} for samples, score in pairs]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (((100, 45.0), (200, 46.0)), (100, "at most")),
        (((100, 40.0), (200, 43.0)), (200, "more than")),
        (((400, 48.0), (100, 40.0)), (200, "about")),
        (((100, 40.0), (200, 44.0), (300, 43.0)), (200, "about")),
    ],
)
def test_the_samples_needed_lie_where_the_goal_is_crossed(
    pairs: tuple[tuple[int, float], ...], expected: tuple[int, str]
) -> None:
    assert tuple(bench_recipes.samples_needed(runs(*pairs), 44.0).values()) == expected


def test_a_training_is_made_once_and_the_others_stay(tmp_path: Path) -> None:
    small = {
        "sensor": Sensor(shape=(5, 5)), "val_limit": 4, "batch_size": 8, "accelerator": "cpu", "options": {"stages": 1},
        "window": 3,
    }  # fmt: skip
    first, again = (bench_recipes.measure("new", 16, 0, tmp_path, **small) for _ in range(2))
    assert first | {"minutes": 0.0} == again | {"minutes": 0.0} and (first["samples"], first["images"]) == (16, 4)
    known = {"goal": 44.0, "runs": [first | {"recipe": "old", "cso_map": 1.0}]}
    result = bench_recipes.merged(known, [first | {"cso_map": 45.0}])
    assert [run["recipe"] for run in result["runs"]] == ["old", "new"]
    assert result["needed"] == {
        "old": {"0": {"samples": 16, "bound": "more than"}}, "new": {"0": {"samples": 16, "bound": "at most"}},
    }  # fmt: skip


def test_every_recipe_is_a_valid_training() -> None:
    for recipe in bench_recipes.RECIPES.values():
        assert TrainingConfig(max_samples=1, **(bench_recipes.COMMON | recipe)).targets in ("labels", "posterior")


def test_a_recipe_is_trained_longer_until_it_reaches_the_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(name: str, samples: int, seed: int, folder: Path, **_: Any) -> dict[str, Any]:
        asked.append((name, samples))
        (run,) = runs((samples, 43.0 if samples < 20 else 45.0))
        return run | {"recipe": name, "squared_error": 30.0}

    monkeypatch.setattr(bench_recipes, "measure", measured)
    output = tmp_path / "recipes.json"
    words = ["bench_recipes.py", "--only", "new", "--samples", "10,20,40", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    assert bench_recipes.main() == 0
    result = json.loads(output.read_text())
    assert asked == [("new", 10), ("new", 20)] and result["needed"]["new"]["0"]["bound"] == "about"
    assert bench_recipes.main() == 0 and len(json.loads(output.read_text())["runs"]) == 2
    for given in ("40,10", "0", "ten"):
        monkeypatch.setattr(sys, "argv", [*words[:4], given, *words[5:]])
        assert bench_recipes.main() == 2
        assert capsys.readouterr().err.startswith("error: ")
