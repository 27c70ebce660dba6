"""Outputs that are complete or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csist.checks import InputError
from csist.files import _partial_name, atomic_path, check_new_folder, check_writable, scratch_folder, write_text
from csist.io import TableWriter


def test_check_writable(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a.csv") == tmp_path / "a.csv"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"the folder .*no does not exist, create it first"):
        check_writable(tmp_path / "no" / "a.csv")
    with pytest.raises(InputError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="too long"):
        check_writable(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match=r"must end in \.csv or \.parquet or \.fits or \.ecsv"):
        TableWriter(tmp_path / "a.xlsx")
    assert check_writable("/dev/null") == Path("/dev/null")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        check_writable(tmp_path / "a.csv")
    tmp_path.chmod(0o700)


def test_atomic_path(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text("one", path)
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        assert partial.parent == tmp_path
        assert partial.suffix == ".txt"
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    write_text("two", path)
    assert path.read_text() == "two"
    (tmp_path / "link.txt").symlink_to(path)
    write_text("three", tmp_path / "link.txt")
    assert path.read_text() == "three"
    assert (tmp_path / "link.txt").is_symlink()
    write_text("gone", "/dev/null")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "link.txt"]


def test_atomic_path_full_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left on device"), atomic_path(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="other"), atomic_path(tmp_path / "a.txt"):
        raise OSError("other")


def test_atomic_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "f", folder=True) as partial:
        (partial / "x").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "f").mkdir()
    with atomic_path(tmp_path / "f", folder=True) as partial:
        (partial / "x").write_text("")
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["x"]
    with pytest.raises(InputError, match="already exists"):
        check_new_folder(tmp_path / "f")


def ended_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


KILLED = """
import os, sys
from csist.files import atomic_path, scratch_folder
from pathlib import Path
with scratch_folder(Path(sys.argv[1])) as scratch, atomic_path(sys.argv[1]) as partial:
    (scratch / "a").write_text("a")
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_killed_runs_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2  # the second run has removed what the first one left
    others = [".out.123.partial.h5", ".out.00000000-1.partial.h5", "out.csv", ".other.partial.h5"]
    for name in others:
        (tmp_path / name).write_text("")
    stale = _partial_name(path)
    alive = stale.with_name(stale.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    dead = stale.with_name(stale.name.replace(f"-{os.getpid()}.", f"-{ended_process()}."))
    other_output = stale.with_name(dead.name.replace(".out.", ".out2."))
    for each in (alive, dead, other_output):
        each.write_text("")
    write_text("whole", path)
    kept = [*others, alive.name, other_output.name, "out.h5"]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(kept)


def test_a_scratch_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "g") as folder:
        (folder / "a").write_text("a")
    with pytest.raises(KeyError), scratch_folder(tmp_path / "g"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
