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


def test_masks_of_a_list_and_of_ndata_are_honoured() -> None:
    nddata = pytest.importorskip("astropy.nddata")
    image = SKY.observe(Targets([20.3], [20.1], [3000.0]), rng=7)
    image[HOT] += 1500.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[HOT] = True
    expected = unmixed(np.where(mask, np.nan, image))
    several = csist.unmix([np.ma.MaskedArray(image, mask)] * 2, psf=1.2, mode="fast")
    data = nddata.CCDData(image, mask=mask, unit="adu")
    for found in (*several, unmixed(data), csist.unmix(data, psf=1.2, mode="fast")):
        assert found.intensity.tolist() == expected.intensity.tolist()
    assert forced(data).intensity.tolist() == forced(np.where(mask, np.nan, image)).intensity.tolist()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_window_leaves_out_what_its_error_map_marks(bad: float) -> None:
    sensor = csist.Sensor(csist.GaussianPSF(1.0), shape=(13, 13), background=50.0, read_noise=3.0)
    image = sensor.observe(Targets([6.3], [6.6], [2000.0]), rng=3)
    error = np.full(image.shape, 4.0)
    clean = csist.unmix(image, sensor, mode="fast", error=error)
    error[6, 7] = bad
    spoiled = image.copy()
    spoiled[6, 7] = 5000.0
    found = csist.unmix(spoiled, sensor, mode="fast", error=error)
    assert isinstance(found, Targets)
    assert isinstance(clean, Targets)
    assert len(found) == 1
    assert found.intensity[0] == pytest.approx(clean.intensity[0], abs=4.0 * found.intensity_std[0])
    with pytest.raises(csist.InputError, match="holds NaN"):  # of the image itself
        csist.unmix(np.where(error == 4.0, np.nan, image), sensor, mode="fast", error=np.full(image.shape, 4.0))
