"""Configuration files of `csist unmix`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import QUICK, Run, frame, lines, refused, windows


def test_a_new_file_holds_all_options_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy")
    assert run("init-config", "c.toml")[0] == 0
    text = (tmp_path / "c.toml").read_text()
    options = run("unmix", "--help")[1]
    for name in ("method", "psf-sigma", "error", "mask", "roi", "false-alarm-rate", "pixel-scale", "sky", "min-score"):
        assert f"--{name}" in options
        assert f"\n{name} = " in text or f"\n# {name} = " in text
    assert tomllib.loads(text)["method"] == "continuous"
    assert run("unmix", "a.npy", *QUICK)[0] == 0
    expected = lines("targets.csv")
    assert run("unmix", "a.npy", "--config", "c.toml", *QUICK)[0] == 0
    assert lines("targets.csv") == expected


def test_the_command_line_goes_before_the_file(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame())
    (tmp_path / "c.toml").write_text(
        'psf-sigma = 1.1\nmode = "fast"\npixel_scale = "2nm"\noutput = "b.csv"\nsky = false\n'
    )
    assert run("unmix", "a.npy", "--config", "c.toml")[0] == 0
    assert lines("b.csv")[0].endswith("x_nm,y_nm,x_nm_std,y_nm_std")
    assert run("unmix", "a.npy", "--config", "c.toml", "--pixel-scale", "3um", "-o", "c.csv")[0] == 0
    assert lines("c.csv")[0].endswith("x_um,y_um,x_um_std,y_um_std")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psf-sigm = 1.1", "sets 'psf-sigm', which is no option of csist unmix: did you mean psf-sigma?"),
        ("zzz = 1", "`csist unmix --help` lists the options"),
        ("config = 'other.toml'", "no option"),
        ("inputs = 'a.npy'", "no option"),
        ("psf-sigma = 'wide'", "a number is needed"),
        ("psf-sigma = true", "a number is needed"),
        ("ratio = 3.5", "a whole number is needed"),
        ("sky = 1", "true or false is needed"),
        ("method = ['ista', 'fista']", "a text in quotation marks is needed"),
        ("[unmix]\nmethod = 'ista'", "which is no option"),
        ("method = ", "it is not TOML"),
        ("psf-sigma = -1", "sigma"),
        ("psf-sigma = 1.1\npsf_sigma = 1.4", "sets psf-sigma twice"),
    ],
)
def test_what_does_not_fit_is_one_line(text: str, said: str, run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy")
    (tmp_path / "c.toml").write_text(text)
    refused(run("unmix", "a.npy", "--config", "c.toml"), said)


def test_files_that_cannot_be_read_or_written(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy")
    refused(run("unmix", "a.npy", "--config", "none.toml"), "none.toml", "No such file")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    refused(run("unmix", "a.npy", "--config", "b.toml"), "it is not TOML")
    (tmp_path / "large.toml").write_text("#" * 1_000_001)
    refused(run("unmix", "a.npy", "--config", "large.toml"), "at most 1000000 bytes")
    refused(run("init-config", "c.json"), ".toml")
    assert run("init-config", "c.toml")[0] == 0
    refused(run("init-config", "c.toml"), "it exists")
    assert run("init-config", "c.toml", "--force")[0] == 0
