"""What of a file is read, and what its header says, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SKY, Run, frame, refused, rows_of, windows

from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

FAST = ("--mode", "fast")


def test_frames_of_a_stack_keep_their_numbers(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "w.npy", 5)
    run("unmix", "w.npy", *FAST, "-o", "all.csv", "--groups", "all-groups.csv")
    assert run("unmix", "w.npy", *FAST, "-o", "some.csv", "--groups", "some-groups.csv", "--frames", "1:3")[0] == 0
    for table in ("", "-groups"):
        expected = [row for row in rows_of(f"all{table}.csv") if row["frame"] in ("1", "2")]
        found = rows_of(f"some{table}.csv")
        assert [row["frame"] for row in found] == [row["frame"] for row in expected]
    assert {row["frame"] for row in rows_of("some.csv")} == {"1", "2"}
    refused(run("unmix", "w.npy", "--frames", "5:"), "w.npy has 5 images")
    refused(run("unmix", "w.npy", "--frames", "3"), "frames must be first:end")


def test_positions_of_a_region_are_those_of_the_image(run: Run, tmp_path: Path) -> None:
    image = frame()
    np.save(tmp_path / "f.npy", image)
    np.save(tmp_path / "cut.npy", image[6:40, 10:44])
    common = (*FAST, "--psf-sigma", "1.2")
    assert run("unmix", "f.npy", *common, "--roi", "10:44,6:40", "-o", "roi.csv", "--groups", "roi-groups.csv")[0] == 0
    assert run("unmix", "cut.npy", *common, "-o", "cut.csv", "--groups", "cut-groups.csv")[0] == 0
    roi, cut = rows_of("roi.csv"), rows_of("cut.csv")
    assert len(roi) == len(cut) > 0
    for one, other in zip(roi, cut, strict=True):
        assert float(one["x"]) == pytest.approx(float(other["x"]) + 10, abs=1e-9)
        assert float(one["y"]) == pytest.approx(float(other["y"]) + 6, abs=1e-9)
        assert one["intensity"] == other["intensity"]
    for one, other in zip(rows_of("roi-groups.csv"), rows_of("cut-groups.csv"), strict=True):
        assert (int(one["column"]), int(one["row"])) == (int(other["column"]) + 10, int(other["row"]) + 6)
    refused(run("unmix", "f.npy", "--roi", "0:999,0:10"), "roi 0:999,0:10 is not within f.npy")
    refused(run("unmix", "f.npy", "--roi", "5:2,0:10"), "roi must be x0:x1,y0:y1")
    refused(run("unmix", "f.npz", "--roi", "5,2"), "roi must be")
    refused(run("unmix", "f.npy", "--page", "-1"), "page must be a whole number >= 0")


def test_a_unit_of_a_fits_file_and_its_header(run: Run, tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra `astro`")
    sensor = Sensor(psf=GaussianPSF(1.2), shape=(48, 64), background=200.0, read_noise=3.0)
    truth = Targets(x=[20.3, 45.1], y=[20.2, 30.4], intensity=[4000.0, 30000.0])
    image = np.minimum(sensor.observe(truth, 0), 1500.0)
    units = [fits.PrimaryHDU(), fits.ImageHDU(image[::-1], name="BACK"), fits.ImageHDU(image, name="SCI")]
    units[2].header["SATURATE"] = 1500.0
    units[2].header["EGAIN"] = 2.0
    fits.HDUList(units).writeto(tmp_path / "f.fits")
    for psf in (("--psf-sigma", "1.2"), ()):  # with a PSF, and with one guessed
        code, out, _ = run("unmix", "f.fits[SCI]", *FAST, *psf, "-o", "t.csv", "--plot", "t.png")
        assert code == 0
        assert "note: f.fits[SCI]: from the header: gain 2 e/count (EGAIN), saturation 1500 counts (SATURATE)" in out
        rows = rows_of("t.csv")
        assert {row["image"] for row in rows} == {"f.fits[SCI]"}
        alone = [row for row in rows if abs(float(row["x"]) - 20.3) < 1]
        bright = [row for row in rows if abs(float(row["x"]) - 45.1) < 3]
        assert float(alone[0]["x"]) == pytest.approx(20.3, abs=0.1)
        assert not int(alone[0]["flags"]) & 4
        assert all(int(row["flags"]) & 4 for row in bright)
    code, out, _ = run("unmix", "f.fits", "--hdu", "BACK", *FAST, "--psf-sigma", "1.2", "-o", "u.csv")
    assert code == 0
    assert "header" not in out
    assert float(rows_of("u.csv")[-1]["y"]) == pytest.approx(47 - 20.2, abs=0.2)
    refused(run("unmix", "f.fits[SCI]", "-o", "f.fits"), "cannot write f.fits: it is an input")
    refused(run("unmix", "f.fits[SCI]", "f.fits[SCI]"), "given twice")


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        ("pos.csv", "x,y\n20.3,30.2\n", ("--at", "pos.csv", "-o", "pos.csv")),
        ("pos.csv", "x,y\n20.3,30.2\n", ("--start", "pos.csv", "--groups", "pos.csv", "-o", "t.csv")),
        ("cam.json", json.dumps(SKY.to_card()), ("--sensor", "cam.json", "--json", "cam.json", "-o", "t.csv")),
        ("conf.toml", "", ("--config", "conf.toml", "--json", "./conf.toml", "-o", "t.csv")),
    ],
)
def test_no_output_takes_the_place_of_what_an_option_reads(
    run: Run, tmp_path: Path, name: str, text: str, given: tuple[str, ...]
) -> None:
    np.save("sky.npy", frame())
    Path(name).write_text(text)
    refused(run("unmix", "sky.npy", *FAST, *given), f"cannot write {name}: it is an input, give another name")
    assert Path(name).read_text() == text


@pytest.mark.parametrize("command", ["unmix", "inject"])
def test_no_output_takes_the_place_of_a_map(run: Run, command: str) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra `astro`")
    np.save("sky.npy", frame())
    fits.writeto("err.fits", np.full((60, 90), 2.0))
    before = Path("err.fits").read_bytes()
    where = ("--model",) if command == "unmix" else ("-o",)
    result = run(command, "sky.npy", "--psf-sigma", "1.1", "--error", "err.fits[0]", *where, "err.fits")
    refused(result, "cannot write err.fits: it is an input, give another name")
    assert Path("err.fits").read_bytes() == before


def test_a_window_without_a_value_has_no_targets(run: Run, tmp_path: Path) -> None:
    stack = np.load(windows(tmp_path / "w.npy", 4)).astype(np.float64)
    run("unmix", "w.npy", *FAST, "-o", "whole.csv")
    stack[1] = np.nan
    np.save(tmp_path / "gap.npy", stack)
    code, out, _ = run("unmix", "gap.npy", *FAST, "-o", "gap.csv", "--groups", "groups.csv")
    assert code == 0
    assert "note: gap.npy: image 1 contains only NaN: it has no targets" in out
    assert {row["frame"] for row in rows_of("gap.csv")} == {"0", "2", "3"}
    assert {row["frame"] for row in rows_of("groups.csv")} == {"0", "2", "3"}
    stack[:] = np.nan
    np.save(tmp_path / "none.npy", stack)
    refused(run("unmix", "none.npy"), "none.npy contains only NaN")
    assert not (tmp_path / "targets.csv").exists()


def test_a_frame_without_a_value_has_no_targets(run: Run, tmp_path: Path) -> None:
    stack = np.stack([frame(), np.full_like(frame(), np.nan), frame()])
    np.save(tmp_path / "gap.npy", stack)
    code, out, _ = run("unmix", "gap.npy", *FAST, "--psf-sigma", "1.2", "-o", "gap.csv")
    assert code == 0
    assert "note: gap.npy: frame 1 contains only NaN: it has no targets" in out
    assert {row["frame"] for row in rows_of("gap.csv")} == {"0", "2"}


def test_what_a_map_or_a_small_part_leaves_unused_is_said(run: Run) -> None:
    np.save("sky.npy", frame())
    np.save("err.npy", np.full((60, 90), 2.0))
    told = {
        "--gain adds no noise beside an error map": ("--gain", "2", "--error", "err.npy"),
        "up to 16 px a side are a window, whose background is not measured: widen --roi": ("--roi", "50:64,8:22"),
    }
    for said, given in told.items():
        code, out, _ = run("unmix", "sky.npy", *FAST, "--psf-sigma", "1.1", *given, "-o", "t.csv")
        assert code == 0
        assert said in " ".join(out.split())
        assert not any(other in " ".join(out.split()) for other in told if other != said)
    code, out, _ = run(
        "unmix", "sky.npy", *FAST, "--psf-sigma", "1.1", "--roi", "50:64,8:22", "--background", "50", "-o", "t.csv"
    )
    assert code == 0
    assert "window, whose" not in out
