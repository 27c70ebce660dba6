"""`csist evaluate`: figures of methods and tables, and one line for data that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import PRIOR, QUICK, SENSOR, STACK, Run, refused
from PIL import Image

import csist
from csist.checks import InputError
from csist.datasets import generate, load, write_store
from csist.evaluation import LabelledImages, read_predictions
from csist.io.store import SplitArrays


def test_evaluate_scores_methods_and_predictions(run: Run, store: Path) -> None:
    assert run("unmix", store, "--prior", "csist-100k", "--mode", "fast", "-o", "found.csv")[0] == 0
    code, out, err = run(
        "evaluate", store, "--method", "continuous", "--method", "fista", "--ratio", "2", "--mode", "fast",
        "--predictions", "found.csv",
        "--resamples", "50", "--json", "figures.json", "--plot", "figures.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["data"]["images"], figures["ratio"]) == (4, 2)
    rows = {row["name"]: row for row in figures["rows"]}
    assert list(rows) == [
        "continuous", "fista", "found.csv", "oracle, ratio 2, by intensity", "oracle, ratio 2, by closeness",
    ]  # fmt: skip
    split = load(store)["test"]
    direct = csist.unmix(split.images, split.sensor, PRIOR, mode="fast", noise_std=1.0)
    expected = csist.metrics.cso_map(direct, split.targets)
    for name in ("continuous", "found.csv"):
        assert {key: rows[name][key] for key in expected} == expected
        assert rows[name]["calibration"]["expected_calibration_error"] >= 0
        assert rows[name]["coverage"]["x_within_1"] >= 0
    assert rows["continuous"]["images_per_second"] > 0
    assert rows["fista"]["psnr"] > 0
    assert 0 < rows["fista"]["ssim"] <= 1
    assert rows["fista"]["calibration"] is None
    assert rows["oracle, ratio 2, by closeness"]["count_accuracy"] == 100.0
    low, high = rows["continuous"]["interval"]
    assert low <= rows["continuous"]["CSO-mAP"] <= high
    for word in ("CSO-mAP", "AP05", "by intensity", "count %", "PSNR dB", "images/s"):
        assert word in out
    assert Path("figures.png").stat().st_size > 1000


def test_tables_of_the_same_name_have_a_row_each(run: Run, store: Path) -> None:
    for folder, mode in (("a", "fast"), ("b", "accurate")):
        Path(folder).mkdir()
        assert run("unmix", store, "--prior", "csist-100k", "--mode", mode, "-o", f"{folder}/t.csv")[0] == 0
    tables = [word for folder in "ab" for word in ("--predictions", f"{folder}/t.csv")]
    assert run("evaluate", store, *tables, "--no-oracle", "--resamples", "0", "--json", "r.json")[0] == 0
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["a/t.csv", "b/t.csv"]


def test_the_exact_map_is_the_ceiling_of_maps(run: Run, store: Path) -> None:
    options = ("evaluate", store, "--method", "fista", "--exact-map", "--no-oracle", "--resamples", "0")
    code, out, _ = run(*options, "--json", "figures.json")
    assert code == 0
    fista, exact = json.loads(Path("figures.json").read_text())["rows"]
    assert (exact["name"], exact["reference"], exact["squared_error_ratio"]) == ("exact map", True, 1.0)
    assert fista["squared_error_ratio"] == pytest.approx(fista["squared_error"] / exact["squared_error"])
    assert "times exact map's" in out
    refused(run(*options, "--prior", "flat"), "the exact map needs groups inside one pixel")


def test_evaluate_reads_a_grokcso_folder(run: Run, tmp_path: Path) -> None:
    generate(tmp_path / "folder", 20, seed=1, layout="grokcso")
    images = tmp_path / "folder" / "test" / "cso_img"
    assert run("unmix", images, *QUICK, "-o", "found.csv")[0] == 0
    truth = csist.datasets.read_grokcso(tmp_path / "folder").splits["test"]
    code, out, _ = run("evaluate", "folder", "--predictions", "found.csv", "--json", "-", "--resamples", "0")
    assert code == 0
    row = json.loads(out)["rows"][0]
    assert row["detections"] == truth.count.sum()
    assert row["count_accuracy"] == 100.0
    assert row["interval"] is None


def test_images_of_another_split_are_not_taken_for_those_of_the_same_name(tmp_path: Path) -> None:
    store = csist.Targets([1.0], [1.0], [1.0])
    names = [("image_0.png", 0), ("image_1.png", 0)]
    data = LabelledImages(tmp_path, "test", np.zeros((2, 5, 5)), [store] * 2, SENSOR, PRIOR, names, 2)

    def table(*rows: str) -> Path:
        path = tmp_path / "t.csv"
        path.write_text("image,frame,x,y,intensity\n" + "".join(f"{row},0,1,2,3\n" for row in rows))
        return path

    found = read_predictions(table("test/cso_img/image_1.png"), data)
    assert [len(targets) for targets in found] == [0, 1]
    with pytest.raises(InputError, match=r"image val/cso_img/image_1\.png, frame 0, which the split test"):
        read_predictions(table("test/cso_img/image_1.png", "val/cso_img/image_1.png"), data)
    with pytest.raises(InputError, match=r"targets of two images named image_1\.png, frame 0"):
        read_predictions(table("a/image_1.png", "b/image_1.png"), data)
    shouted = table("image_0.png")
    shouted.write_text(shouted.read_text().upper().replace("IMAGE_0.PNG", "image_0.png"))
    assert [len(targets) for targets in read_predictions(shouted, data)] == [1, 0]


def test_the_limit_takes_the_first_images(run: Run, store: Path) -> None:
    code, out, _ = run(
        "evaluate", store, "--limit", "2", "--mode", "fast", "--resamples", "0", "--no-oracle", "--json", "-"
    )
    assert code == 0
    figures = json.loads(out)
    assert (figures["data"]["images"], figures["data"]["images_in_split"]) == (2, 4)
    assert [row["name"] for row in figures["rows"]] == ["continuous"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.h5"], "nowhere.h5"),
        (["DATA", "--split", "best"], "has no split 'best'"),
        (["DATA", "--limit", "0"], "limit must be a whole number >= 1, got 0"),
        (["DATA", "--method", "ista", "--method", "ista"], "given twice"),
        (["DATA", "--method", "lista"], "no trained weights of lista"),
        (["DATA", "--method", "nothing-like-it-at-all"], "unknown method"),
        (["DATA", "--weights", "w.safetensors", "--predictions", "a.csv"], "needs exactly one --method"),
        (["DATA", "--predictions", "nowhere.csv"], "nowhere.csv"),
        (["DATA", "--predictions", "far.csv"], "far.csv has targets of image data.h5, frame 4"),
        (["DATA", "--predictions", "two.csv"], "two.csv has targets of 2 files"),
        (["DATA", "--plot", "missing/a.png"], "missing/a.png"),
        (["DATA", "--ratio", "0"], "ratio"),
        (["text.h5"], "text.h5: it is not an HDF5 file"),
        (["text.txt"], "text.txt"),
        (["empty"], "cannot evaluate on empty"),
        (["bomb"], "CSO0.xml"),
        (["lacking"], "CSO0.xml lacks the field coordinate/brightness"),
        (["vacant.h5", "--split", "train"], "holds no image"),
    ],
)  # fmt: skip
def test_bad_data_gets_one_line(run: Run, store: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "text.txt").write_text("no data")
    (tmp_path / "empty").mkdir()
    rows = "image,frame,x,y,intensity\n"
    (tmp_path / "far.csv").write_text(rows + "data.h5,4,1,1,1\n")
    (tmp_path / "two.csv").write_text(rows + "a.h5,0,1,1,1\nb.h5,0,1,1,1\n")
    for name, text in (
        ("bomb", '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'),
        ("lacking", "<annotation><size><width>11</width><height>11</height></size><sigma>0.5</sigma>"
         "<object><coordinate><xc>5</xc><yc>5</yc></coordinate></object></annotation>"),
    ):  # fmt: skip
        for part in ("cso_img", "Annotations"):
            (tmp_path / name / part).mkdir(parents=True)
        Image.fromarray(STACK[0].clip(0).astype(np.uint16)).save(tmp_path / name / "cso_img" / "image_0.png")
        (tmp_path / name / "Annotations" / "CSO0.xml").write_text(text)
    nothing = SplitArrays(np.zeros((0, 11, 11), np.uint16), np.zeros((0, 5, 3)), np.zeros(0, np.int64))
    write_store(tmp_path / "vacant.h5", {"train": nothing}, SENSOR)
    before = sorted(tmp_path.iterdir())
    refused(run("evaluate", *(str(store) if each == "DATA" else each for each in arguments)), said)
    assert sorted(tmp_path.iterdir()) == before


def test_benchmark_writes_figures_and_a_picture(run: Run, tmp_path: Path) -> None:
    generate(tmp_path / "some.h5", 40, seed=1)
    arguments = ("benchmark", "--data", "some.h5", "--ratio", "3", "--method", "ista-net", "--limit-images", "0")
    code, out, err = run(*arguments, "-o", "results", "--kept", "kept")
    assert (code, err) == (0, "") and "ista-net" in out and "oracle" in out
    figures = json.loads(Path("results/csist-100k-ratio-3.json").read_text())
    assert figures["ratio"] == 3 and figures["rows"][0]["name"] == "ista-net"
    assert Path("results/csist-100k-ratio-3.png").stat().st_size > 1000
    again = ("--method", "fista", "-o", "results", "--kept", "kept")
    assert run(*arguments[:5], *again, "--limit-images", "0")[0] == 0
    names = [row["name"] for row in json.loads(Path("results/csist-100k-ratio-3.json").read_text())["rows"]]
    assert names[:2] == ["ista-net", "fista"] and len(names) == 4
    refused(run("benchmark"), "no images: give --data; `csist generate")
    refused(run(*arguments[:3], "--limit-images", "-1"), "--limit-images must be a whole number >= 0, got -1")
    refused(run("benchmark", "--data", "nothing.h5"), "nothing.h5")


def test_frames_of_sequences_are_scored_without_the_prior_of_the_first(run: Run, tmp_path: Path) -> None:
    run("generate", "s.h5", "--sequence", "--count", "10", "--noise-std", "1", "--seed", "9")
    code, _, error = run(
        "evaluate", "s.h5", "--mode", "fast", "--limit", "20", "--resamples", "0", "--no-oracle", "--json", "r.json"
    )
    assert code == 0, error
    row = json.loads((tmp_path / "r.json").read_text())["rows"][0]
    # Later the targets are in pixels of their own; by the prior of one pixel the score was 29.
    assert row["CSO-mAP"] > 60.0


def test_tracks_of_sequences_are_scored(run: Run, tmp_path: Path) -> None:
    from csist.datasets import generate_sequences

    store = generate_sequences(tmp_path / "sequences.h5", 7, seed=1, noise_std=1.0)
    assert run("unmix", store, "--joint", 20, "--mode", "fast", "-o", "joint.csv")[0] == 0
    code, out, err = run(
        "evaluate", store, "--method", "continuous", "--mode", "fast", "--predictions", "joint.csv", "--resamples", "0",
        "--json", "figures.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    heading = next(place for place, line in enumerate(out.splitlines()) if "track mAP" in line)
    assert max(map(len, out.splitlines()[heading:])) <= 80
    rows = {row["name"]: row.get("tracks") for row in json.loads(Path("figures.json").read_text())["rows"]}
    joint, alone = rows["joint.csv"], rows["continuous"]
    assert joint["found_tracks"] == joint["true_tracks"] == alone["true_tracks"]
    assert joint["identity_switches"] == 0
    assert joint["track_map"] >= alone["track_map"]
    assert [tracks for name, tracks in rows.items() if name.startswith("oracle")] == [None, None]


def test_detections_without_a_score_get_a_note(run: Run, store: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"{store.name},{k},5.0,5.0,230" for k in range(3))
    (tmp_path / "own.csv").write_text("image,frame,x,y,intensity\n" + rows + "\n")
    code, _, error = run("evaluate", store, "--predictions", "own.csv", "--resamples", "0", "--no-oracle")
    assert code == 0
    assert "own.csv states no score" in error
    (tmp_path / "own.csv").write_text("frame,x,y\n0,5.0,5.0\n")
    refused(run("evaluate", store, "--predictions", "own.csv"), "it lacks the column image, intensity; give image")
