"""`csist doctor`, and completion of the command line in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Run, refused

import csist
from csist import _compiled


def test_what_it_says(run: Run) -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    for part in (csist.__version__, np.__version__, sys.executable, "GPU", "processor"):
        assert part in out
    assert f"numba {version('numba')}" in " ".join(out.split())


def test_as_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("doctor", "--json", "-")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["packages"]["numpy"] == np.__version__
    assert told["cores"] == os.cpu_count()
    assert told["extras"]["video"] == []
    assert {"train", "astro", "app", "video", "cluster", "export", "yolo", "docs", "dev"} <= set(told["extras"])


def test_an_extra_that_lacks_something(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretended(package: str) -> str:
        if package == "gradio":
            raise PackageNotFoundError(package)
        return "1.0" if package == "av" else version(package)

    monkeypatch.setattr("importlib.metadata.version", pretended)
    told = json.loads(run("doctor", "--json", "-")[1])
    assert told["extras"]["app"] == ["gradio>=6.31"]
    assert told["extras"]["video"] == ["av>=17"]
    assert told["extras"]["astro"] == []
    assert "lacks gradio>=6.31: pip install 'csist[app]'" in run("doctor")[1]


def test_compiled_code(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled, "cache_folder", lambda: tmp_path)
    assert f"the first use compiles it: {_compiled.COMPILING_TIME}" in " ".join(run("doctor")[1].split())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "kernel.nbi").touch()
    assert json.loads(run("doctor", "--json", "-")[1])["compiled"] == {"folder": str(tmp_path), "kernels": 1}
    monkeypatch.setattr(_compiled, "cache_folder", lambda: None)
    assert "CSIST_CACHE_DIR" in run("doctor")[1]


def test_a_json_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    refused(run("doctor", "--json", str(tmp_path / "no" / "folder.json")), "folder.json")


@pytest.mark.parametrize(("words", "offered"), [("csist unm", "unmix"), ("csist unmix --noise", "--noise-std")])
def test_bash_completes_commands_and_options(words: str, offered: str) -> None:
    asked = {"_CSIST_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    said = subprocess.run(
        [sys.executable, "-m", "csist"], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert offered in said.stdout.split()
