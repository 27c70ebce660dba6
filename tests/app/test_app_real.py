"""Measured infrared frames through the app's own functions: a few; `benchmarks/bench_app_frames.py` takes all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench_app_frames import disagreements, frames, unmixed
from csist.app.settings import Settings

REAL = Path(__file__).parents[2] / "../shared/data/real"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the measured frames beside the repository")
@pytest.mark.parametrize("number", range(6))
def test_measured_frames_have_a_page_without_contradiction(number: int) -> None:
    paths = frames(REAL)
    result = unmixed(paths[number * len(paths) // 6], Settings(source="upload", mode="fast"))
    assert disagreements(result) == []
