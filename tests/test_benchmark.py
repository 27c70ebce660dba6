"""The table of all methods: what is in it, that kept detections are used again, and its parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csist import benchmark as methods
from csist import evaluation, metrics
from csist.checks import InputError
from csist.evaluation import LabelledImages
from csist.methods.cost import multiply_adds
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets


def labelled(number: int = 12) -> LabelledImages:
    sensor, prior = Sensor(), ScenePrior.csist_100k()
    scenes = sample_scenes(prior, sensor, number, seed=5)
    images = np.stack([sensor.observe(scene, n) for n, scene in enumerate(scenes)])
    names = [("a.h5", n) for n in range(number)]
    return LabelledImages(Path("a.h5"), "test", images, scenes, sensor, prior, names, number)


def test_rows_are_those_of_evaluate_with_cost_training_and_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labelled()
    monkeypatch.setattr(methods, "LIMIT_STEPS", 2000)
    names = ["continuous, fast", "ista-net", "ista-net+refine", "fista", "exact map"]
    result = methods.benchmark(data, tmp_path, 3, names, limit_images=5, resamples=20)
    rows = {row["name"]: row for row in result["rows"]}
    oracles = ["oracle, ratio 3, by intensity", "oracle, ratio 3, by closeness"]
    assert list(rows) == [*names, *oracles, *methods.LIMITS]
    direct = evaluation.evaluate(data, ["ista-net"], references=(), resamples=20).rows[0]
    assert {key: rows["ista-net"][key] for key in evaluation.SCORE_NAMES} == {
        key: direct[key] for key in evaluation.SCORE_NAMES
    }
    assert rows["ista-net"]["parameters"] == rows["ista-net+refine"]["parameters"] == 171_090
    assert rows["ista-net"]["training"]["samples"] > 0
    assert rows["fista"].keys().isdisjoint({"parameters", "training"}) and rows["fista"]["psnr"] > 0
    assert all(rows[name]["reference"] for name in (*oracles, *methods.LIMITS))
    assert rows[methods.LIMITS[0]]["images"] == 5

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this has been computed before")

    exact = rows["exact map"]
    assert exact["reference"] and exact["squared_error_ratio"] == 1.0 and "psnr" not in exact
    for name in ("ista-net", "fista"):
        ratio = rows[name]["squared_error"] / exact["squared_error"]
        assert rows[name]["squared_error_ratio"] == pytest.approx(ratio) and ratio > 1.0
    assert "squared_error" not in rows["ista-net+refine"]

    monkeypatch.setattr(evaluation, "evaluate", refuse)
    monkeypatch.setattr(evaluation, "exact_maps", refuse)
    monkeypatch.setattr("csist.methods.continuous.limit.posterior_limit", refuse)
    assert methods.benchmark(data, tmp_path, 3, names, limit_images=5, resamples=20) == result
    with pytest.raises(AssertionError, match="computed before"):
        methods.benchmark(labelled(11), tmp_path, 3, ["fista"], limit_images=0, resamples=0)
    with pytest.raises(AssertionError, match="computed before"):  # the same images, said to be of another sensor
        other = replace(data, sensor=replace(data.sensor, read_noise=3.0))
        methods.benchmark(other, tmp_path, 3, ["fista"], limit_images=0, resamples=0)


def test_networks_are_compared_image_by_image(tmp_path: Path) -> None:
    data = labelled(8)
    rows = methods.benchmark(data, tmp_path, 3, ["ista", "fista-net", "dista-net"], limit_images=0, resamples=20)[
        "rows"
    ]
    differences = {row["name"]: row["difference"] for row in rows if "difference" in row}
    assert differences.keys() == {"fista-net", "dista-net"}
    assert tuple(differences["dista-net"]["CSO-mAP"]) == (0.0, 0.0, 0.0)
    value, low, high = differences["fista-net"]["CSO-mAP"]
    score = {row["name"]: row["by_intensity"]["CSO-mAP"] for row in rows if "by_intensity" in row}
    assert value == pytest.approx(score["fista-net"] - score["dista-net"])
    assert low <= value <= high


def test_rows_of_an_earlier_result_stay() -> None:
    def row(name: str, score: float, reference: bool = False) -> dict[str, Any]:
        return {"name": name, "CSO-mAP": score, "reference": reference}

    earlier = {"data": {"images": 3}, "ratio": 3, "rows": [row("a", 1.0), row("b", 2.0), row("oracle", 9.0, True)]}
    result = {"data": {"images": 3}, "ratio": 3, "rows": [row("b", 3.0), row("c", 4.0), row("limit", 9.0, True)]}
    joined = methods.with_earlier_rows(result, earlier)
    measured = row("a", 1.0) | {"squared_error": 30.0}
    exact = row("exact map", 5.0, True) | {"squared_error": 10.0}
    later = methods.with_earlier_rows(result | {"rows": [measured]}, earlier | {"rows": [exact]})["rows"]
    assert [each["squared_error_ratio"] for each in later] == [3.0, 1.0]
    assert [(each["name"], each["CSO-mAP"]) for each in joined["rows"]] == [
        ("a", 1.0), ("b", 3.0), ("c", 4.0), ("oracle", 9.0), ("limit", 9.0),
    ]  # fmt: skip
    assert methods.with_earlier_rows(result, earlier | {"ratio": 5}) == result
    assert methods.with_earlier_rows(result, earlier | {"data": {"images": 4}}) == result
    assert methods.with_earlier_rows(result, {}) == result


def test_rows_stay_where_the_data_were_moved_and_other_data_are_refused(tmp_path: Path) -> None:
    """A result was overwritten by one on the same images read from another folder."""
    data = labelled(2)
    earlier = {"data": data.describe() | {"path": "elsewhere/csist-100k.h5"}, "ratio": 3, "rows": []}
    methods.check_earlier(json.loads(json.dumps(earlier)), data, tmp_path)
    methods.check_earlier({}, data, tmp_path)
    with pytest.raises(InputError, match=r"rows on other data \(its images differs\): measure all"):
        methods.check_earlier(earlier, labelled(3), tmp_path)


def test_earlier_differences_to_a_network_measured_anew_are_dropped() -> None:
    compared = {"name": "a", "reference": False, "difference": {"to": "dista-net", "CSO-mAP": [1.0, 0.5, 1.5]}}
    earlier = {"data": {"images": 3}, "ratio": 3, "rows": [compared]}
    for name, kept in (("b", True), ("dista-net", False)):
        result = earlier | {"rows": [{"name": name, "reference": False}]}
        rows = {row["name"]: row for row in methods.with_earlier_rows(result, earlier)["rows"]}
        assert ("difference" in rows["a"]) is kept
    assert "difference" in compared


def test_every_method_has_the_read_outs_of_its_grid() -> None:
    names = methods.every_method(3, labelled(1))
    assert {"continuous", "continuous, fast", "ista", "ista+refine", "dista-net+centroid"} <= set(names)
    assert [name for name in names if name.endswith("+ensemble")] == ["dista-net+ensemble"]
    assert not any(name.startswith("continuous+") for name in names)
    assert not any(name.startswith("ista-net") for name in methods.every_method(4, labelled(1)))
    with pytest.raises(InputError, match="did you mean"):
        methods.benchmark(labelled(1), Path("unused"), 3, ["istaa"])


def test_parts_hold_every_image_once() -> None:
    pair = Targets(x=[5.0, 5.5], y=[5.0, 5.0], intensity=[230.0, 240.0])
    truths = [pair, Targets(x=[0.2], y=[5.0], intensity=[230.0]), pair.shifted(0.0, 0.3), Targets.empty()]
    found = [truth.replace(score=np.ones(len(truth))) for truth in truths[:2]] + [Targets.empty()] * 2
    parts = methods.breakdown(found, truths, (11, 11))
    for choices in parts.values():
        assert sum(part["images"] for part in choices.values()) == len(truths)
    assert parts["targets"]["1"]["CSO-mAP"] == 100.0
    expected = metrics.cso_map([found[0], found[2]], [truths[0], truths[2]])["CSO-mAP"]
    assert parts["targets"]["2"]["CSO-mAP"] == expected < 100.0
    assert parts["smallest distance"]["0 to 0.6 px"]["images"] == 2
    assert parts["border"]["in a border pixel"] == {"images": 1, "CSO-mAP": 100.0}


def test_cost_is_counted_at_the_literature_s_batch() -> None:
    import torch

    from csist.create import create_method

    counted = methods.facts("ista-net", labelled(1), 3)["multiply_adds_per_image"]
    assert counted == multiply_adds(create_method("ista-net"), torch.zeros(64, 1, 11, 11))
    assert methods.facts("ista-net+ensemble", labelled(1), 3)["multiply_adds_per_image"] == 8 * counted
