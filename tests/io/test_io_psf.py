"""PSF files: images, photutils' grids and PSFEx models, against the programs' own conventions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.io.psf import read_psf
from csist.physics.psf import FieldPSF, GaussianPSF, SampledPSF, equivalent_sigma

fits = pytest.importorskip("astropy.io.fits", reason="PSF files in FITS need the extra `astro`")


def table_of(sigma: float, step: float, half: int = 20) -> np.ndarray:
    offset = np.arange(-half, half + 1) * step
    return np.asarray(GaussianPSF(sigma).response(offset[None, :], offset[:, None]))


def grid(path: Path) -> Path:
    """Four PSFs as webbpsf writes them for photutils, in no particular order."""
    places = [(10.0, 20.0), (110.0, 20.0), (10.0, 220.0), (110.0, 220.0)]
    header = fits.Header({"OVERSAMP": 4})
    for k, (x, y) in enumerate(places):
        header[f"DET_YX{k}"] = str((y, x))
    cube = np.array([table_of(0.8 + 0.001 * x + 0.001 * y, 0.25) for x, y in places])
    fits.PrimaryHDU(cube, header).writeto(path)
    return path


def test_an_image_states_its_own_oversampling(tmp_path: Path) -> None:
    along = np.arange(-30, 31) / 5.0
    drawn = np.exp(-0.5 * (along[:, None] ** 2 + along**2) / 1.2**2)
    fits.writeto(tmp_path / "p.fits", drawn, fits.Header({"OVERSAMP": 5}))
    assert equivalent_sigma(read_psf(tmp_path / "p.fits")) == pytest.approx(1.2, rel=0.05)
    assert equivalent_sigma(read_psf(tmp_path / "p.fits", 3)) == pytest.approx(2.0, rel=0.05)  # what is given counts


def test_a_grid_of_photutils_has_its_psfs_at_their_places(tmp_path: Path) -> None:
    psf = read_psf(grid(tmp_path / "grid.fits"))
    assert isinstance(psf, FieldPSF)
    assert (psf.x.tolist(), psf.y.tolist(), psf.oversampling) == ([10.0, 110.0], [20.0, 220.0], 4)
    assert psf.arrays[1, 0] == pytest.approx(SampledPSF(table_of(1.03, 0.25), 4).array)
    assert psf.arrays[0, 1] == pytest.approx(SampledPSF(table_of(0.93, 0.25), 4).array)


def test_a_grid_gives_the_pixels_that_photutils_gives(tmp_path: Path) -> None:
    gridded = pytest.importorskip("photutils.psf", reason="compared where the extra `astro` is installed")
    from astropy.nddata import NDData

    psf = read_psf(grid(tmp_path / "grid.fits"))
    places = [(10.0, 20.0), (110.0, 20.0), (10.0, 220.0), (110.0, 220.0)]
    cube = np.array([SampledPSF(table_of(0.8 + 0.001 * x + 0.001 * y, 0.25), 4).array for x, y in places])
    theirs = gridded.GriddedPSFModel(NDData(cube, meta={"grid_xypos": places, "oversampling": 4}))
    rows, columns = np.mgrid[100:118, 40:58].astype(float)
    x, y = 48.0, 112.0  # the centre of a cell
    expected = theirs.evaluate(columns, rows, flux=1.0, x_0=x, y_0=y)
    assert psf.at(x, y).response(columns - x, rows - y) == pytest.approx(expected, abs=2e-5)


def test_a_standard_grid_of_one_detector(tmp_path: Path) -> None:
    header = fits.Header({"NXPSFS": 2, "NYPSFS": 1, "IPSFX01": 1, "IPSFX02": 101, "JPSFY01": 51})
    fits.PrimaryHDU(np.array([table_of(0.8, 0.25), table_of(1.0, 0.25)]), header).writeto(tmp_path / "g.fits")
    psf = read_psf(tmp_path / "g.fits")
    assert (psf.x.tolist(), psf.y.tolist(), psf.oversampling) == ([0.0, 100.0], [50.0], 4)


@pytest.mark.parametrize("step", [0.25, 0.43, 1.0 / 3.0])
def test_a_psfex_model_is_evaluated_at_its_place(tmp_path: Path, step: float) -> None:
    wide, narrow = table_of(1.3, step), table_of(1.0, step)
    images = np.array([0.5 * (wide + narrow), wide - narrow, np.zeros_like(wide)])  # constant, x, y
    psfex(tmp_path / "m.psf", images, step)
    psf = read_psf(tmp_path / "m.psf")
    dx, dy = np.random.default_rng(0).uniform(-2.5, 2.5, (2, 50))
    for x, sigma in ((0.0, 1.0), (199.0, 1.3)):
        # The ends of the range are at PSFEx's pixels 1 and 201, that is 0 and 200 here.
        assert psf.at(x, 40.0).response(dx, dy) == pytest.approx(GaussianPSF(sigma).response(dx, dy), abs=2e-3)


def psfex(path: Path, images: np.ndarray, step: float, names: tuple[str, str] = ("X_IMAGE", "Y_IMAGE")) -> None:
    column = fits.Column("PSF_MASK", f"{images.size}E", dim=str(images.shape[::-1]), array=images[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    cards = {
        "POLNAXIS": 2, "POLNAME1": names[0], "POLNAME2": names[1], "POLGRP1": 1, "POLGRP2": 1, "POLNGRP": 1,
        "POLDEG1": 1, "POLZERO1": 101.0, "POLZERO2": 81.0, "POLSCAL1": 200.0, "POLSCAL2": 160.0, "PSF_SAMP": step,
    }  # fmt: skip
    table.header.update(cards)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    psfex(tmp_path / "mag.psf", np.array([table_of(1.0, 0.5)] * 3), 0.5, ("MAG_AUTO", "Y_IMAGE"))
    with pytest.raises(InputError, match="it varies with MAG_AUTO, Y_IMAGE"):
        read_psf(tmp_path / "mag.psf")
    psfex(tmp_path / "few.psf", np.array([table_of(1.0, 0.5)] * 2), 0.5)
    with pytest.raises(InputError, match="2 images do not suit a polynomial of degree 1"):
        read_psf(tmp_path / "few.psf")
    fits.PrimaryHDU(np.zeros((20, 20))).writeto(tmp_path / "image.psf")
    with pytest.raises(InputError, match="it is not a PSFEx model"):
        read_psf(tmp_path / "image.psf")
    (tmp_path / "text.psf").write_text("no")
    with pytest.raises(InputError, match="cannot read"):
        read_psf(tmp_path / "text.psf")
    header = fits.Header({"OVERSAMP": 4, "DET_YX0": "(0, 0)", "DET_YX1": "(5, 9)"})
    fits.PrimaryHDU(np.array([table_of(1.0, 0.25)] * 2), header).writeto(tmp_path / "ragged.fits")
    with pytest.raises(InputError, match="form no rectangular grid"):
        read_psf(tmp_path / "ragged.fits")
    fits.PrimaryHDU(np.zeros((3, 20, 20))).writeto(tmp_path / "stack.fits")
    with pytest.raises(InputError, match="it holds 3 images, give one"):
        read_psf(tmp_path / "stack.fits")
