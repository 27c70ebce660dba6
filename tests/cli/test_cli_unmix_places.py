"""`csist unmix --at` and `--start`: tables of positions in px and on the sky, their order, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import SENSOR, SKY, SPOTS, Run, frame, refused, rows_of

import csist
from csist.io import write_table
from csist.io.positions import read_positions
from csist.targets import Flag

PSF = ("--psf-sigma", "1.1", "--noise-std", "2")


def places(path: Path, **columns: object) -> Path:
    write_table(pd.DataFrame(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv"])
def test_fluxes_at_positions_keep_the_order_of_the_table(run: Run, tmp_path: Path, suffix: str) -> None:
    np.save(tmp_path / "f.npy", frame())
    table = places(tmp_path / f"p{suffix}", X=[60.7, 40.0, 20.3, 23.1], Y=[15.4, 45.0, 30.2, 31.0], name=list("abcd"))
    assert run("unmix", tmp_path / "f.npy", "-o", tmp_path / "t.csv", "--at", table, *PSF)[0] == 0
    rows = rows_of(tmp_path / "t.csv")
    assert [float(row["x"]) for row in rows] == [60.7, 40.0, 20.3, 23.1]
    flux, error = (np.array([float(row[name]) for row in rows]) for name in ("intensity", "intensity_std"))
    assert (np.abs(flux - [2000.0, 0.0, 1500.0, 1200.0]) < 4.5 * error).all()
    assert [int(row["flags"]) for row in rows] == [0, int(Flag.UPPER_LIMIT), 0, 0]
    assert {row["x_std"] for row in rows} == {""}


def test_rows_of_several_frames_keep_their_order_and_regions_their_coordinates(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.stack([frame(0), frame(1), frame(2)]))
    table = places(tmp_path / "p.csv", x=[60.7, 23.1, 20.3, 60.7], y=[15.4, 31.0, 30.2, 15.4], frame=[2, 1, 1, 1])
    given = ("--frames", "1:3", "--roi", "10:90,5:60")
    assert run("unmix", tmp_path / "f.npy", "-o", tmp_path / "t.csv", "--at", table, *PSF, *given)[0] == 0
    rows = rows_of(tmp_path / "t.csv")
    assert [(int(row["frame"]), float(row["x"])) for row in rows] == [(2, 60.7), (1, 23.1), (1, 20.3), (1, 60.7)]
    truth = [2000.0, 1200.0, 1500.0, 2000.0]
    assert np.allclose([float(row["intensity"]) for row in rows], truth, rtol=0.05)


def test_rows_for_frames_that_the_file_does_not_have_are_told(run: Run, tmp_path: Path) -> None:
    """A table that counts frames from 1 lost its last one without a word."""
    np.save(tmp_path / "f.npy", np.stack([frame(0), frame(1)]))
    table = places(tmp_path / "p.csv", x=[60.7, 60.7], y=[15.4, 15.4], frame=[1, 2])
    code, *said = run("unmix", tmp_path / "f.npy", "-o", tmp_path / "t.csv", "--at", table, *PSF)
    assert code == 0
    assert "1 of 2 rows are for frames that f.npy does not have; its frames are 0 to 1" in "".join(said)


def test_images_are_told_apart_by_name(run: Run, tmp_path: Path) -> None:
    for name, seed in (("a.npy", 0), ("b.npy", 1)):
        np.save(tmp_path / name, frame(seed))
    table = places(tmp_path / "p.csv", x=[60.7, 20.3], y=[15.4, 30.2], image=["b.npy", "a.npy"])
    found = run("unmix", tmp_path / "a.npy", tmp_path / "b.npy", "-o", tmp_path / "t.csv", "--at", table, *PSF)
    assert found[0] == 0
    assert [row["image"] for row in rows_of(tmp_path / "t.csv")] == ["b.npy", "a.npy"]
    other = places(tmp_path / "q.csv", x=[60.7], y=[15.4], image=["c.npy"])
    refused(run("unmix", tmp_path / "a.npy", "--at", other, *PSF), "none of its rows is for an image given", "c.npy")


def test_windows_are_measured_with_the_background_of_their_sensor(run: Run, tmp_path: Path) -> None:
    pair = csist.Targets(x=[5.2, 6.1], y=[5.0, 5.3], intensity=[240.0, 230.0])
    np.save(tmp_path / "w.npy", np.stack([SENSOR.observe(pair, 0), SENSOR.observe(pair[:1], 1)]))
    table = places(tmp_path / "p.csv", x=[5.2, 6.1, 5.2, 6.1], y=[5.0, 5.3, 5.0, 5.3], frame=[0, 0, 1, 1])
    assert run("unmix", tmp_path / "w.npy", "-o", tmp_path / "t.csv", "--at", table, "--noise-std", "1")[0] == 0
    rows = rows_of(tmp_path / "t.csv")
    flux, error = (np.array([float(row[name]) for row in rows]) for name in ("intensity", "intensity_std"))
    assert (np.abs(flux - [240.0, 230.0, 240.0, 0.0]) < 4.5 * error).all()
    assert int(rows[3]["flags"]) == int(Flag.UPPER_LIMIT)


@pytest.mark.parametrize("frame_of_sky", ["ICRS", "FK5", "GALACTIC"])
def test_sky_positions_are_those_of_astropy(tmp_path: Path, frame_of_sky: str) -> None:
    pytest.importorskip("astropy", reason="compared where the extra `astro` is installed")
    from astropy.io import fits
    from astropy.wcs import WCS

    from csist.io import read_image

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"] if frame_of_sky == "GALACTIC" else ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cdelt = [40.0, 30.0], [83.8, -5.4], [-3e-4, 3e-4]
    if frame_of_sky != "GALACTIC":
        wcs.wcs.radesys, wcs.wcs.equinox = frame_of_sky, 2000.0
    header = wcs.to_header()
    if frame_of_sky != "GALACTIC":
        header["A_ORDER"], header["B_ORDER"], header["A_2_0"], header["B_1_1"] = 2, 2, 2e-4, -1e-4
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    fits.PrimaryHDU(frame().astype(np.float32), header).writeto(tmp_path / "f.fits")
    whole = WCS(header)
    x, y = np.array([20.3, 0.0, 88.0, 61.25]), np.array([30.2, 0.0, 59.0, 15.4])
    sky = whole.pixel_to_world(x, y).icrs
    write_table(pd.DataFrame({"ra": sky.ra.deg, "dec": sky.dec.deg}), tmp_path / "p.csv")
    table = read_positions(tmp_path / "p.csv")
    stack = read_image(tmp_path / "f.fits")
    found = table.pixels(np.arange(4), stack.header, (60, 90), "f.fits")
    assert np.allclose(found, np.stack([x, y], axis=1), atol=1e-6)


def test_sky_positions_from_the_command_line(run: Run, tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra `astro`")
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 45.5, "CRPIX2": 30.5, "CRVAL1": 10.0, "CRVAL2": 41.0,
            "CDELT1": -1e-4, "CDELT2": 1e-4,
        }
    )  # fmt: skip
    fits.PrimaryHDU(frame().astype(np.float32), header).writeto(tmp_path / "f.fits")
    from astropy.wcs import WCS

    sky = WCS(header).pixel_to_world(SPOTS.x, SPOTS.y)
    table = places(tmp_path / "p.csv", ra=[*sky.ra.deg, 190.0][:3], dec=list(sky.dec.deg))
    given = ("--at", table, *PSF, "--roi", "10:90,5:60")
    assert run("unmix", tmp_path / "f.fits", "-o", tmp_path / "t.csv", *given)[0] == 0
    rows = rows_of(tmp_path / "t.csv")
    assert np.allclose([[float(row["x"]), float(row["y"])] for row in rows], np.stack([SPOTS.x, SPOTS.y], 1), atol=1e-6)
    assert np.allclose([float(row["intensity"]) for row in rows], SPOTS.intensity, rtol=0.05)
    np.save(tmp_path / "f.npy", frame())
    refused(run("unmix", tmp_path / "f.npy", "--at", table, *PSF), "f.npy has no sky coordinates (WCS): give x and y")
    behind = places(tmp_path / "q.csv", ra=[190.0], dec=[-41.0])
    refused(run("unmix", tmp_path / "f.fits", "--at", behind, *PSF), "row 2", "no place in the projection")


def test_a_start_is_tried_and_not_believed(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", frame())
    table = places(tmp_path / "p.csv", x=[20.3, 23.1, 60.7, 45.0], y=[30.2, 31.0, 15.4, 45.0])
    assert run("unmix", tmp_path / "f.npy", "-o", tmp_path / "t.csv", "--start", table, *PSF, "--mode", "fast")[0] == 0
    rows = rows_of(tmp_path / "t.csv")
    assert len(rows) == 3
    found = np.array(sorted([float(row["x"]), float(row["y"])] for row in rows))
    assert np.abs(found - np.stack([SPOTS.x, SPOTS.y], 1)).max() < 0.1


def test_a_start_is_found_where_detection_sees_nothing() -> None:
    truth = csist.Targets(x=[40.3], y=[30.2], intensity=[48.0])
    image = SKY.observe(truth, 3)
    alone = csist.unmix_frame(image, SKY, noise_std=2.0)
    helped = csist.unmix_frame(image, SKY, noise_std=2.0, start=truth)
    assert len(alone.targets) == 0 and len(helped.targets) == 1
    assert abs(helped.targets.intensity[0] - 48.0) < 4.5 * helped.targets.intensity_std[0]


def test_windows_take_a_start_each() -> None:
    pair = csist.Targets(x=[5.0, 6.6], y=[5.1, 5.4], intensity=[400.0, 380.0])
    sensor = csist.Sensor(csist.GaussianPSF(0.8), read_noise=1.0)
    stack = np.stack([sensor.observe(pair, 0), sensor.observe(pair[:1], 1)])
    found = csist.unmix(stack, sensor, mode="fast", start=[pair, np.empty((0, 2))])
    assert [len(each) for each in found] == [2, 1]
    with pytest.raises(csist.InputError, match="start must hold positions for each of the 2 images, got 1"):
        csist.unmix(stack, sensor, start=[pair])
    with pytest.raises(csist.InputError, match="start positions need a prior with targets anywhere"):
        csist.unmix(stack[0], sensor, csist.ScenePrior.csist_100k(), start=pair)
    with pytest.raises(csist.InputError, match="does not search from start positions"):
        csist.unmix(stack[0], method="ista", start=pair)


@pytest.mark.parametrize("suffix", [".ecsv", ".fits"])
def test_stated_units_of_positions_are_kept(suffix: str, run: Run, tmp_path: Path) -> None:
    units = pytest.importorskip("astropy.units", reason="needs the extra `astro`")
    table = pytest.importorskip("astropy.table").QTable
    path = tmp_path / f"p{suffix}"
    ra, dec = np.array([350.0, 10.0]) * units.deg, np.array([-20.0, 30.0]) * units.deg
    table({"RA": ra.to("rad"), "Dec": dec.to("arcsec")}).write(path)
    np.testing.assert_allclose(read_positions(path).pairs, [[350.0, -20.0], [10.0, 30.0]], rtol=1e-12)
    table({"x": [1.0, 2.0] * units.pix, "y": [3.0, 4.0] * units.pix}).write(path, overwrite=True)
    assert read_positions(path).pairs.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    np.save(tmp_path / "f.npy", frame())
    for columns, said in (
        ({"x": [1.0] * units.um, "y": [3.0] * units.pix}, "states x in 'um': x and y are in px"),
        ({"ra": [1.0] * units.deg, "dec": [3.0] * units.s}, "states dec in 's': ra and dec are angles"),
    ):
        table(columns).write(path, overwrite=True)
        refused(run("unmix", tmp_path / "f.npy", "--at", path, *PSF), said)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": [1.0], "dec": [2.0]}, "needs the columns x and y (px) or ra and dec (degrees)"),
        ({"x": [1.0, np.nan], "y": [1.0, 2.0]}, "row 3: x must be a finite number, got ''"),
        ({"x": ["east"], "y": [2.0]}, "row 2: x must be a finite number, got 'east'"),
        ({"ra": [10.0], "dec": [95.0]}, "row 2: dec must lie within -90 to 90 degrees, got 95"),
        ({"x": [1.0], "y": [1.0], "frame": [0.5]}, "row 2: frame must be a whole number from 0, got 0.5"),
    ],
)
def test_bad_tables_are_one_line(run: Run, tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    np.save(tmp_path / "f.npy", frame())
    refused(run("unmix", tmp_path / "f.npy", "--at", places(tmp_path / "p.csv", **columns), *PSF), said)


def test_options_that_do_not_go_together_are_one_line(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", frame())
    table = places(tmp_path / "p.csv", x=[1.0], y=[2.0])
    file, at = tmp_path / "f.npy", ("--at", table)
    refused(run("unmix", file, *at, "--start", table), "not both")
    refused(run("unmix", file, *at, "--groups", tmp_path / "g.csv"), "--at cannot be combined with --groups")
    refused(run("unmix", file, *at, "--method", "ista"), "--at cannot be combined with --method ista")
    refused(run("unmix", file, "--start", table, "--joint", "5"), "--start cannot be combined with --joint", "move")
    refused(run("unmix", file, *at, "--joint", "5"), "--at cannot be combined with --joint", "move from frame to frame")
    refused(run("unmix", file, *at), "need the PSF", "--psf-sigma")
    refused(run("unmix", file, "--at", tmp_path / "no.csv"), "there is no such file")
    refused(run("unmix", file, "--at", tmp_path / "no.txt"), "a table of targets ends in")
