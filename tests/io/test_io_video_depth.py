"""Frames of any pixel format in their full depth, and odd sizes; the parts of a video or sequence that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csist.checks import InputError
from csist.io import ReadOptions
from csist.io.sequences import is_coloured, luma, sequence_of_folder, sequence_of_video

av = pytest.importorskip("av", reason="video needs the extra `video`")

SHAPE = (19, 23)


def frame_of(pixels: str, values: np.ndarray) -> Any:
    """A frame whose first plane holds these values as they are, its other planes the middle of their range."""
    frame = av.VideoFrame(values.shape[1], values.shape[0], pixels)
    for index, plane in enumerate(frame.planes):
        kind = np.dtype(f"{'>' if frame.format.is_big_endian else '<'}u{1 if values.dtype == np.uint8 else 2}")
        lines = np.full((plane.height, plane.line_size // kind.itemsize), 0, kind)
        if index == 0:
            lines[: values.shape[0], : values.shape[1]] = values
        else:
            lines[:] = 1 << (frame.format.components[index].bits - 1)
        plane.update(lines.tobytes())
    return frame


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [
        ("gray", 8), ("gray10le", 10), ("gray12le", 12), ("gray14le", 14), ("gray16le", 16), ("gray16be", 16),
        ("yuv420p", 8), ("yuvj420p", 8), ("yuv420p10le", 10), ("yuv422p12le", 12), ("yuv444p16le", 16),
        ("yuv420p10be", 10), ("nv12", 8),
    ],
)  # fmt: skip
def test_luma_is_what_the_plane_holds(pixels: str, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, SHAPE).astype(np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(luma(frame_of(pixels, values)), values)


@pytest.mark.parametrize(("pixels", "bits"), [("p010le", 10), ("p012le", 12), ("p016le", 16), ("p210le", 10)])
def test_bits_that_lie_high_come_down(pixels: str, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, SHAPE).astype(np.uint16)
    frame = frame_of(pixels, values << (16 - bits))
    np.testing.assert_array_equal(luma(frame), values)


@pytest.mark.parametrize(("pixels", "bits"), [("gbrp10le", 10), ("gbrp12le", 12), ("gbrp16le", 16), ("rgb48le", 16)])
def test_equal_colours_are_their_value(pixels: str, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (20, 24)).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(np.repeat(values[..., None], 3, axis=2), format=pixels)
    np.testing.assert_array_equal(luma(frame), values)
    assert not is_coloured(frame)


@pytest.mark.parametrize("pixels", ["grayf32le", "gbrpf32le"])
def test_floating_point(pixels: str) -> None:
    values = np.random.default_rng(0).normal(size=(20, 24)).astype(np.float32)
    given = values if pixels == "grayf32le" else np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(luma(av.VideoFrame.from_ndarray(given, format=pixels)), values)


def test_colours_in_interleaved_and_one_bit_frames() -> None:
    values = np.random.default_rng(0).integers(0, 2**10, (20, 24)).astype(np.uint16)
    packed = frame_of("yuv422p10le", values).reformat(format="y210le", threads=1)
    black = av.VideoFrame.from_ndarray(np.where(values > 500, 255, 0).astype(np.uint8), format="gray")
    black = black.reformat(format="monob", threads=1)
    # Many times, because a converter with several threads is wrong in one frame of some hundreds.
    for _ in range(200):
        np.testing.assert_array_equal(luma(packed), values)
        np.testing.assert_array_equal(luma(black), np.where(values > 500, 255, 0))


@pytest.mark.parametrize("shape", [(21, 33), (20, 33), (21, 32)])
def test_colours_are_seen_in_odd_sizes(shape: tuple[int, int]) -> None:
    colour = np.zeros((*shape, 3), np.uint8)
    colour[..., 0] = 200
    frame = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(format="yuv444p")
    assert is_coloured(frame)
    assert luma(frame).shape == shape
    assert not is_coloured(frame_of("yuv420p", np.zeros(shape, np.uint8)))


def film(path: Path, frames: np.ndarray, times: list[int]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "gray16le"
        for time, values in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(values, format="gray16le")
            frame.pts = time
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_times_frames_and_region_of_a_video(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (5, 20, 31)).astype(np.uint16)
    path = film(tmp_path / "a.mkv", frames, [0, 1, 2, 5, 7])  # of a tenth of a second, with gaps
    sequence = sequence_of_video(path)
    assert len(list(sequence)) == 5
    assert sequence.times == pytest.approx([0.0, 0.1, 0.2, 0.5, 0.7])
    part = sequence_of_video(path, options=ReadOptions(frames=(1, 4), roi=((2, 30), (4, 19))))
    np.testing.assert_array_equal([frame for _, frame in part], frames[1:4, 4:19, 2:30])
    assert (part.shape[1:], part.times, part.notes) == ((15, 28), pytest.approx([0.1, 0.2, 0.5]), [])
    with pytest.raises(InputError, match="not within"):
        sequence_of_video(path, options=ReadOptions(roi=((0, 32), (0, 20))))
    with pytest.raises(InputError, match="620 pixels are more than 619"):
        sequence_of_video(path, options=ReadOptions(max_pixels=619))


def test_frames_and_region_of_a_folder(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (5, 20, 31)).astype(np.uint16)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"f{number}.png")
    part = sequence_of_folder(tmp_path, ReadOptions(frames=(2, 4), roi=((2, 30), (4, 19))))
    assert part.shape == (2, 15, 28)
    read = list(part)
    assert [name for name, _ in read] == ["f2.png", "f3.png"]
    np.testing.assert_array_equal([frame for _, frame in read], frames[2:4, 4:19, 2:30])
    with pytest.raises(InputError, match="has 5 images"):
        sequence_of_folder(tmp_path, ReadOptions(frames=(5, 9)))
