"""Masked arrays of numpy: what is masked is left out, whatever takes the image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import csist
from csist.photometry import forced_photometry
from csist.targets import Targets

SKY = csist.Sensor(csist.GaussianPSF(1.2), shape=(60, 60), background=100.0, read_noise=3.0)
HOT = (19, 20)


def forced(image: Any) -> Targets:
    return forced_photometry(image, [20.3], [20.1], psf=1.2)


def unmixed(image: Any) -> Targets:
    return csist.unmix_frame(image, psf=1.2, mode="fast").targets


@pytest.mark.parametrize("found_in", [forced, unmixed])
def test_masked_pixels_are_left_out(found_in: Callable[[Any], Targets]) -> None:
    image = SKY.observe(Targets([20.3], [20.1], [3000.0]), rng=7)
    image[HOT] += 1500.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[HOT] = True
    masked = np.ma.MaskedArray(image, mask)
    found, expected = found_in(masked), found_in(np.where(mask, np.nan, image))
    assert found.x.tolist() == expected.x.tolist()
    assert found.intensity.tolist() == expected.intensity.tolist()
    assert found.intensity[0] == pytest.approx(3000.0, abs=60.0)
    assert masked.data[HOT] == image[HOT]  # the input is as it was
