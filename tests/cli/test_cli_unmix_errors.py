"""`csist unmix`: one line with the right code for everything that goes wrong, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from cli_helpers import HEADER, QUICK, STACK, Run, lines, refused, rows_of, summary_rows, windows
from PIL import Image

from csist.io import read_targets_table


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
        "NaN": (npy("nan.npy", np.full((2, 11, 11), np.nan)), "contains only NaN"),
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
    assert summary_rows(out)["failed"] == f"{len(bad)}"
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
        (["a.npy", "--groups", "targets.csv"], "targets.csv: two outputs have this name"),
        (["a.npy", "--json", "missing/a.json"], "cannot write missing/a.json"),
        (["a.npy", "--method", "continous"], "unknown method 'continous': did you mean 'continuous'?"),
        (["a.npy", "--method", "lista"], "no trained weights of lista"),
        (["a.npy", "--method", "dista-net", "--weights", "none.safetensors"], "no weight file none.safetensors"),
        (["a.npy", "--method", "ista", "--prior", "flat"], "prior is for the method 'continuous'"),
        (["a.npy", "--ratio", "0"], "ratio must be a whole number >= 1, got 0"),
        (["a.npy", "--ratio", "three"], "three"),
        (["a.npy", "--mode", "quick"], "mode must be accurate or fast, got 'quick'"),
        (["a.npy", "--prior", "flatt"], "unknown prior 'flatt'"),
        (["a.npy", "--prior", "broken.json"], "broken.json"),
        (["a.npy", "--sensor", "none.json"], "none.json"),
        (["a.npy", "--sensor", "broken.json"], "broken.json"),
        (["a.npy", "--sensor", "odd.json"], "odd.json: it may hold psf, shape, background"),
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

    monkeypatch.setattr("csist.unmixing.window_recipe", broken)
    result = run("unmix", "a.npy", *QUICK)
    refused(result, "a.npy: internal error", "ZeroDivisionError: at home", code=1)
    monkeypatch.setattr("csist.cli.unmix.command.make_settings", broken)
    refused(run("unmix", "a.npy"), "internal error", "ZeroDivisionError", code=1)


def test_a_full_memory_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows(tmp_path / "a.npy", 1)

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("csist.cli.unmix.command.make_settings", full)
    refused(run("unmix", "a.npy"), "memory", code=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the device, when closed
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy", 1)
    refused(run("unmix", "a.npy", "-o", "/dev/full", *QUICK), "No space left on device")


@pytest.mark.usefixtures("ctrl_c")
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


def test_an_old_table_survives_where_all_files_of_a_folder_fail(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for name in ("a.fits", "b.fits"):
        (tmp_path / "bad" / name).write_text("x" * 3000)
    (tmp_path / "old.csv").write_text("worth keeping\n")
    code, _, err = run("unmix", "bad", "-o", "old.csv")
    assert code == 2
    assert "none of the 2 files can be unmixed" in err.splitlines()[-1]
    assert "a.fits" in err and "b.fits" in err
    assert (tmp_path / "old.csv").read_text() == "worth keeping\n"
    assert not list(tmp_path.glob("*.partial"))


def test_an_old_table_survives_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_text("old")
    path, _ = bad_files(tmp_path)["NaN"]
    assert run("unmix", path, *QUICK)[0] == 2
    assert Path("targets.csv").read_text() == "old"
