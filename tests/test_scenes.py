"""Scene priors and the sampler."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from csist.checks import InputError
from csist.io.cards import read_prior
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, draw_separated, flux_bounds, sample_scene_arrays, sample_scenes


def draw(count: int, groups: int, separation: float, seed: int = 0) -> np.ndarray:
    positions = np.empty((groups, count, 2))
    assert draw_separated(positions, np.ones(2), separation, np.random.default_rng(seed)) >= 0
    return positions


def test_benchmark_law_holds() -> None:
    prior = ScenePrior.csist_100k()
    for targets in sample_scenes(prior, Sensor(), 500, 1):
        assert 1 <= len(targets) <= 5
        assert ((targets.intensity >= 220) & (targets.intensity <= 250)).all()
        assert len({(int(np.floor(t.x[0] + 0.5)), int(np.floor(t.y[0] + 0.5))) for t in targets}) == 1
        apart = np.hypot(targets.x[:, None] - targets.x, targets.y[:, None] - targets.y)
        assert apart[np.triu_indices(len(targets), 1)].min(initial=9.0) >= 0.494
    assert prior.min_separation_px == pytest.approx(0.494)


def test_same_seed_same_scenes() -> None:
    prior = ScenePrior.csist_100k()
    assert sample_scenes(prior, Sensor(), 50, 7) == sample_scenes(prior, Sensor(), 50, 7)
    assert sample_scenes(prior, Sensor(), 50, 7) != sample_scenes(prior, Sensor(), 50, 8)


def test_uniform_on_the_allowed_set() -> None:
    # an independent sampler: whole configurations from numpy, kept where every pair is apart
    separation = 0.45
    candidates = np.random.default_rng(5).random((60_000, 3, 2))
    apart = np.stack([np.hypot(*(candidates[:, a] - candidates[:, b]).T) for a, b in ((0, 1), (0, 2), (1, 2))])
    naive = candidates[(apart >= separation).all(axis=0)]
    ours = draw(3, len(naive), separation, seed=6)

    def statistics(points: np.ndarray) -> list[np.ndarray]:
        edges = [np.hypot(*(points[:, a] - points[:, b]).T) for a, b in ((0, 1), (0, 2), (1, 2))]
        return [points[:, 0, 0], points[:, 2, 1], edges[0], np.min(edges, axis=0), np.max(edges, axis=0)]

    for a, b in zip(statistics(ours), statistics(naive), strict=True):
        assert kstest(a, b).pvalue > 1e-3


def test_acceptance_of_a_pair_equals_the_closed_form() -> None:
    d = 0.3
    positions = np.empty((20_000, 2, 2))
    rejected = draw_separated(positions, np.ones(2), d, np.random.default_rng(0))
    too_close = np.pi * d**2 - 8 / 3 * d**3 + d**4 / 2  # P(distance < d) of two uniform points in the unit square
    assert rejected / (rejected + 20_000) == pytest.approx(too_close, rel=0.03)


def test_log_uniform_flux_and_free_positions() -> None:
    prior = ScenePrior(count_range=(2, 2), intensity_range=(10.0, 1000.0), min_separation_px=0.5)
    targets, count = sample_scene_arrays(prior, Sensor(shape=(20, 30)), 2000, np.random.default_rng(0))
    assert (count == 2).all()
    assert kstest(np.log10(targets[:, :, 2].ravel()), "uniform", (1.0, 2.0)).pvalue > 1e-3
    assert kstest(targets[:, 0, 0], "uniform", (-0.5, 30.0)).pvalue > 1e-3
    assert kstest(targets[:, 1, 1], "uniform", (-0.5, 20.0)).pvalue > 1e-3


def test_edges_of_the_count() -> None:
    assert sample_scenes(ScenePrior(count_range=(0, 0), intensity_range=(1, 2)), Sensor(), 3, 0)[0].x.size == 0
    assert sample_scenes(ScenePrior.csist_100k(), Sensor(), 0, 0) == []


def test_flux_bounds_follow_the_noise() -> None:
    sensor = Sensor(psf=GaussianPSF(0.5), read_noise=2.0, quantised=False)
    low, high = flux_bounds(ScenePrior.flat(), sensor)
    # one sigma of a lone target's flux in white noise, from its definition: the response as a long vector
    pixels = np.arange(-10, 11)
    error = 2.0 / np.linalg.norm(GaussianPSF(0.5).response(pixels[None, :], pixels[:, None]))
    assert (low, high) == pytest.approx((4 * error, 1e5 * error))
    assert flux_bounds(ScenePrior.csist_100k(), sensor) == (220.0, 250.0)
    with pytest.raises(InputError, match="noise is 0"):
        flux_bounds(ScenePrior.flat(), Sensor(quantised=False))


def test_card_and_names(tmp_path: Path) -> None:
    prior = ScenePrior(count_range=(1, 3), intensity_range=(5.0, 9.0), intensity_law="uniform")
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(prior.to_card()))
    assert read_prior(str(path)) == prior
    assert ScenePrior.named("CSIST_100k") == ScenePrior.csist_100k()
    with pytest.raises(InputError, match="unknown prior 'nothing'"):
        ScenePrior.named("nothing")
    with pytest.raises(InputError, match="unknown prior 'nothing': use flat, csist-100k or the path"):
        read_prior("nothing")
    path.write_text('{"count": 1}')
    with pytest.raises(InputError, match="count"):
        read_prior(str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count_range": (3, 1)}, "count_range"),
        ({"intensity_range": (5.0, 1.0)}, "intensity_range"),
        ({"intensity_range": (0.0, 1.0)}, "intensity_range"),
        ({"intensity_law": "normal"}, "intensity_law"),
        ({"min_separation_px": -1.0}, "min_separation_px"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScenePrior(**arguments)


def test_impossible_separation(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = ScenePrior(count_range=(5, 5), intensity_range=(1.0, 2.0), min_separation_px=0.9, single_pixel=True)
    monkeypatch.setattr("csist.scenes.draw_separated", lambda *_: -1)
    with pytest.raises(InputError, match="do not fit into"):
        sample_scenes(prior, Sensor(), 3, 0)
