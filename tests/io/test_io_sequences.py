"""Sequences of frames: stacks, folders and videos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csist.checks import InputError
from csist.io import ImageStack, ReadOptions, read_image
from csist.io.sequences import FrameSequence, sequence_of_folder, sequence_of_stack, sequence_of_video
from csist.tracks.static import without_static

REAL = Path(__file__).parents[2] / "shared" / "data" / "real" / "drone_ir_cc0"


def film(path, frames, codec="ffv1", pixels="gray"):
    """A video of these frames (N, H, W) or (N, H, W, 3), without loss where the codec has none."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        for frame in frames:
            given = {3: "rgb24", 2: "gray16le" if frame.dtype == np.uint16 else "gray"}[frame.ndim]
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format=given)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def noise(count=6, shape=(34, 50), top=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, top, (count, *shape)).astype(dtype)


@pytest.mark.parametrize(("pixels", "top", "dtype"), [("gray", 256, np.uint8), ("gray16le", 65536, np.uint16)])
def test_a_lossless_video_comes_back_bit_for_bit(tmp_path, pixels, top, dtype):
    frames = noise(top=top, dtype=dtype)
    sequence = sequence_of_video(film(tmp_path / "a.mkv", frames, pixels=pixels))
    read = list(sequence)
    assert {name for name, _ in read} == {"a.mkv"}
    assert read[0][1].dtype == np.float64
    np.testing.assert_array_equal([frame for _, frame in read], frames)
    assert sequence.shape[1:] == (34, 50)
    assert sequence.notes == []
    assert len(list(sequence)) == 6  # it can be gone through again


def test_of_a_colour_video_the_luma_is_used_and_told_of(tmp_path):
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[..., 0] = 200
    sequence = sequence_of_video(film(tmp_path / "a.mkv", frames, pixels="yuv420p"))
    assert sequence.notes == ["colour video, its luma is used"]
    values = next(iter(sequence))[1]
    np.testing.assert_allclose(values, 16 + 219 * (0.299 * 200 / 255), atol=2.0)  # BT.601, video range


def test_of_an_rgb_video_the_luminance_is_used(tmp_path):
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    frames[..., 1] = 100
    values = next(iter(sequence_of_video(film(tmp_path / "a.avi", frames, "rawvideo", "bgr24"))))[1]
    np.testing.assert_allclose(values, 58.7, atol=0.6)


def test_a_video_is_streamed(tmp_path, monkeypatch):
    """Frames are decoded as they are asked for, not before."""
    import av

    path = film(tmp_path / "a.mkv", noise(40))
    sequence, decoded = sequence_of_video(path), []
    real = av.VideoFrame.planes

    monkeypatch.setattr("csist.io.sequences.luma", lambda frame: decoded.append(1) or np.zeros((34, 50)))
    frames = iter(sequence)
    for _ in range(3):
        next(frames)
    frames.close()
    assert len(decoded) == 3
    assert real is av.VideoFrame.planes


def test_a_video_that_breaks_off_ends_with_a_note(tmp_path):
    path = film(tmp_path / "a.mkv", noise(30, (64, 64)))
    data = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    sequence = sequence_of_video(tmp_path / "cut.mkv")
    done = sum(1 for _ in sequence)
    assert 5 < done < 25
    if len(sequence):  # Matroska need not say how many there should be
        assert "breaks off after" in sequence.notes[-1]
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4"):
        sequence_of_video(tmp_path / "text.mp4")
    with pytest.raises(InputError, match="no such file"):
        sequence_of_video(tmp_path / "none.mp4")


def test_a_hole_in_a_real_video_ends_it_with_a_note(tmp_path):
    pytest.importorskip("av")
    clip = REAL / "clips" / "IR_AIRPLANE_058.mp4"
    if not clip.is_file():
        pytest.skip(f"the real clips are not here ({clip})")
    frames = [frame for _, frame in sequence_of_video(clip)]
    assert len(frames) == 308
    still = read_image(REAL / "seq_IR_AIRPLANE_058" / "IR_AIRPLANE_058_f100.png")[0]
    np.testing.assert_array_equal(frames[100], still)
    data = clip.read_bytes()
    third = len(data) // 3
    (tmp_path / "hole.mp4").write_bytes(data[:third] + bytes(third) + data[2 * third :])
    broken = sequence_of_video(tmp_path / "hole.mp4")
    assert 0 < sum(1 for _ in broken) < 308
    assert "breaks off after" in broken.notes[-1]


def test_a_folder_is_one_sequence_read_as_it_goes(tmp_path, monkeypatch):
    frames = noise(12)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    sequence = sequence_of_folder(tmp_path)
    assert sequence.shape == (12, 34, 50)
    opened = []
    real = read_image
    monkeypatch.setattr(
        "csist.io.folders.read_image", lambda path, name, options: opened.append(name) or real(path, name, options)
    )
    reader = iter(sequence)
    assert [next(reader)[0] for _ in range(3)] == ["f0.png", "f1.png", "f2.png"]
    assert opened == ["f0.png", "f1.png", "f2.png"]
    np.testing.assert_array_equal([frame for _, frame in sequence], frames)
    Image.fromarray(frames[0, :20]).save(tmp_path / "f5.png")
    with pytest.raises(InputError, match=r"f5\.png is 20 x 50 px, the images before it are 34 x 50"):
        list(sequence)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["a_08", "a_09", "a_10"], None),
        (["a_08", "a_09", "a_11"], None),  # no usual step of one
        (["a_08", "a_09", "a_10", "a_12"], "a_12.npy comes after a_10.npy: 1 image is missing"),
        (
            ["7_1", "7_2", "7_3", "7_4", "7_7", "7_8", "7_10"],
            "7_7.npy comes after 7_4.npy, with 1 more gap: 3 images are missing",
        ),
        (["1_1", "1_2", "2_1", "2_2"], None),  # two numbers
        (["a", "b", "c"], None),
        (["only_1"], None),
    ],
)
def test_a_gap_in_the_numbers_of_a_folder_is_told_of(tmp_path, names, note):
    for name in names:
        np.save(tmp_path / f"{name}.npy", np.zeros((20, 30)))
    notes = sequence_of_folder(tmp_path).notes
    end = ", frames count as equally spaced in time: put an image of NaN into each gap"
    assert notes == ([] if note is None else [note + end])


def test_a_stack_is_a_sequence():
    stack = ImageStack("a.npy", Path("a.npy"), "npy", noise(4))
    sequence = sequence_of_stack(stack)
    assert len(sequence) == 4
    np.testing.assert_array_equal([frame for _, frame in sequence], stack[:])


def test_notes_of_a_folder_come_once(tmp_path):
    for index in range(3):
        colour = np.zeros((20, 20, 3), np.uint8)
        colour[..., index] = 90
        Image.fromarray(colour).save(tmp_path / f"{index}.png")
    (tmp_path / "text.txt").write_text("no image")
    sequence = sequence_of_folder(tmp_path)
    list(sequence)
    assert sum("luminance" in note for note in sequence.notes) == 1
    assert sum("left out" in note for note in sequence.notes) == 1


@pytest.mark.parametrize("count", [0, 1, 4, 9, 30])
def test_what_stands_still_is_taken_out(count):
    rng = np.random.default_rng(1)
    static = rng.normal(100.0, 20.0, (20, 24))
    moving = np.zeros((count, 20, 24))
    for k in range(count):
        moving[k, 10, k % 24] = 50.0
    frames = list(without_static(iter(static + moving), 9))
    assert len(frames) == count
    if count >= 4:
        np.testing.assert_allclose(frames, moving, atol=1e-9)
    if count == 1:
        np.testing.assert_allclose(frames, 0.0)


def test_the_static_part_is_followed_and_read_as_it_goes():
    read = []

    def drifting():
        for k in range(60):
            read.append(k)
            yield np.full((8, 8), float(k))

    frames = without_static(drifting(), 5)
    assert next(frames).shape == (8, 8)
    assert len(read) == 5  # the first window, no more
    assert max(float(np.abs(frame).max()) for frame in frames) <= 4.0


def test_clipped_and_missing_pixels_stay_missing():
    frames = np.random.default_rng(2).integers(10, 200, (6, 12, 12)).astype(float)
    frames[3, 4, 4] = 255.0
    frames[:, 0, 0] = np.nan
    frames[2] = np.nan
    found = list(without_static(iter(frames), 3))
    assert np.isnan(found[3][4, 4]) and not np.isnan(found[4][4, 4])
    assert all(np.isnan(frame[0, 0]) for frame in found)
    assert np.isnan(found[2]).all() and np.isfinite(found[5]).sum() == 143


def test_a_window_that_cannot_be_used():
    with pytest.raises(InputError, match=r"temporal must be .* got 2"):
        list(without_static(iter([]), 2))


def test_the_length_may_be_unknown():
    sequence = FrameSequence("a", Path("a"), (0, 20, 20), lambda: iter([("a", np.zeros((20, 20)))]))
    assert len(sequence) == 0
    assert len(list(sequence)) == 1


def folder_of(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames):
        np.save(folder / f"f{number}.npy", frame)
    return folder


@pytest.mark.parametrize("damaged", [(0,), (2,), (0, 1, 3)])
def test_a_damaged_file_of_a_folder_is_an_empty_frame(tmp_path, damaged):
    frames = noise(5).astype(np.float64)
    folder = folder_of(tmp_path / "a", frames)
    for number in damaged:
        (folder / f"f{number}.npy").write_bytes((folder / f"f{number}.npy").read_bytes()[:200])
        frames[number] = np.nan
    sequence = sequence_of_folder(folder)
    for _ in range(2):  # going through it again says the same
        np.testing.assert_array_equal([frame for _, frame in sequence], frames)
        assert [path.name for path, _ in sequence.failed] == [f"f{number}.npy" for number in damaged]
        assert all("cannot read" in reason for _, reason in sequence.failed)
        assert len(sequence.headers) == 5
    part = sequence_of_folder(folder, ReadOptions(frames=(2, 4)))
    assert [name for name, _ in part] == ["f2.npy", "f3.npy"]
    assert len(part.headers) == 2


def test_a_folder_of_damaged_files_is_refused(tmp_path):
    folder = folder_of(tmp_path / "a", noise(3))
    for path in folder.iterdir():
        path.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"f0\.npy"):
        sequence_of_folder(folder)
