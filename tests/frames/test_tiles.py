import numpy as np
import pytest

from csist.frames import pipeline, unmix_frame
from csist.frames.tiles import tiles, unmix_tiles
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets
from csist.unmixing import count_masked

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
    whole, whole_groups = unmix_frame(frame, psf=PSF, mode="fast")
    found, groups = unmix_tiles(frame, lambda part: unmix_frame(part, psf=PSF, mode="fast"), side=150, margin=64)
    assert len(found) == len(whole) > 30
    distance = np.hypot(found.x[:, None] - whole.x, found.y[:, None] - whole.y)
    assert distance.min(axis=1).max() < 0.1 and distance.min(axis=0).max() < 0.1
    np.testing.assert_allclose(whole.intensity[distance.argmin(axis=1)], found.intensity, rtol=0.05)
    assert [group.number for group in groups] == list(range(len(groups)))
    assert len(groups) == len(whole_groups)
    assert all((found.group == group.number).sum() == group.count for group in groups)
    assert np.all(np.diff([group.significance for group in groups]) <= 0)


def test_a_large_frame_goes_in_tiles_by_itself(monkeypatch):
    frame = sky(seed=2)
    whole, _ = unmix_frame(frame, psf="auto", mode="fast")
    counted = count_masked(frame, psf=PSF)
    sizes = []
    real = pipeline._unmix_part

    def watched(image, *rest, **options):
        sizes.append(image.shape)
        return real(image, *rest, **options)

    monkeypatch.setattr(pipeline, "_unmix_part", watched)
    monkeypatch.setattr(pipeline, "LARGEST_PIXELS", 200**2)
    for name in ("unmix_tiles", "tiles"):
        plain = getattr(pipeline, name)
        monkeypatch.setattr(pipeline, name, lambda *given, plain=plain: plain(*given, side=150, margin=40))
    found, _ = unmix_frame(frame, psf="auto", mode="fast")
    assert len(sizes) == 6 and max(max(size) for size in sizes) <= 230
    # The faint second target of an ambiguous group may come or go: the measured PSF differs a little.
    sure, wholly_sure = (each[each.score > 0.3] for each in (found, whole))
    assert len(sure) == len(wholly_sure) >= 38
    assert counted == 2
    empty = np.full((300, 300), np.nan)
    empty[:10, :10] = 5.0
    assert unmix_frame(empty, psf=1.0) == (Targets.empty(), [])
