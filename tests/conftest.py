"""Settings that hold for every test, their distribution over processes, and fixtures of the tests of the command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from csist.cli import main
from csist.datasets import generate

BUSY = (
    "tests/app/test_app_browser.py",
    "tests/cli/test_cli_cluster.py",
    "tests/test_repository.py",
    "tests/training/test_train.py",
)
"""Files that start servers, workers, builds or compilers: where processes share the tests, one process has them all."""

# The same examples in every run, and no limit of time: a result must not depend on chance or on the machine's load.
# `--hypothesis-profile default` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

# The tests' tensors are tiny: a second thread only waits for the first, for minutes where the cores are busy.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the busy files first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in BUSY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, because they share fixtures, and all busy files in one."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "busy" if file in BUSY else file

    return FileScheduling(config, log) if config.getvalue("dist") == "loadscope" else None


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


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler of SIGINT, here and in processes started here, where the shell has it ignored.

    A shell does that for jobs in the background, and who inherits it never hears of Ctrl-C.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
