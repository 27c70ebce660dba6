"""Tables in every form, and for other programs, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Run, frame, refused, rows_of, windows

from csist.io import read_targets_table

FAST = ("--mode", "fast", "--psf-sigma", "1.1")


@pytest.fixture
def sky(tmp_path: Path) -> Path:
    np.save(tmp_path / "sky.npy", np.stack([frame(0), frame(1)]))
    return tmp_path


def test_every_form_holds_the_same(run: Run, sky: Path) -> None:
    pytest.importorskip("astropy", reason="needs the extra `astro`")
    tables = []
    for suffix in (".csv", ".parquet", ".fits", ".ecsv"):
        groups = f"groups{suffix}"
        assert run("unmix", "sky.npy", *FAST, "-o", f"t{suffix}", "--groups", groups, "--json", "j.json")[0] == 0
        tables.append(read_targets_table(f"t{suffix}"))
        assert (sky / groups).stat().st_size > 100
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert len(tables[0]) == 2
    assert not list(sky.glob("*partial*"))


def test_metadata_tell_of_the_run(run: Run, sky: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    (sky / "card.json").write_text(json.dumps({"psf": {"kind": "gaussian", "sigma_px": 1.1}, "gain": 2.0}))
    options = ("--mode", "fast", "--sensor", "card.json", "--frames", "0:1", "--zero-point", "25")
    run("unmix", "sky.npy", *options, "-o", "t.parquet", "--json", "j.json")
    told = json.loads(pq.read_schema("t.parquet").metadata[b"csist"])
    assert told["sensor"]["gain"] == 2.0
    assert (told["options"]["method"], told["options"]["mode"]) == ("continuous", "fast")
    assert told["options"]["reading"]["frames"] == [0, 1]
    assert told["options"]["quantities"]["zero_point"] == 25.0
    assert told["csist_version"]
    figures = json.loads((sky / "j.json").read_text())
    assert told.items() <= figures.items()  # a CSV file has no place for them


def test_other_programs_and_regions(run: Run, sky: Path) -> None:
    pytest.importorskip("regions", reason="needs the extra `astro`")
    assert run("unmix", "sky.npy", *FAST, "--regions", "t.reg", "-o", "t.csv")[0] == 0
    own = rows_of("t.csv")
    assert (sky / "t.reg").read_text().count("circle(") == len(own)
    assert run("unmix", "sky.npy", *FAST, "--format", "thunderstorm", "-o", "u.csv")[0] == 0
    for one, other in zip(own, rows_of("u.csv"), strict=True):
        assert float(other["x [px]"]) == pytest.approx(float(one["x"]) + 0.5)
        assert other["sigma [px]"] == "1.1"
    assert run("unmix", "sky.npy", *FAST, "--format", "picasso", "-o", "p.hdf5")[0] == 0
    text = (sky / "p.yaml").read_text()
    assert "Frames: 2\n" in text
    assert "Height: 60\n" in text
    assert "Width: 90\n" in text
    counts = "fluxes are in counts, as the gain is not known: --gain makes them photons"
    for gain, said in (([], True), (["--gain", 2.0], False)):
        code, out, err = run("unmix", "sky.npy", *FAST, *gain, "--format", "thunderstorm", "-o", "u.csv")
        assert code == 0
        assert (counts in " ".join((out + err).split())) is said
        assert ("intensity [ADU]" in rows_of("u.csv")[0]) is said
    windows(sky / "w.npy")
    refused(
        run("unmix", "sky.npy", "w.npy", "--format", "napari"), "--format napari holds one image, stack or sequence"
    )
    refused(run("unmix", "sky.npy", "--format", "csv"), "format must be one of")
    refused(run("unmix", "sky.npy", "-o", "t.txt"), "must end in .csv or .parquet or .fits or .ecsv")
    refused(run("unmix", "sky.npy", "--regions", "t.csv"), "must end in .reg")
