"""Groups inside one pixel whose pixel is uncertain: the posterior is that of all pixels together."""

from __future__ import annotations

import numpy as np
import pytest

from csist import GaussianPSF, ScenePrior, Sensor, Targets
from csist.methods.continuous import Continuous
from csist.methods.continuous.pooling import Pairs, by_count, join, pool, shares
from csist.methods.continuous.posterior import Draws
from csist.methods.continuous.search_in_pixel import PixelModes

NOISE = 20.0
FLUX = (300.0, 900.0)
SENSOR = Sensor(GaussianPSF(0.8), shape=(9, 9), read_noise=NOISE)
PRIOR = ScenePrior(count_range=(1, 1), intensity_range=FLUX, min_separation_px=0.5, single_pixel=True)
BORDERS = [(4.5, 4.0), (3.52, 4.1), (4.45, 4.48), (4.0, 3.5), (4.6, 3.5), (3.5, 4.55)]


def moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of x, y by quadrature over position and flux."""
    places = np.arange(1.5, 6.5, 0.05)
    fluxes = np.linspace(*FLUX, 41)
    rows = np.array([SENSOR.render(Targets([4.0], [y], [1.0]))[:, 4] for y in places])
    rows /= rows.max()
    scale = SENSOR.render(Targets([4.0], [4.0], [1.0]))[4, 4] / np.square(rows).max()
    light = scale * rows[:, None, :, None] * rows[None, :, None, :]  # (y, x, row, column); the PSF is separable
    cross, norm = (light * image).sum(axis=(2, 3)), np.square(light).sum(axis=(2, 3))
    density = fluxes[:, None, None]
    log = (density * cross - 0.5 * density**2 * norm) / NOISE**2
    weight = np.exp(log - log.max()).sum(axis=0)
    weight /= weight.sum()
    y, x = np.meshgrid(places, places, indexing="ij")
    mean = np.array([(weight * x).sum(), (weight * y).sum()])
    std = np.sqrt([(weight * (x - mean[0]) ** 2).sum(), (weight * (y - mean[1]) ** 2).sum()])
    return mean, std


@pytest.mark.parametrize("mode", ["accurate", "fast"])
def test_errors_of_a_target_at_a_border_are_those_of_the_quadrature(mode: str) -> None:
    rng = np.random.default_rng(4)
    scenes = [Targets([x], [y], [450.0]) for x, y in BORDERS for _ in range(4)]
    images = np.stack([SENSOR.observe(scene, rng) for scene in scenes])
    found = Continuous(SENSOR, mode=mode, prior=PRIOR).predict(images)
    ratios = []
    for image, targets in zip(images, found, strict=True):
        mean, std = moments(image)
        assert np.hypot(*(np.array([targets.x[0], targets.y[0]]) - mean)) < np.hypot(*std)
        ratios.append(np.array([targets.x_std[0], targets.y_std[0]]) / std)
    low, high = {"accurate": (0.9, 1.1), "fast": (0.9, 1.25)}[mode]
    assert low < np.median(ratios) < high and np.mean(np.abs(np.log(ratios)) < 0.3) > 0.9


def modes_of(evidence: list[float], counts: list[int]) -> PixelModes:
    slots = len(evidence)
    return PixelModes(np.array([evidence]), np.array([counts]), np.zeros((1, slots, 2), int), np.zeros((1, slots, 6)))


def test_the_evidence_of_a_count_is_the_sum_over_its_pixels() -> None:
    found = modes_of([-9.0, 1.0, 2.0, 1.5, -np.inf], [0, 1, 2, 1, 0])
    evidence, best = by_count(found, 3)
    assert evidence[0].tolist() == pytest.approx([-9.0, np.log(np.exp(1.0) + np.exp(1.5)), 2.0, -np.inf])
    assert best[0, :3].tolist() == [0, 3, 2]
    share = shares(found, np.array([1]))
    assert share[0].tolist() == pytest.approx([0.0, 1.0 / (1.0 + np.exp(0.5)), 0.0, 1.0 / (1.0 + np.exp(-0.5)), 0.0])
    assert shares(modes_of([0.0, -20.0, 3.0], [1, 1, 2]), np.array([1]))[0].tolist() == [pytest.approx(1.0), 0.0, 0.0]


def test_samples_are_pooled_by_the_shares() -> None:
    def draws(value: float) -> Draws:
        return Draws(np.full((1, 100, 3), value), np.full((1, 100), value), np.array([100]), np.full((1, 4), value))

    first, second, third = (Pairs(np.array([0]), np.array([slot])) for slot in (1, 2, 3))
    everything = join(join(draws(1.0), draws(2.0)), draws(3.0)), join(join(first, second), third)
    pooled = pool(*everything, np.array([[0.0, 0.25, 0.0, 0.75], [0.0, 0.0, 1.0, 0.0]]))
    assert pooled.kept.tolist() == [100, 0]
    assert [(pooled.theta[0, :, 0] == value).sum() for value in (1.0, 2.0, 3.0)] == [25, 0, 75]
    assert pooled.value[0].tolist() == pooled.theta[0, :, 0].tolist() and pooled.quality[0].tolist() == [3.0] * 4
