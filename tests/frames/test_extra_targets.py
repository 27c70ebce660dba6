"""Further targets of a peak in clutter: what is around a target has faint spots, too."""

import numpy as np
import pytest

from csist import GaussianPSF, Sensor, Targets, unmix_frame
from csist.frames.options import CONTRAST

PSF = GaussianPSF(0.8)
SHAPE = (120, 160)


def scene(faint, *, clutter, seed=0):
    """A frame with bright stars, each with a companion that is so many times fainter."""
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() + 0.3 for each in np.meshgrid(np.arange(20.0, 150.0, 30.0), np.arange(20.0, 110.0, 30.0)))
    angle = rng.uniform(0.0, 2.0 * np.pi, len(x))
    light = np.full(len(x), 300.0)
    targets = Targets(
        x=np.concatenate([x, x + 2.6 * np.cos(angle)]),
        y=np.concatenate([y, y + 2.6 * np.sin(angle)]),
        intensity=np.concatenate([light, light / faint]),
    )
    frame = Sensor(PSF, shape=SHAPE).render(targets) + rng.normal(100.0, 1.0, SHAPE)
    if clutter:
        for row in range(3, SHAPE[0], 24):  # wires
            frame[row : row + 2, :] += 25.0
        frame += 8.0 * (np.sin(np.arange(SHAPE[1]) / 2.1) > 0.3)
    return frame, len(x)


@pytest.mark.parametrize("seed", [0, 1])
def test_faint_companions_are_told_from_noise_but_not_from_clutter(seed):
    found = {}
    for clutter in (False, True):
        frame, stars = scene(15.0, clutter=clutter, seed=seed)
        result = unmix_frame(frame, psf=PSF, mode="fast", detector=CONTRAST, workers=1)
        bright = result.targets.intensity > 150.0
        assert bright.sum() >= 0.8 * stars
        near = [
            np.hypot(result.targets.x - x, result.targets.y - y).min()
            for x, y in zip(*(each[stars:] for each in companions(seed)), strict=True)
        ]
        found[clutter] = np.mean(np.array(near) < 1.0)
    assert found[False] > 0.7
    assert found[True] < 0.3


def companions(seed):
    """Positions of all targets of a scene."""
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() + 0.3 for each in np.meshgrid(np.arange(20.0, 150.0, 30.0), np.arange(20.0, 110.0, 30.0)))
    angle = rng.uniform(0.0, 2.0 * np.pi, len(x))
    return np.concatenate([x, x + 2.6 * np.cos(angle)]), np.concatenate([y, y + 2.6 * np.sin(angle)])
