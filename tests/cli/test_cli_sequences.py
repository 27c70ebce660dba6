"""`csist unmix` on sequences of frames: folders, stacks and videos; measured PSF, tracks, workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from cli_helpers import Run, frame, lines, refused, rows_of, summary_rows, windows
from PIL import Image

import csist
from csist.io import read_targets_table

PSF = csist.GaussianPSF(1.1)
SHAPE = (64, 96)
STEP_PX = 1.5
FAST = ("--mode", "fast", "--psf-sigma", "1.1")


def flight(count: int = 6, seed: int = 0) -> np.ndarray:
    """Two targets that fly past each other, 8 bit."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(count):
        targets = csist.Targets(x=[20.0 + STEP_PX * k, 70.0 - STEP_PX * k], y=[20.0, 40.3], intensity=[900.0, 1200.0])
        clean = csist.Sensor(PSF, shape=SHAPE, background=40.0, quantised=False).render(targets)
        frames.append(np.clip(np.rint(clean + rng.normal(0.0, 2.0, SHAPE)), 0, 254))
    return np.stack(frames).astype(np.uint8)


def stars(count: int = 1) -> np.ndarray:
    """Frames with eight isolated bright sources."""
    x = np.array([15.0, 38.3, 61.4, 84.2] * 2) + 0.3
    y = np.repeat([18.2, 44.7], 4)
    sensor = csist.Sensor(PSF, shape=SHAPE, background=50.0, read_noise=2.0)
    scene = csist.Targets(x=x, y=y, intensity=np.full(8, 3000.0))
    return np.stack([sensor.observe(scene, seed) for seed in range(count)])


def as_folder(frames: np.ndarray, folder: Path) -> Path:
    folder.mkdir()
    for index, each in enumerate(frames):
        Image.fromarray(each).save(folder / f"f{index}.png")
    return folder


def places(path: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in ("frame", "x", "y", "intensity", "group")) for row in rows_of(path)]


def test_stack_folder_and_video_of_the_same_frames_give_the_same(run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = flight(4)
    np.save(tmp_path / "stack.npy", frames)
    as_folder(frames, tmp_path / "folder")
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = SHAPE[1], SHAPE[0], "gray"
        for each in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="gray")))
        container.mux(stream.encode())
    tables = {}
    for name in ("stack.npy", "folder", "video.mkv"):
        code, out, err = run("unmix", name, "--sequence", *FAST, "-o", "t.csv", "--tracks", "tracks.csv", "--json", "j")
        assert (code, err) == (0, "csist: folder: 4 image files\n" if name == "folder" else "")
        assert summary_rows(out)["tracks"] == "2"
        assert json.loads(Path("j").read_text())["images"] == 4
        tables[name] = places("t.csv")
        tracks = pd.read_csv("tracks.csv")
        assert list(tracks.columns)[:6] == ["image", "track", "frame", "x", "y", "intensity"]
        assert (tracks["detected"] == 1).all()
        assert (tracks[["cov_x_x", "cov_y_y", "cov_vx_vx"]] > 0.0).all(axis=None)
        assert tracks["existence_probability"].between(0.5, 1.0).all()
        assert set(tracks["image"]) == {name}
        assert tracks.groupby("track")["frame"].apply(list).tolist() == [[0, 1, 2, 3]] * 2
        for _, track in tracks.groupby("track"):
            np.testing.assert_allclose(np.abs(np.diff(track["x"])), STEP_PX, atol=0.5)
    assert tables["stack.npy"] == tables["folder"] == tables["video.mkv"]
    assert {row[0] for row in tables["folder"]} == {"0", "1", "2", "3"}


def test_without_sequence_a_folder_is_a_set_of_images(run: Run, tmp_path: Path) -> None:
    as_folder(flight(2), tmp_path / "folder")
    assert run("unmix", "folder", *FAST)[0] == 0
    assert {row["frame"] for row in rows_of("targets.csv")} == {"0"}
    assert run("unmix", "folder", "--sequence", *FAST)[0] == 0
    assert {(row["image"], row["frame"]) for row in rows_of("targets.csv")} == {("f0.png", "0"), ("f1.png", "1")}
    as_folder(flight(1), tmp_path / "other")
    assert run("unmix", "folder", "other", "--sequence", *FAST)[0] == 0
    assert {row["image"] for row in rows_of("targets.csv")} == {"folder/f0.png", "folder/f1.png", "other/f0.png"}


def test_workers_change_nothing(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", flight(7))
    for workers in (1, 3):
        options = ("--workers", workers, "-o", f"{workers}.csv", "--groups", f"g{workers}.csv")
        assert run("unmix", "a.npy", *FAST, *options)[0] == 0
    assert lines("1.csv") == lines("3.csv")
    assert lines("g1.csv") == lines("g3.csv")


def test_few_frames_are_read_before_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a sequence is, workers hold a bounded number of its frames."""
    from csist.cli.unmix.frames import AHEAD, _in_order

    taken = 0

    def items() -> Any:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    for workers in (1, 3):
        taken = 0
        for done, result in enumerate(_in_order(lambda item: 2 * item, items(), workers), 1):
            assert result == 2 * done
            assert taken - done <= AHEAD * workers
        assert taken == done == 1000


def test_an_error_among_workers_stops_in_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", flight(6))
    from csist.frames import solve

    real = solve.solve_frame

    def broken(image: np.ndarray, *rest: Any, **options: Any) -> Any:
        if np.array_equal(image, np.load("a.npy")[3]):
            raise csist.InputError("cannot be used")
        return real(image, *rest, **options)

    monkeypatch.setattr(solve, "solve_frame", broken)
    refused(run("unmix", "a.npy", *FAST, "--workers", 2), "a.npy: frame 3: cannot be used", "the 3 images done so far")


def test_the_psf_is_measured_once_for_a_sequence(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", stars(3))
    code, out, _ = run("unmix", "a.npy", "--psf", "auto", "--mode", "fast", "--json", "j.json", "--plot", "p.png")
    assert code == 0
    assert summary_rows(out)["PSF"].startswith(("sigma 1.1", "sigma 1.0"))
    (psf,) = json.loads(Path("j.json").read_text())["psf"]
    assert psf["image"] == "a.npy"
    assert psf["sigma_px"] == pytest.approx(1.1, rel=0.03)
    assert (psf["sources"], psf["frames"]) == (24, 3)
    found = read_targets_table("targets.csv")
    assert [len(found["a.npy", index]) for index in range(3)] == [8, 8, 8]


def test_too_few_sources_are_refused_and_a_folder_helps(run: Run, tmp_path: Path) -> None:
    frames = stars(2)[:, :, :72].clip(0, 65535).astype(np.uint16)  # six sources
    frames[:, :32] = frames[:, :1]  # three
    as_folder(frames, tmp_path / "folder")
    said = ("only 3 isolated bright unsaturated point sources", "--psf-sigma", "--sequence")
    refused(run("unmix", "folder/f0.png", "--psf", "auto"), "f0.png", *said)
    refused(run("unmix", "folder", "--psf", "auto", "--psf-sigma", "1"), "not both")
    assert run("unmix", "folder", "--psf", "auto", "--sequence", "--mode", "fast")[0] == 0


def test_of_windows_the_psf_is_calibrated(run: Run, tmp_path: Path) -> None:
    sensor = csist.Sensor(csist.GaussianPSF(0.55), background=30.0, read_noise=1.0)
    prior = csist.ScenePrior.csist_100k()
    scenes = csist.sample_scenes(prior, sensor, 60, seed=3)
    np.save(tmp_path / "a.npy", np.stack([sensor.observe(scene, seed) for seed, scene in enumerate(scenes)]))
    options = ("--prior", "csist-100k", "--mode", "fast", "--noise-std", "1", "--json", "-", "--psf", "auto")
    code, out, _ = run("unmix", "a.npy", *options)
    assert code == 0
    assert json.loads(out)["psf"][0]["sigma_px"] == pytest.approx(0.55, rel=0.03)
    windows(tmp_path / "few.npy", 3)
    refused(run("unmix", "few.npy", *options), "few.npy: at least 10 windows are needed, got 3")


def test_what_stands_still_is_left_out(run: Run, tmp_path: Path) -> None:
    frames = flight(12).astype(np.float64)
    clutter = csist.Sensor(PSF, shape=SHAPE).render(csist.Targets(x=[60.0], y=[10.0], intensity=[2000.0]))
    np.save(tmp_path / "a.npy", frames + clutter)
    seen = {}
    for name, options in (("plain", ()), ("moving", ("--temporal", "9"))):
        assert run("unmix", "a.npy", *FAST, *options)[0] == 0
        found = read_targets_table("targets.csv")
        still = [np.hypot(targets.x - 60.0, targets.y - 10.0).min(initial=99.0) for targets in found.values()]
        seen[name] = sum(distance < 2.0 for distance in still)
        moving = [np.abs(targets.y - 20.0).min(initial=99.0) < 1.0 for targets in found.values()]
        assert sum(moving) == 12
    assert seen == {"plain": 12, "moving": 0}
    np.save(tmp_path / "one.npy", frames[0])
    refused(run("unmix", "one.npy", "--temporal", "9"), "one.npy is one frame, --temporal needs a sequence")


def test_frames_without_a_value_get_a_note(run: Run, tmp_path: Path) -> None:
    frames = [frame(0), np.full(frame().shape, np.nan), np.full(frame().shape, 7.0), frame(1)]
    folder = tmp_path / "folder"
    folder.mkdir()
    for index, each in enumerate(frames):
        np.save(folder / f"{index}.npy", each)
    code, out, _ = run("unmix", "folder", "--sequence", *FAST)
    assert code == 0
    assert "frame 1 contains only NaN: it has no targets" in out
    assert {row["frame"] for row in rows_of("targets.csv")} == {"0", "3"}
    np.save(folder / "0.npy", frames[1])
    assert run("unmix", "folder", "--sequence", *FAST, "--plot", "p.png")[0] == 0
    assert Path("p.png").is_file()


@pytest.mark.parametrize(("tracker", "speed"), [("nearest", 9.0), ("jpda", 5.0)])
def test_fast_targets_need_a_larger_gate_and_a_note_says_so(
    run: Run, tmp_path: Path, tracker: str, speed: float
) -> None:
    if tracker == "jpda":
        pytest.importorskip("stonesoup")
    sky = csist.Sensor(PSF, shape=SHAPE, background=100.0, read_noise=3.0)
    scenes = [
        csist.Targets(x=[8.0 + speed * k, 88.0 - speed * k], y=[15.0, 45.0], intensity=[900.0, 900.0]) for k in range(9)
    ]
    np.save(tmp_path / "fast.npy", np.stack([sky.observe(scene, k) for k, scene in enumerate(scenes)]))
    both = ("unmix", "fast.npy", "-o", "t.csv", "--tracks", "tracks.csv", "--tracker", tracker, *FAST)
    _, out, error = run(*both)
    assert "18 of 18 detections are in no track" in out + error
    _, out, error = run(*both, "--gate", "12")
    assert "in no track" not in out + error
    table = pd.read_csv(tmp_path / "tracks.csv")
    assert table.groupby("track").size().tolist() == [9, 9]
    refused(run("unmix", "fast.npy", "--gate", "12"), "--gate 12.0 is for --tracks")
    refused(run("unmix", "fast.npy", "--tracker", "jpda"), "--tracker jpda is for --tracks")
    refused(run(*both, "--gate", "0"), "gate_px must be a finite number > 0, got 0")


def test_a_target_that_leaves_the_frame_keeps_its_speed(run: Run, tmp_path: Path) -> None:
    sky = csist.Sensor(csist.GaussianPSF(1.0), shape=(60, 80), background=100.0, read_noise=4.0)
    frames = [sky.observe(csist.Targets(x=[73.3 + 0.6 * k], y=[30.0], intensity=[1500.0]), k) for k in range(16)]
    np.save(tmp_path / "leaves.npy", np.stack(frames))
    run("unmix", "leaves.npy", "-o", "t.csv", "--tracks", "tracks.csv", "--mode", "fast", "--psf-sigma", "1")
    last = pd.read_csv(tmp_path / "tracks.csv").iloc[-1]
    # A position beyond the border is estimated at the border.
    assert last["frame"] > 11
    assert last["x"] == pytest.approx(73.3 + 0.6 * last["frame"], abs=4.0 * last["cov_x_x"] ** 0.5)
    assert last["vx"] == pytest.approx(0.6, abs=4.0 * last["cov_vx_vx"] ** 0.5)


def test_tracks_of_a_folder_of_images_get_a_note(run: Run, tmp_path: Path) -> None:
    as_folder(flight(3), tmp_path / "folder")
    both = ("unmix", "folder", "-o", "t.csv", "--tracks", "tracks.csv", *FAST)
    _, out, error = run(*both)
    assert "give --sequence" in out + error
    _, out, error = run(*both, "--sequence")
    assert "give --sequence" not in out + error


def test_bad_sequences_get_one_line(run: Run, tmp_path: Path) -> None:
    mixed = as_folder(flight(2), tmp_path / "mixed")
    Image.fromarray(flight(1)[0, :40]).save(mixed / "f2.png")
    small = tmp_path / "small"
    small.mkdir()
    windows(small / "a.npy", 2)
    np.save(tmp_path / "a.npy", flight(1))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "none").mkdir()
    held = "mixed: 3 image files"
    found = run("unmix", "mixed", "--sequence", *FAST)
    refused(found, "f2.png is 40 x 96 px", "a sequence has one size", announced=held)
    found = run("unmix", "small", "--sequence")
    refused(found, "holds windows of 11 x 11 px", "leave out --sequence", announced="small: 1 image file")
    refused(run("unmix", "none", "--sequence"), "the folder none holds no image")
    refused(run("unmix", "text.mp4"), "text.mp4")
    refused(run("unmix", "a.npy", "--workers", "0"), "workers must be a whole number >= 1, got 0")
    refused(run("unmix", "a.npy", "--temporal", "2"), "temporal must be a whole number of frames >= 3, got 2")
    refused(run("unmix", "a.npy", "--tracks", "t.txt"), "t.txt")
    refused(
        run("unmix", "a.npy", "--tracks", "t.csv", "--tracker", "mht"), "tracker must be one of nearest, groups, jpda"
    )
    refused(run("unmix", "a.npy", "--tracks", "targets.csv"), "two outputs have this name")
    found = run("unmix", "mixed", "--sequence", "--method", "ista")
    refused(found, "method 'ista' unmixes windows", announced=held)
    assert run("unmix", "mixed", *FAST)[0] == 0  # as a set of images their sizes may differ


def test_times_of_the_frames_are_in_the_tables_of_targets_and_tracks(run: Run, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", flight(4), imagej=True, metadata={"axes": "TYX", "finterval": 0.5})
    code, _, err = run("unmix", "a.tif", "-o", "t.csv", "--tracks", "k.csv", "--times", *FAST)
    assert code == 0, err
    for name in ("t.csv", "k.csv"):
        table = pd.read_csv(tmp_path / name)
        assert table.columns[-1] == "time_s"
        assert table["frame"].nunique() == 4
        np.testing.assert_allclose(table["time_s"], 0.5 * table["frame"])


def night(folder: Path, frames: np.ndarray) -> list[WCS]:
    """A folder of FITS files of a telescope that follows something else, 2 s apart; the sky of each."""
    folder.mkdir()
    skies = []
    for number, each in enumerate(frames):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0 + 0.01 * number, 20.0]
        wcs.wcs.crpix, wcs.wcs.cdelt = [48.0, 32.0], [-1.0 / 3600.0, 1.0 / 3600.0]
        header = wcs.to_header()
        header["DATE-OBS"], header["EXPTIME"] = f"2026-01-02T03:04:{2 * number:02d}", 1.0
        fits.writeto(folder / f"f{number}.fits", each.astype(np.float32), header)
        skies.append(wcs)
    return skies


@pytest.mark.parametrize("joint", [(), ("--joint", "6")])
def test_a_night_with_a_damaged_file_keeps_its_numbers_moments_and_sky(
    joint: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    skies = night(tmp_path / "night", flight(6))
    damaged = tmp_path / "night" / "f3.fits"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    options = ("--sequence", "--times", "--mjd", "--sky", *joint, *FAST)
    code, out, _ = run("unmix", "night", "-o", "t.csv", "--tracks", "k.csv", "--json", "j", *options)
    assert code == 1
    assert "f3.fits" in out
    assert "its frame is empty" in out
    failed = json.loads(Path("j").read_text())["failed"]
    assert [Path(each["path"]).name for each in failed] == ["f3.fits"]
    targets, tracks = pd.read_csv("t.csv"), pd.read_csv("k.csv").rename(columns={"first": "frame"})
    assert set(targets["frame"]) >= {0, 1, 2, 4, 5}
    assert tracks["track"].nunique() == 2
    for table in (targets, tracks):
        seen = table[table["frame"] != 3]
        np.testing.assert_allclose(seen["time_s"], 2.0 * seen["frame"], atol=1e-6)
        begin = Time("2026-01-02T03:04:00").mjd
        np.testing.assert_allclose(seen["mjd"], begin + (2.0 * seen["frame"] + 0.5) / 86400.0, atol=1e-9)
        for row in seen.itertuples():
            place = SkyCoord(row.ra, row.dec, unit="deg")
            np.testing.assert_allclose(skies[row.frame].world_to_pixel(place), (row.x, row.y), atol=1e-6)
        assert table.loc[table["frame"] == 3, ["mjd", "ra", "dec"]].isna().all(axis=None)
    arcsec = tracks[["ra_std", "dec_std"]] * 3600.0
    np.testing.assert_allclose(
        arcsec[tracks["frame"] != 3], tracks.loc[tracks["frame"] != 3, ["cov_x_x", "cov_y_y"]] ** 0.5, rtol=1e-3
    )


def test_a_stack_states_one_moment_only(run: Run, tmp_path: Path) -> None:
    header = fits.Header({"DATE-OBS": "2026-01-02T03:04:05"})
    fits.writeto(tmp_path / "a.fits", flight(2), header)
    refused(run("unmix", "a.fits", "--mjd", *FAST), "a.fits states one moment for all its images: leave out --mjd")
    fits.writeto(tmp_path / "b.fits", flight(1)[0], header)
    assert run("unmix", "b.fits", "--mjd", "-o", "t.csv", *FAST)[0] == 0
    np.testing.assert_allclose(pd.read_csv("t.csv")["mjd"], Time("2026-01-02T03:04:05").mjd, atol=1e-9)
    fits.writeto(tmp_path / "c.fits", flight(1)[0])
    refused(run("unmix", "c.fits", "--mjd", *FAST), "it does not state when it was taken")
