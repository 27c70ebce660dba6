"""Outputs that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csist.checks import InputError
from csist.files import atomic_path, check_new_folder, check_writable, write_text
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
    with pytest.raises(InputError, match=r"must end in \.csv"):
        TableWriter(tmp_path / "a.parquet")
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
