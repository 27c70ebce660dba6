"""A short form of the benchmark of damaged files, and that it sees what it looks for."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import fuzz_readers
from csist.checks import InputError
from csist.io import read_image, read_targets_table


def test_damaged_files_of_every_format(tmp_path: Path) -> None:
    paths = [
        path
        for name, data in fuzz_readers.samples().items()
        for path in fuzz_readers.damaged(tmp_path, name, data, 4, 99)
    ]
    found = fuzz_readers.run(paths)
    assert [each["path"] for each in found] == [str(path) for path in paths]
    assert [each for each in found if each["outcome"] not in ("result", "one line")] == []


def test_whole_files_are_read(tmp_path: Path) -> None:
    paths = []
    for name, data in fuzz_readers.samples().items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    assert {str(each["outcome"]) for each in fuzz_readers.run(paths)} == {"result"}


def test_a_child_that_hangs_is_ended_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, resource, sys\n"
        "for path in open(sys.argv[2]).read().split():\n"
        "    if 'hangs' in path:\n"
        "        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))\n"
        "        while True:\n"
        "            pass\n"
        "    os._exit(3) if 'dies' in path else None\n"
        "    print(json.dumps({'path': path, 'outcome': 'result', 'said': '', 'seconds': 0}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz_readers, "__file__", str(script))
    found = fuzz_readers.run([Path(name) for name in ("a", "hangs", "b", "dies", "c")])
    assert [each["outcome"] for each in found] == ["result", "hang", "result", "died (3)", "result"]


def test_a_child_that_waits_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text("import time\ntime.sleep(10_000)\n")
    monkeypatch.setattr(fuzz_readers, "__file__", str(script))
    monkeypatch.setattr(fuzz_readers, "PATIENCE_SECONDS", 0.0)
    assert [each["outcome"] for each in fuzz_readers.run([Path("a")])] == ["hang"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (600000000,), }"
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.ljust(127) + b"\n" + bytes(10_000_000))
    with pytest.raises(InputError, match=r"600000000 pixels are more than 268435456; .*--max-pixels"):
        read_image(tmp_path / "bomb.npz")


def test_names_in_an_archive_keep_the_message_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("one\ntwo.npy", b"")
        archive.writestr("three\x1b[31m.npy", b"")
    with pytest.raises(InputError, match=r"it holds one\\ntwo, three\\x1b\[31m") as caught:
        read_image(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
    (tmp_path / "t.csv").write_text('"x\ny",a\n1,2\n')
    with pytest.raises(InputError) as caught:
        read_targets_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "b.npz", **{"images\n": np.zeros((4, 4))})
    assert read_image(tmp_path / "b.npz").shape == (1, 4, 4)
