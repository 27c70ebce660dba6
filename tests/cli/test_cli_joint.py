"""`csist unmix --joint`: sequences of windows as one posterior, their table and their tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from cli_helpers import Run, refused

import csist
from csist.datasets import generate_sequences, load
from csist.io import read_targets_table

SKY = csist.Sensor(read_noise=2.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.npy"
    frames = [SKY.observe(csist.Targets([4.0 + 0.1 * t], [5.0], [240.0]), t) for t in range(10)]
    np.save(path, np.stack(frames))
    return path


def test_runs_of_a_stack_have_tracks_of_their_own(run: Run, video, tmp_path):
    out, tracks = tmp_path / "targets.csv", tmp_path / "tracks.csv"
    code, _, err = run(
        "unmix", video, "-o", out, "--joint", 5, "--tracks", tracks, "--prior", "csist-100k", "--mode", "fast"
    )
    assert code == 0, err
    table = pd.read_csv(out)
    assert table.columns[-1] == "track"
    assert table["frame"].tolist() == list(range(10))
    assert table["track"].tolist() == [0] * 5 + [1] * 5
    rows = pd.read_csv(tracks)
    assert rows[["first", "last"]].to_numpy().tolist() == [[0, 4], [5, 9]]
    assert np.abs(rows["vx"] - 0.1).max() < 0.05
    assert (rows["cov_vx_vx"] > 0.0).all()
    assert rows["existence_probability"].min() > 0.9
    assert rows[["long_px", "short_px", "angle_deg"]].isna().all(axis=None)  # points
    assert rows.columns[-3:].tolist() == ["long_px", "short_px", "angle_deg"]
    assert len(next(iter(read_targets_table(out).values()))) == 1


def test_runs_of_a_store_end_with_the_trajectory(run: Run, tmp_path):
    store = generate_sequences(tmp_path / "a.h5", 3, seed=1, noise_std=1.0)
    out = tmp_path / "targets.parquet"
    code, _, err = run("unmix", store, "-o", out, "--joint", 20, "--mode", "fast")
    assert code == 0, err
    table = pd.read_parquet(out)
    assert table.groupby("frame").size().tolist() == [len(each) for each in load(store)["test"].targets]
    assert table["track"].nunique() == len(load(store)["test"].targets[0])


def test_folder_as_a_sequence_equals_the_stack(run: Run, video, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, frame in enumerate(np.load(video)):
        np.save(folder / f"frame_{t}.npy", frame)
    options = ("--joint", 10, "--mode", "fast", "--prior", "csist-100k", "--noise-std", 2, "--psf-sigma", 0.5)
    assert run("unmix", video, "-o", tmp_path / "a.csv", *options)[0] == 0
    assert run("unmix", folder, "--sequence", "-o", tmp_path / "b.csv", *options)[0] == 0
    first, second = pd.read_csv(tmp_path / "a.csv"), pd.read_csv(tmp_path / "b.csv")
    assert first["x"].tolist() == second["x"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--joint", 0), "joint must be"),
        (("--joint", 5, "--method", "ista"), "method 'continuous'"),
        (("--joint", 5, "--joint-step", 6), "--joint-step must be"),
        (("--joint-step", 2), "no --joint"),
        (("--joint", 5, "--motion", "bent"), "motion must be one of"),
        (("--motion", "free"), "--motion free is for --joint"),
        (("--joint", 5, "--engine", "dask"), "--joint processes frames sequentially"),
    ],
)
def test_bad_use_is_one_line(run: Run, video, tmp_path, options, message):
    code, _, err = run("unmix", video, "-o", tmp_path / "a.csv", *options)
    assert code == 2
    assert message in err


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(32, 40), background=50.0, read_noise=3.0)
    path, rng = tmp_path_factory.mktemp("movie") / "movie.npy", np.random.default_rng(1)
    scenes = [csist.Targets([8.0 + 1.5 * t, 30.0], [10.0 + 0.4 * t, 25.0], [400.0, 500.0]) for t in range(8)]
    np.save(path, np.stack([sky.observe(scene, rng) for scene in scenes]))
    return path


@pytest.mark.parametrize("step", [4, 2])
def test_groups_of_whole_frames_have_one_track(run: Run, movie, tmp_path, step):
    out, tracks, groups = (tmp_path / f"{name}.csv" for name in ("targets", "tracks", "groups"))
    code, _, err = run(
        "unmix", movie, "-o", out, "--joint", 4, "--joint-step", step, "--tracks", tracks, "--groups", groups,
        "--mode", "fast", "--psf-sigma", 0.9, "--noise-std", 3,
    )  # fmt: skip
    assert code == 0, err
    table = pd.read_csv(out)
    assert table["frame"].tolist() == sorted([*range(8)] * 2)
    mover = table[(table["x"] - 8.0 - 1.5 * table["frame"]).abs() < 0.3]
    assert len(mover) == 8
    assert mover["track"].nunique() == 1
    rows = pd.read_csv(tracks)
    assert rows.groupby("track").size().tolist() == [8 // step] * 2
    own = rows[rows["track"] == mover["track"].iloc[0]]
    assert np.abs(own["vx"] - 1.5).max() < 0.1
    assert (np.abs(own["x"] - 8.0 - 1.5 * own["first"]) < 0.3).all()
    assert set(pd.read_csv(groups)["count"]) == {1}


def test_frames_that_hold_nothing_new_are_left_out(run: Run, movie, tmp_path):
    frames = np.load(movie)
    frames[3], frames[5] = np.nan, frames[4]
    np.save(tmp_path / "gaps.npy", frames)
    options = ("--joint", 8, "--mode", "fast", "--psf-sigma", 0.9, "--noise-std", 3, "--tracks", "tracks.csv")
    code, out, err = run("unmix", "gaps.npy", "-o", "targets.csv", *options)
    assert code == 0, err
    assert "1 of 8 frames contain only NaN and are left out" in out
    assert "1 of 8 frames repeat the frame before and are left out" in out
    assert "no targets" not in out
    rows = pd.read_csv(tmp_path / "tracks.csv")
    assert len(rows) == 2
    assert abs(rows["vx"].max() - 1.5) < 0.05


def test_a_path_that_bends_needs_its_motion(run: Run, tmp_path):
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(32, 48), background=50.0, read_noise=3.0)
    rng, scenes = np.random.default_rng(1), []
    for t in range(12):  # from rest
        x = 8.0 + 0.1 * t**2
        scenes.append(csist.Targets([x, x + 1.6], [10.0 + 0.4 * t, 10.2 + 0.4 * t], [400.0, 500.0]))
    np.save(tmp_path / "bent.npy", np.stack([sky.observe(scene, rng) for scene in scenes]))
    options = ("--joint", 12, "--mode", "fast", "--psf-sigma", 0.9, "--noise-std", 3, "--groups", "groups.csv")
    code, out, err = run("unmix", "bent.npy", "-o", "a.csv", *options)
    assert code == 0, err
    assert "keep the targets of single frames" in out
    code, out, err = run("unmix", "bent.npy", "-o", "b.csv", "--tracks", "t.csv", "--motion", "acceleration", *options)
    assert code == 0, err
    assert "note" not in out
    assert pd.read_csv(tmp_path / "groups.csv")["count"].tolist() == [2]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "t.csv")["vx"], 0.0, atol=0.1)


def test_windows_do_not_slide(run: Run, video, tmp_path):
    code, _, err = run("unmix", video, "-o", tmp_path / "a.csv", "--joint", 4, "--joint-step", 2)
    assert code == 2
    assert "is for whole frames" in err


def test_a_part_of_the_frames_has_the_coordinates_of_the_file(run: Run, video, tmp_path):
    options = ("--joint", 10, "--mode", "fast", "--prior", "csist-100k", "--noise-std", 2)
    parts = [("all", ()), ("part", ("--roi", "1:10,1:11"))]
    for name, more in parts:
        code, _, err = run("unmix", video, "-o", f"{name}.csv", "--tracks", f"{name}-tracks.csv", *options, *more)
        assert code == 0, err
    whole, part = (pd.read_csv(tmp_path / f"{name}-tracks.csv") for name, _ in parts)
    assert abs(whole["x"][0] - part["x"][0]) < 0.1
    assert abs(whole["y"][0] - part["y"][0]) < 0.1


def test_unequal_times_of_the_file_are_used_and_written(run: Run, tmp_path):
    times = np.array([0.0, 2.0, 4.0, 6.0, 14.0, 16.0])  # s; an interval is 2 s
    frames = [SKY.observe(csist.Targets([4.0 + 0.1 * t], [5.0], [240.0]), int(t)) for t in times]
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.stack(frames).astype(np.float32), ome=True,
        metadata={"axes": "TYX", "Plane": {"DeltaT": (5.0 + times).tolist(), "DeltaTUnit": ["s"] * 6}},
    )  # fmt: skip
    options = ("--joint", 6, "--mode", "fast", "--prior", "csist-100k", "--noise-std", 2, "--times")
    code, _, err = run("unmix", "a.ome.tif", "-o", "t.csv", "--tracks", "k.csv", *options, "--pixel-scale", "110nm")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.columns[10:14].tolist() == ["group", "track", "time_s", "x_nm"]
    np.testing.assert_allclose(table["time_s"], times[table["frame"]])
    assert pd.read_csv(tmp_path / "k.csv")["time_s"].tolist() == [0.0]
    assert abs(pd.read_csv(tmp_path / "k.csv")["vx"][0] - 0.2) < 0.06  # px an interval; 0.35 by equal ones
    part = (*options, "--frames", "2:6")
    code, _, err = run("unmix", "a.ome.tif", "-o", "p.ecsv", *part)
    assert code == 0, err
    assert set(read_targets_table(tmp_path / "p.ecsv")) == {("a.ome.tif", frame) for frame in range(2, 6)}
    assert "{name: time_s, unit: s, datatype: float64}" in (tmp_path / "p.ecsv").read_text()


def test_times_that_are_not_there_are_one_line(run: Run, video, tmp_path):
    refused(
        run("unmix", video, "-o", "a.csv", "--times"), "video.npy states no times of its frames", "leave out --times"
    )
    np.save(tmp_path / "one.npy", np.load(video)[0])
    refused(run("unmix", "one.npy", "-o", "a.csv", "--times"), "one.npy is one image")
    assert not (tmp_path / "a.csv").exists()
