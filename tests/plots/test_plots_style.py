"""Pictures are written complete, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from csist import plots
from csist.checks import InputError
from csist.targets import Targets


def picture() -> Figure:
    return plots.unmixing_panel(np.zeros((3, 3)), Targets.empty(), np.zeros((3, 3)))


@pytest.mark.parametrize("suffix", plots.PICTURE_SUFFIXES)
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        plots.save_figure(picture(), tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert len(list(tmp_path.iterdir())) == 2


def test_a_png_is_an_image(tmp_path: Path) -> None:
    plots.save_figure(picture(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert min(opened.size) > 400


@pytest.mark.parametrize("name", ["a.jpg", "a", "missing/a.png"])
def test_a_bad_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot write"):
        plots.save_figure(picture(), tmp_path / name)
    assert not list(tmp_path.iterdir())
