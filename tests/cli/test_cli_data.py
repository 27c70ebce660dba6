"""`csist methods`, `csist generate`, `csist convert` and `csist samples`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import HEADER, QUICK, Run, lines, refused, windows

import csist
from csist.datasets import load
from csist.io import read_targets_table, sample_frames, write_table


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


def test_the_command_writes_sequences_and_refuses_what_does_not_fit(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("generate", "a.h5", "--sequence", "--count", 4, "--noise-std", 2)
    assert code == 0
    assert "80 images (train 40, val 20, test 20)" in out
    assert load(tmp_path / "a.h5").sensor.read_noise == 2.0
    refused(run("generate", "b.h5", "--sequence", "--prior", "flat"), "--prior flat is not for sequences")
    refused(run("generate", "b", "--sequence", "--layout", "grokcso"), "--layout grokcso is not for sequences")


def test_samples_are_copied_and_unmixed_as_they_stand(run: Run) -> None:
    code, out, err = run("samples")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"samples/{name}.png" for name in sample_frames()]
    assert run("samples", "deep/folder") == (0, out.replace("samples", "deep/folder"), "")
    for name, path in sample_frames().items():
        assert Path(f"deep/folder/{name}.png").read_bytes() == path.read_bytes()
    Path("file").write_text("no folder")
    refused(run("samples", "file"), "file")


def test_converted_blanks_mean_what_they_did(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("image,frame,x,y,intensity,flags,group\na.png,0,1,2,3,,\na.png,1,1,2,3,8,5\n")
    assert run("convert", "in.csv", "out.fits")[0] == 0
    assert read_targets_table(tmp_path / "out.fits") == read_targets_table(tmp_path / "in.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv"])
def test_converted_tables_keep_all_columns_and_names(run: Run, tmp_path: Path, suffix: str) -> None:
    names = ["gr\u00f6\u00dfe 1.npy", "gr\u00f6\u00dfe 1.npy", "back\\slash \u4e2d.npy"]
    rows = pd.DataFrame(
        {
            "image": names, "frame": [0, 1, 0], "x": [1.5, 2.0, 3.25], "y": [0.5, 1.0, 2.0],
            "intensity": [10.0, 20.0, 30.0], "flags": [0, 8, 0], "track": [4, -1, 5], "electrons": [1.0, 2.0, 2.5],
            "note": ["a", "b", "7b"],
        }
    )  # fmt: skip
    write_table(rows, tmp_path / "in.csv")
    code, out, _ = run("convert", "in.csv", f"there{suffix}")
    assert code == 0
    assert "3 targets, 9 columns" in out
    assert run("convert", f"there{suffix}", "back.csv")[0] == 0
    assert (tmp_path / "back.csv").read_text() == (tmp_path / "in.csv").read_text()
    found = read_targets_table(tmp_path / f"there{suffix}")
    assert found[names[0], 0].track.tolist() == [4]
    assert sorted(found) == sorted(zip(names, [0, 1, 0], strict=True))
