"""Intervals of a score and of a difference, against scores of batches that were really drawn anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from csist import metrics
from csist.checks import InputError
from csist.targets import Targets

ONE = Targets(x=[5.0], y=[5.0], intensity=[200.0], score=[0.5])
NONE = Targets.empty()


def scatter(truths: list[Targets], sigma_px: float, rng: np.random.Generator) -> list[Targets]:
    return [
        t.replace(
            x=t.x + rng.normal(0, sigma_px, len(t)), y=t.y + rng.normal(0, sigma_px, len(t)), score=rng.random(len(t))
        )
        for t in truths
    ]


def noisy_batch(seed: int, images: int = 60) -> tuple[list[Targets], list[Targets]]:
    rng = np.random.default_rng(seed)
    truths = [Targets(x=rng.random(n), y=rng.random(n), intensity=np.full(n, 9.0)) for n in rng.integers(0, 5, images)]
    return scatter(truths, 0.1, rng), truths


def test_the_interval_is_that_of_resampled_images() -> None:
    predictions, truths = noisy_batch(11)
    others = scatter(truths, 0.12, np.random.default_rng(1))
    scores = metrics.bootstrap_scores(predictions, truths, seed=5, resamples=40, level=0.8)
    difference = metrics.bootstrap_difference(predictions, others, truths, seed=5, resamples=40, level=0.8)
    rng = np.random.default_rng(5)
    drawn, apart = [], []
    for _ in range(40):
        chosen = rng.integers(0, len(truths), len(truths))
        again = [truths[i] for i in chosen]
        drawn.append(metrics.cso_map([predictions[i] for i in chosen], again))
        apart.append(drawn[-1]["CSO-mAP"] - metrics.cso_map([others[i] for i in chosen], again)["CSO-mAP"])
    value, other = metrics.cso_map(predictions, truths), metrics.cso_map(others, truths)
    assert list(scores) == list(value)
    for name, interval in scores.items():
        expected = [value[name], *np.quantile([each[name] for each in drawn], [0.1, 0.9])]
        np.testing.assert_allclose(interval, expected, atol=1e-9)
    expected = [value["CSO-mAP"] - other["CSO-mAP"], *np.quantile(apart, [0.1, 0.9])]
    np.testing.assert_allclose(difference, expected, atol=1e-9)
    assert metrics.bootstrap_interval(predictions, truths, seed=5, resamples=40, level=0.8) == scores["CSO-mAP"]


def test_it_contains_the_value_and_repeats() -> None:
    predictions, truths = noisy_batch(12)
    result = metrics.bootstrap_interval(predictions, truths, seed=1, resamples=200)
    assert result.low < result.value < result.high
    assert result == metrics.bootstrap_interval(predictions, truths, seed=1, resamples=200)
    assert result != metrics.bootstrap_interval(predictions, truths, seed=2, resamples=200)
    narrow = metrics.bootstrap_interval(predictions, truths, seed=1, resamples=200, level=0.5)
    assert result.low < narrow.low < narrow.high < result.high


def test_a_difference_changes_sign_and_is_nothing_with_itself() -> None:
    predictions, truths = noisy_batch(13)
    others = scatter(truths, 0.2, np.random.default_rng(2))
    there = metrics.bootstrap_difference(predictions, others, truths, seed=3, resamples=50)
    back = metrics.bootstrap_difference(others, predictions, truths, seed=3, resamples=50)
    np.testing.assert_allclose(there, (-back.value, -back.high, -back.low))
    assert there.low > 0  # twice the scatter is worse beyond doubt
    assert metrics.bootstrap_difference(predictions, predictions, truths, seed=3, resamples=50) == (0.0, 0.0, 0.0)


def test_images_that_are_drawn_together_count_as_one() -> None:
    predictions, truths = noisy_batch(13)
    copies = [[one for one in batch for _ in range(4)] for batch in (predictions, truths)]
    alone = metrics.bootstrap_interval(predictions, truths, seed=1, resamples=200)
    together = metrics.bootstrap_interval(*copies, seed=1, resamples=200, together=4)
    apart = metrics.bootstrap_interval(*copies, seed=1, resamples=200)
    assert apart.high - apart.low < 0.7 * (together.high - together.low)
    assert abs((together.high - together.low) / (alone.high - alone.low) - 1.0) < 0.1


def test_edges() -> None:
    for predictions, truths in (([ONE], [NONE]), ([], [])):
        assert np.isnan(metrics.bootstrap_interval(predictions, truths, seed=0)).all()
        assert np.isnan(metrics.bootstrap_difference(predictions, predictions, truths, seed=0)).all()
    assert metrics.bootstrap_interval([ONE], [ONE], seed=0, resamples=5) == (100.0, 100.0, 100.0)
    assert metrics.bootstrap_interval([NONE], [ONE], seed=0, resamples=5) == (0.0, 0.0, 0.0)
    assert metrics.bootstrap_difference([ONE], [NONE], [ONE], seed=0, resamples=5) == (100.0, 100.0, 100.0)
    sparse = metrics.bootstrap_interval([ONE, NONE], [ONE, NONE], seed=0, resamples=50)
    assert sparse == (100.0, 100.0, 100.0)  # resamples without any target have no score and are left out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.bootstrap_interval([ONE], [ONE], seed=0, level=95), "level must .* got 95"),
        (lambda: metrics.bootstrap_interval([ONE], [ONE], seed=0, resamples=0), "resamples must be .* got 0"),
        (lambda: metrics.bootstrap_interval([ONE], [ONE], seed=0, together=2), "together must .* 1, got 2"),
        (lambda: metrics.bootstrap_scores([ONE], [], seed=0), "got 1 and 0 images"),
        (lambda: metrics.bootstrap_difference([ONE], [ONE], [ONE], seed=0, level=0), "level must .* got 0"),
        (lambda: metrics.bootstrap_difference([ONE], [], [ONE], seed=0), "got 0 and 1 images"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
