"""Very large frames, unmixed tile by tile."""

import pickle

import numpy as np
import pytest

from csist.frames import solve, unmix_frame
from csist.frames.groups import FrameGroup
from csist.frames.tiles import tiles, unmix_tiles
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

PSF = GaussianPSF(1.1)


def sky(shape=(300, 420), number=40, seed=0):
    rng = np.random.default_rng(seed)
    truth = Targets(
        x=rng.uniform(4, shape[1] - 5, number), y=rng.uniform(4, shape[0] - 5, number),
        intensity=rng.uniform(1500.0, 6000.0, number),
    )  # fmt: skip
    frame = Sensor(PSF, shape=shape, quantised=False).render(truth) + 100.0 + rng.normal(0.0, 2.0, shape)
    frame[40, 41] = np.nan
    frame[200, 210] += 3000.0  # hot
    return frame


@pytest.mark.parametrize("shape", [(3, 3), (100, 100), (250, 99)])
def test_every_place_belongs_to_one_tile(shape):
    parts = list(tiles(shape, side=60, margin=7))
    x, y = np.random.default_rng(1).uniform(-1.0, 251.0, (2, 200))
    corners = np.array([[-0.5, -0.5], [shape[1] - 0.5, shape[0] - 0.5], [29.5, 29.5], [30.0, 59.5]])
    for place in [*np.stack([x, y], axis=1), *corners]:
        assert sum(tile.owns(*place) for tile in parts) == 1
    covered = np.zeros(shape, dtype=int)
    for tile in parts:
        covered[tile.part] += 1
    assert covered.min() >= 1


def test_tiles_give_what_the_whole_frame_gives():
    frame = sky()
    whole = unmix_frame(frame, psf=PSF, mode="fast")
    tiled = unmix_tiles(frame, lambda part: unmix_frame(frame[part], psf=PSF, mode="fast"), side=150, margin=64)
    found, groups = tiled.targets, tiled.groups
    assert len(found) == len(whole.targets) > 30
    distance = np.hypot(found.x[:, None] - whole.targets.x, found.y[:, None] - whole.targets.y)
    assert distance.min(axis=1).max() < 0.1 and distance.min(axis=0).max() < 0.1
    np.testing.assert_allclose(whole.targets.intensity[distance.argmin(axis=1)], found.intensity, rtol=0.05)
    assert [group.number for group in groups] == list(range(len(groups)))
    assert len(groups) == len(whole.groups)
    assert all((found.group == group.number).sum() == group.count for group in groups)
    assert np.all(np.diff([group.significance for group in groups]) <= 0)


def test_the_result_of_tiles_has_all_that_of_a_whole_frame_has():
    frame = sky()
    frame[:160, :150] = np.nan  # a tile without a valid pixel
    whole = unmix_frame(frame, psf=PSF, mode="fast", detector="contrast")
    tiled = unmix_tiles(
        frame, lambda part: unmix_frame(frame[part], psf=PSF, mode="fast", detector="contrast"), side=150, margin=10
    )
    np.testing.assert_array_equal(tiled.mask, whole.mask)
    assert tiled.pixel_counts == whole.pixel_counts
    assert {kind: count for kind, count in whole.pixel_counts.items() if count} == {"nan": 160 * 150, "hot": 1}
    assert (tiled.psf, tiled.psf_origin, tiled.threshold) == (whole.psf, "given", whole.threshold)
    assert tiled.image is frame and tiled.ceiling == np.inf
    valid = np.isfinite(tiled.background)
    np.testing.assert_array_equal(valid, np.isfinite(tiled.noise))
    assert not valid[:150, :140].any() and valid[160:].all() and valid[:, 150:].all()
    assert np.abs(tiled.background - whole.background)[valid].max() < 3.0
    np.testing.assert_allclose(tiled.noise[valid], whole.noise[valid], rtol=0.3)
    assert np.nanstd(tiled.residual()) < 1.1 * np.nanstd(whole.residual())
    light = tiled.model() - tiled.background
    drawn = Sensor(PSF, shape=frame.shape, quantised=False).render(tiled.targets)
    np.testing.assert_allclose(light[valid], drawn[valid], atol=0.01)


def test_a_star_of_a_blob_that_a_margin_cuts_is_reported_once():
    frame = sky()
    frame[:160, :150] = np.nan
    options = {"psf": PSF, "mode": "fast", "detector": "matched"}
    whole = unmix_frame(frame, **options)
    tiled = unmix_tiles(frame, lambda part: unmix_frame(frame[part], **options), side=150, margin=10)
    assert len(tiled.targets) == len(whole.targets)
    distance = np.hypot(tiled.targets.x[:, None] - whole.targets.x, tiled.targets.y[:, None] - whole.targets.y)
    assert distance.min(axis=1).max() < 0.1 and distance.min(axis=0).max() < 0.1
    assert all((tiled.targets.group == group.number).sum() == group.count for group in tiled.groups)
    assert sum(group.count for group in tiled.groups) == len(tiled.targets)
    assert sum(len(part.targets) for part in tiled.drawing.parts) == len(tiled.targets)


def test_a_group_without_a_target_is_as_probable_as_with_it():
    group = FrameGroup(0, 3, 4, (9, 9), 2, 1, 20.0, 2, np.array([0.1, 0.2, 0.6, 0.1]), 50.0, 40, Flag(0))
    less = group.without(1)
    assert less.count == 1
    np.testing.assert_allclose(less.count_probability, [0.3, 0.6, 0.1])
    assert group.without(2).count_probability.sum() == pytest.approx(1.0)


def test_a_psf_that_is_guessed_tile_by_tile_draws_its_own_targets():
    frame = sky(seed=3)
    tiled = unmix_tiles(frame, lambda part: unmix_frame(frame[part], mode="fast"), side=150, margin=40)
    parts = tiled.drawing.parts
    sigmas = [part.psf.sigma_px for part in parts]
    assert tiled.psf_origin == "guessed" and tiled.psf.sigma_px == sorted(sigmas)[len(sigmas) // 2]
    assert len(set(sigmas)) > 1
    assert sum(len(part.targets) for part in parts) == len(tiled.targets)
    assert np.nanstd(tiled.residual()) < 1.5 * np.nanstd(unmix_frame(frame, mode="fast").residual())


def test_a_large_frame_goes_in_tiles_by_itself(monkeypatch):
    frame = sky(seed=2)
    whole = unmix_frame(frame, psf="auto", mode="fast").targets
    sizes = []
    real = solve._solve_part

    def watched(image, *rest, **options):
        sizes.append(image.shape)
        return real(image, *rest, **options)

    monkeypatch.setattr(solve, "_solve_part", watched)
    monkeypatch.setattr(solve, "LARGEST_PIXELS", 200**2)
    for name in ("unmix_tiles", "tiles"):
        plain = getattr(solve, name)
        monkeypatch.setattr(solve, name, lambda *given, plain=plain: plain(*given, side=150, margin=40))
    result = unmix_frame(frame, psf="auto", mode="fast")
    assert len(sizes) == 6 and max(max(size) for size in sizes) <= 230
    # The faint second target of an ambiguous group may come or go: the measured PSF differs a little.
    sure, wholly_sure = (each[each.score > 0.3] for each in (result.targets, whole))
    assert len(sure) == len(wholly_sure) >= 38
    assert result.mask.sum() == 2 and result.psf_origin == "measured" and result.psf_estimate.sources >= 5
    empty = np.full((300, 300), np.nan)
    empty[:10, :10] = 5.0
    result = unmix_frame(empty, psf=1.0)
    assert (result.targets, result.groups) == (Targets.empty(), [])
    assert result.pixel_counts["nan"] == 300 * 300 - 100


@pytest.mark.parametrize("detector", ["contrast", "crowded"])
def test_of_tiles_no_more_than_boxes_are_kept(detector):
    frame = sky()
    tiled = unmix_tiles(
        frame, lambda part: unmix_frame(frame[part], psf=PSF, mode="fast", detector=detector), side=150, margin=40
    )
    assert len(pickle.dumps(tiled.drawing)) < 0.1 * frame.nbytes
    assert np.nanstd(tiled.residual()) < 4.0
