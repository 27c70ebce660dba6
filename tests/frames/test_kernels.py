"""The compiled passes against plain implementations of the same."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import sigmaclip

from csist.frames.detection.contrast import contrast_response, tail_significance
from csist.frames.detection.peaks import find_peaks
from csist.frames.detection.tails import (
    LocalTail,
    Tail,
    box_values,
    mark_tail,
    outdone_by_ring,
    quantiles_of_sorted,
    raise_to_tail,
    ring_values,
    tail_map,
    tail_of,
    tail_values,
)
from csist.frames.kernels import (
    add_products,
    clip_sorted,
    in_noise,
    local_maxima,
    raise_to_noise,
    spread_lines,
    steep_pixels,
)
from csist.frames.masks.mask import LONE_SHARE, LONE_SIGMAS, PixelKind, mask_pixels


@pytest.mark.parametrize("shape", [(3, 3), (5, 40), (64, 50)])
@pytest.mark.parametrize("scale", [0.7, 1.0, 2.2])
def test_the_laplacian_of_gaussian_is_that_of_scipy(shape, scale):
    image = np.random.default_rng(0).normal(size=shape)
    response, gain = contrast_response(image, scale)
    expected = -(scale**2) * ndimage.gaussian_laplace(image, scale, mode="mirror")
    np.testing.assert_allclose(response, expected, atol=1e-12)
    noise = np.random.default_rng(1).normal(size=(300, 300))
    assert contrast_response(noise, scale)[0].std() == pytest.approx(gain, rel=0.03)


@pytest.mark.parametrize("reach", [1, 2])
def test_local_maxima_are_those_of_a_maximum_filter(reach):
    image = np.random.default_rng(2).integers(0, 9, (40, 30)).astype(float)
    expected = (image == ndimage.maximum_filter(image, size=2 * reach + 1, mode="nearest")) & (image >= 6)
    np.testing.assert_array_equal(local_maxima(image, 6.0, reach), np.argwhere(expected))
    labels, number = ndimage.label(expected, structure=np.ones((3, 3)))
    peaks = find_peaks(image, 6.0, reach)
    assert len(peaks) == number
    np.testing.assert_array_equal(
        np.sort(peaks.significance), np.sort(ndimage.maximum(image, labels, np.arange(1, number + 1)))
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_of_matrices_is_added(dtype):
    rng = np.random.default_rng(4)
    down, across, image = (rng.normal(size=shape).astype(dtype) for shape in ((30, 7), (7, 40), (30, 40)))
    expected = image + down @ across
    add_products(image, down, across)
    np.testing.assert_allclose(image, expected, atol=20.0 * np.finfo(dtype).eps)


def test_clipping_of_sorted_rows():
    values = np.random.default_rng(3).normal(size=500)
    values[:20] += 50.0
    median, scatter, mean = clip_sorted(np.sort(values)[None], np.array([500]), 3.0, 8, 0.0)[0]
    usual = sigmaclip(values, 3.0, 3.0).clipped
    assert median == pytest.approx(np.median(usual), abs=0.02)
    assert scatter == pytest.approx(usual.std(), rel=0.1)
    assert mean == pytest.approx(usual.mean(), abs=0.02)
    np.testing.assert_array_equal(
        clip_sorted(np.array([[4.0, 9.0]]), np.array([1]), 3.0, 8, 0.0)[0, [0, 2]], [4.0, 4.0]
    )


def test_the_tail_is_interpolated_between_the_nodes():
    response = np.abs(np.random.default_rng(4).normal(size=(31, 41))) + 0.1
    flat = np.broadcast_to(np.array([0.0, 1.2, 2.5])[:, None, None], (3, 4, 5)).copy()
    z = tail_map(response, flat, Tail(1.28, 2.05, 1e-9, 0.4))
    power = np.log(2.05 / 1.28) / np.log(2.5 / 1.2)
    tail, between = response > 2.5, (response > 1.2) & (response <= 2.5)
    np.testing.assert_allclose(z[tail], 2.05 * (response[tail] / 2.5) ** power)
    np.testing.assert_allclose(z[between], np.interp(response[between], [1.2, 2.5], [1.28, 2.05]))
    np.testing.assert_allclose(z[response <= 1.2], 1.28 * response[response <= 1.2] / 1.2)
    slope = flat * np.linspace(1.0, 2.0, 5)  # the scale doubles from left to right
    tilted = response * np.linspace(1.0, 2.0, 41)
    np.testing.assert_allclose(tail_map(tilted, slope, Tail(1.28, 2.05, 1e-9, 0.4)), z)


@pytest.mark.parametrize("least", [1.0, 2.1, 3.0])
def test_the_tail_is_worked_out_wherever_it_may_reach_the_least(least):
    rng = np.random.default_rng(12)
    response = rng.standard_t(3.0, (61, 83)).astype(np.float32)
    meshes = np.array([0.0, 1.2, 2.5])[:, None, None] * rng.uniform(0.5, 1.5, (1, 4, 5))
    tail = Tail(1.28, 2.05, 0.01, 0.4)
    whole = tail_map(response, meshes, tail)
    marks, best = np.zeros(response.shape, dtype=bool), np.zeros(response.shape, dtype=np.float32)
    mark_tail(response, meshes, tail, least, marks)
    raise_to_tail(response, meshes, tail, marks, best)
    near = ndimage.binary_dilation(whole >= least, np.ones((3, 3)))
    assert marks[near].all()
    np.testing.assert_allclose(best[marks], np.maximum(whole, 0.0)[marks], rtol=1e-6)
    assert not best[~marks].any()
    places = np.argwhere(whole >= least)
    np.testing.assert_array_equal(tail_values(response, meshes, tail, places), whole[tuple(places.T)])


@pytest.mark.parametrize("threshold", [2.5, 3.5, 5.0])
def test_a_ring_that_outdoes_a_peak_would_have_kept_it_below_the_threshold(threshold):
    """Never a peak that the sorted ring would let pass, and most of the others."""
    rng = np.random.default_rng(3)
    light = rng.standard_t(4.0, (90, 120))
    light[25:70:20, 25:100:20] += 25.0
    response = ndimage.gaussian_filter(light, 1.0).astype(np.float32)
    beside = rng.random(response.shape) < 0.9
    scale = np.quantile(response, [0.5, 0.9, 0.98])
    local = LocalTail(response, scale[:, None, None] * rng.uniform(0.7, 1.3, (1, 4, 5)), Tail(1.28, 2.05, 1e-9, 0.4))
    ring = np.argwhere(np.hypot(*np.indices((33, 33)) - 16.0) <= 16.0) - 16
    ring = ring[np.hypot(*ring.T) > 6.0]
    places = local_maxima(response, float(scale[1]), 1)
    inside = ((places >= 16) & (places < np.array(response.shape) - 16)).all(axis=1)
    outdone = outdone_by_ring(local, beside, places, ring, 0.98, threshold)
    assert not outdone[~inside].any()

    values, counts = ring_values(response, beside, places, ring)
    top = np.array([response[i - 1 : i + 2, j - 1 : j + 2].max() for i, j in places[inside]])
    near = []
    for number, value, most in zip(counts[inside], values[inside], top, strict=True):
        middle, low, high = np.quantile(value[:number], [0.5, 0.9, 0.98])
        near.append(tail_of(*(np.array([each - middle]) for each in (most, low, high)), local.tail)[0])
    far = tail_values(response, local.meshes, local.tail, places[inside])
    passes = np.sqrt(np.array(near) * far) >= threshold
    assert passes.any()
    assert not outdone[inside][passes].any()
    assert outdone[inside][~passes].mean() > 0.5


def test_responses_are_compared_in_units_of_their_noise():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 30, 41)).astype(np.float32)
    noise, counted = rng.uniform(0.5, 2.0, (30, 41)), rng.random((30, 41)) < 0.8
    best = np.full((30, 41), -np.inf, dtype=np.float32)
    raise_to_noise(best, first, 0.3, noise)
    raise_to_noise(best, second, 0.7, noise)
    np.testing.assert_allclose(best, np.maximum(first / 0.3, second / 0.7) / noise, rtol=1e-6)
    part = np.s_[::3, ::3]
    expected = (first / (0.3 * noise))[part][counted[part]]
    np.testing.assert_allclose(in_noise(first, 0.3, noise, counted, 3), expected, rtol=1e-6)


def test_steep_pixels_differ_from_all_neighbours_one_way():
    image = np.random.default_rng(13).normal(size=(9, 11))
    padded = np.pad(image, 1, mode="reflect")
    cross = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    expected = (image - cross > 0.7).all(axis=0) | (cross - image > 0.7).all(axis=0)
    np.testing.assert_array_equal(steep_pixels(image, 0.7), np.argwhere(expected))


def test_lines_are_spread_linearly():
    lines = np.random.default_rng(14).normal(size=(3, 4))
    place = np.linspace(0.0, 3.0, 31)
    left = np.minimum(place.astype(np.int64), 2)
    expected = [np.interp(place, np.arange(4), line) for line in lines]
    np.testing.assert_allclose(spread_lines(lines, left, place - left), expected)
    np.testing.assert_array_equal(spread_lines(lines[:, :1], np.zeros(5, np.int64), np.zeros(5)), lines[:, [0] * 5])


def test_a_ring_holds_the_pixels_between_its_radii():
    rng = np.random.default_rng(8)
    response = rng.normal(size=(60, 70))
    beside = rng.random(response.shape) < 0.8
    offsets = np.arange(-9, 10)
    distance = np.hypot(offsets[:, None], offsets)
    ring = offsets[np.stack(np.nonzero((distance > 4) & (distance <= 9)), axis=1)]
    places = np.array([[30, 35], [0, 0], [59, 30]])
    values, counts = ring_values(response, beside, places, ring)
    i, j = np.indices(response.shape)
    for (row, column), inside, count in zip(places, values, counts, strict=True):
        distance = np.hypot(i - row, j - column)
        plain = response[(distance > 4) & (distance <= 9) & beside]
        assert count == len(plain)
        np.testing.assert_array_equal(np.sort(inside)[:count], np.sort(plain.astype(np.float32)))
        assert np.isinf(np.sort(inside)[count:]).all()


@pytest.mark.parametrize(("reach", "step"), [((7, 7), 3), ((60, 5), 1), ((60, 70), 2)])
def test_quantiles_of_boxes_are_those_of_numpy(reach, step):
    rng = np.random.default_rng(9)
    response = rng.normal(size=(60, 70))
    beside = rng.random(response.shape) < 0.8
    beside[:9, :9] = False
    rows, columns = np.array([0, 30, 59]), np.array([0, 69])
    values, counts = box_values(response, beside, rows, columns, reach, step)
    values.sort(axis=1)
    found = quantiles_of_sorted(values, counts, (0.5, 0.98), 3)
    for n, (row, column) in enumerate((row, column) for row in rows for column in columns):
        part = np.s_[
            max(row - reach[0], 0) : row + reach[0] + 1 : step,
            max(column - reach[1], 0) : column + reach[1] + 1 : step,
        ]
        plain = response[part][beside[part]]
        assert counts[n] == len(plain)
        expected = np.quantile(plain, [0.5, 0.98]) if len(plain) >= 3 else [np.nan, np.nan]
        np.testing.assert_allclose(found[:, n], expected, rtol=1e-6)


def test_a_tail_at_one_place_is_that_of_the_map():
    response = np.linspace(-1.0, 9.0, 40)
    flat = np.broadcast_to(np.array([0.5, 1.7, 3.0])[:, None, None], (3, 2, 2)).copy()
    whole = tail_map(np.tile(response, (2, 1)), flat, Tail(1.28, 2.05, 1e-9, 0.4))[0]
    low, high = np.full(40, 1.2), np.full(40, 2.5)
    np.testing.assert_allclose(tail_of(response - 0.5, low, high, Tail(1.28, 2.05, 1e-9, 0.4)), whole)


@pytest.mark.parametrize("scale", [0.7, 1.9])
def test_white_noise_is_normal_in_the_tail(scale):
    response, _ = contrast_response(np.random.default_rng(5).normal(size=(600, 600)), scale)
    z = tail_significance(response, np.ones(response.shape, dtype=bool), 1e-9)
    assert (z > 3.0).mean() == pytest.approx(1.35e-3, rel=0.15)


def test_lone_pixels_are_those_of_the_plain_rule():
    rng = np.random.default_rng(6)
    image = rng.normal(100.0, 1.0, (70, 80))
    places = rng.permutation(image.size)[:12]
    image.flat[places] += np.where(np.arange(12) % 2, 400.0, -90.0)
    image[0, 0] += 300.0  # in the corner and on an edge
    image[30, 79] += 300.0
    image[20:22, 40] += 300.0  # two together are no lone pixel
    excess = image - ndimage.median_filter(image, size=5, mode="mirror")
    scatter = 1.4826 * np.median(np.abs(excess))
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    pixels = mask_pixels(image)
    for sign, count in ((1.0, pixels.count(PixelKind.HOT)), (-1.0, pixels.count(PixelKind.DEAD))):
        around = ndimage.maximum_filter(sign * excess, footprint=ring, mode="mirror")
        plain = (sign * excess > LONE_SIGMAS * scatter) & (around < LONE_SHARE * sign * excess)
        assert count == plain.sum() > 0
