"""Settings that hold for every test, and fixtures of the tests of the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csist.cli import main
from csist.datasets import generate

# The tests' tensors are tiny: a second thread only waits for the first, for minutes where the cores are busy.
torch.set_num_threads(1)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Calls the command in an empty folder; gives (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(each) for each in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images: 32 train, 4 val, 4 test."""
    return generate(tmp_path_factory.mktemp("store") / "data.h5", 40, seed=5, noise_std=1.0)
