"""The read-out threshold follows the targets that a method was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csist.create import create_method
from csist.evaluation import LabelledImages, evaluate
from csist.grid import READ_OUT_THRESHOLD, SubPixelGrid
from csist.physics.psf import GaussianPSF, pixel_kernel
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes, suited
from csist.weights.cards import make_card
from csist.weights.files import save_weights

CAMERA = Sensor(GaussianPSF(0.6), shape=(7, 7), read_noise=0.2, quantised=False)
DIM = ScenePrior(
    count_range=(1, 2), intensity_range=(22.0, 40.0), intensity_law="uniform", min_separation_px=1.0, single_pixel=True
)


def test_the_threshold_is_in_proportion_to_the_faintest_target() -> None:
    grid = SubPixelGrid(CAMERA.shape, 3)
    assert suited(grid, DIM, CAMERA).threshold == pytest.approx(0.1 * READ_OUT_THRESHOLD)
    assert suited(grid, ScenePrior.csist_100k(), CAMERA) == grid == suited(grid, None, CAMERA)
    # In units of the noise: the flux of SNR 1 is the noise over the root of the pixel kernel's sum of squares.
    noisy = suited(grid, ScenePrior(intensity_range=None, snr_range=(10.0, 100.0)), CAMERA)
    faintest = 10.0 * 0.2 / np.sqrt((pixel_kernel(CAMERA.psf) ** 2).sum())
    assert noisy.threshold == pytest.approx(READ_OUT_THRESHOLD * faintest / 220.0)
    silent = Sensor(GaussianPSF(0.6), shape=(7, 7), quantised=False)
    assert suited(grid, ScenePrior(intensity_range=None, snr_range=(10.0, 100.0)), silent) == grid


def test_dim_targets_are_read_out_of_the_maps() -> None:
    rng = np.random.default_rng(7)
    truths = sample_scenes(DIM, CAMERA, 60, rng)
    images = np.stack([CAMERA.observe(truth, rng) for truth in truths])
    names = [("dim", n) for n in range(len(images))]
    data = LabelledImages(Path("dim.h5"), "val", images, truths, CAMERA, DIM, names, len(images))
    methods = ("ista", "ista+centroid", "ista+refine")
    scores = {row["name"]: row["CSO-mAP"] for row in evaluate(data, methods, references=(), resamples=0).rows}
    assert scores["ista"] > 20.0 and scores["ista+centroid"] > 20.0 and scores["ista+refine"] > 80.0, scores


def test_weights_and_their_graph_keep_the_threshold_of_their_training(tmp_path: Path) -> None:
    method = create_method("ista-net", CAMERA, pretrained=False, stages=1)
    card = make_card("ista-net", CAMERA, 3, {"stages": 1}, {"prior": DIM.to_card()}, {})
    weights = save_weights(tmp_path / "dim", method, card)
    assert method.grid.threshold == READ_OUT_THRESHOLD
    trained = create_method("ista-net", pretrained=weights)
    assert trained.grid.threshold == pytest.approx(5.0)

    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from csist.export import export_method

    path = tmp_path / "dim.onnx"
    assert export_method("ista-net", path, weights=weights)["threshold"] == pytest.approx(5.0)
    assert create_method("ista-net", pretrained=path, runtime="onnx").grid.threshold == pytest.approx(5.0)
    assert create_method("ista-net", pretrained=weights, runtime="onnx").grid.threshold == pytest.approx(5.0)
