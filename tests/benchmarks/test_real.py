"""The benchmark on real data: its parts, scores and aims."""

import sys
from pathlib import Path

import numpy as np
import pytest

import bench_real
from csist.checks import InputError
from csist.injection import BORDER_PX, draw_group
from csist.metrics import CSO_DISTANCES_PX
from csist.physics.psf import GaussianPSF, SampledPSF
from csist.targets import Targets
from real.common import folder_of, match, share
from real.injected import (
    COUNTS,
    PSF,
    RAYLEIGH_PX,
    Injection,
    add_targets,
    aimed_at,
    inject,
    limit_of,
    local_noise,
    place_groups,
    rows,
    targets_met,
)
from real.m2 import Field as StarField
from real.m2 import judge as judge_stars
from real.m2 import load as load_m2
from real.m2 import report
from real.sirst import Frame, Outcome, summarise
from real.spitzer import MILLIJANSKY_PER_COUNT
from real.spitzer import judge as judge_catalogue
from real.spitzer import targets_met as catalogue_aims
from real.wild import error_if_calibrated

REAL = Path(__file__).parents[3] / "shared" / "data" / "real"


def test_matching_is_one_to_one_and_ranked():
    truth = np.array([[1.0, 1.0, 100.0], [1.3, 1.0, 900.0]])
    found = np.array([[1.1, 1.0, 110.0], [1.1, 1.1, 120.0], [1.2, 1.0, 800.0]])
    assert match(found, truth, np.array([1.0, 2.0, 3.0]), 0.75, 2.0).tolist() == [-1, 0, 1]
    assert match(found, truth, np.array([3.0, 2.0, 1.0]), 0.75, 2.0).tolist() == [0, -1, 1]
    assert match(np.empty((0, 3)), truth, np.empty(0), 0.75).size == 0
    assert match(found, np.empty((0, 3)), np.ones(3), 0.75).tolist() == [-1, -1, -1]


def test_shares_have_intervals():
    assert share([])["cases"] == 0
    some = share([True] * 9 + [False])
    assert some["value"] == pytest.approx(0.9)
    assert some["interval"][0] < 0.9 <= some["interval"][1]


def test_detection_curve_counts_false_alarms():
    frame = Frame("v1", np.zeros((100, 1000)), np.array([[5.0, 5.0], [9.0, 9.0]]))
    outcome = Outcome(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]), 0.1)
    at = summarise([frame], [outcome])["probability_at_false_per_pixel"]
    assert at["5e-06"]["value"] == 0.5  # one false alarm is 1e-5 a pixel
    assert at["1e-05"]["value"] == 1.0
    assert at["1e-05"]["interval"] == [1.0, 1.0]


def test_faint_true_stars_are_no_false_alarms_and_halves_are_apart():
    reach = np.arange(-25, 26) / 5.0
    psf = SampledPSF(GaussianPSF(0.9).response(reach[None, :], reach[:, None]), 5)
    truth = np.array([[20.0, 20.0, 800.0], [30.0, 30.0, 200.0], [80.0, 80.0, 900.0]])
    field = StarField(np.full((100, 100), 200.0), psf, truth)
    found = Targets(
        x=[20.1, 30.0, 80.0, 60.0, 2.0], y=[20.0, 30.0, 80.0, 60.0, 2.0], intensity=[790, 260, 880, 700, 700],
        score=[5.0, 4.0, 3.0, 2.0, 6.0],
    )  # fmt: skip
    left, right = (judge_stars(field, found, half) for half in (True, False))
    assert left.star.tolist() == [0, 1]  # the border's detection is left out
    assert right.star.tolist() == [2, -1]
    assert right.best() == (1.0, 1)
    row = report(left, 2, 1.0)
    assert row["purity"]["value"] == row["completeness"]["value"] == 1.0
    assert row["position_error_px"]["median"] == pytest.approx(0.1)


def test_catalogue_is_judged_in_its_own_unit():
    truth = np.array([[10.0, 10.0, 100.0], [20.0, 20.0, 50.0], [40.0, 40.0, 60.0]])
    found = truth[:2] + np.array([0.05, 0.0, 0.0])
    found[:, 2] *= 0.95 / MILLIJANSKY_PER_COUNT
    result = judge_catalogue(found, truth)
    assert result["found"]["value"] == pytest.approx(2 / 3)
    assert result["flux_ratio"]["value"] == pytest.approx(0.95)
    assert [each["met"] for each in catalogue_aims(result)] == [False, True, True]


@pytest.mark.parametrize("count", COUNTS)
def test_every_target_of_a_group_has_a_neighbour_just_so_far_away(count):
    places = draw_group(count, 1.3, np.random.default_rng(count))
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + np.diag(np.full(count, np.inf))
    if count > 1:
        np.testing.assert_allclose(apart.min(axis=1), 1.3, atol=1e-9)
    np.testing.assert_allclose(places.mean(axis=0), 0.0, atol=1e-12)


def test_noise_is_measured_on_a_slope_and_beside_a_bright_spot():
    frame = np.random.default_rng(0).normal(0.0, 3.0, (80, 80)) + 4.0 * np.arange(80.0)
    frame[38:41, 38:41] += 5000.0
    assert local_noise(frame, 20.0, 20.0) == pytest.approx(3.0, rel=0.2)
    assert local_noise(np.full((80, 80), 7.0), 40.0, 40.0) == 1.0


def test_groups_are_apart_and_as_bright_as_stated():
    frame = np.random.default_rng(1).normal(50.0, 2.0, (200, 240))
    groups = place_groups(frame, "a", 20.0, np.random.default_rng(2))
    assert len(groups) > 20
    x, y = (np.concatenate([getattr(each.truth, axis) for each in groups]) for axis in "xy")
    owner = np.repeat(np.arange(len(groups)), [len(each.truth) for each in groups])
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    assert apart[owner[:, None] != owner].min() >= 16.0
    assert min(x.min(), y.min()) >= BORDER_PX
    for each in groups:
        alone = add_targets(np.zeros(frame.shape), each.truth[:1])
        assert alone.max() == pytest.approx(20.0 * each.noise)
        assert alone.sum() == pytest.approx(each.truth.intensity[0], rel=1e-6)


def test_injected_groups_are_judged_near_their_own_places_only():
    frame = np.random.default_rng(1).normal(50.0, 2.0, (200, 240))
    stray = Targets(x=[3.0], y=[3.0], intensity=[9.0], score=[1.0])
    given = place_groups(frame, "sirst_backgrounds", 20.0, np.random.default_rng(2))
    true = Targets.concatenate([each.truth for each in given])
    exact = Targets(
        x=true.x, y=true.y, intensity=true.intensity, score=np.ones(len(true)), x_std=np.full(len(true), 0.1),
        y_std=np.full(len(true), 0.1), intensity_std=np.full(len(true), 1.0),
    )  # fmt: skip
    nothing = np.zeros((0,))
    answers = iter([Targets.concatenate([stray, exact]), Targets(x=nothing, y=nothing, intensity=nothing)])
    groups = inject(frame, "sirst_backgrounds", 20.0, lambda _: next(answers), np.random.default_rng(2))
    figures = list(rows(groups))
    whole = figures[0]
    assert whole["real"]["count_right"]["value"] == 1.0
    assert whole["real"]["CSO-mAP"]["value"] == pytest.approx(100.0)
    assert whole["flat"]["count_right"]["value"] == 0.0
    assert {each.get("count") for each in figures} == {None, *COUNTS}
    whole["flat"]["CSO-mAP"]["value"] = 90.0
    assert [each["met"] for each in targets_met(figures)] == [True, True, False]  # 0.1 px claimed, exact


def test_limit_of_a_lone_target_follows_from_its_bound():
    lone = Targets(x=[30.2], y=[41.1], intensity=[20.0 * 2.0 / float(PSF.response(0.2, 0.1))])
    group = Injection("a", 20.0, float("nan"), 2.0, lone)
    assert aimed_at(group)
    two = Targets(x=[30.0, 30.0 + RAYLEIGH_PX / 2], y=[41.0, 41.0], intensity=[90.0, 90.0])
    assert not aimed_at(Injection("a", 20.0, 0.5, 2.0, two))
    limit = limit_of([group] * 30, lambda *_: None, steps=2000)
    assert limit["groups"] == 30
    # Errors of 0.039 px per axis (the Cramer-Rao bound) are within d in a share q of the cases; AP is q^2 unranked.
    distances = np.array(CSO_DISTANCES_PX)
    expected = 100.0 * np.mean((1.0 - np.exp(-0.5 * (distances / 0.0388) ** 2)) ** 2)
    assert np.mean(limit["bracket"]) == pytest.approx(expected, abs=5.0)


def test_missing_folder_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="no folder sirst"):
        folder_of(tmp_path, "sirst")
    for part, expected in (("m2", "no folder m2_sdss_hst"), ("mars", "invalid choice: 'mars'")):
        monkeypatch.setattr(sys, "argv", ["bench_real.py", "--data", str(tmp_path), "--part", part])
        with pytest.raises(SystemExit) as ended:
            bench_real.main()
        assert ended.value.code == 2
        assert expected in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_psf_of_the_real_field_is_centred():
    field = load_m2(REAL / "m2_sdss_hst")
    reach = np.arange(-9, 10)
    response = field.psf.response(reach[None, :], reach[:, None])
    assert np.unravel_index(response.argmax(), response.shape) == (9, 9)
    assert abs((response * reach).sum() / response.sum()) < 0.1


def test_the_error_of_exact_scores_is_that_of_their_scatter() -> None:
    few, many = (error_if_calibrated(np.linspace(0.1, 0.95, number), 200) for number in (80, 8000))
    assert 0.02 < few["interval_90"][0] < few["mean"] < few["interval_90"][1] < 0.15
    assert many["mean"] == pytest.approx(few["mean"] / 10.0, rel=0.3)
    assert error_if_calibrated(np.ones(30), 20)["mean"] == 0.0
