"""The law of motion: straight nearly parallel paths inside the inner square, the same for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from csist.checks import InputError
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.trajectories import MotionPrior, sample_trajectories, sample_trajectory_arrays

LAW = MotionPrior()


def test_groups_start_as_the_prior_says_and_stay_in_the_inner_square() -> None:
    targets, count = sample_trajectory_arrays(LAW, Sensor(), 400, np.random.default_rng(0))
    assert targets.shape == (400, 20, 4, 3)
    assert set(count) == {2, 3, 4}
    present = np.arange(4) < count[:, None]
    assert (np.isfinite(targets).all(axis=(1, 3)) == present).all()
    assert np.nanmax(np.abs(targets[..., :2] - 5.0)) <= 3.5
    first = targets[:, 0]
    for scene, number in zip(first, count, strict=True):
        assert (np.floor(scene[:number, :2] + 0.5) == np.floor(scene[0, :2] + 0.5)).all()  # inside one pixel
        apart = np.hypot(*(scene[:number, None, :2] - scene[None, :number, :2]).T)
        assert apart[~np.eye(number, dtype=bool)].min() >= LAW.start.min_separation_px


def test_paths_are_straight_and_nearly_parallel() -> None:
    targets, _ = sample_trajectory_arrays(LAW, Sensor(), 300, np.random.default_rng(1))
    velocity = np.diff(targets[..., :2], axis=1)
    assert np.nanmax(np.ptp(velocity, axis=1)) < 1e-12
    speed = np.hypot(*np.moveaxis(velocity[:, 0], 2, 0))
    assert np.nanmax(speed) <= LAW.group_speed_px + LAW.own_speed_px
    own = velocity[:, 0] - np.nanmean(velocity[:, 0], axis=1, keepdims=True)
    assert np.nanmax(np.hypot(own[..., 0], own[..., 1])) <= 2.0 * LAW.own_speed_px


def test_intensities_flicker_about_their_mean() -> None:
    still = replace(LAW, group_speed_px=0.0, own_speed_px=0.0, frames=200)
    targets, _ = sample_trajectory_arrays(still, Sensor(), 200, np.random.default_rng(2))
    flux = np.moveaxis(targets[..., 2], 1, 2)
    flux = flux[np.isfinite(flux).all(axis=2)]  # one row a target
    share = flux.std(axis=1, ddof=1) / flux.mean(axis=1)
    assert share.mean() == pytest.approx(LAW.scintillation, rel=0.03)
    steady, _ = sample_trajectory_arrays(replace(still, scintillation=0.0), Sensor(), 5, np.random.default_rng(2))
    assert np.nanmax(np.ptp(steady[..., 2], axis=1)) == 0.0


def test_same_seed_same_sequences_and_one_target_alone() -> None:
    one, other = (sample_trajectories(LAW, Sensor(), 3, seed=7) for _ in range(2))
    assert all(np.array_equal(a.x, b.x) for s, t in zip(one, other, strict=True) for a, b in zip(s, t, strict=True))
    alone = MotionPrior(start=replace(ScenePrior.csist_100k(), count_range=(1, 1)), frames=1)
    (sequence,) = sample_trajectories(alone, Sensor(), 1, seed=0)
    assert [len(frame) for frame in sequence] == [1]
    empty = MotionPrior(start=replace(ScenePrior.csist_100k(), count_range=(0, 0)), frames=2)
    assert [len(frame) for frame in sample_trajectories(empty, Sensor(), 1, seed=0)[0]] == [0, 0]


def test_a_card_gives_the_law_back() -> None:
    law = replace(LAW, frames=5, inner_side_px=6.0)
    assert MotionPrior.from_card(json.loads(json.dumps(law.to_card()))) == law
    with pytest.raises(InputError, match=r"a motion card may hold .* got \['speed'\]"):
        MotionPrior.from_card({"speed": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames must be a whole number >= 1, got 0"),
        ({"group_speed_px": -1.0}, "group_speed_px must be"),
        ({"inner_side_px": 0.0}, "inner_side_px must be"),
    ],
)
def test_bad_laws(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(LAW, **change)


def test_a_law_that_no_group_can_keep_is_refused() -> None:
    with pytest.raises(InputError, match="inner_side_px must be at most 11"):
        sample_trajectories(replace(LAW, inner_side_px=12.0), Sensor(), 1, seed=0)
    with pytest.raises(InputError, match=r"groups never stayed in the inner 0\.5 px"):
        sample_trajectories(replace(LAW, inner_side_px=0.5, group_speed_px=5.0), Sensor(), 2, seed=0)
