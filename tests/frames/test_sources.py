"""Blobs that are no points: one row with its size; pairs and points with an inexact PSF stay what they are."""

import csv

import numpy as np
import pytest

from csist.frames import unmix_frame
from csist.frames.detection.peaks import Peaks
from csist.physics.psf import GaussianPSF
from csist.targets import Flag

SIDE = 44
EVEN = (np.arange(600) + 0.5) / 600
SPIRAL = np.pi * (3.0 - 5.0**0.5) * np.arange(600)
CIRCLE = np.stack([np.cos(SPIRAL), np.sin(SPIRAL)], axis=1)
OUTLINES = {
    "disc": 4.0 * np.sqrt(EVEN)[:, None] * CIRCLE,
    "ellipse": np.sqrt(-2.0 * np.log(EVEN))[:, None] * CIRCLE * [2.5, 1.2],
    "streak": 12.0 * (EVEN[:, None] - 0.5) * [1.0, 0.0],
    "pair": np.array([[-0.95, 0.0], [0.95, 0.0]]),
    "triangle": 1.9 / 3.0**0.5 * np.array([[0.0, 1.0], [0.75**0.5, -0.5], [-(0.75**0.5), -0.5]]),
    "point": np.zeros((1, 2)),
}


def scene(outline, peak, seed, width=1.0):
    """A frame with four sources of unit noise, and their centres."""
    rng = np.random.default_rng(seed)
    image, centres = np.zeros((2 * SIDE, 2 * SIDE)), []
    rows, columns = np.indices(image.shape)
    for corner in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)):
        centre = np.array(corner) + SIDE / 2 + rng.uniform(-2.0, 2.0, 2)
        angle = rng.uniform(0.0, np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        psf = GaussianPSF(width)
        x, y = (centre + OUTLINES[outline] @ turn).T
        light = psf.profile(rows[:, :1] - y) @ psf.profile(columns[:1].T - x).T
        share = psf.response(0.0, 0.0) if outline in ("pair", "triangle") else light.max()
        image += peak * light / share
        centres.append(centre)
    return 50.0 + image + rng.normal(0.0, 1.0, image.shape), np.array(centres)


def rows_at(result, centre):
    targets = result.targets
    return targets[np.hypot(targets.x - centre[0], targets.y - centre[1]) < 14.0]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("peak", [10.0, 30.0, 100.0])
@pytest.mark.parametrize(
    ("outline", "flag"), [("disc", Flag.EXTENDED), ("ellipse", Flag.EXTENDED), ("streak", Flag.STREAK)]
)
def test_a_source_wider_than_the_psf_is_one_row(outline, flag, peak, seed):
    image, centres = scene(outline, peak, seed)
    result = unmix_frame(image, psf=1.0, mode="fast", detector="matched")
    for centre in centres:
        found = rows_at(result, centre)
        assert len(found) == 1 and flag in Flag(int(found.flags[0]))
        errors = np.hypot(found.x_std[0], found.y_std[0])
        assert np.hypot(*(found.x[0] - centre[0], found.y[0] - centre[1])) < 5.0 * errors + 0.1
        group = result.groups[int(found.group[0])]
        (source,) = group.sources
        others = group.extended_probability + group.streak_probability
        assert others > 0.5 and group.count == 1
        # The probability of its shape is no doubt of its being there.
        spot = Peaks.beyond(result.threshold, *np.zeros((2, 1)), np.array([group.significance]))
        expected = (spot.score[0], spot.in_white_noise().score[0])  # beside more than noise, and beside noise alone
        assert found.score[0] in (pytest.approx(expected[0]), pytest.approx(expected[1]))
        if group.count_probability.size:
            assert group.count_probability.sum() + others == pytest.approx(1.0)
        true = {"disc": (8.0, 8.0), "ellipse": (5.89, 2.83), "streak": (12.0, 0.0)}[outline]
        if peak >= 30.0:
            assert (source.long_px, source.short_px) == pytest.approx(true, rel=0.15)
    # What is drawn is what was found: nothing but noise is left.
    assert np.std(result.residual()) < 1.2
    assert len(unmix_frame(image, psf=1.0, mode="fast", detector="matched", extended=False).targets) >= 4


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize("peak", [30.0, 300.0])
def test_a_close_pair_is_no_extended_source(peak, mode):
    image, centres = scene("pair", peak, 5)
    result = unmix_frame(image, psf=1.0, mode=mode)
    for centre in centres:
        found = rows_at(result, centre)
        assert len(found) == 2 and not (found.flags & int(Flag.EXTENDED | Flag.STREAK)).any()
        assert result.groups[int(found.group[0])].sources == ()


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize("sizes", [(3.0, 5.0), (5.0, 5.0), (3.0, 3.0)])
def test_a_bright_wide_source_is_not_a_faint_point(sizes, mode):
    rng = np.random.default_rng(1)
    y, x = np.indices((128, 128))
    light = 300.0 * np.exp(-((x - 63.8) ** 2) / (2.0 * sizes[0] ** 2) - (y - 63.7) ** 2 / (2.0 * sizes[1] ** 2))
    image = 100.0 + light + rng.normal(0.0, 3.0, light.shape)
    # The background of a small window took up all but 4 % of the light, and the noise of clutter the misfit.
    found = unmix_frame(image, psf=GaussianPSF(1.3), mode=mode, detector="contrast").targets
    assert len(found) == 1
    assert found.flags[0] & int(Flag.EXTENDED)
    assert found.intensity[0] == pytest.approx(light.sum(), rel=0.1)
    assert np.hypot(found.x[0] - 63.8, found.y[0] - 63.7) < 0.2


def test_errors_of_a_wide_source_follow_the_unit():
    rng = np.random.default_rng(1)
    y, x = np.indices((128, 128))
    image = 100.0 + 300.0 * np.exp(-((x - 63.8) ** 2 + (y - 63.7) ** 2) / 12.5) + rng.normal(0.0, 3.0, x.shape)
    counts, tiny = (unmix_frame(scale * image, psf=GaussianPSF(0.8), mode="fast").targets for scale in (1.0, 1e-18))
    assert len(counts) == len(tiny) == 1
    assert tiny.x_std[0] == pytest.approx(counts.x_std[0], rel=1e-3)
    assert tiny.intensity_std[0] == pytest.approx(1e-18 * counts.intensity_std[0], rel=1e-3)


def test_three_close_targets_are_no_extended_source():
    """At this brightness one source fits as well: that targets come in groups decides."""
    right = 0
    for seed in range(4):
        image, centres = scene("triangle", 10.0, seed)
        result = unmix_frame(image, psf=1.0, mode="fast", detector="matched")
        right += sum(len(rows_at(result, centre)) == 3 for centre in centres)
    assert right >= 12


@pytest.mark.parametrize("width", [0.97, 1.03])
@pytest.mark.parametrize("peak", [30.0, 300.0, 3000.0])
def test_a_point_whose_psf_is_not_exact_is_one_point(width, peak):
    image, centres = scene("point", peak, 7, width)
    result = unmix_frame(image, psf=1.0, mode="fast")
    assert len(result.targets) == len(centres)
    assert not (result.targets.flags & int(Flag.EXTENDED | Flag.STREAK)).any()


def test_the_table_of_groups_has_size_and_probabilities(run, tmp_path):
    image, _ = scene("streak", 40.0, 1)
    np.save(tmp_path / "frame.npy", image)
    code, _, _ = run("unmix", "frame.npy", "--psf-sigma", "1", "--mode", "fast", "--groups", "groups.csv")
    assert code == 0
    with (tmp_path / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row["long_px"]) == pytest.approx(12.0, rel=0.1)
        assert float(row["short_px"]) == 0.0 and -90.0 <= float(row["angle_deg"]) <= 90.0
        chances = [float(value or 0.0) for name, value in row.items() if name.startswith("p_")]
        assert float(row["p_streak"]) > 0.9 and sum(chances) <= 1.0 + 1e-9
    code, _, _ = run("unmix", "frame.npy", "--psf-sigma", "1", "--mode", "fast", "--groups", "g.csv", "--no-extended")
    assert code == 0
    with (tmp_path / "g.csv").open() as file:
        assert all(not row["long_px"] for row in csv.DictReader(file))
