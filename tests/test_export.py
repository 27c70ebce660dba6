"""ONNX files: what they hold, that they need nothing else, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csist._version import package_version
from csist.checks import InputError
from csist.create import create_method
from csist.export import export_method
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate
from csist.weights.cards import make_card
from csist.weights.files import save_weights

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
pytest.importorskip("onnxscript", reason="needs the extra `export`")

SENSOR = Sensor(shape=(5, 6), background=3.0)
THRESHOLD = 20.0
IMAGES = simulate(ScenePrior.csist_100k(), SENSOR, 6, np.random.default_rng(2))[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    method = create_method("ista-net", sensor=SENSOR, pretrained=False, stages=1)
    # The map is linear in the last weights: make its brightest cell as bright as a target.
    with torch.no_grad():
        method.stages[0].backward_second.weight *= 240.0 / method.predict_maps(IMAGES).max()
    card = make_card("ista-net", SENSOR, 3, {"stages": 1}, {"seed": 3}, {"cso_map": 12.5})
    return save_weights(tmp_path_factory.mktemp("weights") / "small", method, card)


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    path = weights.with_name("small.onnx")
    export_method("ista_net", path, weights=weights, threshold=THRESHOLD)
    return path


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 6, 0])
def test_the_file_alone_gives_map_and_detections(exported: Path, weights: Path, count: int) -> None:
    cells, index, targets = session_of(exported).run(None, {"image": IMAGES[:count, None].astype(np.float32)})
    method = create_method("ista-net", pretrained=weights)
    expected = method.predict_maps(IMAGES[:count])
    np.testing.assert_allclose(cells[:, 0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(initial=1.0))
    assert (index.dtype, targets.dtype) == (np.int64, np.float32) and index.shape == targets.shape[:1]
    for place in range(count):
        found = method.grid.decode(cells[place, 0].astype(np.float64), THRESHOLD)
        own = targets[index == place]
        np.testing.assert_allclose(own, np.stack([found.x, found.y, found.intensity], axis=1), rtol=1e-6, atol=1e-6)
    assert count == 0 or len(index)


def test_the_file_says_what_it_is(exported: Path) -> None:
    session = session_of(exported)
    said = session.get_modelmeta().custom_metadata_map
    assert said["method"] == "ista-net" and said["csist_version"] == package_version()
    known = {key: json.loads(said[key]) for key in ("ratio", "sensor", "threshold", "options", "score")}
    assert known["sensor"] == SENSOR.to_card() and known["ratio"] == 3 and known["threshold"] == THRESHOLD
    assert known["options"] == {"stages": 1} and known["score"] == {"cso_map": 12.5}
    assert [each.name for each in session.get_inputs()] == ["image"]
    assert session.get_inputs()[0].shape == ["batch", 1, 5, 6]
    assert [each.name for each in session.get_outputs()] == ["map", "index", "targets"]


def test_the_map_alone_and_without_a_word(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.onnx"
    card = export_method("ista-net", path, weights=weights, map_only=True)
    assert card["threshold"] is None
    assert [each.name for each in session_of(path).get_outputs()] == ["map"]
    assert capfd.readouterr() == ("", "")
    # A graph that differs from torch is never written, and an older file stays.
    before = path.read_bytes()
    monkeypatch.setattr("csist.onnx.graph.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="onnxruntime differs from torch by"):
        export_method("ista-net", path, weights=weights, map_only=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("continuous", {}, "cannot export 'continuous': it has no map"),
        ("ista", {}, "cannot export 'ista': its steps depend on the image"),
        ("dista-net", {"published_code": True, "weights": False, "stages": 1}, "depend on the image or the batch"),
        ("dista-net+refine", {}, r"the read-out is not part of the graph, export 'dista-net'"),
        ("ista-net", {"weights": "old.onnx"}, "old.onnx is an exported graph: give the weight file"),
        ("ista-net", {"weights": False, "stages": 1, "threshold": -1.0}, "threshold must be a finite number >= 0"),
    ],
)
def test_refuses_what_is_no_graph(name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_method(name, tmp_path / "out.onnx", SENSOR, **options)
    assert not list(tmp_path.iterdir())


def test_refuses_bad_names_and_says_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"its name must end in \.onnx"):
        export_method("ista-net", tmp_path / "out.pt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxruntime and onnxscript.*pip install 'csist\[export\]'"):
        export_method("ista-net", tmp_path / "out.onnx")


# --- by onnxruntime -----------------------------------------------------------------------------------------


def test_the_file_is_a_method(exported: Path, weights: Path) -> None:
    torch_method = create_method("ista-net", pretrained=weights)
    method = create_method("ista-net", pretrained=exported, runtime="onnx")
    assert method.sensor == SENSOR and method.ratio == 3
    expected = torch_method.predict_maps(IMAGES)
    np.testing.assert_allclose(method.predict_maps(IMAGES), expected, rtol=1e-4, atol=1e-4 * expected.max())
    assert method.predict_maps(IMAGES[:0]).shape == (0, 15, 18)
    found, same = method.predict(IMAGES, THRESHOLD), torch_method.predict(IMAGES, THRESHOLD)
    for one, other in zip(found, same, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_allclose(one.intensity, other.intensity, rtol=1e-4)
    refined = create_method("ista-net+centroid", pretrained=exported, runtime="onnx")
    assert len(refined.predict(IMAGES, THRESHOLD)) == len(IMAGES)


def test_another_background_is_shifted_to_that_of_the_graph(exported: Path) -> None:
    lifted = Sensor(shape=(5, 6), background=43.0, read_noise=1.0)
    one = create_method("ista-net", pretrained=exported, runtime="onnx")
    other = create_method("ista-net", lifted, pretrained=exported, runtime="onnx")
    np.testing.assert_allclose(other.predict_maps(IMAGES + 40.0), one.predict_maps(IMAGES), rtol=1e-3, atol=1e-2)


def test_weights_are_exported_once_for_all_noises(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    from csist.onnx import graph

    real = graph.to_onnx
    monkeypatch.setattr("csist.onnx.graph.to_onnx", lambda *arguments: made.append(1) or real(*arguments))
    maps = []
    for noise in (0.0, 1.0):
        sensor = Sensor(shape=(5, 6), background=3.0, read_noise=noise)
        method = create_method("ista-net", sensor, pretrained=weights, runtime="onnx")
        assert method.sensor == sensor
        maps.append(method.predict_maps(IMAGES))
    assert len(made) == 1
    expected = create_method("ista-net", pretrained=weights).predict_maps(IMAGES)
    for each in maps:
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.mark.parametrize(
    ("name", "sensor", "ratio", "options", "message"),
    [
        ("dista-net", None, 3, {}, "holds weights of ista-net, not of dista-net"),
        ("ista-net", None, 5, {}, "trained for ratio 3, got 5: give ratio=3"),
        ("ista-net", Sensor(), 3, {}, r"another sensor \(gaussian PSF sigma_px=0.5, 5 x 6 px\)"),
        ("ista-net", Sensor(psf=GaussianPSF(0.7), shape=(5, 6)), 3, {}, "another sensor"),
        ("ista-net", None, 3, {"stages": 1}, "finished graph and takes no options, got stages"),
    ],
)
def test_refuses_a_graph_of_another_kind(
    name: str, sensor: Sensor | None, ratio: int, options: dict[str, Any], message: str, exported: Path
) -> None:
    with pytest.raises(InputError, match=message):
        create_method(name, sensor, ratio, pretrained=exported, runtime="onnx", **options)


def test_refuses_damaged_and_foreign_graphs(exported: Path, tmp_path: Path) -> None:
    import onnx

    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "half.onnx").write_bytes(exported.read_bytes()[:2000])
    (tmp_path / "text.onnx").write_text("no graph")
    for name, message in (
        ("foreign", "without a csist card"),
        ("half", "damaged or not what its suffix says"),
        ("text", "damaged or not what its suffix says"),
        ("nowhere", "no weight file"),
    ):
        with pytest.raises(InputError, match=message):
            create_method("ista-net", pretrained=tmp_path / f"{name}.onnx", runtime="onnx")


def test_a_runtime_must_suit() -> None:
    with pytest.raises(InputError, match="runtime must be torch or onnx, got 'tensorrt'"):
        create_method("ista-net", runtime="tensorrt")
    with pytest.raises(InputError, match="the runtime onnx is for grid methods, and 'continuous' is not one"):
        create_method("continuous", runtime="onnx")


def test_torch_does_not_take_a_graph(exported: Path) -> None:
    with pytest.raises(InputError, match=r"small\.onnx is an exported graph: run it with runtime='onnx'"):
        create_method("ista-net", pretrained=exported)
