"""The exact map: the posterior mean of the map given the image, which no map of less squared error exists for.

A network that is trained by squared error learns towards it, so that it is the ceiling of every map. It is the mean of
the maps of posterior samples, each of them a scene that the continuous method found possible, encoded on the grid.

The samples are those of the mode "accurate", whose population of chains follows the posterior given the number of
targets; they are nearly free of bias. Those of "fast" are not used: they come from few chains, and are spread by a
factor of up to 3.5 to make its stated errors honest, which blurs a map. What remains: samples are of the most probable
number of targets alone, which under the benchmark's prior is nearly always certain, and those of groups of three and
more targets are spread by 2 to 8 percent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.grid import SubPixelGrid, encode_arrays
from csist.methods.continuous.method import Continuous
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior

BLOCK = 64
"""Images whose samples are held in memory at a time."""


def check_has_exact_map(prior: ScenePrior) -> None:
    """Check that the exact map is known for scenes of a prior.

    Raises:
        InputError: if their groups are not inside one pixel: samples of others are of few chains.
    """
    if not prior.single_pixel:
        raise InputError(
            "the exact map needs groups inside one pixel (single_pixel of the prior), such as those of csist-100k"
        )


def exact_maps(
    images: FloatArray,
    grid: SubPixelGrid,
    sensor: Sensor,
    prior: ScenePrior,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FloatArray:
    """Posterior-mean maps (N, cH, cW) in counts of images (N, H, W) in counts.

    Args:
        images: (N, H, W) in counts.
        grid: grid of the maps.
        sensor: that took the images; its stated noise is taken as it is, 0 as none.
        prior: law of their scenes.
        workers: threads; the result does not depend on it.
        progress: called with (images done, images in all) now and then.

    Raises:
        InputError: if the prior has no exact map, or the images cannot be used.
    """
    check_has_exact_map(prior)
    method = Continuous(sensor, prior=prior, noise_std=sensor.pixel_noise, workers=workers)
    maps = np.zeros((len(images), *grid.map_shape))
    for first in range(0, len(images), BLOCK):
        _, groups = method.solve(np.asarray(images[first : first + BLOCK]), keep_samples=True)
        for place, group in enumerate(groups, first):
            if group.samples is not None and group.count:
                maps[place] = mean_map(grid, group.samples)
        if progress is not None:
            progress(min(first + BLOCK, len(images)), len(images))
    return maps


def mean_map(grid: SubPixelGrid, samples: FloatArray) -> FloatArray:
    """Mean map (cH, cW) of scenes (m, count, 3), columns x, y in px and intensity in counts.

    >>> grid = SubPixelGrid((3, 3), 1)
    >>> mean_map(grid, np.array([[[0.0, 0.0, 10.0]], [[1.0, 0.0, 20.0]]]))[0]
    array([ 5., 10.,  0.])
    """
    scene = samples.reshape(1, -1, 3).copy()
    scene[..., 2] /= len(samples)
    # Positions lie inside the image but for rounding at its outer edge.
    for axis, side in enumerate(grid.shape[::-1]):
        scene[..., axis] = np.clip(scene[..., axis], -0.5, np.nextafter(side - 0.5, 0.0))
    cells: FloatArray = encode_arrays(grid, scene)[0].astype(np.float64)
    return cells
