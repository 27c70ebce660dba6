"""The command as a whole: help, version, start-up."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from cli_helpers import Run
from typer.testing import CliRunner

import csist
from csist.cli import app
from csist.cli.output import tell_of_compilation, uninterrupted


@pytest.mark.parametrize(
    "command", [[], ["unmix"], ["evaluate"], ["methods"], ["generate"], ["convert"], ["train"], ["limits"], ["doctor"]]
)
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
    heavy = ("torch", "numba", "h5py", "matplotlib", "pandas", "scipy", "lightning")
    code = f"import sys; from csist.cli import main; main(['--help']);print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("stated", "threads"), [(None, "1"), ("3", "3")])
def test_blas_has_one_thread_unless_the_user_says_otherwise(stated: str | None, threads: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    code = (
        "import sys, csist; early = 'numpy' in sys.modules; import csist.cli, os;"
        "print(early, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env=environment if stated is None else environment | {"OPENBLAS_NUM_THREADS": stated},
    )  # fmt: skip
    assert said.stdout == f"False {threads}\n"


def test_ctrl_c_waits_for_the_end_of_what_belongs_together() -> None:
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")
        assert done == ["the rest"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    with uninterrupted():
        done.append("undisturbed")
    assert len(done) == 2


def test_compiling_the_solver_is_one_line_on_standard_error(run: Run) -> None:
    run("methods")
    logger = logging.getLogger("csist._compiled")
    assert logger.isEnabledFor(logging.INFO)
    tell_of_compilation()  # once more changes nothing
    with redirect_stderr(StringIO()) as told, redirect_stdout(StringIO()) as printed:
        logger.info("compiling")
    assert (told.getvalue(), printed.getvalue()) == ("csist: compiling\n", "")
