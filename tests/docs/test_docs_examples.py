"""Every example runs, and makes the picture that the gallery shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*_*.py"))

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="needs the repository around it")

SMALL = {"IMAGES": 12, "SAMPLES": 128, "SIGMAS_PX": (0.5,)}
"""Values of the examples' own constants with which they take less time."""
NEEDED = {"05_at_the_limit": {"IMAGES": 3}, "07_self_calibration": {"IMAGES": 60}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "csist.training" in path.read_text():
        pytest.importorskip("lightning", reason="needs the extra `train`")
    spec = importlib.util.spec_from_file_location("example", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name, value in (SMALL | NEEDED.get(path.stem, {})).items():
        if hasattr(example, name):
            monkeypatch.setattr(example, name, value)
    example.main(tmp_path)
    with Image.open(tmp_path / f"{path.stem}.png") as drawn:
        assert min(drawn.size) > 300
    assert (ROOT / "docs" / "images" / "gallery" / f"{path.stem}.png").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_what_it_shows(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 90
    assert lines[0].startswith('"""') and lines[0].endswith(".") and not lines[1]
