"""`--engine dask`: the bytes of one process from several, whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import HEADER, QUICK, STACK, Run, frame, lines, refused, windows

import csist
from csist import cluster
from csist.cli.unmix import cluster as unmix_cluster
from csist.cli.unmix.cluster import Slice
from csist.cli.unmix.windows import whole_batches
from csist.cluster import ClusterError, Task
from csist.io import ReadOptions

distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes of one thread each."""
    with (
        cluster.local_cluster(2) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def dask(client: Any) -> tuple[str, ...]:
    return "--engine", "dask", "--scheduler", client.scheduler.address


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmix_cluster, "WINDOWS_PER_TASK", 3)


ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""What Dask sets for its workers; matrix products round differently on several threads."""

ENVIRONMENT = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(Path(csist.__file__).parent.parent)}


REFERENCE = """
import sys
from numba.core import event
from csist.cli import main
with event.install_recorder("numba:compile") as compiled:
    code = main(sys.argv[2:])
open(sys.argv[1], "w").write(str(len(compiled.buffer)))
sys.exit(code)
"""
"""Runs a command and writes how often it compiled something."""


def in_one_process(*arguments: str) -> tuple[int, str, str]:
    """Calls the command in a process of its own, and gives what it said, as `run` does.

    A process that compiles the solver gets other last digits than one that loads it compiled, as the workers do: where
    anything had to be compiled, a second process is the one that counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "compiled"
        command = [sys.executable, "-c", REFERENCE, str(record), *arguments]
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
            if record.read_text() == "0":
                break
    return done.returncode, done.stdout, done.stderr


# --- the same bytes ---------------------------------------------------------------------------------------


def make_inputs(folder: Path, store: Path) -> None:
    """Stacks of windows with their noise to be estimated, a store, frames, and a folder of both and a bad file."""
    np.save(folder / "stack.npy", np.concatenate([STACK] * 4))
    np.savez_compressed(folder / "stack.npz", STACK)
    np.save(folder / "frames.npy", np.stack([frame(0), frame(1), frame(2)]))
    (folder / "folder").mkdir()
    for number in (10, 9, 2):
        np.save(folder / "folder" / f"{number}.npy", STACK[number % 5])
    np.save(folder / "folder" / "5.npy", np.full((2, 11, 11), np.nan))
    np.save(folder / "folder" / "frame.npy", frame(3))
    (folder / "store.h5").symlink_to(store)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (("stack.npy", "stack.npz", "store.h5"), ("--prior", "csist-100k", "--plot", "p.png")),
        (("frames.npy", "folder"), ("--background", "0", "--plot", "p.png")),
    ],
)
def test_same_as_in_one_process(
    run: Run, dask: tuple[str, ...], store: Path, tmp_path: Path, inputs: tuple[str, ...], options: tuple[str, ...]
) -> None:
    make_inputs(tmp_path, store)
    options = (*options, "--mode", "fast", "--groups", "g.csv")
    tables, said = [], []
    for command, engine in ((in_one_process, ()), (run, dask)):
        code, out, err = command("unmix", *inputs, *options, *engine)
        tables.append([Path(name).read_bytes() for name in ("targets.csv", "g.csv", "p.png") if Path(name).exists()])
        said.append((code, err, [line for line in out.splitlines() if "seconds" not in line]))
    assert len(tables[0][0].splitlines()) > 5
    assert tables[0] == tables[1]
    assert said[0] == said[1]
    assert said[0][0] == ("folder" in inputs)  # the file of NaN


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("option", ["--at", "--start"])
def test_positions_of_a_table(run: Run, dask: tuple[str, ...], store: Path, tmp_path: Path, option: str) -> None:
    make_inputs(tmp_path, store)
    rows = ["image,frame,x,y", "frames.npy,2,60.7,15.4", "frames.npy,1,23.1,31.0", "stack.npy,3,5.2,4.9"]
    Path("p.csv").write_text("\n".join([*rows, "stack.npy,11,4.8,5.1", "stack.npy,3,5.0,5.6"]) + "\n")
    given = ("frames.npy", "stack.npy", option, "p.csv", "--psf-sigma", "1.1", "--mode", "fast")
    tables = []
    for command, engine in ((in_one_process, ()), (run, dask)):
        assert command("unmix", *given, *engine)[0] == 0
        tables.append(Path("targets.csv").read_bytes())
    assert tables[0] == tables[1]
    if option == "--at":
        assert [line.split(b",")[:3] for line in tables[0].splitlines()[1:]] == [
            row.encode().split(b",")[:3] for row in [*rows[1:], "stack.npy,11,4.8", "stack.npy,3,5.0"]
        ]


def test_a_grid_method(run: Run, dask: tuple[str, ...], tmp_path: Path) -> None:
    windows(tmp_path / "stack.npy")
    tables = []
    for command, engine in ((in_one_process, ()), (run, dask)):
        assert command("unmix", "stack.npy", "--method", "ista", *engine)[0] == 0
        tables.append(Path("targets.csv").read_bytes())
    assert tables[0] == tables[1]


def test_a_psf_is_measured_for_all_workers(run: Run, dask: tuple[str, ...], tmp_path: Path) -> None:
    sky = csist.Sensor(csist.GaussianPSF(1.1), shape=(64, 96), background=50.0, read_noise=2.0)
    column, row = np.meshgrid(np.arange(4), np.arange(2))
    stars = csist.Targets(x=12.3 + 23.1 * column.ravel(), y=16.2 + 30.4 * row.ravel(), intensity=np.full(8, 3000.0))
    np.save(tmp_path / "stars.npy", np.stack([sky.observe(stars, seed) for seed in range(2)]))
    tables, found = [], []
    for command, engine in ((in_one_process, ()), (run, dask)):
        assert command("unmix", "stars.npy", "--psf", "auto", "--mode", "fast", "--json", "f.json", *engine)[0] == 0
        tables.append(Path("targets.csv").read_bytes())
        found.append(json.loads(Path("f.json").read_text())["psf"])
    assert tables[0] == tables[1]
    assert found[0] == found[1]
    assert found[0][0]["frames"] == 2


def test_parts_are_whole_batches() -> None:
    ista = csist.create_method("ista")
    for method in (ista, csist.create_method("ista+refine"), csist.create_method("ista+centroid")):
        assert whole_batches(method, 32) == ista.batch_size
        assert whole_batches(method, ista.batch_size + 1) == 2 * ista.batch_size
    network = csist.create_method("ista-net", pretrained=False)
    assert whole_batches(network, 128) == 128 // network.batch_size * network.batch_size == 128
    assert whole_batches(csist.create_method("continuous"), 32) == 32


def test_generate_gives_the_same_file(run: Run, dask: tuple[str, ...]) -> None:
    options = ("--count", "2300", "--seed", "4", "--noise-std", "2")
    assert run("generate", "here.h5", *options)[0] == 0
    assert run("generate", "there.h5", *options, *dask)[0] == 0
    assert Path("here.h5").read_bytes() == Path("there.h5").read_bytes()
    refused(run("generate", "a.h5", "--count", "9", "--bits", "8", *dask), "pixel values go from")


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_tasks")
def test_a_killed_worker_changes_nothing(run: Run, client: Any, dask: tuple[str, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.concatenate([STACK] * 60))
    assert in_one_process("unmix", "stack.npy", *QUICK, "-o", "here.csv")[0] == 0
    client.wait_for_workers(2)
    victim = next(iter(client.run(os.getpid).values()))
    partial, rows_before, ended = tmp_path / "there.csv.partial", [], threading.Event()

    def kill() -> None:
        while not ended.wait(0.005):
            if partial.exists() and len(lines(partial)) > 20:
                os.kill(victim, signal.SIGKILL)
                rows_before.append(len(lines(partial)))
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        code, _, err = run("unmix", "stack.npy", *QUICK, "-o", "there.csv", *dask)
    finally:
        ended.set()
        killer.join()
    assert (code, err) == (0, "")
    assert 20 < rows_before[0] < len(lines("there.csv"))
    assert Path("there.csv").read_bytes() == Path("here.csv").read_bytes()


@pytest.mark.usefixtures("small_tasks")
def test_a_worker_that_sees_another_file(
    run: Run, dask: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows(tmp_path / "a.npy")
    path, size = tmp_path / "a.npy", (tmp_path / "a.npy").stat().st_size
    parts = [Slice(path, size, 0, 3, ReadOptions()), Slice(path, size + 1, 3, 5, ReadOptions())]
    monkeypatch.setattr(unmix_cluster, "_slices", lambda *_: iter(parts))
    said = f"a.npy has {size} bytes, not {size + 1}"
    refused(run("unmix", "a.npy", *QUICK, *dask), said, "the 3 images done so far are in targets.csv.partial", code=1)
    with pytest.raises(ClusterError, match=r"the worker on .* does not see the same file"):
        Slice(tmp_path / "none.npy", 9, 0, 1, ReadOptions()).read()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "foo://x:1"])
def test_no_scheduler_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    windows(tmp_path / "a.npy", 1)
    result = run("unmix", "a.npy", *QUICK, "--engine", "dask", "--scheduler", address)
    refused(result, f"no Dask scheduler answers at {address}", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "engine must be local or dask, got 'spark'"),
        (["--scheduler", "tcp://a:1"], "--scheduler tcp://a:1 is for a cluster: add --engine dask"),
        (["--engine", "dask", "--workers", "0"], "workers must be a whole number >= 1, got 0"),
        (["--engine", "dask", "--workers", "2", "--scheduler", "tcp://a:1"], "leave out --workers 2"),
    ],
)
@pytest.mark.parametrize("command", [("unmix", "a.npy"), ("generate", "a.h5")])
def test_bad_use_gets_one_line(
    run: Run, tmp_path: Path, command: tuple[str, ...], options: list[str], said: str
) -> None:
    windows(tmp_path / "a.npy", 1)
    refused(run(*command, *options), said)


def test_generate_has_no_processes_of_its_own(run: Run) -> None:
    refused(run("generate", "a.h5", "--workers", "2"), "--workers 2 is for a cluster: add --engine dask")


@pytest.mark.parametrize("option", [["--sequence"], ["--temporal", "5"], ["--tracks", "t.csv"]])
def test_what_needs_the_frames_before(run: Run, tmp_path: Path, option: list[str]) -> None:
    np.save(tmp_path / "frames.npy", np.stack([frame(0), frame(1)]))
    refused(run("unmix", "frames.npy", "--engine", "dask", *option), f"{option[0]} processes frames sequentially")
    assert [path.name for path in tmp_path.iterdir()] == ["frames.npy"]


def test_a_missing_extra_says_how_to_install_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused(run("generate", "a.h5", "--engine", "dask"), "pip install 'csist[cluster]'")


class FakeClient:
    """Remembers what was submitted; `said` is what its workers answer when asked for their versions."""

    def __init__(self, **said: Any) -> None:
        self.said = said
        self.submitted: list[int] = []

    def submit(self, function: Any, number: int, pure: bool) -> int:
        """Remember the number of a task."""
        self.submitted.append(number)
        return number

    def nthreads(self) -> dict[str, int]:
        """Threads of two workers."""
        return {"a": 1, "b": 2}

    def get_versions(self, packages: list[str]) -> dict[str, Any]:
        """Versions here and on the workers."""
        mine = {"packages": {"csist": "1.0"}}
        here = {"python": f"{sys.version_info.major}.{sys.version_info.minor}.99.final.0"}
        worker = {"host": here, "packages": {"csist": "1.0"}} | self.said
        return {"client": mine, "workers": {"tcp://w:1": worker}}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"packages": {"csist": None}}, "the worker tcp://w:1 has no csist, this is csist 1.0"),
        ({"packages": {"csist": "0.9"}}, "has csist 0.9"),
        ({"host": {"python": "3.8.1.final.0"}}, "has Python 3.8, this is"),
    ],
)
def test_other_versions_on_a_worker(said: dict[str, Any], message: str) -> None:
    cluster._check_workers(FakeClient())
    with pytest.raises(ClusterError, match=message):
        cluster._check_workers(FakeClient(**said))


def test_tasks_in_flight_are_few_and_keep_their_order() -> None:
    client = FakeClient()
    steps = ((number, Task(abs, (number,)) if number % 10 else "no task") for number in range(200))
    for place, (number, what) in enumerate(cluster.submit_ahead(client, steps)):
        assert number == place
        assert what == "no task" if number % 10 == 0 else what.future == number
        assert len([each for each in client.submitted if each > number]) <= 2 * 3
    assert list(cluster.submit_ahead(client, [])) == []


def test_a_busy_disk_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning of Dask stood before the one line of an interrupted run."""

    def slow(**_: Any) -> None:
        warnings.warn("Creating scratch directories is taking a surprisingly long time.", stacklevel=2)

    monkeypatch.setattr("distributed.LocalCluster", slow)
    cluster.local_cluster(1)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_of_the_whole_process_group(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.concatenate([STACK] * 6_000))
    command = [sys.executable, "-m", "csist", "unmix", "long.npy", *QUICK, "--engine", "dask", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    partial = tmp_path / "targets.csv.partial"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 200):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("csist: interrupted: the ")
    assert lines(partial)[0] == HEADER
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.npy", "targets.csv.partial"]
