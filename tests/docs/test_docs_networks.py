"""Tables of trained networks, from what commands wrote; and the comparison of trainings on the same test images."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from csist.create import create_method
from csist.datasets import generate
from csist.methods.table import METHODS
from csist.physics.sensor import Sensor
from csist.weights.cards import make_card
from csist.weights.files import save_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the repository around it")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_all_published_rows_are_shown_and_say_what_is_here(load: Any) -> None:
    networks = load("docs_networks")
    lines = networks.published().splitlines()[2:]
    reported = networks.read_result("published")
    assert len(lines) == len(reported["rows"]) >= 29
    for line in lines:
        name, here = (cell.strip() for cell in (line.split("|")[1], line.split("|")[-2]))
        assert here == "no" or here.strip("`") in METHODS, line
        assert (here == "no") == (name in {
            "DCTLSA", "HiT-SNG", "CTNet", "EGASR", "ACTNet", "HAN", "FeNet", "RDN", "CFGN",
        })  # fmt: skip
    beside = networks.published_beside()
    for word in ("FOCUS+", "DSCSNet", "DISTA-Net++", "read out by YOLO11", "`focus`"):
        assert word in beside


def test_recipes_are_a_table(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables, networks = load("docs_tables"), load("docs_networks")
    for module in (tables, networks):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    assert "bench_recipes.py" in networks.recipes()
    run = {"recipe": "new", "seed": 0, "samples": 25_600, "cso_map": 44.5, "squared_error": 35.25}
    needed = {"new": {"0": {"samples": 25_600, "bound": "at most"}}}
    (tmp_path / "recipes.json").write_text(json.dumps({"goal": 44.0, "runs": [run], "needed": needed}))
    assert "| new | 0 | at most 25,600 | 44.50 (35.2) after 25,600 |" in networks.recipes()


def test_trainings_are_compared_on_the_same_images(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, networks, sensor = load("short_trainings"), load("docs_networks"), Sensor(shape=(7, 7))
    store = generate(tmp_path / "data.h5", 60, seed=1, sensor=sensor)
    training = {"seed": 0, "samples": 10, "minutes": 1.0, "machine": {}}
    score = {"cso_map": 20.0, "interval_95": [19.0, 21.0], "images": 5}
    paths = []
    for stages in (1, 3):
        method = create_method("ista-net", sensor, pretrained=False, stages=stages)
        card = make_card("ista-net", sensor, 3, {"stages": stages}, training, score)
        paths.append(save_weights(tmp_path / f"w{stages}", method, card))
    monkeypatch.setattr(
        sys, "argv", ["short", "pair", *map(str, paths), "--data", str(store), "--output", str(tmp_path)]
    )
    assert script.main() == 0
    one, other = json.loads((tmp_path / "pair.json").read_text())
    assert one["test"]["difference"] == [0.0, 0.0, 0.0] and one["test"]["images"] == other["test"]["images"] == 6
    gain = other["test"]["CSO-mAP"][0] - one["test"]["CSO-mAP"][0]
    assert other["test"]["difference"][0] == pytest.approx(gain) and other["test"]["squared_error"] > 0.0
    monkeypatch.setattr(load("docs_tables"), "RESULTS", tmp_path)
    assert "on 6 test images" in networks.short_trainings("pair") and "`stages=3`" in networks.short_trainings("pair")
    monkeypatch.setattr(sys, "argv", ["short", "pair", str(tmp_path / "nowhere.safetensors")])
    assert script.main() == 2 and capsys.readouterr().err.startswith("error: no weight file")
