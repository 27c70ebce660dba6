"""Frames of an annotated video."""

from __future__ import annotations

import numpy as np
import pytest

from csist.plots.movie import LEAST_SIDE, TRAIL_FRAMES, Annotator
from csist.targets import Targets


@pytest.mark.parametrize("shape", [(11, 11), (64, 96), (33, 641), (700, 1001)])
def test_size_of_the_video(shape: tuple[int, int]) -> None:
    drawn = Annotator(shape)
    rows, columns = drawn.sides
    assert rows % 2 == columns % 2 == 0
    assert max(rows, columns) >= LEAST_SIDE
    assert drawn.draw(0, np.zeros(shape), Targets.empty(), []).shape == (rows, columns, 3)


def test_a_trail_is_drawn_behind_a_track_and_ends() -> None:
    drawn = Annotator((64, 96))
    rng = np.random.default_rng(0)

    def coloured(number: int, x: float | None) -> int:
        targets = Targets.empty() if x is None else Targets(x=[x], y=[30.0], intensity=[1.0])
        picture = drawn.draw(number, rng.normal(size=(64, 96)), targets, [0] if x is not None else [])
        scale = drawn.scale
        behind = picture[30 * scale : 31 * scale + 1, 12 * scale : 20 * scale].astype(int)
        return int((np.ptp(behind, axis=2) > 40).sum())

    assert coloured(0, 10.0) == 0
    assert coloured(1, 30.0) == 0  # two detections may be a chance pair
    assert coloured(2, 50.0) > 0
    assert coloured(3, None) > 0
    assert coloured(2 + TRAIL_FRAMES, None) == 0


def test_a_frame_without_a_value_is_black() -> None:
    picture = Annotator((64, 96)).draw(3, None, Targets.empty(), [])
    assert picture[30:].max() == 0


def test_pixels_without_a_value_do_not_disturb_the_rest() -> None:
    frame = np.linspace(0.0, 100.0, 64 * 96).reshape(64, 96)
    holed = frame.copy()
    holed[40, 50] = np.nan
    whole, seen = (Annotator((64, 96)).draw(0, each, Targets.empty(), []) for each in (frame, holed))
    scale = Annotator((64, 96)).scale
    assert seen[int(40.5 * scale), int(50.5 * scale)].max() == 0
    assert np.abs(whole.astype(int) - seen).max(axis=2)[: 40 * scale].max() <= 1
