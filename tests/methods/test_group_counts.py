"""Everything that a group carries, for every number of targets from none to the most that the prior allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csist.methods.continuous import Continuous
from csist.methods.continuous.model import MEASURED, Stack
from csist.methods.continuous.posterior import empty_draws
from csist.methods.continuous.solvers import Sampled, report, share_with
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import COLUMNS, Targets

MOST = 5


def check(targets, group, draws):
    count = group.count
    assert len(targets) == count
    assert all(getattr(targets, name).shape == (count,) for name in COLUMNS)
    assert group.samples.shape == (draws, count, 3)
    assert group.interval().shape == (2, count, 3)
    assert group.covariance().shape == (3 * count, 3 * count)
    assert group.count_probability.sum() == pytest.approx(1.0)


@settings(max_examples=40)
@given(counts=st.lists(st.integers(0, MOST), min_size=1, max_size=6), draws=st.integers(2, 9))
def test_results_of_any_counts_are_put_together(counts, draws):
    rng = np.random.default_rng(0)
    windows = len(counts)
    sampled = empty_draws(windows, draws, 3 * MOST)
    for array in (sampled.theta, sampled.value, sampled.quality):
        array[:] = rng.uniform(0.1, 1.0, array.shape)
    sampled.kept[:] = draws
    evidence = np.full((windows, MOST + 1), -50.0)
    evidence[np.arange(windows), counts] = 0.0
    bounds = np.zeros((windows, 3 * MOST)), np.ones((windows, 3 * MOST))
    stack = Stack(
        np.zeros((windows, 7, 7)),
        np.full((windows, 7, 7), MEASURED, np.int8),
        np.ones((windows, 7, 7)),
        np.zeros((0, 7, 7)),
    )
    found, groups = report(
        stack,
        Sampled(
            np.array(counts), evidence, rng.uniform(0.1, 1.0, (windows, MOST + 1, 3 * MOST)),
            rng.uniform(0.1, 1.0, windows), sampled, *bounds, np.ones(windows), np.ones(windows),
            np.zeros((windows, MOST), np.int64), "tempering",
        ),
        draws,
    )  # fmt: skip
    assert [group.count for group in groups] == counts
    for targets, group in zip(found, groups, strict=True):
        check(targets, group, draws)


def test_a_target_is_there_whatever_the_number_of_the_others():
    modes = np.zeros((4, 9))
    modes[1, :2] = 5.0, 5.0
    modes[2, :6] = 5.1, 5.0, 90.0, 7.0, 5.0, 40.0
    modes[3, :9] = 4.4, 5.0, 50.0, 5.6, 5.0, 50.0, 7.1, 5.0, 40.0
    probability = np.array([0.0, 0.2, 0.5, 0.3])
    share = share_with(np.array([[5.1, 5.0], [7.0, 5.0]]), modes, probability)
    # The first is there with one target as well, but is two of three; the second is there with two and three.
    np.testing.assert_allclose(share, [0.7, 0.8])
    assert share_with(np.empty((0, 2)), modes, probability).shape == (0,)


@pytest.mark.parametrize("prior", [ScenePrior(count_range=(0, 3)), ScenePrior.flat()])
def test_windows_of_sky_alone_have_empty_samples(prior):
    sensor = Sensor(GaussianPSF(1.0), shape=(13, 13), quantised=False)
    pair = sensor.render(Targets(x=[3.0, 8.5], y=[4.0, 7.2], intensity=[300.0, 500.0]))
    images = np.stack([np.zeros((13, 13)), pair]) + np.random.default_rng(1).normal(0.0, 1.0, (2, 13, 13))
    method = Continuous(sensor, prior=prior, mode="fast", noise_std=1.0, background="surface")
    found, groups = method.solve(images, keep_samples=True)
    assert [group.count for group in groups] == [0, 2]
    for targets, group in zip(found, groups, strict=True):
        check(targets, group, len(groups[1].samples))
