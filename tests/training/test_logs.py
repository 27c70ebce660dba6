"""The log of a training is whole whatever sessions it was made in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.training.logs import next_session, read_log


def session(folder: Path, number: int, *rows: str) -> None:
    path = folder / "csv" / f"session-{number}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["cso_map,discrepancy,learning_rate,samples,step", *rows]) + "\n")


def test_sessions_are_put_together_and_steps_taken_again_count_once(tmp_path: Path) -> None:
    assert next_session(tmp_path, resumed=False) == next_session(tmp_path, resumed=True) == "session-1"
    session(tmp_path, 1, ",9,0.1,,9", ",8,0.1,,19", "12.5,,,1280,20", ",7,0.1,,29", ",6,0.1,,39")
    assert next_session(tmp_path, resumed=True) == "session-2"
    session(tmp_path, 2, ",5,0.2,,29", "13.5,,,2560,40")
    for number in range(3, 11):
        session(tmp_path, number)
    session(tmp_path, 11, ",4,0.2,,49")
    log = read_log(tmp_path, 64)
    assert log["samples"].tolist() == [640, 1280, 1280, 1920, 2560, 3200]
    nan = np.nan
    assert np.array_equal(log["discrepancy"], [9, 8, nan, 5, nan, 4], equal_nan=True)
    assert np.array_equal(log["cso_map"], [nan, nan, 12.5, nan, 13.5, nan], equal_nan=True)
    assert np.isnan(log["gradient_norm"]).all()


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no log of a training"):
        read_log(tmp_path, 64)
