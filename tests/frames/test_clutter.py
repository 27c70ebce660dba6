"""What tells targets from clutter, on spots of known kind."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import KDTree

from csist.frames import unmix_frame
from csist.frames.detection.clutter import (
    FEATURES,
    SHAPE_FEATURES,
    clutter_features,
    clutter_table,
    directional_leads,
    least_probability,
    target_probability,
)
from csist.frames.detection.contrast import ContrastFrame
from csist.frames.detection.peaks import Peaks
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, measure_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

NAMES = {name: place for place, name in enumerate(FEATURES)}


def features_of(image, x, y, significance=20.0):
    peaks = Peaks(np.array(x, dtype=float), np.array(y, dtype=float), np.full(len(x), significance), np.zeros(len(x)))
    return clutter_features(image, peaks, 1e-6, None, np.ones(len(x), dtype=bool), np.zeros(len(x), dtype=bool))


def spot(shape, x, y, flux, sigma=1.2):
    rows, columns = np.indices(shape)
    return flux * GaussianPSF(sigma).response(columns - x, rows - y)


def textured(shape, seed=0):
    return np.random.default_rng(seed).normal(0.0, 1.0, shape)


def test_a_spot_leads_in_all_directions_and_an_edge_does_not():
    image = textured((60, 80)) + spot((60, 80), 20, 30, 300.0)
    image[:, 60] += 30.0  # a wire
    features = features_of(image, [20, 60], [30, 30])
    least, usual = features[:, NAMES["least lead"]], features[:, NAMES["usual lead"]]
    assert least[0] > 2.5 and usual[0] > 2.5
    assert least[1] < 1.5
    assert target_probability(features)[0] > target_probability(features)[1] + 0.3


def test_a_single_row_is_sharper_than_optics():
    image = textured((60, 80)) + spot((60, 80), 20, 30, 300.0)
    image[30, 59:62] += 30.0
    sharp = features_of(image, [20, 60], [30, 30])[:, NAMES["sharpness"]]
    assert sharp[0] < 0.6 and sharp[1] > 0.85


def test_the_border_counts_in_the_outermost_pixels():
    image = textured((60, 80))
    edge = features_of(image, [0, 2, 3, 4, 5, 40], [30] * 6)[:, NAMES["edge"]]
    np.testing.assert_allclose(edge, [1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0])


@pytest.mark.parametrize("psf", [None, GaussianPSF(1.2)])
@pytest.mark.parametrize(("number", "flux"), [(10, 240.0), (50, 240.0), (50, 350.0), (100, 240.0)])
def test_many_faint_stars_are_no_clutter(psf, number, flux):
    rng = np.random.default_rng(number)
    sky = Sensor(GaussianPSF(1.2), shape=(160, 160), background=100.0, read_noise=5.0)
    x, y = rng.uniform(10, 150, (2, number))
    frame = sky.observe(Targets(x, y, np.full(number, flux)), rng)
    result = unmix_frame(frame, psf=psf, mode="fast", workers=1)
    # 0 of 10 and 1 of 100 where the frame counts as clutter.
    assert result.detector == ("crowded" if number == 100 else "contrast" if psf is None else "matched")
    found = KDTree(np.stack([result.targets.x, result.targets.y], axis=1))
    assert (found.query(np.stack([x, y], axis=1))[0] < 1.0).mean() > 0.9
    assert len(result.targets) <= number + 2


def test_texture_between_stars_is_clutter_still():
    rng = np.random.default_rng(0)
    sky = Sensor(GaussianPSF(1.2), shape=(160, 160), background=100.0, read_noise=5.0)
    frame = sky.observe(Targets(*rng.uniform(10, 150, (2, 20)), np.full(20, 400.0)), rng)
    frame += 10.0 * ndimage.gaussian_filter(rng.normal(size=frame.shape), 2.0) * 7.0
    assert unmix_frame(frame, psf=1.2, mode="fast", workers=1).detector == "contrast"


def test_every_candidate_of_a_frame_knows_of_its_weak_ones():
    image = textured((120, 160))
    x, y = (place.ravel() for place in np.meshgrid(np.arange(10, 150, 20), np.arange(10, 110, 20)))
    features = features_of(image, x, y, significance=7.0)
    weak = features[:, NAMES["weak candidates"]]
    assert (weak == weak[0]).all()
    strength = 2.0 * features[:, 0] + features[:, 1] + features[:, 2]
    assert weak[0] == pytest.approx(np.log1p(((strength > 6.0) & (strength <= 9.0)).sum()))
    peaks = Peaks(x.astype(float), y.astype(float), np.full(len(x), 7.0), np.zeros(len(x)))
    beside = clutter_features(image, peaks, 1e-6, None, *np.zeros((2, len(x)), dtype=bool))
    assert not beside[:, NAMES["weak candidates"]].any()


def test_faint_spots_of_the_shape_of_a_stated_psf_are_no_weak_candidates():
    image, psf = textured((160, 240)), GaussianPSF(1.2)
    rows, columns = np.indices(image.shape)
    stars, discs = ([(x, y) for x in range(20, 230, 30)] for y in (40, 110))
    for x, y in stars:
        image += spot(image.shape, x, y, 8.0 / psf.response(0.0, 0.0))
    for x, y in discs:
        image += 5.0 * (np.hypot(columns - x, rows - y) <= 4.5)
    measured = measure_frame(check_frame(image), FrameRules(), psf)
    seen = ContrastFrame.of(measured.image, measured.background, measured.pixels.masked, psf)
    number = {}
    for name, places in (("stars", stars), ("discs", discs)):
        x, y = np.array(places, dtype=float).T
        peaks = Peaks(x, y, np.full(len(x), 7.0), np.zeros(len(x)))
        number[name] = np.expm1(seen.clutter_features(peaks)[0, NAMES["weak candidates"]])
    assert number["stars"] == 0.0
    assert number["discs"] >= 3.0


@pytest.mark.parametrize("factor", [1e-12, 7.0, 1e9])
def test_features_do_not_depend_on_the_unit_of_the_counts(factor):
    image = textured((60, 80)) + spot((60, 80), 20, 30, 300.0)
    image[5:9, 5:9] = np.nan
    first = features_of(image, [20, 6, 0, 79], [30, 6, 0, 59])
    peaks = Peaks(*np.array([[20.0, 6.0, 0.0, 79.0], [30.0, 6.0, 0.0, 59.0], [20.0] * 4, [0.0] * 4]))
    second = clutter_features(
        factor * image, peaks, factor * 1e-6, None, np.ones(4, dtype=bool), np.zeros(4, dtype=bool)
    )
    np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-9)
    assert np.isfinite(first).all()


def test_no_candidates_have_no_features():
    none, nobody = Peaks(*np.empty((4, 0))), np.empty(0, dtype=bool)
    assert clutter_features(textured((20, 20)), none, 1.0, None, nobody, nobody).shape == (0, len(FEATURES))
    assert target_probability(np.empty((0, len(FEATURES)))).shape == (0,)
    assert directional_leads(textured((20, 20)), none, 1.0, None, nobody).shape == (0, 2)


def test_the_targets_of_a_group_take_no_lead_from_each_other():
    sigma, places = 0.7, ((30.0, 30.0), (32.7, 30.0), (31.4, 32.3))
    alone = textured((60, 80)) + spot((60, 80), *places[0], 60.0, sigma)
    group = alone + sum(spot((60, 80), *place, 60.0, sigma) for place in places[1:])
    peaks = Peaks(*np.array(places).T, np.full(3, 20.0), np.zeros(3))

    def lead(image, targets):
        return directional_leads(image, peaks, 1e-6, sigma, np.array(targets))[0]

    np.testing.assert_allclose(lead(group, [True] * 3), lead(alone, [False] * 3), rtol=0.35)
    assert (lead(group, [False] * 3) < 0.75 * lead(group, [True] * 3)).all()


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_the_light_of_a_target_takes_nothing_from_itself(sigma):
    image = textured((90, 90)) + spot((90, 90), 45.0, 44.0, 500.0, sigma)
    peaks = Peaks(np.array([45.0]), np.array([44.0]), np.array([20.0]), np.zeros(1))
    alone, target = (directional_leads(image, peaks, 1e-6, sigma, np.array([is_target])) for is_target in (False, True))
    np.testing.assert_array_equal(target, alone)


@pytest.mark.parametrize("known_psf", [False, True])
def test_the_table_is_that_of_the_features(known_psf):
    table = clutter_table(known_psf=known_psf)
    assert table.coefficients.shape == (1 + len(FEATURES) + known_psf * len(SHAPE_FEATURES),)
    assert 0.0 < least_probability(1e-9, known_psf=known_psf) == table.least_probability < 0.5
    assert least_probability(1e-6, known_psf=known_psf) < least_probability(1e-9, known_psf=known_psf)
    assert least_probability(1e-30, known_psf=known_psf) <= 0.9


def test_a_known_psf_tells_its_targets_from_knees_and_broad_spots():
    psf, (rows, columns) = GaussianPSF(0.8), np.indices((90, 120))
    image = textured((90, 120))
    image += spot(image.shape, 30.0, 30.0, 60.0, 0.8) + spot(image.shape, 30.0, 60.0, 600.0, 2.5)
    image += 20.0 * ((np.abs(rows - 30) < 1) & (columns >= 80) | (np.abs(columns - 80) < 1) & (rows >= 30))
    peaks = Peaks(np.array([30.0, 30.0, 80.0]), np.array([30.0, 60.0, 30.0]), np.full(3, 15.0), np.zeros(3))
    measured = measure_frame(check_frame(image), FrameRules(), psf)
    point, broad, knee = target_probability(
        ContrastFrame.of(measured.image, measured.background, measured.pixels.masked, psf).clutter_features(peaks)
    )
    assert point > 0.5
    assert broad < 0.6 * point
    assert knee < 0.6 * point
