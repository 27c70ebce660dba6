"""Times of frames: what files state, made to increase."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from csist.checks import InputError
from csist.io import ReadOptions, read_image
from csist.io.sequences import sequence_of_folder, sequence_of_stack, sequence_of_video
from csist.io.times import Clock, check_timed, increasing, mjd_of, moment_of_cards, seconds_of, typical_interval

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 20, 24), dtype=np.uint8)


def times_of(path: Path, options: ReadOptions | None = None) -> list[float]:
    return sequence_of_stack(read_image(path, options=options)).times


@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(np.nan), st.just(np.inf)), max_size=30), st.floats(1e-3, 1e3))
def test_a_clock_starts_at_0_and_always_goes_forward(stated: list[float], interval: float) -> None:
    notes: list[str] = []
    clock = Clock(interval, notes)
    times = [clock.at(each) for each in stated]
    assert times[:1] in ([], [0.0])
    assert (np.diff(times) > 0).all()
    assert len(notes) <= 1


def test_a_clock_keeps_good_times_and_tells_of_the_first_bad_one() -> None:
    notes: list[str] = []
    clock = Clock(1.0, notes)
    assert [clock.at(time) for time in (10.0, 11.0, 11.0, 10.5, 14.25)] == [0.0, 1.0, 2.0, 3.0, 4.25]
    assert notes == [
        "the time of frame 2 is missing or not after the one before: there, and where it happens again, an interval of "
        "1 s is taken"
    ]
    clock = Clock(0.5, [])
    assert [clock.at(time) for time in (np.nan, np.nan, 8.0, 9.0)] == [0.0, 0.5, 1.0, 2.0]


def test_a_typical_interval_needs_times_that_lead_forward() -> None:
    assert typical_interval([5.0, 7.0, 9.0, 100.0]) == 2.0
    assert typical_interval([0.0, 1.0, 0.5, 1.5]) == 1.0
    for coarse in ([], [3.0], [0.0, 0.0, 0.0, 1.0], [3.0, 2.0, 1.0], [np.nan, np.nan]):
        assert typical_interval(coarse) is None
    notes: list[str] = []
    assert increasing([1.0, 1.0, 1.0], notes) is None
    assert notes == ["the times that the file states do not increase from frame to frame: they are not used"]
    assert increasing([1.0], notes) is None
    assert len(notes) == 1


def test_units_of_time() -> None:
    assert [seconds_of("2", unit) for unit in ("s", "ms", "min", "h", "d")] == [2.0, 0.002, 120.0, 7200.0, 172800.0]
    assert seconds_of(3, None) == seconds_of(3, "") == 3.0
    assert np.isnan([seconds_of("x"), seconds_of(None), seconds_of(1, "fortnight")]).all()


def test_the_middle_of_an_exposure_is_that_of_astropy() -> None:
    from astropy.time import Time

    epoch = Time("2000-01-01T00:00:00", scale="utc")
    for text in ("2026-01-02T03:04:05.678901", "1999-12-31T23:59:59", "2026-06-30T12:00"):
        mjd = Time(text, scale="utc").mjd
        seconds = (mjd - epoch.mjd) * 86400.0
        assert moment_of_cards({"DATE-OBS": text}, None) == pytest.approx(seconds, abs=1e-5)
        assert moment_of_cards({"DATE-OBS": text}, 8.0) == pytest.approx(seconds + 4.0, abs=1e-5)
        assert moment_of_cards({"MJD-OBS": mjd}, 8.0) == pytest.approx(seconds + 4.0, abs=1e-5)
        assert moment_of_cards({"MJD-AVG": mjd, "DATE-OBS": "2001-01-01T00:00:00"}, 8.0) == pytest.approx(
            seconds, abs=1e-5
        )
    day = moment_of_cards({"DATE-OBS": "2026-01-02", "TIME-OBS": "03:04:05"}, None)
    assert day == moment_of_cards({"DATE-OBS": "2026-01-02T03:04:05Z"}, None)


@pytest.mark.parametrize(
    ("system", "scale"),
    [("TT", "tt"), ("TAI", "tai"), ("TDB", "tdb"), ("UTC", "utc"), (" utc", "utc"), ("LOCAL", "utc")],
)
def test_a_moment_of_another_time_system_is_utc(system: str, scale: str) -> None:
    from astropy.time import Time

    text = "2026-01-02T03:04:05.250"
    expected = Time(text, scale=scale).utc.mjd
    found = moment_of_cards({"DATE-OBS": text, "TIMESYS": system}, None)
    assert found is not None
    assert (mjd_of(found) - expected) * 86400.0 == pytest.approx(0.0, abs=2e-6)
    gps = moment_of_cards({"DATE-OBS": text, "TIMESYS": "GPS"}, None)
    utc = moment_of_cards({"DATE-OBS": text}, None)
    assert gps is not None
    assert utc is not None
    assert utc - gps == pytest.approx(18.0, abs=1e-5)  # leap seconds since 1980


@pytest.mark.parametrize("value", ["2026-01-02", "02/01/26", "T", "", 5, True, "2026-13-40T99:00:00", None])
def test_a_date_that_says_too_little_is_no_time(value: object) -> None:
    assert moment_of_cards({"DATE-OBS": value}, 1.0) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 0, 1e9, True, "60000", None])
def test_a_strange_julian_date_is_no_time(value: object) -> None:
    assert moment_of_cards({"MJD-OBS": value}, 1.0) is None


def fits_folder(folder: Path, cards: list[dict[str, object]]) -> Path:
    folder.mkdir()
    for number, (frame, card) in enumerate(zip(FRAMES, cards, strict=False)):
        fits.PrimaryHDU(frame, fits.Header(card)).writeto(folder / f"f{number}.fits")
    return folder


def test_a_folder_of_fits_files_has_the_times_of_their_headers(tmp_path: Path) -> None:
    begins = (0.0, 2.5, 5.0, 20.0)
    cards = [{"DATE-OBS": f"2026-01-02T03:04:{time:04.1f}", "EXPTIME": 1.0 + time / 10.0} for time in begins]
    sequence = sequence_of_folder(fits_folder(tmp_path / "a", cards))
    for _ in range(2):  # going through it again fills them anew
        assert len(list(sequence)) == 4
        assert sequence.times == pytest.approx([begin * 1.05 for begin in begins], abs=1e-6)
    assert sequence.interval_s == pytest.approx(2.625, abs=1e-6)
    np.testing.assert_allclose(sequence.in_intervals(1, 3), [1.0, 2.0, 8.0], atol=1e-6)
    part = sequence_of_folder(tmp_path / "a", ReadOptions(frames=(2, 4)))
    assert len(list(part)) == 2
    assert part.times == pytest.approx([5.25, 21.0], abs=1e-6)


def test_a_clock_that_was_set_back_is_a_note(tmp_path: Path) -> None:
    cards = [{"MJD-OBS": 60000.0 + seconds / 86400.0} for seconds in (0.0, 1.0, -3600.0, 3.0)]
    sequence = sequence_of_folder(fits_folder(tmp_path / "a", cards))
    list(sequence)
    assert sequence.times == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-4) or sequence.times[2] > 1.0
    assert (np.diff(sequence.times) > 0).all()
    assert [note for note in sequence.notes if note.startswith("the time of frame 2 is missing or not after")]


def test_a_folder_without_times_has_none(tmp_path: Path) -> None:
    sequence = sequence_of_folder(fits_folder(tmp_path / "a", [{}, {"MJD-OBS": 60000.0}, {}, {}]))
    list(sequence)
    assert (sequence.times, sequence.interval_s) == ([], None)
    np.testing.assert_array_equal(sequence.in_intervals(2, 2), [2.0, 3.0])


def test_imagej_states_an_interval(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, imagej=True, metadata={"axes": "TYX", "finterval": 0.25})
    assert times_of(tmp_path / "a.tif") == [0.0, 0.25, 0.5, 0.75]
    assert times_of(tmp_path / "a.tif", ReadOptions(frames=(1, 3))) == [0.25, 0.5]
    tifffile.imwrite(tmp_path / "m.tif", FRAMES, imagej=True, metadata={"axes": "TYX", "finterval": 2, "tunit": "min"})
    assert times_of(tmp_path / "m.tif") == [0.0, 120.0, 240.0, 360.0]
    channels = FRAMES.reshape(2, 2, 20, 24)
    tifffile.imwrite(tmp_path / "c.tif", channels, imagej=True, metadata={"axes": "TCYX", "finterval": 3.0})
    assert times_of(tmp_path / "c.tif", ReadOptions(channel=1)) == [0.0, 3.0]
    for metadata in ({"axes": "TYX"}, {"axes": "TYX", "finterval": 0.0}, {"axes": "ZYX", "finterval": 1.0}):
        tifffile.imwrite(tmp_path / "n.tif", FRAMES, imagej=True, metadata=metadata)
        assert times_of(tmp_path / "n.tif") == []


def test_ome_states_the_time_of_each_plane(tmp_path: Path) -> None:
    plane = {"DeltaT": [0.0, 100.0, 350.0, 400.0], "DeltaTUnit": ["ms"] * 4}
    tifffile.imwrite(tmp_path / "a.ome.tif", FRAMES, metadata={"axes": "TYX", "Plane": plane}, ome=True)
    assert times_of(tmp_path / "a.ome.tif") == pytest.approx([0.0, 0.1, 0.35, 0.4])
    channels = FRAMES.reshape(2, 2, 20, 24)
    plane = {"DeltaT": [0.0, 1.0, 5.0, 6.5], "TheT": [0, 0, 1, 1], "TheC": [0, 1, 0, 1], "TheZ": [0] * 4}
    tifffile.imwrite(tmp_path / "c.ome.tif", channels, metadata={"axes": "TCYX", "Plane": plane}, ome=True)
    assert times_of(tmp_path / "c.ome.tif", ReadOptions(channel=1)) == [0.0, 5.5]
    tifffile.imwrite(
        tmp_path / "i.ome.tif", FRAMES, ome=True,
        metadata={"axes": "TYX", "TimeIncrement": 2.0, "TimeIncrementUnit": "s"},
    )  # fmt: skip
    assert times_of(tmp_path / "i.ome.tif") == [0.0, 2.0, 4.0, 6.0]
    tifffile.imwrite(tmp_path / "n.ome.tif", FRAMES, metadata={"axes": "TYX"}, ome=True)
    assert times_of(tmp_path / "n.ome.tif") == []


def test_times_that_repeat_are_not_used(tmp_path: Path) -> None:
    plane = {"DeltaT": [7.0] * 4, "DeltaTUnit": ["s"] * 4}
    tifffile.imwrite(tmp_path / "a.ome.tif", FRAMES, metadata={"axes": "TYX", "Plane": plane}, ome=True)
    stack = read_image(tmp_path / "a.ome.tif")
    assert stack.times is None
    assert any("do not increase" in note for note in stack.notes)


def test_a_video_has_the_times_of_its_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 20, "gray"
        stream.time_base = Fraction(1, 1000)
        for image, time in zip(FRAMES, (0, 100, 300, 900), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="gray")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    sequence = sequence_of_video(path)
    assert len(list(sequence)) == 4
    assert sequence.times == pytest.approx([0.0, 0.1, 0.3, 0.9])
    assert sequence.interval_s == pytest.approx(0.1, rel=0.9)
    part = sequence_of_video(path, options=ReadOptions(frames=(2, None)))
    assert len(list(part)) == 2
    assert part.times == pytest.approx([0.3, 0.9])


def test_without_times_it_is_one_line() -> None:
    with pytest.raises(InputError, match=r"a\.npy states no times of its frames .* leave out --times"):
        check_timed(None, 5, "a.npy")
    with pytest.raises(InputError, match=r"a\.fits is one image"):
        check_timed(None, 1, "a.fits")
    check_timed(0.5, 0, "a.mkv")
