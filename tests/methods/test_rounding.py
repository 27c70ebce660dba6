"""Rounded counts: their exact likelihood, and the posterior that it gives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from csist.methods.continuous import Continuous
from csist.methods.continuous.rounding import NOT_EXACT, log_normal_interval, noise_before_rounding
from csist.methods.continuous.solvers import EFFORTS
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

BENCHMARK = ScenePrior.csist_100k()


def test_probability_of_an_interval_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    above = rng.uniform(-28.0, 30.0, 500)
    below = np.maximum(2.0, 2.0 - above) + rng.uniform(0.0, 5.0, 500)
    for a, b in ((above, below), (below, above)):
        # taken in the tail where it is small, so that nothing cancels
        low, high = np.where(a < b, norm.logsf(-a), norm.logcdf(b)), np.where(a < b, norm.logsf(b), norm.logcdf(-a))
        expected = low + np.log1p(-np.exp(high - low))
        got = [log_normal_interval(*pair) for pair in zip(a, b, strict=True)]
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert log_normal_interval(-40.0, 60.0) == pytest.approx(norm.logsf(40.0), rel=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_samples_of_one_target_equal_weighing_draws_by_the_exact_likelihood(noise: float) -> None:
    sensor = Sensor(shape=(7, 7), read_noise=noise)
    scene = Targets(x=[3.21], y=[2.87], intensity=[236.3])
    image = sensor.observe(scene, 5)
    method = Continuous(sensor, prior=BENCHMARK, noise_std=noise)
    method.effort = replace(EFFORTS["accurate"], blocks=16, last_moves=200, records=8)
    _, groups = method.solve(image[None], keep_samples=True)
    samples = groups[0].samples
    assert samples is not None and groups[0].count == 1
    centre, spread = samples[:, 0].mean(axis=0), samples[:, 0].std(axis=0)
    rng = np.random.default_rng(1)
    draws = centre + rng.uniform(-5.0, 5.0, (200_000, 3)) * spread
    weight = np.empty(len(draws))
    for part in np.array_split(np.arange(len(draws)), 20):
        x, y, flux = draws[part].T
        residual = image - sensor.render_stack(x[:, None], y[:, None], flux[:, None])
        if noise == 0.0:
            weight[part] = (np.abs(residual) <= 0.5).all(axis=(1, 2))
        else:
            inside = norm.cdf((residual + 0.5) / noise) - norm.cdf((residual - 0.5) / noise)
            weight[part] = inside.prod(axis=(1, 2))
    weight /= weight.sum()
    assert 1.0 / (weight**2).sum() > 300  # the reference itself must be worth something
    mean = weight @ draws
    std = np.sqrt(weight @ (draws - mean) ** 2)
    assert (np.abs(centre - mean) < 0.25 * std).all()
    assert spread == pytest.approx(std, rel=0.1)


def test_a_wrong_psf_falls_back_to_the_forgiving_likelihood() -> None:
    sensor = Sensor(shape=(9, 9))
    scene = Targets(x=[4.1, 3.7], y=[3.8, 4.2], intensity=[240.0, 225.0])
    image = Sensor(psf=type(sensor.psf)(0.55), shape=(9, 9)).observe(scene, 0)
    found, groups = Continuous(sensor, prior=BENCHMARK, noise_std=0.0).solve(image[None])
    assert len(found[0]) and np.isfinite(found[0].x).all() and (found[0].x_std > 0).all()
    assert Flag.POOR_FIT in groups[0].flags


def test_only_low_noise_before_rounding_counts() -> None:
    variance = 1.0 / 12.0
    assert noise_before_rounding(Sensor(), variance) == 0.0
    assert noise_before_rounding(Sensor(), 0.04 + variance) == pytest.approx(0.2)
    assert noise_before_rounding(Sensor(), 1.0 + variance) == NOT_EXACT
    assert noise_before_rounding(Sensor(quantised=False), 0.04) == NOT_EXACT
    assert noise_before_rounding(Sensor(gain=2.0), variance) == NOT_EXACT
