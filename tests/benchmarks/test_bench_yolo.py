"""The benchmark's own parts; the detector itself needs the extra `yolo`."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import bench_yolo
from csist.checks import InputError
from csist.evaluation import LabelledImages
from csist.pipelines import yolo


def test_weights_are_given_by_method() -> None:
    assert bench_yolo.given_weights(["srfbn=a=b.safetensors"], ["srfbn", "edsr"]) == {"srfbn": "a=b.safetensors"}
    for word in ("srfbn", "rcan=x"):
        with pytest.raises(InputError, match=rf"METHOD=FILE with a METHOD of srfbn, edsr, got '{word}'"):
            bench_yolo.given_weights([word], ["srfbn", "edsr"])


def test_a_missing_extra_ends_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(yolo, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(sys, "argv", ["bench_yolo.py"])
    assert bench_yolo.main() == 2
    assert capsys.readouterr().err.startswith("error: NAME+yolo needs no_such_package")


def test_figures_are_scores_and_speed(labelled: LabelledImages) -> None:
    row = bench_yolo.figures(labelled.truths, labelled, seconds=2.0)
    assert row["CSO-mAP"] == pytest.approx(100.0) and row["count_accuracy"] == 100.0
    assert row["images_per_second"] == len(labelled) / 2.0 and set(bench_yolo.SHOWN) <= set(row)
    assert np.isfinite(row["interval"]).all() and row["missed"] == row["spurious"] == row["distance_rms"] == 0


def test_the_exact_map_is_read_like_a_method_s(labelled: LabelledImages) -> None:
    method = bench_yolo.make_method("exact map", labelled, 3, None)
    maps = method.predict_maps(labelled.images)
    assert maps.shape == (len(labelled), *method.grid.map_shape)
    assert [len(found) > 0 for found in method.predict(labelled.images)] == [len(t) > 0 for t in labelled.truths]
    assert yolo.detector_path(method).name == "ExactMap-c3.pt"
    assert type(bench_yolo.make_method("fista", labelled, 3, None)).__name__ == "FISTA"


@pytest.fixture
def labelled(store: object) -> LabelledImages:
    from csist.evaluation import read_labelled

    return read_labelled(str(store))
