"""Model and residual of `csist unmix` as images, read back by the libraries that own their formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import csist
from csist import InputError, Sensor, Targets
from csist.cli.entry import main
from csist.io.cubes import ImageWriter

SKY = Sensor(csist.GaussianPSF(1.1), shape=(40, 50), background=20.0, read_noise=2.0)
STAR = Targets(x=[20.3], y=[15.1], intensity=[900.0])


def read(path: Path) -> tuple[np.ndarray, dict]:
    if path.suffix == ".fits":
        fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
        with fits.open(path) as units:
            return np.asarray(units[0].data), json.loads("".join(units[0].header["COMMENT"]))
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(path) as file:
        return file.asarray(), json.loads(file.pages[0].description)


@pytest.mark.parametrize("suffix", [".fits", ".tif"])
@pytest.mark.parametrize("number", [1, 3])
def test_images_are_read_back(suffix: str, number: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(0.0, 1.0, (number, 5, 7))
    images[0, 2, 3] = np.nan
    path = tmp_path / f"a{suffix}"
    with ImageWriter(path, {"options": {"mode": "fast"}}) as writer:
        for image in images:
            writer.append(image)
    found, metadata = read(path)
    np.testing.assert_allclose(found, images[0] if number == 1 else images, rtol=1e-6)
    assert metadata["options"] == {"mode": "fast"} and "csist_version" in metadata
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="images of one size, got 6 x 7 px after 5 x 7"),
        ImageWriter(tmp_path / "a.tif", {}) as writer,
    ):
        writer.append(np.zeros((5, 7)))
        writer.append(np.zeros((6, 7)))
    with pytest.raises(InputError, match=r"a\.png"):
        ImageWriter(tmp_path / "a.png", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".fits", ".tif"])
def test_model_and_residual_of_frames(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stack = np.stack([SKY.observe(STAR, 0), np.full(SKY.shape, np.nan)])
    np.save("a.npy", stack)
    given = ["unmix", "a.npy", "--psf-sigma", "1.1", "--mode", "fast"]
    assert main([*given, "--model", f"m{suffix}", "--residual", f"r{suffix}"]) == 0
    model, residual = (read(Path(f"{name}{suffix}"))[0] for name in "mr")
    expected = csist.unmix_frame(stack[0], psf=1.1, mode="fast")
    np.testing.assert_allclose(model[0], expected.model(), rtol=1e-5)
    np.testing.assert_allclose(model[0] + residual[0], stack[0], rtol=1e-5)
    assert np.isnan(model[1]).all() and residual[0].std() < 3.0
    np.save("b.npy", stack[0])
    assert main([*given, "b.npy", "--model", f"n{suffix}"]) == 2
    assert not Path(f"n{suffix}").exists()


def test_the_model_of_a_part_has_the_sky_coordinates_of_that_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
    wcs = pytest.importorskip("astropy.wcs")
    monkeypatch.chdir(tmp_path)
    sky = wcs.WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval, sky.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [10.0, 20.0], [-1e-3, 1e-3]
    sky.wcs.crpix = [25.0, 20.0]
    fits.PrimaryHDU(SKY.observe(STAR, 0), sky.to_header()).writeto("a.fits")
    given = ["unmix", "a.fits", "--psf-sigma", "1.1", "--mode", "fast", "--roi", "5:45,3:38"]
    assert main([*given, "--model", "m.fits", "--residual", "r.fits"]) == 0
    for name in ("m.fits", "r.fits"):
        found = wcs.WCS(fits.getheader(name))
        np.testing.assert_allclose(found.wcs_pix2world(15.3, 12.1, 0), sky.wcs_pix2world(20.3, 15.1, 0), rtol=1e-9)


def test_a_full_disk_is_one_line_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(InputError, match=r"cannot write .*a\.fits: No space left on device"),
        Path("/dev/full").open("wb") as full,
        ImageWriter(tmp_path / "a.fits", {}) as writer,
    ):
        writer._raw = full
        writer.append(np.zeros((80, 90)))
    assert not list(tmp_path.iterdir())
