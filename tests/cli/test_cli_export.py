"""`csist export`, and the commands that run what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_helpers import STACK, Run, refused, rows_of, windows

import csist
from csist.weights.cards import make_card
from csist.weights.files import save_weights

pytest.importorskip("onnxscript", reason="needs the extra `export`")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    method = csist.create_method("dista-net", ratio=2, pretrained=False, stages=1)
    # The map is linear in the last weights: make its brightest cell as bright as a target.
    with torch.no_grad():
        method.stages[0].backward_second.weight *= 240.0 / method.predict_maps(STACK).max()
    card = make_card("dista-net", csist.Sensor(), 2, {"stages": 1})
    return save_weights(tmp_path_factory.mktemp("weights") / "small", method, card)


def test_onnx_gives_the_rows_of_torch(run: Run, weights: Path, store: Path, tmp_path: Path) -> None:
    method = ("--method", "dista-net", "--ratio", "2", "--weights")
    code, out, err = run("export", "dista-net", "out.onnx", "--ratio", "2", "--weights", weights)
    assert (code, err) == (0, "")
    assert out.startswith("out.onnx: dista-net, ratio 2, 11 x 11 px, map and detections from 50 counts on;")
    windows(tmp_path / "images.npy")
    assert run("unmix", "images.npy", *method, weights, "-o", "torch.csv")[0] == 0
    assert run("unmix", "images.npy", *method, "out.onnx", "--runtime", "onnx", "-o", "onnx.csv")[0] == 0
    ours, theirs = rows_of("torch.csv"), rows_of("onnx.csv")
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in ("image", "frame", "x", "y", "flags", "group", "x_std"):
            assert one[key] == other[key]
        np.testing.assert_allclose(float(one["intensity"]), float(other["intensity"]), rtol=1e-4)
    figures = {}
    for runtime, file in (("torch", weights), ("onnx", "out.onnx")):
        words = ("--runtime", runtime, "--resamples", "0", "--no-oracle", "--json", "-")
        code, out, _ = run("evaluate", store, *method, file, *words)
        assert code == 0
        figures[runtime] = json.loads(out)["rows"][0]
    assert figures["onnx"]["detections"] == figures["torch"]["detections"]
    assert figures["onnx"]["psnr"] == pytest.approx(figures["torch"]["psnr"], rel=1e-5)


def test_what_cannot_be_done_is_one_line(run: Run, weights: Path, tmp_path: Path) -> None:
    windows(tmp_path / "images.npy")
    refused(run("export", "continuous", "out.onnx"), "cannot export 'continuous'")
    refused(run("export", "dista-net+refine", "out.onnx"), "export 'dista-net'")
    refused(run("export", "dista-net", "out.pt"), "must end in .onnx")
    refused(run("export", "dista-net", "out.onnx", "--weights", weights), "trained for ratio 2, got 3: give ratio=2")
    refused(
        run("unmix", "images.npy", "--runtime", "onnx"),
        "--runtime onnx is for grid methods, and 'continuous' is not one",
    )
    refused(run("unmix", "images.npy", "--method", "ista", "--runtime", "cuda"), "torch or onnx, got 'cuda'")
    refused(run("unmix", "images.npy", "--method", "ista", "--runtime", "onnx"), "cannot export 'ista'")
    assert not list(tmp_path.glob("*.onnx"))
