"""What `csist unmix` says at its end, and the pictures and videos that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import QUICK, SENSOR, SKY, SPOTS, Run, frame, refused, summary_rows, windows
from PIL import Image

import csist

FAST = ("--mode", "fast")


def test_the_summary_of_a_frame(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", frame())
    code, out, _ = run("unmix", "sky.npy", *FAST, "--psf-sigma", "1.1", "--json", "s.json")
    assert code == 0
    result = csist.unmix_frame(frame(), psf=1.1, mode="fast")
    found = json.loads(Path("s.json").read_text())
    assert found["psf_sigma_px"] == {"median": 1.1, "min": 1.1, "max": 1.1, "known": ["given"]}
    assert found["noise_std"]["known"] == found["background"]["known"] == ["measured"]
    assert found["noise_std"]["median"] == pytest.approx(float(np.median(result.noise)))
    assert found["background"]["median"] == pytest.approx(float(np.median(result.background)))
    assert found["threshold"]["median"] == result.threshold
    assert (found["targets"], found["groups"]) == (len(result.targets), len(result.groups))
    rows = summary_rows(out)
    assert rows["PSF"] == "sigma 1.10 px, given"
    assert rows["noise"].endswith("counts, measured") and rows["background"].endswith("counts, measured")
    assert rows["threshold"] == f"{result.threshold:.2f} standard deviations"
    assert rows["targets"] == f"{len(result.targets)} in {len(result.groups)} groups"


@pytest.mark.parametrize(
    ("options", "psf", "noise"),
    [
        ((), "guessed", "measured"),
        (("--noise-std", "2"), "guessed", "given"),
        (("--sensor", "sky.json"), "given", "given"),
        (("--error", "error.npy", "--psf-sigma", "1.1"), "given", "given for each pixel"),
    ],
)
def test_how_a_frame_is_known(run: Run, tmp_path: Path, options: tuple[str, ...], psf: str, noise: str) -> None:
    np.save(tmp_path / "sky.npy", frame())
    np.save(tmp_path / "error.npy", np.full(SKY.shape, 2.0))
    Path("sky.json").write_text(json.dumps(SKY.to_card()))
    assert run("unmix", "sky.npy", *FAST, *options, "--json", "s.json")[0] == 0
    found = json.loads(Path("s.json").read_text())
    assert (found["psf_sigma_px"]["known"], found["noise_std"]["known"]) == ([psf], [noise])
    assert found["noise_std"]["median"] == pytest.approx(2.0, rel=0.15)


def test_how_windows_are_known(run: Run, tmp_path: Path) -> None:
    windows(tmp_path / "a.npy")
    Path("card.json").write_text(json.dumps(SENSOR.to_card()))
    for options, expected in (
        (("--noise-std", "1"), ("assumed", "given", "assumed")),
        (("--noise-std", "0"), ("assumed", "given", "assumed")),
        ((), ("assumed", "measured", "assumed")),
        (("--sensor", "card.json"), ("given", "given", "given")),
        (("--psf-sigma", "0.5", "--background", "0"), ("given", "measured", "given")),
    ):
        assert run("unmix", "a.npy", "--prior", "csist-100k", *FAST, *options, "--json", "s.json")[0] == 0
        found = json.loads(Path("s.json").read_text())
        assert tuple(found[name]["known"][0] for name in ("psf_sigma_px", "noise_std", "background")) == expected
        assert "threshold" not in found and found["groups"] == 5


def test_values_of_several_frames_come_with_their_range(run: Run, tmp_path: Path) -> None:
    brighter = frame(1) + 20.0
    np.save(tmp_path / "a.npy", np.stack([frame(), brighter]))
    code, out, _ = run("unmix", "a.npy", *FAST, "--psf-sigma", "1.1", "--json", "s.json")
    assert code == 0
    level = json.loads(Path("s.json").read_text())["background"]
    assert level["max"] - level["min"] == pytest.approx(20.0, abs=1.0)
    assert level["median"] == pytest.approx((level["min"] + level["max"]) / 2)
    assert f"({level['min']:.1f} to {level['max']:.1f}), measured" in summary_rows(out)["background"]


def test_pixels_and_flags_are_named(run: Run, tmp_path: Path) -> None:
    sky = np.minimum(frame(), 200.0)  # the brightest pixels are clipped
    sky[31, 23] = np.nan
    sky[50, 70] = 4000.0
    np.save(tmp_path / "sky.npy", sky)
    code, out, _ = run(
        "unmix", "sky.npy", *FAST, "--psf-sigma", "1.1", "--saturation", "200", "--json", "s.json", "--plot", "p.svg"
    )
    assert code == 0
    found, rows = json.loads(Path("s.json").read_text()), summary_rows(out)
    assert found["pixels_by_kind"]["nan"] == 1
    assert "1 without a value" in rows["masked pixels"]
    assert rows["saturated pixels"] == str(found["pixels_by_kind"]["saturated"])
    assert found["flags"]["masked"] >= 1 and found["flags"]["saturated"] >= 1
    assert f"{found['flags']['masked']} masked" in rows["flagged targets"]
    assert found["flagged"] <= found["targets"]
    assert "1 without a value" in Path("p.svg").read_text()


def test_the_single_picture_is_named(run: Run, tmp_path: Path) -> None:
    lone = SKY.observe(SPOTS[2:], 1)
    np.save(tmp_path / "a.npy", np.stack([lone, frame(), lone]))
    code, out, _ = run("unmix", "a.npy", *FAST, "--psf-sigma", "1.1", "--plot", "p.png", "--json", "s.json")
    assert code == 0
    assert summary_rows(out)["picture"].startswith("p.png shows a.npy, frame 1: ")
    assert json.loads(Path("s.json").read_text())["pictures"] == [summary_rows(out)["picture"]]


def test_a_picture_of_each_image(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    np.save(tmp_path / "in" / "a.npy", np.stack([frame(0), frame(1)]))
    Image.fromarray(frame(2).astype(np.uint8)).save(tmp_path / "in" / "a.png")
    windows(tmp_path / "in" / "sub" / "w.npy", 2)
    code, out, _ = run("unmix", "in", "--mode", "fast", "--plots", "pictures")
    assert code == 0
    names = sorted(path.relative_to("pictures").as_posix() for path in Path("pictures").rglob("*.png"))
    assert names == ["a-00000.png", "a-00001.png", "a.png.png", "sub/w-00000.png", "sub/w-00001.png"]
    assert summary_rows(out)["picture"] == "pictures holds 5 pictures"
    refused(run("unmix", "in/a.png", "--plots", "pictures"), "cannot write pictures: it already exists")


def test_pictures_stay_in_their_folder(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        windows(tmp_path / name / "a.npy", 1)
    (tmp_path / "here").mkdir()
    before = set(tmp_path.rglob("*.png"))
    inputs = (f"../{tmp_path.name}/one/a.npy", f"{tmp_path}/two/a.npy")
    assert run("unmix", *inputs, *QUICK, "--plots", "here")[0] == 0
    made = set(tmp_path.rglob("*.png")) - before
    assert len(made) == 2 and all(path.is_relative_to(tmp_path / "here") for path in made)


def test_an_annotated_video(run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    np.save(tmp_path / "a.npy", np.stack([frame(seed) for seed in range(4)]))
    code, out, _ = run("unmix", "a.npy", *FAST, "--psf-sigma", "1.1", "--video", "v.mp4")
    assert code == 0
    assert summary_rows(out)["picture"] == "v.mp4 shows the frames with targets and tracks"
    with av.open("v.mp4") as container:
        pictures = [shown.to_ndarray(format="rgb24") for shown in container.decode(video=0)]
    assert len(pictures) == 4
    scale = 8  # the smallest that makes 90 px at least 640 pixels
    assert pictures[0].shape == (60 * scale, 90 * scale, 3)
    x, y = ((place + 0.5) * scale for place in (SPOTS.x[2], SPOTS.y[2]))
    near = pictures[3][int(y) - 12 : int(y) + 13, int(x) - 12 : int(x) + 13].astype(int)
    assert (near[..., 0] - near[..., 2] > 60).sum() > 30  # the orange circle
    assert (np.ptp(pictures[3][350:].astype(int), axis=2) < 40).all()  # grey where there is nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "targets.csv", "v.mp4"]


def test_a_video_needs_one_sequence(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("av")
    np.save(tmp_path / "a.npy", frame())
    np.save(tmp_path / "b.npy", np.stack([frame(), np.full(SKY.shape, np.inf)]))
    before = sorted(tmp_path.iterdir())
    refused(run("unmix", "a.npy", *FAST, "--video", "v.mp4"), "a.npy is one image: use --plot")
    refused(run("unmix", "a.npy", "b.npy", "--video", "v.mp4"), "--video shows one sequence, got 2 files")
    refused(run("unmix", "a.npy", "--video", "v.avi"), "v.avi: its name must end in .mp4 or .mkv")
    refused(run("unmix", "b.npy", *FAST, "--video", "v.mp4"), "infinite")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_announced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep" / "er").mkdir(parents=True)
    windows(tmp_path / "in" / "a.npy", 1)
    windows(tmp_path / "in" / "deep" / "er" / "b.npy", 1)
    (tmp_path / "in" / "v.mp4").write_bytes(b"")
    code, _, err = run("unmix", "in", *QUICK)
    assert code == 1  # the video is empty
    assert err.splitlines()[0] == "csist: in: 2 image files and 1 video, sub-folders 2 deep"
    assert run("unmix", "in/deep", "--sequence", "--joint", "2", *QUICK)[2].startswith("csist: in/deep: 1 image file,")


def test_the_summary_says_that_values_are_taken_as_photons(run: Run, tmp_path: Path) -> None:
    rng, sky = np.random.default_rng(0), csist.Sensor(csist.GaussianPSF(1.3), shape=(64, 64), quantised=False)
    molecules = csist.Targets(*rng.uniform(3, 60, (2, 14)), np.exp(rng.uniform(6.5, 8.5, 14)))
    np.save(tmp_path / "photons.npy", rng.poisson(sky.render(molecules) + 20.0).astype(np.uint16))
    code, out, _ = run("unmix", "photons.npy", "--psf-sigma", 1.3, *FAST, "--json", "s.json")
    assert code == 0
    assumed = "1 electron per count: the values are numbers of photons"
    assert summary_rows(out)["gain"] == assumed
    assert json.loads(Path("s.json").read_text())["gain_assumptions"] == {assumed: 1}
    assert "gain " not in run("unmix", "photons.npy", "--psf-sigma", 1.3, "--gain", 1, *FAST)[1]


def test_the_summary_says_what_is_not_known_of_photons(run: Run, tmp_path: Path) -> None:
    rng, sky = np.random.default_rng(0), csist.Sensor(csist.GaussianPSF(1.3), shape=(64, 64), quantised=False)
    stars = csist.Targets([12.0, 40.0, 30.0], [15.0, 20.0, 50.0], [250.0, 400.0, 9000.0])
    frame = rng.poisson(2.0 * (sky.render(stars) + 150.0)) / 2.0 + rng.normal(0.0, 4.0, (64, 64))
    np.save(tmp_path / "raw.npy", np.rint(frame + 10_000.0).astype(np.uint16))  # once a noise of 71 counts, not of 9.5
    code, out, _ = run("unmix", "raw.npy", "--psf-sigma", 1.3, *FAST, "--gain", 2, "--read-noise", 4)
    assert code == 0
    rows = summary_rows(out)
    assert float(rows["noise"].split()[0]) == pytest.approx(9.5, rel=0.1)
    assert float(rows["gain"].split()[0]) == pytest.approx(10_000.0, rel=0.01)
    assert "an offset" in rows["gain"]
    assert rows["targets"].startswith("3")
    assert "without the photons" in summary_rows(run("unmix", "raw.npy", "--psf-sigma", 1.3, *FAST)[1])["gain"]
    faint = np.rint(sky.render(stars[:2]) + 150.0 + rng.normal(0.0, 9.5, (64, 64)))
    np.save(tmp_path / "faint.npy", faint)
    assert "gain" not in summary_rows(run("unmix", "faint.npy", "--psf-sigma", 1.3, *FAST)[1])


def test_the_summary_says_why_there_are_no_targets_and_what_was_assumed(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.full((20, 30), 7.0))
    code, out, _ = run("unmix", "flat.npy", *FAST, "--json", "s.json")
    reason, assumed = "all 600 usable pixels have the same value, 7", "Gaussian of sigma 1 px: no spot shows its width"
    assert code == 0
    rows, found = summary_rows(out), json.loads(Path("s.json").read_text())
    assert (rows["no targets"], rows["PSF assumed"]) == (reason, assumed)
    assert (found["empty_reasons"], found["psf_assumptions"]) == ({reason: 1}, {assumed: 1})
