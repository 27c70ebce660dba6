"""Light of extended sources and streaks against sums of many points, its derivatives, and the evidence of a mode."""

import numpy as np
import pytest

from csist.frames.shapes.fit import Range, climb
from csist.frames.shapes.kernels import stretch
from csist.frames.shapes.light import blurred, disc, ellipse, light_of, point_targets, streak
from csist.frames.shapes.source import ExtendedSource
from csist.methods.continuous.model import Noise, Window
from csist.physics.psf import EllipticalGaussianPSF, GaussianPSF

SHAPE = (29, 31)
CENTRE = np.array([14.3, 13.6])
EVEN = (np.arange(2000) + 0.5) / 2000
SPIRAL = np.pi * (3.0 - 5.0**0.5) * np.arange(2000)
CIRCLE = np.stack([np.cos(SPIRAL), np.sin(SPIRAL)], axis=1)


def window_of(data):
    one = np.ones((1, *data.shape))
    return Window(data, np.zeros(data.shape, np.int8), np.ones(data.shape), 0, 0, one)


def sum_of_points(psf, places):
    rows, columns = np.indices(SHAPE)
    return np.mean([psf.response(columns - x, rows - y) for x, y in places], axis=0)


def axes(long, short, angle):
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ratio = 0.5 * np.log(long / short)
    return turn, [0.5 * np.log(long * short), ratio * np.cos(2.0 * angle), ratio * np.sin(2.0 * angle)]


@pytest.mark.parametrize(("long", "short", "angle"), [(2.0, 2.0, 0.0), (3.0, 1.2, 0.7), (1.5, 0.8, -1.2)])
@pytest.mark.parametrize("sigma_px", [0.6, 1.1])
def test_ellipse_and_disc_are_sums_of_points(long, short, angle, sigma_px):
    psf = GaussianPSF(sigma_px)
    turn, shape = axes(long, short, angle)
    place = np.array([*CENTRE, *shape])
    points = CENTRE + np.sqrt(-2.0 * np.log(EVEN))[:, None] * CIRCLE * [long, short] @ turn
    light, _ = light_of(ellipse(psf), place, SHAPE)
    expected = sum_of_points(psf, points)
    assert np.abs(light - expected).max() < 0.02 * expected.max()
    # Twice the standard deviation is the semi-axis of a uniform disc.
    points = CENTRE + 2.0 * np.sqrt(EVEN)[:, None] * CIRCLE * [long, short] @ turn
    light, _ = light_of(disc(psf), place, SHAPE)
    expected = sum_of_points(psf, points)
    assert np.abs(light - expected).max() < 0.08 * expected.max()
    assert light.sum() == pytest.approx(expected.sum(), abs=2e-3)


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), GaussianPSF(1.3), EllipticalGaussianPSF(1.4, 0.8, 30.0)])
def test_a_streak_is_a_row_of_points(psf):
    along = np.array([np.cos(0.6), np.sin(0.6)])
    light, _ = light_of(streak(psf), np.array([*CENTRE, np.log(9.0), 0.6]), SHAPE)
    expected = sum_of_points(psf, CENTRE + 9.0 * (EVEN - 0.5)[::5, None] * along)
    assert np.abs(light - expected).max() < 0.01 * expected.max()


def test_a_blurred_point_has_another_width():
    rows, columns = np.indices(SHAPE)
    light, _ = light_of(blurred(GaussianPSF(1.2)), np.array([*CENTRE, 0.03]), SHAPE)
    wider = GaussianPSF(1.2 * 1.03).response(columns - CENTRE[0], rows - CENTRE[1])
    assert np.abs(light - wider).max() < 0.006 * wider.max()


@pytest.mark.parametrize(
    ("outline", "shape"),
    [
        (ellipse(EllipticalGaussianPSF(1.2, 0.7, 20.0)), [0.4, 0.3, -0.2]),
        (disc(GaussianPSF(0.9)), [0.6, 0.0, 0.0]),
        (disc(EllipticalGaussianPSF(1.2, 0.7, 20.0)), [0.6, -0.3, 0.4]),
        (streak(EllipticalGaussianPSF(1.2, 0.7, 20.0)), [2.0, 0.6]),
        (blurred(GaussianPSF(0.9)), [0.02]),
    ],
)
def test_derivatives_are_those_of_the_light(outline, shape):
    place = np.array([*CENTRE, *shape])
    slopes = light_of(outline, place, SHAPE)[1]
    assert len(slopes) == len(place)
    for k in range(len(place)):
        step = np.eye(len(place))[k] * 1e-5
        numeric = (light_of(outline, place + step, SHAPE)[0] - light_of(outline, place - step, SHAPE)[0]) / 2e-5
        assert np.abs(numeric - slopes[k]).max() < 1e-4 * np.abs(numeric).max()


def test_stretch_has_the_axes_that_it_was_given():
    _, shape = axes(3.0, 1.5, 0.4)
    xx, xy, yy = stretch(*shape)[0]
    matrix = np.array([[xx, xy], [xy, yy]])
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(values, [1.5, 3.0])
    assert abs(vectors[:, 1] @ [np.cos(0.4), np.sin(0.4)]) == pytest.approx(1.0)


def test_the_evidence_is_the_integral_of_the_posterior():
    """Where the model is linear, Laplace's approximation is exact: the flux alone by quadrature."""
    rng = np.random.default_rng(0)
    outline = ellipse(GaussianPSF(1.0))
    place = np.array([*CENTRE, 0.5, 0.0, 0.0])
    light = light_of(outline, place, SHAPE)[0]
    window = window_of(500.0 * light + rng.normal(0.0, 1.0, SHAPE))._replace(basis=np.zeros((0, *SHAPE)))
    fixed = place[:, None] + np.array([-1e-9, 1e-9])
    within = Range.uniform(fixed[:, 0], fixed[:, 1]).joined(Range.uniform(np.log([100.0]), np.log([2000.0])))
    start = np.append(place, np.log(450.0))
    mode = climb(outline, start, within, window, Noise(1.0, 0.0, -1.0))
    log_flux = np.linspace(np.log(100.0), np.log(2000.0), 20001)
    misfit = ((window.data - np.exp(log_flux)[:, None, None] * light) ** 2).sum(axis=(1, 2))
    step = log_flux[1] - log_flux[0]
    exact = np.log(np.exp(-0.5 * (misfit - misfit.min())).sum() * step) - 0.5 * misfit.min() - np.log(np.log(20.0))
    assert mode.log_evidence == pytest.approx(exact, abs=0.1)
    assert np.exp(mode.theta[-1]) == pytest.approx(500.0, rel=0.05)


def test_a_climb_is_given_up_only_below_what_is_needed():
    """Two points far apart are no ellipse: its climb ends early, but not where its mode could be needed."""
    rng = np.random.default_rng(2)
    rows, columns = np.indices(SHAPE)
    light = sum(GaussianPSF(1.0).response(columns - x, rows - CENTRE[1]) for x in (CENTRE[0] - 2.5, CENTRE[0] + 2.5))
    window = window_of(500.0 * light + rng.normal(0.0, 1.0, SHAPE))._replace(basis=np.zeros((0, *SHAPE)))
    bounds = np.array([[0.0, 29.0], [0.0, 29.0], [-0.1, 2.0], [-0.8, 0.8], [-0.8, 0.8], [3.0, 9.0]])
    start = np.array([*CENTRE, 0.0, 0.0, 0.0, 6.0])
    search = ellipse(GaussianPSF(1.0)), start, Range.uniform(*bounds.T), window, Noise(1.0, 0.0, -1.0)
    mode = climb(*search)
    assert not mode.given_up
    needed = climb(*search, mode.log_evidence - 1.0)
    assert not needed.given_up
    assert needed.log_evidence == mode.log_evidence
    hopeless = climb(*search, 0.5 * mode.log_evidence)
    assert hopeless.given_up
    assert hopeless.log_evidence <= mode.log_evidence


def test_the_climb_of_points_reaches_the_flux_and_its_error():
    """Far from bounds the mode of one point in white noise is the linear estimate of its flux."""
    rng = np.random.default_rng(1)
    rows, columns = np.indices(SHAPE)
    light = GaussianPSF(1.0).response(columns - CENTRE[0], rows - CENTRE[1])
    window = window_of(500.0 * light + rng.normal(0.0, 1.0, SHAPE))._replace(basis=np.zeros((0, *SHAPE)))
    place = Range.uniform(np.zeros(2), np.full(2, 30.0)).joined(Range.uniform(np.log([50.0]), np.log([5000.0])))
    mode = climb(point_targets(GaussianPSF(1.0)), np.array([14.0, 14.0, 6.5]), place, window, Noise(1.0, 0.0, -1.0))
    assert mode.theta[:2] == pytest.approx(CENTRE, abs=0.02)
    assert np.exp(mode.theta[2]) == pytest.approx((window.data * light).sum() / (light**2).sum(), rel=2e-3)
    error = np.exp(mode.theta[2]) * mode.covariance[2, 2] ** 0.5
    assert error == pytest.approx((light**2).sum() ** -0.5, rel=0.01)


@pytest.mark.parametrize(
    ("outline", "shape", "sizes"),
    [
        ("streak", (np.log(9.0), 0.5), (9.0, 0.0, np.rad2deg(0.5))),
        ("ellipse", tuple(axes(3.0, 1.5, 0.5)[1]), (2.3548 * 3.0, 2.3548 * 1.5, np.rad2deg(0.5))),
        ("disc", tuple(axes(3.0, 1.5, -0.5)[1]), (12.0, 6.0, -np.rad2deg(0.5))),
    ],
)
def test_a_source_states_its_size_and_draws_all_its_light(outline, shape, sizes):
    source = ExtendedSource(outline, 40.2, 39.7, 900.0, shape, GaussianPSF(1.0))
    assert (source.long_px, source.short_px, source.angle_deg) == pytest.approx(sizes, rel=1e-4)
    image, moved = np.zeros((80, 80)), np.zeros((80, 80))
    source.add_to(image)
    source.shifted(-5.0, 3.0).add_to(moved)
    assert image.sum() == pytest.approx(900.0, rel=1e-3)
    np.testing.assert_allclose(moved[10:70, 10:60], image[7:67, 15:65], atol=1e-3)
    outside = np.zeros((20, 20))
    source.add_to(outside)
    assert outside.max() < 1e-3 * image.max()
