"""Further targets of a peak in clutter: what is around a target has faint spots, too."""

import numpy as np
import pytest

from csist import GaussianPSF, Sensor, Targets, unmix_frame
from csist.frames.options import CONTRAST

PSF = GaussianPSF(0.8)
SHAPE = (120, 160)


def stars_with_companions(faint, seed):
    """Bright stars on a grid, then the companion of each, so many times fainter."""
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() + 0.3 for each in np.meshgrid(np.arange(20.0, 150.0, 30.0), np.arange(20.0, 110.0, 30.0)))
    angle = rng.uniform(0.0, 2.0 * np.pi, len(x))
    light = np.full(len(x), 300.0)
    return Targets(
        x=np.concatenate([x, x + 2.6 * np.cos(angle)]),
        y=np.concatenate([y, y + 2.6 * np.sin(angle)]),
        intensity=np.concatenate([light, light / faint]),
    )


def frame_of(targets, seed, *, clutter):
    rng = np.random.default_rng([seed, 1])
    frame = Sensor(PSF, shape=SHAPE).render(targets) + rng.normal(100.0, 1.0, SHAPE)
    if clutter:
        for row in range(3, SHAPE[0], 24):  # wires
            frame[row : row + 2, :] += 25.0
        frame += 8.0 * (np.sin(np.arange(SHAPE[1]) / 2.1) > 0.3)
    return frame


@pytest.mark.parametrize("seed", [0, 1])
def test_faint_companions_are_told_from_noise_but_not_from_clutter(seed):
    truth = stars_with_companions(15.0, seed)
    stars = len(truth) // 2
    share = {}
    for clutter in (False, True):
        frame = frame_of(truth, seed, clutter=clutter)
        found = unmix_frame(frame, psf=PSF, mode="fast", detector=CONTRAST, workers=1).targets
        near = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y).min(axis=0) < 1.0
        assert near[:stars].mean() >= 0.8
        share[clutter] = near[stars:].mean()
    assert share[False] > 0.7
    assert share[True] < 0.3
