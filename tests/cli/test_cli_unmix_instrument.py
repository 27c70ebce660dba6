"""`csist unmix`: maps, detector values, units and sky."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import HEADER, QUICK, SKY, SPOTS, STACK, Run, frame, lines, refused, rows_of, windows

import csist

FAST = ("--mode", "fast", "--psf-sigma", "1.1")
CENTRE = (180.0, 30.0)


def column(path: Path | str, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows_of(path)])


def json_of(run: Run, *arguments: object) -> dict[str, Any]:
    """The figures of a run."""
    code, _, said = run("unmix", *arguments, "--json", "figures.json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(Path("figures.json").read_text())
    return found


def sky_file(path: Path, **units: np.ndarray) -> Path:
    """A frame with sky coordinates of 2 arcsec a pixel, turned by 20 degrees, and further units."""
    fits = pytest.importorskip("astropy.io.fits")
    turned = np.deg2rad(20.0)
    step = 2.0 / 3600.0
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 45.0, "CRPIX2": 30.0, "CRVAL1": CENTRE[0],
            "CRVAL2": CENTRE[1], "CD1_1": -step * np.cos(turned), "CD1_2": step * np.sin(turned),
            "CD2_1": step * np.sin(turned), "CD2_2": step * np.cos(turned), "RADESYS": "ICRS",
        }
    )  # fmt: skip
    extensions = [fits.ImageHDU(values, name=name) for name, values in units.items()]
    fits.HDUList([fits.PrimaryHDU(frame(), header), *extensions]).writeto(path)
    return path


@pytest.mark.parametrize("option", ["--error", "--weight"])
def test_noise_maps_are_those_of_python(option: str, run: Run, tmp_path: Path) -> None:
    error = np.full((60, 90), 2.0)
    error[:, 40:] = 6.0
    error[3, 3] = np.inf
    np.save(tmp_path / "a.npy", frame())
    np.save(tmp_path / "map.npy", error if option == "--error" else 1.0 / error**2)
    code, _, _ = run("unmix", "a.npy", option, "map.npy", *FAST)
    expected = csist.unmix_frame(frame(), psf=1.1, mode="fast", error=error).targets
    assert code == 0
    np.testing.assert_allclose(column("targets.csv", "x"), expected.x)
    np.testing.assert_allclose(column("targets.csv", "intensity_std"), expected.intensity_std)


def test_maps_of_windows_and_their_part(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy")
    mask = np.zeros((11, 11), bool)
    mask[0, :3] = True
    error = np.linspace(1.0, 2.0, STACK.size).reshape(STACK.shape)
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "error.npy", error)
    assert run("unmix", "a.npy", "--mask", "mask.npy", "--error", "error.npy", "--frames", "1:4", *QUICK)[0] == 0
    expected = csist.unmix(STACK[1:4], prior=csist.ScenePrior.csist_100k(), mode="fast", mask=mask, error=error[1:4])
    np.testing.assert_allclose(column("targets.csv", "x"), np.concatenate([each.x for each in expected]))
    assert sorted(set(column("targets.csv", "frame"))) == [1, 2, 3]


def test_units_of_the_same_file(run: Run, tmp_path: Path) -> None:
    variance, bad = np.full((60, 90), 4.0), np.zeros((60, 90), np.int16)
    bad[30, 20] = 4
    sky_file(tmp_path / "a.fits", SCI2=frame(1), VAR=variance, DQ=bad)
    code, out, _ = run("unmix", "a.fits", "--error", "VAR", "--mask", "DQ", *FAST)
    assert code == 0 and "1 pixels are masked by DQ" in out
    blank = np.where(bad > 0, np.nan, frame())
    expected = csist.unmix_frame(blank, psf=1.1, mode="fast", error=np.full((60, 90), 2.0)).targets
    np.testing.assert_allclose(column("targets.csv", "x"), expected.x)


def test_dark_and_flat_are_taken_off(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dark, flat = rng.uniform(50.0, 90.0, (60, 90)), 3.0 * rng.uniform(0.7, 1.3, (60, 90))
    raw = frame() * (flat / flat.mean()) + dark
    raw[5, 5] = 1e5
    for name, values in (("a", raw), ("dark", dark), ("flat", flat)):
        np.save(tmp_path / f"{name}.npy", values)
    assert run("unmix", "a.npy", "--dark", "dark.npy", "--flat", "flat.npy", "--saturation", "60000", *FAST)[0] == 0
    clean = frame()
    clean[5, 5] = np.nan
    # Less a dark frame, the values are no whole numbers.
    expected = csist.unmix_frame(clean + 0.25, psf=1.1, mode="fast").targets
    np.testing.assert_allclose(column("targets.csv", "x"), expected.x, atol=1e-5)


@pytest.mark.parametrize("seconds", [20.0, 60.0, None])
def test_a_dark_frame_is_scaled_to_the_exposure_time(seconds: float | None, run: Run, tmp_path: Path) -> None:
    """By the formula of ccdproc's `subtract_dark(scale=True)`: dark * exposure of the image / exposure of the dark."""
    fits = pytest.importorskip("astropy.io.fits")
    dark = np.random.default_rng(0).uniform(50.0, 90.0, (60, 90))
    factor = 1.0 if seconds is None else 60.0 / seconds
    fits.writeto("a.fits", frame() + factor * dark, fits.Header({"EXPTIME": 60.0}))
    fits.writeto("dark.fits", dark, fits.Header({} if seconds is None else {"EXPTIME": seconds}))
    code, out, _ = run("unmix", "a.fits", "--dark", "dark.fits", *FAST)
    assert code == 0
    assert ("the dark frame of 20 s is scaled to the image's 60 s" in out) == (seconds == 20.0)
    expected = csist.unmix_frame(frame() + 0.25, psf=1.1, mode="fast").targets
    np.testing.assert_allclose(column("targets.csv", "x"), expected.x, atol=1e-5)


def test_a_scaled_dark_frame_is_that_of_ccdproc(tmp_path: Path) -> None:
    ccdproc = pytest.importorskip("ccdproc")
    from astropy import units
    from astropy.io import fits
    from astropy.nddata import CCDData

    from csist.io import ReadOptions, read_image

    rng = np.random.default_rng(0)
    image, dark = (CCDData(rng.uniform(1.0, 2.0, (9, 9)), unit=units.adu) for _ in range(2))
    less = ccdproc.subtract_dark(image, dark, dark_exposure=20 * units.s, data_exposure=60 * units.s, scale=True)
    for name, values, seconds in (("a", image, 60.0), ("dark", dark, 20.0)):
        fits.writeto(tmp_path / f"{name}.fits", values.data, fits.Header({"EXPTIME": seconds}))
    found = read_image(tmp_path / "a.fits", options=ReadOptions(dark=str(tmp_path / "dark.fits")))
    np.testing.assert_allclose(found[0], less.data)


def test_dark_and_flat_are_those_of_ccdproc() -> None:
    ccdproc = pytest.importorskip("ccdproc")
    from astropy import units
    from astropy.nddata import CCDData

    from csist.io.maps import corrected, unit_flat

    rng = np.random.default_rng(0)
    image, dark, flat = (CCDData(rng.uniform(1.0, 2.0, (9, 9)), unit=units.adu) for _ in range(3))
    less = ccdproc.subtract_dark(image, dark, dark_exposure=1 * units.s, data_exposure=1 * units.s)
    expected = ccdproc.flat_correct(less, flat).data
    found = corrected(image.data[None], dark.data[None], unit_flat(flat.data, "flat")[None], np.inf)[0]
    np.testing.assert_allclose(found, expected)


def test_detector_values_go_before_the_card(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame())
    card = csist.Sensor(SKY.psf, gain=9.0, read_noise=1.0)
    (tmp_path / "card.json").write_text(json.dumps(card.to_card()))
    options = ("--gain", "2", "--read-noise", "2", "--electrons", "--mode", "fast")
    assert run("unmix", "a.npy", "--sensor", "card.json", *options)[0] == 0
    np.testing.assert_allclose(column("targets.csv", "electrons"), 2.0 * column("targets.csv", "intensity"))
    expected = csist.unmix_frame(frame(), csist.Sensor(SKY.psf, gain=2.0, read_noise=2.0), mode="fast").targets
    np.testing.assert_allclose(column("targets.csv", "intensity_std"), expected.intensity_std)


def test_values_of_options_go_before_those_of_a_header(run: Run, tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    fits.writeto(tmp_path / "a.fits", frame(), fits.Header({"EGAIN": 2.0, "RDNOISE": 6.0, "SATURATE": 6e4}))
    said = json_of(run, tmp_path / "a.fits", *FAST, "--gain", "4")["warnings"]
    assert any("from the header: read noise 1.5 counts (RDNOISE), saturation 60000 counts" in line for line in said)
    said = json_of(run, tmp_path / "a.fits", *FAST, "--gain", "4", "--read-noise", "1", "--saturation", "5e4")[
        "warnings"
    ]
    assert not any("from the header" in line for line in said)


def test_a_card_without_noise_has_it_measured_in_a_frame(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", frame())
    (tmp_path / "card.json").write_text(json.dumps(csist.Sensor(csist.GaussianPSF(1.1)).to_card()))
    assert run("unmix", tmp_path / "f.npy", "--mode", "fast", "--sensor", tmp_path / "card.json")[0] == 0
    found = column("targets.csv", "intensity_std")
    assert run("unmix", tmp_path / "f.npy", *FAST)[0] == 0
    np.testing.assert_allclose(np.sort(found), np.sort(column("targets.csv", "intensity_std")), rtol=0.05)


def test_a_psf_of_the_field_keeps_its_place_in_a_region(run: Run, tmp_path: Path) -> None:
    """Far from the region's own origin the PSF is three times as wide as there."""
    fits = pytest.importorskip("astropy.io.fits")
    offset = np.arange(-36, 37) / 3.0
    narrow, wide = (
        np.asarray(csist.GaussianPSF(sigma).response(offset[None, :], offset[:, None])) for sigma in (0.7, 2.1)
    )
    places = {f"DET_YX{k}": str((y, x)) for k, (x, y) in enumerate([(0, 0), (160, 0), (0, 60), (160, 60)])}
    grid = fits.Header({"OVERSAMP": 3, **places})
    fits.writeto(tmp_path / "grid.fits", np.array([narrow, wide, narrow, wide]), grid)
    sky = csist.Sensor(csist.GaussianPSF(2.1), shape=(60, 200), background=50.0, read_noise=1.0)
    np.save(tmp_path / "f.npy", sky.observe(csist.Targets(x=[180.2], y=[30.4], intensity=[4000.0]), 0))
    (tmp_path / "p.csv").write_text("x,y\n180.2,30.4\n")
    part = ("unmix", tmp_path / "f.npy", "--mode", "fast", "--psf", tmp_path / "grid.fits", "--roi", "140:200,0:60")
    for options in (("--at", tmp_path / "p.csv"), ("--no-extended",)):
        assert run(*part, *options)[0] == 0
        (flux,), (error,) = (column("targets.csv", name) for name in ("intensity", "intensity_std"))
        assert abs(flux - 4000.0) < 4.0 * error < 400.0


def test_weak_scores_are_left_out(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame())
    assert run("unmix", "a.npy", *FAST)[0] == 0
    every = column("targets.csv", "score")
    least = float(np.sort(every)[1])
    assert run("unmix", "a.npy", "--min-score", str(least), *FAST)[0] == 0
    assert sorted(column("targets.csv", "score")) == sorted(every[every >= least])


def test_columns_come_last_and_only_when_asked_for(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame())
    assert run("unmix", "a.npy", *FAST)[0] == 0
    assert lines("targets.csv")[0] == HEADER
    assert run("unmix", "a.npy", "--pixel-scale", "110nm", "--zero-point", "25", *FAST)[0] == 0
    assert lines("targets.csv")[0] == f"{HEADER},x_nm,y_nm,x_nm_std,y_nm_std,magnitude,magnitude_std"
    np.testing.assert_allclose(column("targets.csv", "x_nm"), 110.0 * column("targets.csv", "x"))
    flux, error = column("targets.csv", "intensity"), column("targets.csv", "intensity_std")
    np.testing.assert_allclose(column("targets.csv", "magnitude"), 25.0 - 2.5 * np.log10(flux))
    np.testing.assert_allclose(column("targets.csv", "magnitude_std"), 1.0857362 * error / flux, rtol=1e-6)


def test_sky_is_that_of_astropy(run: Run, tmp_path: Path) -> None:
    from astropy.coordinates import SkyCoord
    from astropy.io import fits
    from astropy.wcs import WCS

    sky_file(tmp_path / "a.fits")
    assert run("unmix", "a.fits", "--sky", "--roi", "4:88,2:58", *FAST)[0] == 0
    place = column("targets.csv", "x"), column("targets.csv", "y")
    wcs = WCS(fits.getheader(tmp_path / "a.fits"))
    back = wcs.world_to_pixel(SkyCoord(column("targets.csv", "ra"), column("targets.csv", "dec"), unit="deg"))
    np.testing.assert_allclose(back, place, atol=1e-6)
    np.testing.assert_allclose(sorted(place[0]), SPOTS.x, atol=0.2)
    # Both axes turned by 20 degrees, 2 arcsec a pixel.
    along, across = (2.0 / 3600.0) ** 2 * np.array([np.cos(np.deg2rad(20.0)) ** 2, np.sin(np.deg2rad(20.0)) ** 2])
    x, y = column("targets.csv", "x_std") ** 2, column("targets.csv", "y_std") ** 2
    np.testing.assert_allclose(column("targets.csv", "ra_std"), np.sqrt(along * x + across * y), rtol=1e-3)
    np.testing.assert_allclose(column("targets.csv", "dec_std"), np.sqrt(across * x + along * y), rtol=1e-3)


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".ecsv"])
def test_columns_carry_units(suffix: str, run: Run, tmp_path: Path) -> None:
    table = pytest.importorskip("astropy.table")
    sky_file(tmp_path / "a.fits")
    options = ("--sky", "--pixel-scale", "0.1mrad", "--gain", "2", "--electrons", "--zero-point", "20")
    assert run("unmix", "a.fits", "-o", f"t{suffix}", *options, *FAST)[0] == 0
    wanted = {"x": "pix", "ra": "deg", "x_mrad": "mrad", "electrons": "electron", "magnitude_std": "mag"}
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        schema = parquet.read_schema(tmp_path / f"t{suffix}")
        found = {name: schema.field(name).metadata[b"unit"].decode() for name in wanted}
    else:
        read = table.Table.read(tmp_path / f"t{suffix}")
        found = {name: str(read[name].unit) for name in wanted}
        assert len(read) == 3
    if suffix == ".fits":
        wanted["electrons"] = "None"  # FITS has no such unit
    assert found == wanted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--error", "e.npy", "--weight", "e.npy"), "both state the noise"),
        (("--error", "small.npy"), "has the shape (4, 4)"),
        (("--error", "negative.npy"), "standard deviations >= 0"),
        (("--error", "zero.npy"), "no finite value > 0"),
        (("--mask", "none.npy"), "there is no such file"),
        (("--flat", "zero.npy"), "has no value > 0"),
        (("--gain", "-1"), "gain must be a finite number > 0"),
        (("--read-noise", "nan"), "read_noise must be"),
        (("--saturation", "0"), "saturation must be"),
        (("--min-score", "2"), "min_score must be between 0 and 1"),
        (("--pixel-scale", "1.2arcsec,3nm"), "pixel_scale must be"),
        (("--pixel-scale", "3"), "pixel_scale must be"),
        (("--pixel-scale", "1.2arcsec", "--pixel-scale", "110nm"), "pixel_scale is given as 1.2arcsec and as 110nm"),
        (("--pixel-scale", "0nm"), "pixel_scale must be"),
        (("--pixel-scale", "1.2.3nm"), "pixel_scale must"),
        (("--zero-point", "inf"), "zero_point must be"),
        (("--sky",), "no sky coordinates"),
        (("--electrons",), "electrons need the gain"),
        (("--electrons", "--gain", "2", "--format", "trackmate"), "has no place"),
        (("--method", "fista", "--mask", "e.npy"), "cannot leave pixels out"),
        (("--method", "fista", "--error", "e.npy"), "one noise for all pixels"),
        (("--joint", "3", "--error", "e.npy"), "one noise for all pixels"),
        (("--roi", "80:95,0:20"), "roi 80:95,0:20 is not within"),
    ],
)
def test_what_does_not_fit_is_one_line(options: tuple[str, ...], said: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame())
    for name, values in (("e", 1.0), ("negative", -1.0), ("zero", 0.0)):
        np.save(tmp_path / f"{name}.npy", np.full((60, 90), values))
    np.save(tmp_path / "small.npy", np.ones((4, 4)))
    refused(run("unmix", "a.npy", *FAST, *options), said)
    assert not (tmp_path / "targets.csv").exists()
