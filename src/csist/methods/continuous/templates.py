"""Templates: configurations of targets drawn from a single-pixel prior, with their images."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.methods.continuous.model import SingleArray
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, draw_separated

SEED = 0x5C1D_BA2C
"""Not a seed anybody picks for a dataset: with the same stream the templates would be the very scenes they are tested
on."""

SYMMETRIES = [
    np.array(turn, dtype=np.float64)
    for turn in ([[1, 0], [0, 1]], [[0, 1], [1, 0]], [[-1, 0], [0, 1]], [[1, 0], [0, -1]],
                 [[-1, 0], [0, -1]], [[0, -1], [-1, 0]], [[0, 1], [-1, 0]], [[0, -1], [1, 0]])
]  # fmt: skip
"""The prior inside a pixel looks the same turned and mirrored, so every draw counts eight times."""


class Templates(NamedTuple):
    """Configurations drawn from a single-pixel prior, with their images around the pixel.

    Args:
        positions: (Kmax + 1, templates, Kmax, 2) offsets (x, y) from the pixel's centre.
        images: (Kmax + 1, templates, P, P) float32, unit flux a target.
        log_allowed: (Kmax + 1,) log of the share of uniform configurations that keep the separation.
    """

    positions: FloatArray
    images: SingleArray
    log_allowed: FloatArray


@lru_cache(maxsize=8)
def _draw(psf: PSF, most: int, min_separation_px: float, reach: int, size: int) -> Templates:
    side = 2 * reach + 1
    sensor = Sensor(psf=psf, shape=(side, side))
    positions = np.zeros((most + 1, size, most, 2))
    images = np.zeros((most + 1, size, side, side), np.float32)
    log_allowed = np.zeros(most + 1)
    draws = size // len(SYMMETRIES)
    for count in range(1, most + 1):
        drawn = np.empty((draws, count, 2))
        rejected = draw_separated(drawn, np.ones(2), min_separation_px, np.random.default_rng((SEED, count)))
        if rejected < 0:
            raise InputError(f"{count} targets at least {min_separation_px} px apart do not fit into one pixel")
        positions[count, :, :count] = np.concatenate([(drawn - 0.5) @ turn for turn in SYMMETRIES])
        centre = positions[count, :, :count] + reach
        images[count] = sensor.render_stack(centre[..., 0], centre[..., 1], np.ones((size, count)))
        log_allowed[count] = math.log(draws / (draws + rejected))
    # in random order, so that the first few are a fair sample as well
    order = np.random.default_rng(SEED).permutation(size)
    return Templates(np.ascontiguousarray(positions[:, order]), np.ascontiguousarray(images[:, order]), log_allowed)


def draw_templates(psf: PSF, prior: ScenePrior, reach: int, size: int) -> Templates:
    """The templates of a single-pixel prior, made once a process for each set of arguments.

    Args:
        psf: point spread function.
        prior: gives the largest count and the separation.
        reach: pixels kept on each side of the group's pixel.
        size: templates of each count, a multiple of 8.

    Raises:
        InputError: if so many targets do not fit into one pixel.
    """
    return _draw(psf, prior.count_range[1], prior.min_separation_px, reach, size)
