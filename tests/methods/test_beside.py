"""Compiling the samplers in a second process."""

from __future__ import annotations

import io
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest

import csist
from csist.methods.continuous import beside
from csist.methods.continuous.annealing import anneal_in_pixel
from csist.methods.continuous.tempering import temper_stack

SENSOR = csist.Sensor(shape=(7, 9), read_noise=1.0)
IMAGE = SENSOR.observe(csist.Targets(x=[4.1], y=[3.2], intensity=[230.0]), 0)


@pytest.fixture(autouse=True)
def nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_processes", [])
    monkeypatch.setattr(beside, "is_cache_new", lambda: True)
    monkeypatch.setattr(beside, "usable_cores", lambda: 2)


@pytest.mark.parametrize("task", ["pixel anneal", "pixel temper", "free temper"])
def test_a_task_compiles_the_kernels_that_the_solver_calls(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, sampler = task.split()
    prior = csist.ScenePrior.csist_100k() if kind == "pixel" else csist.ScenePrior.flat()
    csist.unmix(IMAGE, SENSOR, prior, mode="accurate" if sampler == "anneal" else "fast")
    kernel = anneal_in_pixel if sampler == "anneal" else temper_stack
    before = list(kernel.signatures)
    monkeypatch.setattr(sys, "stdin", io.StringIO(task))
    monkeypatch.delitem(sys.modules, "csist.methods.continuous.ahead", raising=False)
    runpy.run_module("csist.methods.continuous.ahead", run_name="__main__")
    assert kernel.signatures == before


@pytest.mark.parametrize(("cores", "new"), [(1, True), (2, False)])
def test_none_is_started_where_it_is_of_no_use(cores: int, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "is_cache_new", lambda: new)
    monkeypatch.setattr(beside, "usable_cores", lambda: cores)
    beside.start("pixel anneal")
    beside.wait()
    assert beside._processes == []


@pytest.mark.parametrize("program", ["/nowhere/python", shutil.which("false"), shutil.which("true")])
def test_one_that_fails_changes_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = csist.unmix(IMAGE, SENSOR, csist.ScenePrior.csist_100k())
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(beside, "_processes", [])
    found = csist.unmix(IMAGE, SENSOR, csist.ScenePrior.csist_100k())
    np.testing.assert_array_equal(found.x, expected.x)
    assert all(process.poll() is not None for process in beside._processes)


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LONGEST_WAIT_S", 0.05)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    beside._processes.append(process)
    beside.wait()
    assert process.poll() is not None
    process.communicate()


def test_it_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    beside.start("pixel anneal")
    beside.start("free temper")
    beside.wait()
    assert len(beside._processes) == 1
