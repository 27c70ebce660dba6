"""Videos that are written frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.io.movies import check_movie, movie_writer

av = pytest.importorskip("av")
SIDES = (48, 64)


def pictures() -> list[np.ndarray]:
    return [np.full((*SIDES, 3), level, dtype=np.uint8) for level in (20, 120, 220)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [None, 7.5, 30000 / 1001])
def test_frames_come_back(tmp_path: Path, suffix: str, rate: float | None) -> None:
    path = tmp_path / f"v{suffix}"
    with movie_writer(path, SIDES, rate) as add:
        for picture in pictures():
            add(picture)
        assert not path.exists()
    with av.open(str(path)) as container:
        expected = Fraction(rate or 25.0).limit_denominator(1001)
        assert float(container.streams.video[0].average_rate) == pytest.approx(float(expected), rel=0.01)
        levels = [shown.to_ndarray(format="rgb24").mean() for shown in container.decode(video=0)]
    np.testing.assert_allclose(levels, [20, 120, 220], atol=4)


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), movie_writer(path, SIDES) as add:
        add(pictures()[0])
        raise ZeroDivisionError
    assert [each.name for each in tmp_path.iterdir()] == ["v.mp4"]
    assert path.read_bytes() == b"old"


def test_names_of_videos(tmp_path: Path) -> None:
    assert check_movie(tmp_path / "V.MP4") == tmp_path / "V.MP4"
    with pytest.raises(InputError, match=r"must end in \.mp4 or \.mkv"):
        check_movie(tmp_path / "v.gif")
