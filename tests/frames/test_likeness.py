"""Likeness of a spot's surroundings to one to three point sources."""

from itertools import product

import numpy as np
import pytest

from csist.frames.detection.likeness import likeness_to_sources, transformed
from csist.physics.psf import EllipticalGaussianPSF, GaussianPSF, MoffatPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

AT = np.array([20])


def frame_of(psf, places, shape=(41, 41)):
    x, y = np.array(places).T
    return Sensor(psf, shape=shape).render(Targets(x=x, y=y, intensity=np.full(len(x), 100.0)))


def bowl(shape=(41, 41)):
    rows, columns = np.indices(shape)
    return 5.0 + 0.3 * columns - 0.2 * rows + 0.02 * (columns - 12.0) ** 2 - 0.03 * (rows - 25.0) * columns


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), GaussianPSF(1.2), GaussianPSF(4.0)])
def test_one_source_on_a_curved_background_is_all_explained(psf):
    image = frame_of(psf, [(20.0, 20.0)]) + bowl()
    assert likeness_to_sources(image, AT, AT, psf) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("number", "least"), [(1, 0.98), (2, 0.92), (3, 0.82)])
def test_sources_off_the_grid_are_explained_nearly_all(number, least):
    psf, rng = GaussianPSF(0.9), np.random.default_rng(number)
    for _ in range(20):
        places = np.array([(20.0, 20.0), (23.3, 20.4), (20.9, 16.8)])[:number] + rng.uniform(-0.25, 0.25, (number, 2))
        assert likeness_to_sources(frame_of(psf, places) + bowl(), AT, AT, psf)[0] > least


def test_it_comes_near_that_of_an_exhaustive_search_for_a_pair():
    psf, places = GaussianPSF(0.7), [(20.0, 20.0), (21.5, 22.0)]
    image = frame_of(psf, places) + np.random.default_rng(0).normal(0.0, 2.0, (41, 41))
    reach = 4
    window = image[20 - reach : 21 + reach, 20 - reach : 21 + reach].ravel()
    y, x = (each.ravel() - reach for each in np.indices((2 * reach + 1, 2 * reach + 1)))
    curved = [np.ones(len(x)), x, y, x * x, x * y, y * y]

    def unexplained(*sources):
        design = np.stack([*curved, *(psf.response(x - dx, y - dy) for dx, dy in sources)], axis=1)
        rest = window - design @ np.linalg.lstsq(design, window, rcond=None)[0]
        return float(rest @ rest)

    free, grid = len(x) - 6, list(product(np.arange(-1.5, 2.6, 0.5), repeat=2))
    near = [place for place in grid if np.hypot(*place) <= 1.5]
    pairs = [unexplained(a, b) for a in near for b in grid if np.hypot(a[0] - b[0], a[1] - b[1]) > 0.6]
    expected = np.sqrt(1.0 - min(pairs) / unexplained() * free / (free - 6))
    found = likeness_to_sources(image, AT, AT, psf)[0]
    assert 0.95 * expected < found < expected + 0.02  # a third source may explain some of the noise


def test_noise_an_edge_and_darkness_are_not_like_sources():
    psf, rng = GaussianPSF(0.8), np.random.default_rng(0)
    noise = np.array([likeness_to_sources(rng.normal(size=(41, 41)), AT, AT, psf)[0] for _ in range(50)])
    assert np.median(noise) < 0.6
    edge = np.where(np.arange(41) > 20, 100.0, 0.0) * np.ones((41, 1))
    assert likeness_to_sources(edge, AT, AT, psf)[0] < 0.8
    assert likeness_to_sources(-frame_of(psf, [(20.0, 20.0)]), AT, AT, psf)[0] < 0.6
    assert likeness_to_sources(np.zeros((41, 41)), AT, AT, psf)[0] == 0.0
    assert len(likeness_to_sources(np.zeros((41, 41)), AT[:0], AT[:0], psf)) == 0


def test_the_psf_itself_is_the_template():
    psf = EllipticalGaussianPSF(0.8, 1.8, 30.0)
    image = frame_of(psf, [(20.0, 20.0)])
    assert (
        likeness_to_sources(image, AT, AT, psf)[0] > likeness_to_sources(image, AT, AT, MoffatPSF(1.2, 3.0))[0] + 0.01
    )


def test_masked_pixels_and_the_border_are_no_light():
    psf = GaussianPSF(0.8)
    image = frame_of(psf, [(0.0, 0.0), (20.0, 20.0)])
    image[18, 18] = np.nan
    likeness = likeness_to_sources(image, np.array([0, 20]), np.array([0, 20]), psf)
    assert np.isfinite(likeness).all() and likeness[1] > 0.95


def test_the_transform_is_finite_and_monotone():
    values = transformed(np.array([-1.0, 0.0, 0.5, 0.99, 1.0]))
    assert np.isfinite(values).all() and (np.diff(values) > 0.0).all()
