"""`csist unmix`: what it writes and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from cli_helpers import (
    HEADER,
    PRIOR,
    QUICK,
    SCENES,
    SENSOR,
    SPOTS,
    STACK,
    Run,
    frame,
    lines,
    refused,
    rows_of,
    summary_rows,
    windows,
)
from PIL import Image

import csist
from csist.datasets import load
from csist.frames import solve
from csist.io import read_targets_table


def test_a_stack_becomes_a_table(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy")
    code, out, err = run("unmix", "stack.npy", "-o", "found.csv", *QUICK)
    assert (code, err) == (0, "")
    assert summary_rows(out)["images"] == "5"
    assert lines("found.csv")[0] == HEADER
    found = read_targets_table("found.csv")
    direct = csist.unmix(STACK, prior=PRIOR, mode="fast", noise_std=1.0)
    assert found == {("stack.npy", i): targets for i, targets in enumerate(direct)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "stack.npy"]


def test_every_format_and_a_folder(run: Run, tmp_path: Path) -> None:
    image = STACK[1].clip(0).astype(np.uint16)
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(image).save(folder / "a10.png")
    tifffile.imwrite(folder / "a2.tif", image)
    np.save(folder / "sub" / "b.npy", image)
    np.savez(folder / "c.npz", image=image)
    (folder / "notes.txt").write_text("not an image")
    code, out, _ = run("unmix", folder, *QUICK, "--json", "summary.json")
    assert code == 0
    rows = rows_of("targets.csv")
    assert list(dict.fromkeys(row["image"] for row in rows)) == ["a2.tif", "a10.png", "c.npz", "sub/b.npy"]
    assert {row["frame"] for row in rows} == {"0"}
    assert len({row["x"] for row in rows}) == len(SCENES[1])  # the same answer for each
    assert "1 other files left out (.txt)" in out
    summary = json.loads(Path("summary.json").read_text())
    assert (summary["files"], summary["images"], summary["targets"]) == (4, 4, 4 * len(SCENES[1]))
    assert summary["failed"] == []


def test_colour_is_noted(run: Run, tmp_path: Path) -> None:
    colour = np.zeros((11, 11, 3), np.uint8)
    colour[5, 5] = (200, 100, 0)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    code, out, _ = run("unmix", "colour.png", *QUICK)
    assert code == 0
    assert "note: colour.png: colour turned into luminance" in out


def test_a_store_brings_its_sensor_and_truth(run: Run, store: Path) -> None:
    code, _, _ = run("unmix", store, "--prior", "csist-100k", "--mode", "fast", "--plot", "a.png")
    assert code == 0
    split = load(store)["test"]
    direct = csist.unmix(split.images, split.sensor, PRIOR, mode="fast", noise_std=1.0)
    assert list(read_targets_table("targets.csv").values()) == direct
    with Image.open("a.png") as picture:
        assert min(picture.size) > 400


def test_inputs_of_the_same_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        windows(tmp_path / name / "a.npy", 1)
    assert run("unmix", "one", "two", *QUICK)[0] == 0
    assert {key[0] for key in read_targets_table("targets.csv")} == {"one/a.npy", "two/a.npy"}
    refused(run("unmix", "one", "one/a.npy", *QUICK), "one/a.npy", "given twice")


def test_the_table_of_groups(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy")
    assert run("unmix", "stack.npy", *QUICK, "--groups", "groups.csv")[0] == 0
    groups = pd.read_csv("groups.csv")
    assert list(groups.columns) == [
        "image", "frame", "group", "count", "chi_squared", "degrees_of_freedom", "flags",
        "p_0", "p_1", "p_2", "p_3", "p_4", "p_5",
    ]  # fmt: skip
    assert groups["count"].tolist() == [len(scene) for scene in SCENES]
    np.testing.assert_allclose(groups.filter(like="p_").sum(axis=1), 1.0)


def test_standard_output_holds_the_table_alone(tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy", 1)
    command = [sys.executable, "-m", "csist", "unmix", "stack.npy", "-o", "-", *QUICK]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert said.stdout.splitlines()[0] == HEADER
    assert all(line.startswith("stack.npy,0,") for line in said.stdout.splitlines()[1:])
    assert "/dev/stdout" in said.stderr
    (tmp_path / "kept.csv").write_text("before\n")
    with (tmp_path / "kept.csv").open("a") as file:  # as `>> kept.csv` does
        again = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=True)
    assert (tmp_path / "kept.csv").read_text() == "before\n" + said.stdout
    assert "/dev/stdout" in again.stderr


def test_json_on_standard_output_is_json_alone(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy", 1)
    code, out, _ = run("unmix", "stack.npy", *QUICK, "--json", "-")
    assert code == 0
    assert json.loads(out)["images"] == 1
    refused(run("unmix", "stack.npy", *QUICK, "--json", "-", "-o", "-"), "two outputs are -")


def test_masked_pixels_are_counted(run: Run, tmp_path: Path) -> None:
    holed = STACK[:2].copy()
    holed[1, 0, :3] = np.nan
    np.save(tmp_path / "holed.npy", holed)
    code, out, _ = run("unmix", "holed.npy", *QUICK, "--mask-nan")
    assert code == 0
    assert summary_rows(out)["masked pixels"] == "3"
    refused(run("unmix", "holed.npy", *QUICK), "holed.npy: image 1 holds NaN in 3 pixels", "--mask-nan")


def test_a_sensor_card_and_options_on_top(run: Run, tmp_path: Path) -> None:
    sensor = csist.Sensor(csist.GaussianPSF(0.8), background=20.0, read_noise=1.0)
    np.save(tmp_path / "a.npy", np.stack([sensor.observe(scene, 1) for scene in SCENES[:2]]))
    (tmp_path / "card.json").write_text(json.dumps(sensor.to_card()))
    options = ("--prior", "csist-100k", "--mode", "fast")
    assert run("unmix", "a.npy", *options, "--sensor", "card.json", "-o", "1.csv")[0] == 0
    typed = ("--psf-sigma", "0.8", "--background", "20", "--noise-std", "1")
    assert run("unmix", "a.npy", *options, *typed, "-o", "2.csv")[0] == 0
    assert lines("1.csv") == lines("2.csv")


def test_a_measured_psf(run: Run, tmp_path: Path) -> None:
    truth = csist.Targets(x=[3.0, 7.2], y=[5.1, 5.4], intensity=[240.0, 500.0])
    np.save(tmp_path / "a.npy", SENSOR.observe(truth, 1))
    offset = np.arange(-20, 21) / 5
    np.save(tmp_path / "psf.npy", csist.GaussianPSF(0.5).response(offset[None, :], offset[:, None]))
    options = ("--mode", "fast", "--noise-std", "1", "--psf", "psf.npy", "--psf-oversampling", "5")
    assert run("unmix", "a.npy", *options)[0] == 0
    found = read_targets_table("targets.csv")["a.npy", 0]
    np.testing.assert_allclose(np.sort(found.x), truth.x, atol=0.05)


def test_what_is_done_is_kept_when_a_file_breaks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "sky.npy", np.stack([frame(), frame()]))
    real, calls = solve.solve_frame, []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise ZeroDivisionError("at home")
        return real(*arguments, **options)

    monkeypatch.setattr(solve, "solve_frame", broken)
    result = run("unmix", "sky.npy", "--mode", "fast")
    refused(result, "sky.npy: internal error", "the 1 images done so far are in targets.csv.partial", code=1)
    assert lines("targets.csv.partial")[0] == HEADER
    assert {row["frame"] for row in rows_of("targets.csv.partial")} == {"0"}


def test_grid_methods(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy", 1)
    assert run("unmix", "stack.npy", "--method", "fista", "--ratio", "1", "--plot", "a.svg")[0] == 0
    row = rows_of("targets.csv")[0]
    assert (row["x_std"], row["flags"], row["group"]) == ("", "0", "")


@pytest.mark.parametrize(
    ("options", "psf"),
    [((), "guess_psf"), (("--psf", "auto"), "psf_of_spots"), (("--psf-sigma", "1.1"), None)],
)
def test_an_image_passes_each_step_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], psf: str | None
) -> None:
    """Table, groups and picture come from one look at the frame: its bad pixels, background and PSF."""
    from csist.frames import measured

    calls: list[str] = []

    def watch(module: Any, name: str) -> None:
        plain = getattr(module, name)

        def watched(*given: Any, **more: Any) -> Any:
            calls.append(name)
            return plain(*given, **more)

        monkeypatch.setattr(module, name, watched)

    for module, name in (
        (measured, "mask_pixels"), (measured, "estimate_background"), (solve, "guess_psf"), (solve, "psf_of_spots"),
        (solve, "detect_peaks"),
    ):  # fmt: skip
        watch(module, name)
    places = np.meshgrid(np.arange(15.0, 110.0, 22.0), np.arange(15.0, 80.0, 22.0))
    x, y = (each.ravel() for each in places)
    stars = csist.Targets(x=x + 0.2, y=y - 0.3, intensity=1500.0 + 10.0 * x)
    sky = csist.Sensor(csist.GaussianPSF(1.1), shape=(85, 115), background=30.0, read_noise=1.0, bits=16)
    Image.fromarray(sky.observe(stars, 0).astype(np.uint16)).save(tmp_path / "frame.png")
    code, _, err = run("unmix", "frame.png", "-o", "t.csv", "--plot", "p.png", "--groups", "g.csv", *options)
    assert (code, err) == (0, "")
    assert Path("p.png").is_file() and len(rows_of("t.csv")) == len(stars)
    assert sorted(calls) == sorted(["mask_pixels", "estimate_background", "detect_peaks", *([psf] if psf else [])])


def test_detector_and_threshold_of_frames(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", frame())
    options = ("--psf-sigma", "1.1", "--mode", "fast")
    for detector, rate in (("matched", 1e-6), ("crowded", 1e-4), ("contrast", 1e-3)):
        assert run("unmix", "sky.npy", *options, "--detector", detector, "--false-alarm-rate", rate)[0] == 0
        direct = csist.unmix(frame(), psf=1.1, mode="fast", detector=detector, false_alarm_rate=rate)
        assert read_targets_table("targets.csv")["sky.npy", 0] == direct
    refused(run("unmix", "sky.npy", "--detector", "best"), "contrast, matched, crowded, got 'best'")
    refused(run("unmix", "sky.npy", "--false-alarm-rate", "2"), "between 0 and 0.1 false alarms per pixel, got 2.0")


def test_frames(run: Run, tmp_path: Path) -> None:
    frames = np.stack([frame(0), frame(1)])
    frames[1, 5:7, 50:55] = np.nan
    np.save(tmp_path / "sky.npy", frames)
    options = ("--psf-sigma", "1.1", "--mode", "fast", "--background", "3")
    code, out, err = run("unmix", "sky.npy", *options, "--plot", "sky.png", "--groups", "groups.csv")
    assert (code, err) == (0, "")
    assert summary_rows(out)["masked pixels"] == "10 without a value"
    assert "note: sky.npy: --background applies to windows only" in out
    found = read_targets_table("targets.csv")
    for index in range(2):
        targets = found["sky.npy", index]
        near = np.hypot(targets.x[:, None] - SPOTS.x, targets.y[:, None] - SPOTS.y).min(axis=0)
        assert near.max() < 0.3
    direct = csist.unmix(frames, psf=1.1, mode="fast")
    assert found == {("sky.npy", i): targets for i, targets in enumerate(direct)}
    groups = pd.read_csv("groups.csv")
    assert {"column", "row", "peaks", "significance", "count", "chi_squared", "flags", "p_0"} <= set(groups.columns)
    assert groups.groupby("frame")["count"].sum().tolist() == [len(found["sky.npy", i]) for i in range(2)]
    with Image.open("sky.png") as picture:
        assert min(picture.size) > 400


def test_windows_and_frames_in_one_batch(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy", 1)
    np.save(tmp_path / "b.npy", frame())
    assert run("unmix", "a.npy", "b.npy", "--mode", "fast")[0] == 0
    assert {name for name, _ in read_targets_table("targets.csv")} == {"a.npy", "b.npy"}


def test_bad_frames_get_one_line(run: Run, tmp_path: Path) -> None:
    infinite, nothing = np.stack([frame(), frame()]), np.full((2, 40, 40), np.nan)
    infinite[1, 4, 4] = -np.inf
    for name, array in (("sky", frame()), ("infinite", infinite), ("nothing", nothing)):
        np.save(tmp_path / f"{name}.npy", array)
    before = sorted(tmp_path.iterdir())
    refused(run("unmix", "infinite.npy"), "infinite.npy holds 1 infinite values")
    refused(run("unmix", "sky.npy", "--method", "ista"), "sky.npy: method 'ista' unmixes windows of at most 16 px")
    refused(run("unmix", "sky.npy", "--prior", "csist-100k"), "sky.npy: a frame needs a prior")
    refused(run("unmix", "nothing.npy", "--mode", "fast"), "nothing.npy contains only NaN")
    assert sorted(tmp_path.iterdir()) == before
