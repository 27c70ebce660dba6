"""The command, called in an empty folder, and a small dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Result, Run

from csist.cli import main
from csist.datasets import generate


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
