"""Frames that are not clean: whatever is wrong in one place, no target elsewhere is lost and none is invented."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from csist.frames import unmix_frame
from csist.frames.background.line_offsets import line_offsets
from csist.frames.masks.bad_lines import bad_lines
from csist.frames.masks.footprint import outside_footprint
from csist.frames.masks.streaks import streaks
from csist.frames.measured import FrameRules, measure_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

SHAPE, NOISE, SKY = (120, 160), 5.0, 1000.0
WARNED = Flag.SATURATED | Flag.POOR_FIT | Flag.MASKED
Spoiler = Callable[[np.random.Generator, np.ndarray], np.ndarray | None]
"""Changes a frame in place and returns the pixels (H, W) on which a target may be lost; None for none."""


def stars(seed: int) -> tuple[np.random.Generator, Targets, np.ndarray]:
    """Twelve isolated stars with a peak SNR of 30 and more."""
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() for each in np.meshgrid(20.0 + 40.0 * np.arange(4), 20.0 + 40.0 * np.arange(3)))
    x, y = x + rng.uniform(-5.0, 5.0, 12), y + rng.uniform(-5.0, 5.0, 12)
    truth = Targets(x=x, y=y, intensity=np.exp(rng.uniform(np.log(1500.0), np.log(9000.0), 12)))
    clean = Sensor(GaussianPSF(1.2), shape=SHAPE, quantised=False).render(truth)
    return rng, truth, SKY + clean + rng.normal(0.0, NOISE, SHAPE)


def hot_pixel(rng, frame):
    frame[rng.integers(10, 110), rng.integers(10, 150)] = 1e9


def absurd_pixel(rng, frame):
    frame[57, 73] = 1e18


def negative_pixel(rng, frame):
    frame[rng.integers(10, 110), rng.integers(10, 150)] = -1e9


def many_hot_pixels(rng, frame):
    before = frame.copy()
    for _ in range(40):
        frame[rng.integers(0, 120), rng.integers(0, 160)] = 10.0 ** rng.uniform(4.0, 9.0)
    return ndimage.binary_dilation(frame != before, iterations=3)


def bright_star(rng, frame):
    x, y = rng.uniform(70.0, 90.0), rng.uniform(50.0, 70.0)
    star = Targets(x=[x], y=[y], intensity=[3e8])
    frame += Sensor(GaussianPSF(1.2), shape=SHAPE, quantised=False).render(star)
    return np.hypot(np.arange(160) - x, np.arange(120)[:, None] - y) < 14.0


def filled_border(value: float) -> Spoiler:
    def fill(rng, frame):
        width = int(rng.integers(2, 9))
        border = np.ones(SHAPE, dtype=bool)
        border[width:-width, width:-width] = False
        frame[border] = value
        return ndimage.binary_dilation(border, iterations=3)

    return fill


def turned_footprint(rng, frame):
    angle, (i, j) = np.deg2rad(rng.uniform(10.0, 35.0)), np.indices(SHAPE)
    along, across = (
        (j - 80) * np.cos(angle) + (i - 60) * np.sin(angle),
        (i - 60) * np.cos(angle) - (j - 80) * np.sin(angle),
    )
    outside = (np.abs(along) > 62) | (np.abs(across) > 42)
    frame[outside] = 0.0
    return ndimage.binary_dilation(outside, iterations=4)


def round_footprint(rng, frame):
    outside = np.hypot(np.arange(160) - 80, np.arange(120)[:, None] - 60) > 58
    frame[outside] = 0.0
    return ndimage.binary_dilation(outside, iterations=4)


def trail(rng, frame):
    slope, start, (i, j) = rng.uniform(0.2, 0.9), rng.uniform(20.0, 40.0), np.indices(SHAPE)
    distance = (i - start - slope * (j - 20)) * np.cos(np.arctan(slope))
    frame += rng.choice([60.0, 300.0, 2000.0]) * np.exp(-0.5 * (distance / 1.2) ** 2)
    return np.abs(distance) < 7.0


def dead_lines(rng, frame):
    dead = np.zeros(SHAPE, dtype=bool)
    dead[:, rng.integers(5, 155, 3)] = True
    dead[rng.integers(5, 115, 2)] = True
    frame[dead] = 0.0
    return ndimage.binary_dilation(dead, np.ones((3, 3)), iterations=3)


def hot_columns(rng, frame):
    columns = rng.integers(5, 155, 2)
    frame[:, columns] += rng.choice([200.0, 20_000.0])
    return ndimage.binary_dilation(np.isin(np.arange(160), columns), iterations=3) & np.ones(SHAPE, dtype=bool)


def column_stripes(rng, frame):
    frame += rng.normal(0.0, 3.0 * NOISE, (1, 160))


def row_stripes(rng, frame):
    frame += rng.normal(0.0, 3.0 * NOISE, (120, 1))


def interlacing(rng, frame):
    frame[1::2] += 30.0


def level_jump(rng, frame):
    frame[:, rng.integers(70, 90) :] += 500.0


def tilt(rng, frame):
    frame += 8.0 * np.arange(160) + 5.0 * np.arange(120)[:, None]


def codec_blocks(rng, frame):
    frame += np.kron(rng.normal(0.0, 1.2 * NOISE, (15, 20)), np.ones((8, 8)))


SPOILERS = {
    "hot": hot_pixel, "absurd": absurd_pixel, "negative": negative_pixel, "many hot": many_hot_pixels,
    "bright star": bright_star, "zero border": filled_border(0.0), "full border": filled_border(65535.0),
    "nan border": filled_border(np.nan), "turned": turned_footprint, "round": round_footprint, "trail": trail,
    "dead lines": dead_lines, "hot columns": hot_columns, "column stripes": column_stripes,
    "row stripes": row_stripes, "interlacing": interlacing, "jump": level_jump, "tilt": tilt, "blocks": codec_blocks,
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", SPOILERS)
def test_no_other_target_is_lost(kind, seed):
    rng, truth, frame = stars(seed)
    spoiled = SPOILERS[kind](rng, frame)
    result = unmix_frame(frame, mode="fast", workers=1)
    found = result.targets
    spared = np.ones(12, dtype=bool)
    if spoiled is not None:
        spared = ~spoiled[np.rint(truth.y).astype(int), np.rint(truth.x).astype(int)]
    distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y)
    assert (distance[:, spared].min(axis=0) < 0.3).all()
    nearest = distance[:, spared].argmin(axis=0)
    np.testing.assert_allclose(found.intensity[nearest], truth.intensity[spared], rtol=0.15)
    rows, columns = (np.clip(np.rint(v).astype(int), 0, n - 1) for v, n in zip((found.y, found.x), SHAPE, strict=True))
    elsewhere = np.ones(len(found), dtype=bool) if spoiled is None else ~spoiled[rows, columns]
    bare = (found.flags & int(WARNED)) == 0
    assert not ((distance.min(axis=1) > 2.0) & elsewhere & bare).any()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("hot", "hot"), ("negative", "dead"), ("zero border", "outside"), ("full border", "outside"),
     ("turned", "outside"), ("trail", "streak"), ("dead lines", "line"), ("hot columns", "line")],
)  # fmt: skip
def test_what_is_masked_is_counted_by_its_kind(kind, name, seed):
    rng, _, frame = stars(seed)
    SPOILERS[kind](rng, frame)
    result = unmix_frame(frame, mode="fast", workers=1)
    counts = result.pixel_counts
    assert counts[name] > 0 and counts[name] >= 0.9 * sum(counts.values())
    assert result.mask.sum() == sum(counts.values()) - counts["saturated"]
    np.testing.assert_array_equal(result.pixels.of(name).sum(), counts[name])


def test_vignetting_loses_and_invents_nothing():
    for seed in (0, 1):
        _, truth, frame = stars(seed)
        shade = (
            1.0 / (1.0 + 0.4 * (((np.arange(160) - 80) / 80) ** 2 + ((np.arange(120)[:, None] - 60) / 60) ** 2)) ** 2
        )
        found = unmix_frame(frame * shade, mode="fast", workers=1).targets
        distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y)
        assert (distance.min(axis=0) < 0.3).all() and (distance.min(axis=1) < 2.0).all()


def test_an_empty_sky_is_no_fill():
    """Zero all over but for the stars: dark, not outside; and the same in whole numbers and in single photons."""
    rng, truth, _ = stars(3)
    clean = Sensor(GaussianPSF(1.2), shape=SHAPE, quantised=False).render(truth)
    none = np.zeros(SHAPE, dtype=bool)
    assert outside_footprint(clean, none, False) is None
    assert outside_footprint(np.rint(clean), none, True) is None
    assert outside_footprint(rng.poisson(0.02, SHAPE).astype(float), none, True) is None
    assert outside_footprint(np.full(SHAPE, 7.0), none, True) is None
    steps = np.floor(np.add.outer(np.arange(120) / 40.0, np.arange(160) / 40.0))
    assert outside_footprint(steps, none, True) is None


def test_things_of_a_scene_are_no_bad_lines_stripes_or_trails():
    rng = np.random.default_rng(4)
    noise = rng.normal(0.0, 5.0, SHAPE)
    mast = noise.copy()
    mast[30:, 70:72] += 100.0
    edge = noise.copy()
    edge[:, 70:] += 300.0
    slope = noise + 4.0 * np.arange(160)
    for frame in (noise, mast, edge, slope):
        assert not bad_lines(frame).any()
    clouds = ndimage.gaussian_filter(rng.normal(size=SHAPE), 6.0)
    assert line_offsets(noise + 100.0 * clouds / clouds.std()) is None
    assert streaks(edge - 150.0, np.full(SHAPE, 5.0)) is None
    assert streaks(noise, np.full(SHAPE, 5.0)) is None


def test_offsets_are_measured():
    rng = np.random.default_rng(5)
    columns, rows = rng.normal(0.0, 20.0, 160), rng.normal(0.0, 20.0, 120)
    found = line_offsets(rng.normal(0.0, 5.0, SHAPE) + columns + rows[:, None])
    assert found is not None
    left = columns - found[1], rows - found[0]
    # Of the stripes only what is wider than the neighbours is left.
    assert max(np.std(np.diff(part)) for part in left) < 0.6 * 20.0
    step = line_offsets(rng.normal(0.0, 5.0, SHAPE) + 500.0 * (np.arange(160) >= 77))
    assert step is not None
    assert np.ptp(step[1]) == pytest.approx(500.0, abs=5.0)
    assert not step[0].any()


@pytest.mark.parametrize("sky", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_of_photons_have_photon_noise(sky: float, seed: int) -> None:
    """Whole numbers whose scatter is that of so many photons: no bright star is split to fit its own noise."""
    rng = np.random.default_rng(seed)
    grid = np.array([14.0, 36.0, 58.0, 80.0])
    x, y = (each.ravel() + rng.uniform(-3.0, 3.0, 16) for each in np.meshgrid(grid, grid))
    stars = Targets(x=x, y=y, intensity=np.linspace(200.0, 2000.0, 16))
    light = Sensor(GaussianPSF(1.2), shape=(96, 96), background=sky, quantised=False).render(stars)
    found = unmix_frame(rng.poisson(light), psf=1.2, mode="fast").targets
    distance = np.hypot(found.x - x[:, None], found.y - y[:, None])
    at = distance.argmin(axis=1)
    assert (distance.min(axis=1) < 0.4).all()
    assert (found.score > 0.2).sum() <= 17
    assert np.median(np.abs(found.intensity[at] - stars.intensity) / np.sqrt(stars.intensity)) < 1.5


def test_whole_numbers_with_other_noise_are_not_taken_for_photons() -> None:
    dark = np.random.default_rng(0).normal(100.0, 3.0, (64, 64)).round()
    assert not measure_frame(dark, FrameRules()).counts_photons
    assert not measure_frame(dark - 110.0, FrameRules()).counts_photons
    photons = np.random.default_rng(0).poisson(4.0, (64, 64)).astype(float)
    assert measure_frame(photons, FrameRules()).counts_photons
    assert not measure_frame(photons * 1.5, FrameRules()).counts_photons
