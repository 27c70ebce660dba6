"""Counts, matched errors, coverage and calibration."""

from itertools import permutations

import numpy as np
import pytest

from csist import metrics
from csist.checks import InputError
from csist.targets import Targets

ONE = Targets(x=[5.0], y=[5.0], intensity=[200.0], score=[0.5])
NONE = Targets.empty()


def random_targets(rng, n):
    return Targets(x=rng.random(n), y=rng.random(n), intensity=rng.uniform(220, 250, n), score=rng.random(n))


def test_count_accuracy():
    assert metrics.count_accuracy([ONE, NONE, NONE, ONE], [ONE, NONE, ONE, NONE]) == 0.5
    assert np.isnan(metrics.count_accuracy([], []))


def brute_force(found, truth, limit):
    """Most pairs within the limit, then least total squared distance, over all assignments."""
    best = (0, 0.0)
    size = max(len(found), len(truth))
    for choice in permutations(range(size)):
        squared = [
            (found.x[i] - truth.x[j]) ** 2 + (found.y[i] - truth.y[j]) ** 2
            for i, j in enumerate(choice)
            if i < len(found) and j < len(truth)
        ]
        allowed = [value for value in squared if value <= limit**2]
        best = min(best, (-len(allowed), sum(allowed)))
    return -best[0], best[1]


@pytest.mark.parametrize("limit", [None, 0.3])
def test_pairs_are_those_of_brute_force(limit):
    rng = np.random.default_rng(5)
    predictions = [random_targets(rng, n) for n in rng.integers(0, 6, 40)]
    truths = [random_targets(rng, n) for n in rng.integers(0, 6, 40)]
    errors = metrics.match_errors(predictions, truths, limit)
    for image, (found, truth) in enumerate(zip(predictions, truths, strict=True)):
        mine = errors.image == image
        pairs, squared = brute_force(found, truth, limit or np.inf)
        assert mine.sum() == pairs
        assert (errors.distance_px[mine] ** 2).sum() == pytest.approx(squared, abs=1e-12)
        np.testing.assert_allclose(errors.dx[mine], found.x[errors.prediction[mine]] - truth.x[errors.truth[mine]])
        flux = found.intensity[errors.prediction[mine]] / truth.intensity[errors.truth[mine]] - 1
        np.testing.assert_allclose(errors.relative_intensity[mine], flux, atol=1e-12)
    assert errors.missed == sum(map(len, truths)) - len(errors)
    assert errors.spurious == sum(map(len, predictions)) - len(errors)


def test_a_pair_at_the_limit_is_kept_and_one_beyond_is_not():
    kept = metrics.match_errors([ONE.shifted(0.25, 0.0)], [ONE], 0.25)
    lost = metrics.match_errors([ONE.shifted(0.26, 0.0)], [ONE], 0.25)
    assert (len(kept), kept.missed, kept.spurious) == (1, 0, 0)
    assert (len(lost), lost.missed, lost.spurious) == (0, 1, 1)


def test_summary_of_known_errors():
    n = 5
    dx = np.array([-0.1, 0.0, 0.1, 0.2, 5.0])
    truths = [ONE] * n
    predictions = [Targets(x=[5 + d], y=[5.5], intensity=[210.0]) for d in dx]
    summary = metrics.error_summary(metrics.match_errors([*predictions, ONE, NONE], [*truths, NONE, ONE]))
    assert (summary["pairs"], summary["missed"], summary["spurious"]) == (n, 1, 1)
    assert summary["dx_median"] == pytest.approx(0.1)
    assert summary["dx_scatter"] == pytest.approx(0.14826, abs=1e-4)  # deviations 0, 0.1, 0.1, 0.2, 4.9
    assert summary["dx_rms"] == pytest.approx(np.sqrt(np.mean(dx**2)))
    assert summary["dy_rms"] == summary["dy_median"] == pytest.approx(0.5)
    assert summary["dy_scatter"] == 0.0
    assert summary["intensity_median"] == pytest.approx(0.05)
    assert summary["distance_rms"] == pytest.approx(np.sqrt(np.mean(dx**2) + 0.25))


def test_nothing_matched_gives_nan_without_a_warning():
    errors = metrics.match_errors([NONE, ONE], [ONE, NONE])
    summary = metrics.error_summary(errors)
    assert len(errors) == 0
    assert all(np.isnan(v) for k, v in summary.items() if k not in ("pairs", "missed", "spurious"))
    assert all(np.isnan(value) for value in metrics.coverage(errors).values())
    assert len(metrics.match_errors([], [])) == 0


def test_true_intensities_of_zero_do_not_spoil_the_others():
    errors = metrics.match_errors([ONE, ONE], [ONE.replace(intensity=[0.0]), ONE.replace(intensity=[100.0])])
    assert metrics.error_summary(errors)["intensity_median"] == 1.0


def test_coverage_of_honest_and_of_overconfident_errors():
    rng = np.random.default_rng(2)
    n = 4000
    truth = Targets(x=np.arange(n), y=np.zeros(n), intensity=np.full(n, 200.0))
    std = rng.uniform(0.01, 0.1, n)
    found = truth.replace(
        x=truth.x + std * rng.normal(size=n), y=0.05 * rng.normal(size=n), x_std=std, y_std=np.full(n, 0.025)
    )
    pairs = list(zip(found, truth, strict=True))[:2000]
    share = metrics.coverage(metrics.match_errors([p for p, _ in pairs], [t for _, t in pairs]))
    assert list(share)[:2] == ["x_within_1", "x_within_1.96"]
    assert share["x_within_1"] == pytest.approx(0.683, abs=0.03)
    assert share["x_within_1.96"] == pytest.approx(0.95, abs=0.015)
    assert share["y_within_1"] == pytest.approx(0.383, abs=0.03)  # half the width: 0.5 sigma
    assert np.isnan(share["intensity_within_1"])


def scored(scores, right):
    """One image a detection, with its target at the detection or 1 px away."""
    predictions = [ONE.replace(score=[score]) for score in scores]
    return predictions, [ONE if hit else ONE.shifted(1.0, 0.0) for hit in right]


@pytest.mark.parametrize(
    ("scores", "right", "bins", "expected"),
    [
        ([1.0, 0.0], [1, 0], 15, 0.0),
        ([1.0, 0.0], [0, 1], 15, 1.0),
        ([0.5, 0.5], [1, 0], 15, 0.0),  # equal scores share a bin whatever their order
        ([0.5, 0.5], [0, 1], 15, 0.0),
        ([0.8] * 4, [1, 1, 0, 0], 15, 0.3),
        ([0.2, 0.4, 0.6, 0.8], [0, 1, 1, 0], 1, 0.0),
        ([0.2, 0.4, 0.6, 0.8], [0, 1, 1, 0], 2, 0.2),  # |0.3 - 0.5| and |0.7 - 0.5|
        ([0.9, np.nan], [1, 0], 15, 0.1),
    ],
)
def test_calibration_error_by_hand(scores, right, bins, expected):
    assert metrics.expected_calibration_error(*scored(scores, right), bins=bins) == pytest.approx(expected)


def test_calibration_bins_hold_equal_numbers():
    rng = np.random.default_rng(8)
    score = rng.random(3000) ** 3
    curve = metrics.reliability_curve(*scored(score, rng.random(3000) < score))
    assert curve.detections.tolist() == [200] * 15
    assert (np.diff(curve.score) > 0).all()
    assert np.abs(curve.score - curve.right).max() < 0.12


def test_calibration_without_scores_is_nan():
    assert np.isnan(metrics.expected_calibration_error([ONE.replace(score=None)], [ONE]))
    assert np.isnan(metrics.expected_calibration_error([NONE], [ONE]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.count_accuracy([ONE], []), "got 1 and 0 images"),
        (lambda: metrics.match_errors([ONE], [ONE], 0.0), "max_distance_px must be .* got 0.0"),
        (
            lambda: metrics.coverage(metrics.match_errors([ONE], [ONE]), widths=(-1.0,)),
            "width must be .* got -1.0",
        ),
        (
            lambda: metrics.expected_calibration_error([ONE.replace(score=[230.0])], [ONE]),
            "probabilities .* 230.0",
        ),
        (lambda: metrics.expected_calibration_error([ONE], [ONE], bins=0), "bins must be .* got 0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()
