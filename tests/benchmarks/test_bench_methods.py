"""The comparison: ratios, counts of multiply-adds, and what happens to a method that fails."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench_methods
from contestants import CONTESTANTS, Conditions, ista_multiply_adds
from csist.checks import InputError
from csist.datasets import generate
from csist.evaluation import LabelledImages, read_labelled

OURS, SLOWER, FASTER, PEER = "continuous, fast", "dista-net, batch 64", "dista-net, batch 256", "scipy"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    path = tmp_path_factory.mktemp("data") / "small.h5"
    generate(path, count=40, seed=1)
    return read_labelled(path, "val", 4)


def passed(seconds: float, **more: Any) -> dict[str, Any]:
    return {"images": 100, "seconds": seconds, "warm_up_seconds": 1.0, "facts": {}, **more}


def test_ratio_is_the_median_over_rounds_to_the_fastest_form() -> None:
    # The machine is half as fast in the last round: the ratio of each round does not notice.
    rounds = {OURS: (1.0, 1.0, 2.0), SLOWER: (50.0, 50.0, 100.0), FASTER: (20.0, 20.0, 40.0)}
    rows = [bench_methods.summarise(name, [passed(each) for each in seconds]) for name, seconds in rounds.items()]
    assert bench_methods.add_ratios(rows) == FASTER
    assert [row["ratio_to_dista_net"] for row in rows] == pytest.approx([20.0, 0.4, 1.0])
    assert rows[0]["images_per_second"] == {
        "median": 100.0, "fastest": 100.0, "slowest": 50.0, "rounds": [100.0, 100.0, 50.0]
    }  # fmt: skip


def test_without_dista_net_there_is_no_ratio() -> None:
    rows = [bench_methods.summarise(OURS, [passed(1.0)])]
    assert bench_methods.add_ratios(rows) is None
    assert rows[0]["ratio_to_dista_net"] is None


def test_multiply_adds_of_ista_are_those_of_its_products() -> None:
    rows, columns, ratio, iterations = 5, 7, 3, 4
    down, across = torch.zeros(rows, ratio * rows), torch.zeros(columns, ratio * columns)
    start = torch.zeros(ratio**2 * rows * columns, rows * columns)
    with FlopCounterMode(display=False) as counter:
        cells = (start @ torch.zeros(rows * columns, 1)).view(ratio * rows, ratio * columns)
        for _ in range(iterations):
            residual = (down @ cells) @ across.T
            cells = down.T @ (residual @ across)
    assert ista_multiply_adds((rows, columns), ratio, iterations) == counter.get_total_flops() / 2


def test_a_method_is_timed_scored_and_described(data: LabelledImages) -> None:
    row = bench_methods.measure("ista", data, Conditions(threads=1, ratio=3), score_first=2)
    assert row["seconds"] > 0 and row["warm_up_seconds"] > 0
    assert row["images"] == 4 and row["first_images"]["images"] == 2
    assert 0 <= row["figures"]["CSO-mAP"] <= 100
    assert row["facts"]["iterations"] >= 1


def test_an_untrained_network_has_a_speed_but_no_score(data: LabelledImages) -> None:
    row = bench_methods.measure(SLOWER, data, Conditions(threads=1, ratio=1), score_first=2)
    assert row["facts"]["weights"] == "random" and row["facts"]["multiply_adds_per_image"] > 0
    assert "figures" not in row


def test_all_methods_are_written_drawn_and_a_failure_does_not_stop_the_others(
    data: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"CSO-mAP": 93.0, "interval": [92.0, 94.0], "count_accuracy": 100.0}
    first = {"images": 2, "CSO-mAP": 90.0}

    def run(name: str, options: argparse.Namespace, score: bool) -> dict[str, Any]:
        if name == "photutils":
            return {"failed": "ModuleNotFoundError: No module named 'photutils'"}
        return passed(2.0) if CONTESTANTS[name].dista_net else passed(1.0, figures=figures, first_images=first)

    monkeypatch.setattr(bench_methods, "run_worker", run)
    output = tmp_path / "speed.json"
    words = ["--data", str(data.path), "--split", "val", "--rounds", "2", "--output", str(output)]
    assert bench_methods.compare(bench_methods.parser().parse_args(words)) == 1
    result = json.loads(output.read_text())
    rows = {row["name"]: row for row in result["methods"]}
    assert list(rows) == list(CONTESTANTS)
    assert rows[OURS]["CSO-mAP"] == 93.0 and rows[OURS]["ratio_to_dista_net"] == pytest.approx(2.0)
    assert rows[SLOWER]["CSO-mAP"] is None
    assert result["data"]["path"] == "small.h5"
    assert output.with_suffix(".png").is_file()
    assert "No module named 'photutils'" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--limit", "--slow-limit", "--rounds", "--threads", "--ratio"])
def test_numbers_below_one_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=word.strip("-").split("-")[0]):
        bench_methods.check(bench_methods.parser().parse_args([word, "0"]))
