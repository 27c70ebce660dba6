"""CSO-mAP against a naive implementation, its edges, the curves, and map fidelity against scikit-image."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from csist import metrics
from csist.checks import InputError
from csist.metrics import functional
from csist.targets import Targets

NAMES = ["CSO-mAP", "AP05", "AP10", "AP15", "AP20", "AP25"]


def naive_cso_map(predictions, truths, rank_by="score"):
    """The definition, one loop after the other."""
    ranked = [
        (np.isnan(key), 0.0 if np.isnan(key) else -key, image, index)
        for image, found in enumerate(predictions)
        for index, key in enumerate(getattr(found, rank_by))
    ]
    ranked.sort()
    total = sum(len(truth) for truth in truths)
    areas = []
    for delta in (0.05, 0.10, 0.15, 0.20, 0.25):
        if total == 0:
            return dict.fromkeys(NAMES, np.nan)
        taken, true, recall, precision = set(), 0, [0.0], []
        for rank, (*_, image, index) in enumerate(ranked, start=1):
            truth, found = truths[image], predictions[image]
            best, nearest = np.inf, None
            for k in range(len(truth)):
                distance = np.hypot(truth.x[k] - found.x[index], truth.y[k] - found.y[index])
                if distance < best:
                    best, nearest = distance, k
            if best <= delta and (image, nearest) not in taken:
                taken.add((image, nearest))
                true += 1
            recall.append(true / total)
            precision.append(true / rank)
        area = 0.0
        for point in range(len(precision)):
            area += (recall[point + 1] - recall[point]) * max(precision[point:])
        areas.append(100 * area)
    return dict(zip(NAMES, [np.mean(areas), *areas], strict=True))


def random_batch(rng, images, grid):
    """Scenes in one pixel; on a coarse grid, positions coincide and distances are exactly equal."""

    def targets(n):
        position = rng.integers(0, 9, (2, n)) / 16 if grid else rng.random((2, n)) * 0.5
        score = rng.choice([0.1, 0.5, 0.5, 0.9, -0.0, 0.0, np.inf, -np.inf, np.nan], n)
        return Targets(x=5 + position[0], y=5 + position[1], intensity=rng.integers(1, 5, n), score=score)

    return [targets(rng.integers(0, 5)) for _ in range(images)]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("rank_by", ["score", "intensity"])
def test_cso_map_equals_the_naive_one(seed, rank_by):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 20))
    predictions, truths = (random_batch(rng, images, grid=seed % 2) for _ in range(2))
    if seed % 3 == 0:  # good detections, every one of them twice
        predictions = [
            Targets.concatenate([t.replace(x=t.x + rng.normal(0, 0.05, len(t)), score=rng.random(len(t)).round(1))] * 2)
            for t in truths
        ]
    result = metrics.cso_map(predictions, truths, rank_by=rank_by)
    assert list(result) == NAMES
    assert result == pytest.approx(naive_cso_map(predictions, truths, rank_by), rel=0, abs=1e-9, nan_ok=True)


def test_pairs_are_worked_through_in_parts_without_a_change(monkeypatch):
    rng = np.random.default_rng(4)
    predictions, truths = (random_batch(rng, 40, grid=True) for _ in range(2))
    whole = metrics.match_detections(predictions, truths)
    monkeypatch.setattr(functional, "PAIRS_AT_ONCE", 3)
    parts = metrics.match_detections(predictions, truths)
    np.testing.assert_array_equal(whole.nearest, parts.nearest)
    np.testing.assert_array_equal(whole.distance_px, parts.distance_px)


def test_perfect_detections_score_exactly_100():
    truths = random_batch(np.random.default_rng(1), 50, grid=False)
    assert metrics.cso_map(truths, truths, rank_by="intensity") == dict.fromkeys(NAMES, 100.0)


ONE = Targets(x=[5.0], y=[5.0], intensity=[230], score=[0.5])
NONE = Targets.empty()


@pytest.mark.parametrize(
    ("predictions", "truths", "expected"),
    [
        ([], [], np.nan),
        ([NONE], [NONE], np.nan),
        ([ONE], [NONE], np.nan),
        ([NONE], [ONE], 0.0),
        ([ONE], [ONE], 100.0),
        ([ONE, NONE], [ONE, ONE], 50.0),
        ([ONE.replace(score=[0.9]), ONE], [NONE, ONE], 50.0),  # the false one ranks first
        ([ONE.replace(score=[0.1]), ONE], [NONE, ONE], 100.0),  # the false one ranks last
        ([ONE.replace(score=None), ONE], [NONE, ONE], 100.0),  # NaN ranks last
        ([ONE, ONE], [NONE, ONE], 50.0),  # equal scores: the order given
        ([ONE, ONE], [ONE, NONE], 100.0),
    ],
)
def test_edges(predictions, truths, expected):
    assert metrics.cso_map(predictions, truths)["CSO-mAP"] == pytest.approx(expected, nan_ok=True)


def test_a_distance_equal_to_the_limit_counts():
    assert metrics.match_detections([ONE.shifted(0.25, 0.0)], [ONE]).hits(0.25).tolist() == [True]
    assert metrics.match_detections([ONE.shifted(0.2501, 0.0)], [ONE]).hits(0.25).tolist() == [False]


def test_a_detection_never_falls_back_on_its_second_nearest_target():
    truth = Targets(x=[5.0, 5.2], y=[5.0, 5.0], intensity=[1, 1])
    found = Targets(x=[5.0, 5.05], y=[5.0, 5.0], intensity=[1, 1], score=[0.9, 0.8])
    assert metrics.match_detections([found], [truth]).hits(0.25).tolist() == [True, False]


def test_a_better_ranked_detection_out_of_reach_leaves_the_target_free():
    found = Targets(x=[5.125, 5.0], y=[5.0, 5.0], intensity=[1, 1], score=[0.9, 0.8])
    matches = metrics.match_detections([found], [ONE])
    assert matches.hits(0.1).tolist() == [False, True]
    assert matches.hits(0.2).tolist() == [True, False]


def test_equally_near_targets_go_to_the_lowest_index():
    truth = Targets(x=[5.25, 4.75], y=[5.0, 5.0], intensity=[1, 1])
    assert metrics.match_detections([NONE, ONE], [ONE, truth]).nearest.tolist() == [1]


def test_inputs_are_left_alone_and_frozen_results_reused():
    matches = metrics.match_detections([ONE], [ONE])
    assert matches.order is matches.order
    assert metrics.average_precision(matches, 0.05) == 100.0


def test_curve_area_is_the_average_precision():
    rng = np.random.default_rng(7)
    predictions, truths = (random_batch(rng, 30, grid=True) for _ in range(2))
    matches = metrics.match_detections(predictions, truths)
    curve = metrics.precision_recall_curve(matches, 0.2)
    area = 100 * np.sum(np.diff(curve.recall, prepend=0.0) * curve.envelope)
    assert area == pytest.approx(metrics.average_precision(matches, 0.2), abs=1e-9)
    assert (np.diff(curve.envelope) <= 0).all()
    assert (np.diff(curve.recall) >= 0).all()


def test_curve_edges():
    assert np.isnan(metrics.precision_recall_curve(metrics.match_detections([ONE], [NONE]), 0.2).recall).all()
    assert metrics.precision_recall_curve(metrics.match_detections([NONE], [ONE]), 0.2).recall.size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.cso_map([ONE], [ONE, ONE]), "equally long, got 1 and 2 images"),
        (lambda: metrics.cso_map(ONE, [ONE]), "got a single Targets"),
        (
            lambda: metrics.cso_map([ONE], [[5.0, 5.0]]),
            "truths must be a list of Targets, got list at index 0",
        ),
        (
            lambda: metrics.cso_map([ONE], [ONE], rank_by="x"),
            "rank_by must be one of score, intensity, got 'x'",
        ),
        (lambda: metrics.match_detections([ONE], [ONE]).hits(-1.0), "distance_px must be .* got -1.0"),
        (lambda: metrics.psnr(np.zeros((3, 3)), np.zeros((3, 4))), r"same shape, got \(3, 3\) and \(3, 4\)"),
        (lambda: metrics.psnr(np.zeros(3), np.zeros(3)), r"got shape \(3,\)"),
        (lambda: metrics.psnr(np.zeros((1, 3, 4, 4)), np.zeros((1, 3, 4, 4))), r"got shape \(1, 3, 4, 4\)"),
        (lambda: metrics.psnr(np.zeros((0, 4, 4)), np.zeros((0, 4, 4))), "not empty"),
        (
            lambda: metrics.psnr(np.zeros((4, 4)), np.zeros((4, 4)), data_range=0),
            "data_range must be .* got 0",
        ),
        (lambda: metrics.ssim(np.zeros((10, 33)), np.zeros((10, 33))), r"at least 11 x 11, got \(10, 33\)"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_map_fidelity_equals_scikit_image():
    rng = np.random.default_rng(3)
    true = rng.random((4, 33, 33)) * 250 * (rng.random((4, 33, 33)) > 0.9)
    predicted = true + rng.normal(0, 12, true.shape)
    signal = [peak_signal_noise_ratio(t, p, data_range=255) for t, p in zip(true, predicted, strict=True)]
    similar = [
        structural_similarity(t, p, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for t, p in zip(true, predicted, strict=True)
    ]
    assert metrics.psnr(predicted, true) == pytest.approx(np.mean(signal), rel=1e-6)
    assert metrics.ssim(predicted, true) == pytest.approx(np.mean(similar), rel=1e-9)
    assert metrics.psnr(predicted[0], true[0]) == pytest.approx(signal[0], rel=1e-6)
    tensors = [torch.from_numpy(value)[:, None].requires_grad_() for value in (predicted, true)]
    assert metrics.psnr(*tensors) == pytest.approx(np.mean(signal), rel=1e-6)
    assert metrics.ssim(*tensors) == pytest.approx(np.mean(similar), rel=1e-9)


def test_ssim_of_many_maps_is_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    true = rng.random((5, 20, 20)) * 250
    predicted = true + rng.normal(0, np.arange(5)[:, None, None], true.shape)
    alone = [metrics.ssim(p, t) for p, t in zip(predicted, true, strict=True)]
    for cells in (1, 2 * 400, 10**6):  # the last block is smaller than the others
        monkeypatch.setattr(metrics.functional, "SSIM_BLOCK_CELLS", cells)
        assert metrics.ssim(predicted, true) == pytest.approx(np.mean(alone), rel=1e-12)


def test_equal_maps():
    cells = np.random.default_rng(0).random((2, 33, 33))
    cells.flags.writeable = False
    assert metrics.psnr(cells, cells) == np.inf
    assert metrics.ssim(cells, cells) == pytest.approx(1.0)


def test_functions_import_without_torch():
    code = "import sys, csist.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names():
    assert metrics.CSOMeanAP.__name__ == "CSOMeanAP"
    assert metrics.cso_map is functional.cso_map  # and not a module that the line above has imported
    assert set(metrics.__all__) <= set(dir(metrics))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = metrics.nonsense
