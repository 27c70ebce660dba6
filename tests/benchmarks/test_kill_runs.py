"""A short form of the benchmark of killed runs, and that it sees what it looks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kill_runs

GENERATE = kill_runs.Command(["generate", "store.h5", "--count", "40"], "store.h5")


def test_a_killed_run_leaves_the_old_file_or_a_complete_one(tmp_path: Path) -> None:
    found = kill_runs.killed(GENERATE, tmp_path, 4, np.random.default_rng(0))
    # On a busy machine a run may end before its kill.
    assert 2 <= found["killed"] <= found["old"] + found["complete"] == 4
    assert found["damaged"] == found["partial_files_after_it"] == 0


@pytest.mark.parametrize("cut", [False, True])
def test_half_written_and_forgotten_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool) -> None:
    """A program that writes in place, and one that leaves a file."""
    script = tmp_path / "csist.py"
    writes = "open('store.h5', 'ab').write(b'more'); " if cut else "open(f'left {time.time_ns()}', 'wb').close(); "
    script.write_text(f"import time; {writes}time.sleep(0.3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "work").mkdir()
    found = kill_runs.killed(GENERATE, tmp_path / "work", 4, np.random.default_rng(0))
    assert found["damaged" if cut else "partial_files_after_it"] > 0
