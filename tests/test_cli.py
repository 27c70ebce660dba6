"""The command: what it writes, what it prints, and one line with the right code for everything that goes wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

import csist
from csist import unmixing
from csist.cli import app, main
from csist.datasets import generate, load, write_store
from csist.datasets.dataset import SplitArrays
from csist.io import read_targets_table

HEADER = "image,frame,x,y,intensity,score,x_std,y_std,intensity_std,flags,group"

PRIOR = csist.ScenePrior.csist_100k()
SENSOR = csist.Sensor(read_noise=1.0)
SCENES = csist.sample_scenes(PRIOR, SENSOR, 5, seed=8)
STACK = np.stack([SENSOR.observe(scene, seed) for seed, scene in enumerate(SCENES)])
QUICK = ("--prior", "csist-100k", "--mode", "fast", "--noise-std", "1")

Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls the command in an empty folder; gives (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        code = main([str(each) for each in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images: 32 train, 4 val, 4 test."""
    return generate(tmp_path_factory.mktemp("store") / "data.h5", 40, seed=5, noise_std=1.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On a busy machine the threads of tiny matrix products wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(path: Path | str) -> list[dict[str, str]]:
    return list(csv.DictReader(lines(path)))


SKY = csist.Sensor(csist.GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)
SPOTS = csist.Targets(x=[20.3, 23.1, 60.7], y=[30.2, 31.0, 15.4], intensity=[1500.0, 1200.0, 2000.0])


def frame(seed: int = 0) -> np.ndarray:
    return SKY.observe(SPOTS, seed)


def lines(path: Path | str) -> list[str]:
    return Path(path).read_text().splitlines()


def windows(path: Path, count: int = 5) -> Path:
    np.save(path, STACK[:count])
    return path


def refused(result: Result, *said: str, code: int = 2) -> None:
    """The code, and exactly one line on standard error that says all this."""
    assert result[0] == code, result
    assert len(result[2].splitlines()) == 1, result[2]
    assert result[2].startswith("csist: ")
    assert "Traceback" not in result[2]
    for part in said:
        assert part in result[2], result[2]


# --- unmix: what it writes ---


def test_a_stack_becomes_a_table(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy")
    code, out, err = run("unmix", "stack.npy", "-o", "found.csv", *QUICK)
    assert (code, err) == (0, "")
    assert "images      5" in out
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


def test_json_on_standard_output_is_json_alone(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy", 1)
    code, out, _ = run("unmix", "stack.npy", *QUICK, "--json", "-")
    assert code == 0
    assert json.loads(out)["images"] == 1


def test_masked_pixels_are_counted(run: Run, tmp_path: Path) -> None:
    holed = STACK[:2].copy()
    holed[1, 0, :3] = np.nan
    np.save(tmp_path / "holed.npy", holed)
    code, out, _ = run("unmix", "holed.npy", *QUICK, "--mask-nan")
    assert code == 0
    assert "masked pixels  3" in out
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
    real, calls = unmixing.solve_frame, []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise ZeroDivisionError("at home")
        return real(*arguments, **options)

    monkeypatch.setattr(unmixing, "solve_frame", broken)
    result = run("unmix", "sky.npy", "--mode", "fast")
    refused(result, "sky.npy: internal error", "the 1 images done so far are in targets.csv.partial", code=1)
    assert lines("targets.csv.partial")[0] == HEADER
    assert {row["frame"] for row in rows_of("targets.csv.partial")} == {"0"}


def test_grid_methods(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy", 1)
    assert run("unmix", "stack.npy", "--method", "fista", "--ratio", "1", "--plot", "a.svg")[0] == 0
    row = rows_of("targets.csv")[0]
    assert (row["x_std"], row["flags"], row["group"]) == ("", "0", "")


def test_frames(run: Run, tmp_path: Path) -> None:
    frames = np.stack([frame(0), frame(1)])
    frames[1, 5:7, 50:55] = np.nan
    np.save(tmp_path / "sky.npy", frames)
    options = ("--psf-sigma", "1.1", "--mode", "fast", "--background", "3")
    code, out, err = run("unmix", "sky.npy", *options, "--plot", "sky.png", "--groups", "groups.csv")
    assert (code, err) == (0, "")
    assert "masked pixels  10" in out
    assert "note: sky.npy: --background is for windows" in out
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
    infinite, empty = np.stack([frame(), frame()]), np.stack([frame(), frame()])
    infinite[1, 4, 4] = -np.inf
    empty[1] = np.nan
    for name, array in (("sky", frame()), ("infinite", infinite), ("empty", empty)):
        np.save(tmp_path / f"{name}.npy", array)
    before = sorted(tmp_path.iterdir())
    refused(run("unmix", "infinite.npy"), "infinite.npy holds 1 infinite values")
    refused(run("unmix", "sky.npy", "--method", "ista"), "sky.npy: method 'ista' unmixes windows of at most 16 px")
    refused(run("unmix", "sky.npy", "--prior", "csist-100k"), "sky.npy: a frame needs a prior")
    refused(run("unmix", "empty.npy", "--mode", "fast"), "empty.npy: frame 1 holds nothing but NaN")
    assert sorted(tmp_path.iterdir()) == before


# --- unmix: what goes wrong ---


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be used, with a part of what is said about each."""

    def npy(name: str, array: np.ndarray) -> Path:
        np.save(folder / name, array)
        return folder / name

    cut = folder / "cut.png"
    Image.fromarray(STACK[0].clip(0).astype(np.uint16)).save(cut)
    cut.write_bytes(cut.read_bytes()[:80])
    text, unknown, nothing = folder / "text.fits", folder / "a.xyz", folder / "nothing.npy"
    text.write_text("SIMPLE but not FITS")
    unknown.write_text("?")
    nothing.write_bytes(b"")
    pages = folder / "pages.tif"
    with tifffile.TiffWriter(pages) as writer:
        writer.write(np.zeros((11, 11), np.uint8))
        writer.write(np.zeros((12, 11), np.uint8))
    infinite = STACK[:2].copy()
    infinite[1, 3, 3] = np.inf
    return {
        "NaN": (npy("nan.npy", np.full((2, 11, 11), np.nan)), "holds NaN in 121 pixels"),
        "infinity": (npy("inf.npy", infinite), "1 infinite values"),
        "empty": (npy("empty.npy", np.zeros((0, 11, 11))), "holds no image"),
        "1-D": (npy("one.npy", np.zeros(11)), "must be (H, W) or a stack (N, H, W), got shape (11,)"),
        "4-D": (npy("four.npy", np.zeros((2, 2, 9, 9))), "got shape (2, 2, 9, 9)"),
        "too small": (npy("small.npy", np.zeros((2, 9))), "at least 3 x 3 px, got 2 x 9"),
        "complex": (npy("complex.npy", np.zeros((9, 9), complex)), "real numbers, got dtype complex128"),
        "frames that differ": (pages, "differ in size"),
        "truncated": (cut, "cut.png"),
        "damaged": (text, "text.fits"),
        "unknown format": (unknown, "unknown suffix '.xyz'"),
        "no bytes": (nothing, "nothing.npy"),
    }


KINDS = (
    "NaN", "infinity", "empty", "1-D", "4-D", "too small", "complex", "frames that differ", "truncated", "damaged",
    "unknown format", "no bytes",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_gets_one_line(run: Run, tmp_path: Path, kind: str) -> None:
    path, said = bad_files(tmp_path)[kind]
    before = sorted(tmp_path.iterdir())
    refused(run("unmix", path.name, "--groups", "groups.csv", *QUICK), path.name, said)
    assert sorted(tmp_path.iterdir()) == before


def test_in_a_batch_the_others_are_done(run: Run, tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    good = [windows(tmp_path / name, 1) for name in ("a_good.npy", "z_good.npy")]
    inputs = [good[0], *(path for path, _ in bad.values()), good[1]]
    code, out, err = run("unmix", *inputs, *QUICK, "--json", "summary.json")
    assert code == 1
    said = err.splitlines()
    assert len(said) == len(bad)
    for line, (path, part) in zip(said, bad.values(), strict=True):
        assert path.name in line
        assert part in line
    assert f"failed      {len(bad)}" in out
    assert list(dict.fromkeys(row["image"] for row in rows_of("targets.csv"))) == ["a_good.npy", "z_good.npy"]
    assert len(json.loads(Path("summary.json").read_text())["failed"]) == len(bad)
    assert not Path("targets.csv.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.npy"], "no file or folder nowhere.npy"),
        (["empty_folder"], "the folder empty_folder holds no image"),
        (["a.npy", "-o", "missing/t.csv"], "cannot write missing/t.csv"),
        (["a.npy", "-o", "t.txt"], "t.txt"),
        (["a.npy", "-o", "empty_folder"], "cannot write empty_folder"),
        (["a.npy", "-o", "a.npy"], "a.npy"),
        (["a.npy", "--plot", "a.jpg"], "cannot write a.jpg: its name must end in .png or .svg or .pdf"),
        (["a.npy", "--plot", "missing/a.png"], "cannot write missing/a.png"),
        (["a.npy", "--groups", "g.txt"], "g.txt"),
        (["a.npy", "--groups", "targets.csv"], "targets.csv: it is the name of two outputs"),
        (["a.npy", "--json", "missing/a.json"], "cannot write missing/a.json"),
        (["a.npy", "--method", "continous"], "unknown method 'continous': did you mean 'continuous'?"),
        (["a.npy", "--method", "dista-net"], "no trained weights of dista-net"),
        (["a.npy", "--method", "dista-net", "--weights", "none.safetensors"], "no weight file none.safetensors"),
        (["a.npy", "--method", "ista", "--prior", "flat"], "prior is for the method 'continuous'"),
        (["a.npy", "--ratio", "0"], "ratio must be a whole number >= 1, got 0"),
        (["a.npy", "--ratio", "three"], "three"),
        (["a.npy", "--mode", "quick"], "mode must be accurate or fast, got 'quick'"),
        (["a.npy", "--prior", "flatt"], "unknown prior 'flatt'"),
        (["a.npy", "--prior", "broken.json"], "broken.json"),
        (["a.npy", "--sensor", "none.json"], "none.json"),
        (["a.npy", "--sensor", "broken.json"], "broken.json"),
        (["a.npy", "--sensor", "odd.json"], "odd.json: a sensor card may hold"),
        (["a.npy", "--psf-sigma", "0"], "sigma_px must be a finite number > 0, got 0.0"),
        (["a.npy", "--psf-sigma", "-1"], "got -1.0"),
        (["a.npy", "--psf-sigma", "nan"], "got nan"),
        (["a.npy", "--psf", "a.npy", "--psf-sigma", "1"], "not both"),
        (["a.npy", "--psf", "even.npy"], "even.npy: a sampled PSF must be 2-D with odd sides"),
        (["a.npy", "--noise-std", "-1"], "noise_std must be a finite number >= 0, got -1.0"),
        (["a.npy", "--background", "inf"], "background must be finite, got inf"),
        (["a.npy", "--colour", "red"], "--colour"),
        ([], "INPUT"),
    ],
)  # fmt: skip
def test_bad_use_gets_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    windows(tmp_path / "a.npy", 1)
    np.save(tmp_path / "even.npy", np.ones((6, 6)))
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "odd.json").write_text('{"colour": 1}')
    before = sorted(tmp_path.iterdir())
    refused(run("unmix", *arguments), said)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    windows(tmp_path / "a.npy", 1)
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(run("unmix", "a.npy", "-o", "closed/t.csv", *QUICK), "cannot write closed/t.csv: Permission denied")


def test_an_internal_error_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows(tmp_path / "a.npy", 1)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("at\nhome")

    monkeypatch.setattr("csist.unmixing.window_method", broken)
    result = run("unmix", "a.npy", *QUICK)
    refused(result, "a.npy: internal error", "ZeroDivisionError: at home", code=1)
    monkeypatch.setattr("csist.cli._settings", broken)
    refused(run("unmix", "a.npy"), "internal error", "ZeroDivisionError", code=1)


def test_a_full_memory_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows(tmp_path / "a.npy", 1)

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("csist.cli._settings", full)
    refused(run("unmix", "a.npy"), "memory", code=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the device, when closed
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy", 1)
    refused(run("unmix", "a.npy", "-o", "/dev/full", *QUICK), "No space left on device")


def test_ctrl_c_leaves_a_valid_partial_table(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.concatenate([STACK] * 20_000))
    command = [sys.executable, "-m", "csist", "unmix", "long.npy", "-o", "t.csv", "--groups", "g.csv", *QUICK]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "t.csv.partial"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size > 200):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("csist: interrupted: ")
    assert "t.csv.partial and g.csv.partial" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.csv.partial", "long.npy", "t.csv.partial"]
    assert lines(partial)[0] == HEADER
    partial.rename(tmp_path / "kept.csv")
    found = read_targets_table(tmp_path / "kept.csv")
    done = len(pd.read_csv(tmp_path / "g.csv.partial"))
    assert f"the {done} images" in err
    assert sorted(found) == [("long.npy", i) for i in range(done)]  # every scene has a target
    assert found["long.npy", 5] == found["long.npy", 0]


def test_an_old_table_survives_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_text("old")
    path, _ = bad_files(tmp_path)["NaN"]
    assert run("unmix", path, *QUICK)[0] == 2
    assert Path("targets.csv").read_text() == "old"


# --- evaluate ---


def test_evaluate_scores_methods_and_predictions(run: Run, store: Path) -> None:
    assert run("unmix", store, "--prior", "csist-100k", "--mode", "fast", "-o", "found.csv")[0] == 0
    code, out, err = run(
        "evaluate", store, "--method", "continuous", "--method", "fista", "--ratio", "2", "--mode", "fast",
        "--predictions", "found.csv",
        "--resamples", "50", "--json", "figures.json", "--plot", "figures.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["data"]["images"], figures["ratio"]) == (4, 2)
    rows = {row["name"]: row for row in figures["rows"]}
    assert list(rows) == [
        "continuous", "fista", "found.csv", "oracle, ratio 2, by intensity", "oracle, ratio 2, by closeness",
    ]  # fmt: skip
    split = load(store)["test"]
    direct = csist.unmix(split.images, split.sensor, PRIOR, mode="fast", noise_std=1.0)
    expected = csist.metrics.cso_map(direct, split.targets)
    for name in ("continuous", "found.csv"):
        assert {key: rows[name][key] for key in expected} == expected
        assert rows[name]["calibration"]["expected_calibration_error"] >= 0
        assert rows[name]["coverage"]["x_within_1"] >= 0
    assert rows["continuous"]["images_per_second"] > 0
    assert rows["fista"]["psnr"] > 0
    assert 0 < rows["fista"]["ssim"] <= 1
    assert rows["fista"]["calibration"] is None
    assert rows["oracle, ratio 2, by closeness"]["count_accuracy"] == 100.0
    low, high = rows["continuous"]["interval"]
    assert low <= rows["continuous"]["CSO-mAP"] <= high
    for word in ("CSO-mAP", "AP05", "by intensity", "count %", "PSNR dB", "images/s"):
        assert word in out
    assert Path("figures.png").stat().st_size > 1000


def test_evaluate_reads_a_grokcso_folder(run: Run, tmp_path: Path) -> None:
    generate(tmp_path / "folder", 20, seed=1, layout="grokcso")
    images = tmp_path / "folder" / "test" / "cso_img"
    assert run("unmix", images, *QUICK, "-o", "found.csv")[0] == 0
    truth = csist.datasets.read_grokcso(tmp_path / "folder").splits["test"]
    code, out, _ = run("evaluate", "folder", "--predictions", "found.csv", "--json", "-", "--resamples", "0")
    assert code == 0
    row = json.loads(out)["rows"][0]
    assert row["detections"] == truth.count.sum()
    assert row["count_accuracy"] == 100.0
    assert row["interval"] is None


def test_the_limit_takes_the_first_images(run: Run, store: Path) -> None:
    code, out, _ = run(
        "evaluate", store, "--limit", "2", "--mode", "fast", "--resamples", "0", "--no-oracle", "--json", "-"
    )
    assert code == 0
    figures = json.loads(out)
    assert (figures["data"]["images"], figures["data"]["images_in_split"]) == (2, 4)
    assert [row["name"] for row in figures["rows"]] == ["continuous"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.h5"], "nowhere.h5"),
        (["DATA", "--split", "best"], "has no split 'best'"),
        (["DATA", "--limit", "0"], "limit must be a whole number >= 1, got 0"),
        (["DATA", "--method", "ista", "--method", "ista"], "given twice"),
        (["DATA", "--method", "lista"], "no trained weights of lista"),
        (["DATA", "--method", "nothing-like-it-at-all"], "unknown method"),
        (["DATA", "--weights", "w.safetensors", "--predictions", "a.csv"], "needs exactly one --method"),
        (["DATA", "--predictions", "nowhere.csv"], "nowhere.csv"),
        (["DATA", "--predictions", "far.csv"], "far.csv has targets of image data.h5, frame 4"),
        (["DATA", "--predictions", "two.csv"], "two.csv has targets of 2 files"),
        (["DATA", "--plot", "missing/a.png"], "missing/a.png"),
        (["DATA", "--ratio", "0"], "ratio"),
        (["text.h5"], "text.h5: it is not an HDF5 file"),
        (["text.txt"], "text.txt"),
        (["empty"], "cannot evaluate on empty"),
        (["bomb"], "CSO0.xml"),
        (["lacking"], "CSO0.xml lacks the field coordinate/brightness"),
        (["vacant.h5", "--split", "train"], "holds no image"),
    ],
)  # fmt: skip
def test_bad_data_gets_one_line(run: Run, store: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "text.txt").write_text("no data")
    (tmp_path / "empty").mkdir()
    rows = "image,frame,x,y,intensity\n"
    (tmp_path / "far.csv").write_text(rows + "data.h5,4,1,1,1\n")
    (tmp_path / "two.csv").write_text(rows + "a.h5,0,1,1,1\nb.h5,0,1,1,1\n")
    for name, text in (
        ("bomb", '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'),
        ("lacking", "<annotation><size><width>11</width><height>11</height></size><sigma>0.5</sigma>"
         "<object><coordinate><xc>5</xc><yc>5</yc></coordinate></object></annotation>"),
    ):  # fmt: skip
        for part in ("cso_img", "Annotations"):
            (tmp_path / name / part).mkdir(parents=True)
        Image.fromarray(STACK[0].clip(0).astype(np.uint16)).save(tmp_path / name / "cso_img" / "image_0.png")
        (tmp_path / name / "Annotations" / "CSO0.xml").write_text(text)
    nothing = SplitArrays(np.zeros((0, 11, 11), np.uint16), np.zeros((0, 5, 3)), np.zeros(0, np.int64))
    write_store(tmp_path / "vacant.h5", {"train": nothing}, SENSOR)
    before = sorted(tmp_path.iterdir())
    refused(run("evaluate", *(str(store) if each == "DATA" else each for each in arguments)), said)
    assert sorted(tmp_path.iterdir()) == before


# --- methods, generate, convert, the rest ---


def test_methods_are_those_of_the_registry(run: Run) -> None:
    code, out, _ = run("methods")
    assert code == 0
    for name in csist.list_methods():
        assert any(line.startswith(name) for line in out.splitlines())
    code, out, _ = run("methods", "--json", "-")
    rows = json.loads(out)["methods"]
    assert [row["name"] for row in rows] == csist.list_methods()
    assert set(rows[0]) == {"name", "summary", "source", "needs_training", "trained_ratios"}


def test_generate_and_convert_there_and_back(run: Run) -> None:
    code, out, err = run("generate", "a.h5", "--count", "20", "--seed", "3")
    assert (code, err) == (0, "")
    assert "a.h5: 20 images (train 16, val 2, test 2)" in out
    assert run("convert", "a.h5", "folder")[0] == 0
    assert run("convert", "folder", "b.h5")[0] == 0
    one, two = load("a.h5")["train"], load("b.h5")["train"]
    np.testing.assert_array_equal(one.images, two.images)
    assert one.targets == two.targets


def test_generate_with_every_option(run: Run) -> None:
    assert run("generate", "folder", "--count", "5", "--bits", "8", "--clip", "--layout", "grokcso")[0] == 0
    assert len(list(Path("folder/train/cso_img").iterdir())) == 3
    assert run("generate", "f.h5", "--count", "5", "--bits", "float", "--noise-std", "2", "--prior", "flat")[0] == 0
    assert load("f.h5")["test"].counts.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "a.txt"], "a.txt"),
        (["generate", "a.h5", "--count", "0"], "count must be a whole number >= 1, got 0"),
        (["generate", "a.h5", "--bits", "12"], "bits must be 8, 16, 32 or float, got 12"),
        (["generate", "a.h5", "--bits", "8", "--count", "50"], "--clip"),
        (["generate", "a.h5", "--layout", "zip"], "layout must be one of store, grokcso, got 'zip'"),
        (["generate", "a.h5", "--noise-std", "-1"], "got -1.0"),
        (["generate", "a.h5", "--seed", "-1"], "seed"),
        (["convert", "nowhere", "b.h5"], "nowhere"),
        (["convert", "nowhere.csv", "b.parquet"], "nowhere.csv"),
        (["convert", "t.csv", "t.csv"], "it is the input"),
        (["convert", "t.csv", "t.txt"], "t.txt"),
        (["convert", "broken.csv", "t.parquet"], "broken.csv"),
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_other_bad_use_gets_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "t.csv").write_text("image,frame,x,y,intensity\na.png,0,1,2,3\n")
    (tmp_path / "broken.csv").write_text("image,frame,x,y\na.png,0,1,2\n")
    before = sorted(tmp_path.iterdir())
    refused(run(*arguments), said)
    assert sorted(tmp_path.iterdir()) == before


def test_tables_convert_both_ways(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy", 2)
    assert run("unmix", "a.npy", *QUICK)[0] == 0
    assert run("convert", "targets.csv", "t.parquet")[0] == 0
    assert run("convert", "t.parquet", "back.csv")[0] == 0
    assert lines("back.csv")[0] == HEADER
    assert read_targets_table("back.csv") == read_targets_table("targets.csv")


@pytest.mark.parametrize("command", [[], ["unmix"], ["evaluate"], ["methods"], ["generate"], ["convert"]])
def test_help(command: list[str]) -> None:
    said = CliRunner().invoke(app, [*command, "--help"])
    assert said.exit_code == 0
    assert "--help" in said.output


def test_no_command_shows_the_help(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (2, "")
    assert "unmix" in out


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"csist {csist.__version__}\n", "")


def test_a_reader_that_has_had_enough(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "csist", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from csist.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'numba', 'h5py', 'matplotlib', 'pandas', 'scipy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
