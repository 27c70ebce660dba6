from pathlib import Path

import numpy as np
import pytest

from csist.benchmarking.common import folder_of, match, share
from csist.benchmarking.m2 import Field as StarField
from csist.benchmarking.m2 import judge as judge_stars
from csist.benchmarking.m2 import load as load_m2
from csist.benchmarking.m2 import report
from csist.benchmarking.sirst import Frame, Outcome, summarise
from csist.benchmarking.spitzer import MILLIJANSKY_PER_COUNT
from csist.benchmarking.spitzer import judge as judge_catalogue
from csist.checks import InputError
from csist.physics.psf import GaussianPSF, SampledPSF
from csist.targets import Targets

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
    assert [each["met"] for each in result["targets"]] == [False, True, True]


def test_missing_folder_is_one_line(run, tmp_path):
    with pytest.raises(InputError, match="no folder sirst"):
        folder_of(tmp_path, "sirst")
    code, _, said = run("benchmark", "real", "--data", tmp_path, "--part", "m2")
    assert code == 2
    assert said.count("\n") == 1
    assert "no folder m2_sdss_hst" in said
    code, _, said = run("benchmark", "real", "--data", tmp_path, "--part", "mars")
    assert code == 2
    assert "unknown part 'mars'" in said


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_psf_of_the_real_field_is_centred():
    field = load_m2(REAL / "m2_sdss_hst")
    reach = np.arange(-9, 10)
    response = field.psf.response(reach[None, :], reach[:, None])
    assert np.unravel_index(response.argmax(), response.shape) == (9, 9)
    assert abs((response * reach).sum() / response.sum()) < 0.1
