"""Limits of labelled images: bounds by number of targets, and what is made of two sets of chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import csist
from csist.checks import InputError
from csist.evaluation import LabelledImages
from csist.limits import BLOCK, bound_table, measure_limits, summarise_bounds
from csist.physics.bounds import Bound, cramer_rao_bound

PRIOR = csist.ScenePrior.csist_100k()
SENSOR = csist.Sensor(read_noise=1.0)


def labelled(
    truths: list[csist.Targets], prior: csist.ScenePrior = PRIOR, sensor: csist.Sensor = SENSOR
) -> LabelledImages:
    images = np.stack([sensor.observe(truth, seed) for seed, truth in enumerate(truths)])
    names = [("data.h5", index) for index in range(len(truths) + 3)]  # as if a part had been read only
    return LabelledImages(Path("data.h5"), "test", images, truths, sensor, prior, names, len(truths) + 3)


def scenes(count: int) -> list[csist.Targets]:
    return csist.sample_scenes(PRIOR, SENSOR, count, seed=8)


def posterior_that_says(monkeypatch: pytest.MonkeyPatch, shift_px: float) -> list[int]:
    """Chains from the truth find it, the others are off by `shift_px`; gives the sizes of the blocks."""
    sizes: list[int] = []

    def fake(images: Any, truths: list[csist.Targets], *_: Any, progress: Any, **__: Any) -> Any:
        sizes.append(len(images))
        progress(len(images), len(images))
        return truths, [truth.replace(x=truth.x + shift_px) for truth in truths]

    monkeypatch.setattr("csist.methods.continuous.limit.posterior_limit", fake)
    return sizes


def test_the_bracket_and_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    # Targets keep 0.49 px apart, so a shift of 0.12 px makes every detection right from 0.15 px on.
    lone = [csist.Targets(x=[5.0], y=[4.0 + 0.01 * i], intensity=[230.0]) for i in range(6)]
    posterior_that_says(monkeypatch, 0.12)
    found = measure_limits(labelled(lone), resamples=20).posterior
    assert found is not None
    assert found.bracket == (60.0, 100.0)
    assert found.difference == (40.0, 40.0, 40.0)
    assert not found.agree
    assert [interval.value for interval in found.from_modes.values()] == [60.0, 0.0, 0.0, 100.0, 100.0, 100.0]
    posterior_that_says(monkeypatch, 0.01)
    found = measure_limits(labelled(lone), resamples=20).posterior
    assert found is not None
    assert found.agree
    assert found.bracket == (100.0, 100.0)


def test_blocks_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = posterior_that_says(monkeypatch, 0.0)
    seen: list[tuple[str, int, int]] = []
    truths = scenes(BLOCK + 3)
    result = measure_limits(labelled(truths), resamples=5, progress=lambda *each: seen.append(each))
    assert sizes == [BLOCK, 3]
    assert seen[-2:] == [("posterior", BLOCK, BLOCK + 3), ("posterior", BLOCK + 3, BLOCK + 3)]
    assert result.posterior is not None
    assert result.posterior.from_modes["AP05"] == (100.0, 100.0, 100.0)  # any other order would miss


def test_targets_anywhere_have_both_limits() -> None:
    apart = csist.Targets(x=[2.5, 7.8], y=[3.0, 7.2], intensity=[200.0, 400.0])
    result = measure_limits(labelled([apart] * 2, csist.ScenePrior.flat()), steps=20_000)
    assert result.posterior is not None
    assert result.posterior.bracket == pytest.approx((100.0, 100.0), abs=1e-9)
    assert len(result.bounds) == 2


def test_empty_images_have_no_bound() -> None:
    result = measure_limits(labelled([csist.Targets.empty()] * 2))
    assert (result.posterior, result.posterior_missing) == (None, "the images hold no target")
    rows = [(row.count, row.images, row.targets) for row in result.summary]
    assert rows == [(0, 2, 0), (None, 2, 0)]
    assert np.isnan(result.summary[0].x).all()
    table = bound_table(labelled([csist.Targets.empty()]), result.bounds[:1])
    assert (len(table), list(table.columns)[-1]) == (0, "bound_intensity")


def test_quartiles_by_number_of_targets() -> None:
    truths = scenes(12)
    bounds = [cramer_rao_bound(truth, SENSOR) for truth in truths]
    summary = summarise_bounds(bounds)
    assert [row.count for row in summary] == [*sorted({len(truth) for truth in truths}), None]
    for row in summary:
        chosen = [bound for bound in bounds if row.count in (None, len(bound.x))]
        assert (row.images, row.targets) == (len(chosen), sum(len(bound.x) for bound in chosen))
        for name in ("x", "y", "intensity"):
            values = sorted(value for bound in chosen for value in getattr(bound, name))
            assert getattr(row, name)[1] == pytest.approx(np.median(values))
            assert values[0] <= getattr(row, name)[0] <= getattr(row, name)[1] <= getattr(row, name)[2] <= values[-1]


def test_infinite_bounds_are_counted_and_left_blank() -> None:
    inf = float("inf")
    bound = Bound(np.array([0.1, inf, inf, inf]), np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, inf))
    row = summarise_bounds([bound])[0]
    assert row.unresolved == 4
    assert row.x == (inf, inf, inf)
    assert row.y == pytest.approx((0.175, 0.25, 0.325))
    truth = csist.Targets(x=[1.0, 2, 3, 4], y=[1.0, 2, 3, 4], intensity=[5.0, 6, 7, 8])
    table = bound_table(labelled([truth]), [bound])
    assert list(table.columns) == ["image", "frame", "x", "y", "intensity", "bound_x", "bound_y", "bound_intensity"]
    assert table["bound_x"].isna().tolist() == [False, True, True, True]
    assert table["bound_y"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert table["image"].tolist() == ["data.h5"] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"resamples": 0}, "resamples must be a whole number >= 1, got 0"),
    ],
)
def test_bad_numbers_are_named_before_the_work(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_limits(labelled(scenes(1)), **options)


def test_a_perfect_sensor_has_no_limit() -> None:
    with pytest.raises(InputError, match="neither noise nor rounding"):
        measure_limits(labelled(scenes(1), sensor=csist.Sensor(quantised=False)))
