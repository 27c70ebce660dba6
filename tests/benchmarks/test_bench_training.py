"""The benchmark of the training step, on almost nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import bench_training


def test_all_rows_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # What compiling gives is tested with the trainer; here it would only cost time.
    monkeypatch.setattr(bench_training, "compile_for_training", lambda method: None)
    result = bench_training.compare(ratio=2, batch=2, steps=1, rounds=2, stages=1)
    assert list(result["rows"]) == ["plain", "trainer", "compiled", "window"]
    for row in result["rows"].values():
        assert row["seconds_per_step"] > 0 and len(row["seconds_per_step_of_each_round"]) == 2
    assert result["rows"]["plain"]["times_faster_than_plain"] == 1.0


def test_the_layout_does_not_change_the_loss() -> None:
    import torch

    (batch,) = bench_training.make_batches(2, 2, 1)
    formats = (torch.contiguous_format, torch.channels_last)
    plain, trainer = (bench_training.make_step(2, each, each is formats[1], stages=1) for each in formats)
    for _ in range(2):
        assert plain(*batch) == pytest.approx(trainer(*batch), rel=1e-4)


def test_a_number_below_one_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path("bench_training.py")), "--steps", "0"])
    assert bench_training.main() == 2
    assert capsys.readouterr().err == "error: --steps must be a whole number >= 1, got 0\n"
