"""`csist limits`: figures, table of bounds, and one line for what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import Run, refused

from csist.datasets import generate, load
from csist.methods.continuous.limit import posterior_limit
from csist.metrics import cso_map
from csist.physics.bounds import cramer_rao_bound

QUICKLY = ("--limit", "5", "--steps", "2000", "--resamples", "20")


def test_figures_and_table(run: Run, tmp_path: Path) -> None:
    store = generate(tmp_path / "data.h5", 60, seed=5)
    code, out, err = run("limits", store, *QUICKLY, "--json", "limits.json", "-o", "bounds.csv")
    assert (code, err) == (0, "")
    assert "data.h5, test: 5 images" in out
    assert "they agree" in out or "they do not agree" in out
    split = load(store)["test"].limit(5)
    figures = json.loads(Path("limits.json").read_text())
    posterior = figures["posterior"]
    direct = posterior_limit(split.images, split.targets, split.sensor, split.prior, steps=2000)
    ends = []
    for name, found in zip(("from_truth", "from_modes"), direct, strict=True):
        expected = cso_map(found, split.targets)
        ends.append(expected["CSO-mAP"])
        assert {key: value for key, (value, _, _) in posterior[name].items()} == pytest.approx(expected)
        assert all(low <= high for _, low, high in posterior[name].values())
        assert f"{expected['AP05']:.2f}" in out
    assert posterior["bracket"] == [min(ends), max(ends)]
    assert posterior["agree"] == (posterior["difference"][1] <= 0 <= posterior["difference"][2])
    assert figures["cramer_rao"][-1]["targets"] == sum(map(len, split.targets))

    table = pd.read_csv("bounds.csv")
    assert table["frame"].tolist() == [i for i, truth in enumerate(split.targets) for _ in range(len(truth))]
    bounds = [cramer_rao_bound(truth, split.sensor) for truth in split.targets]
    for name in ("x", "y", "intensity"):
        np.testing.assert_allclose(table[name], np.concatenate([getattr(t, name) for t in split.targets]))
        np.testing.assert_allclose(table[f"bound_{name}"], np.concatenate([getattr(b, name) for b in bounds]))


def test_targets_anywhere_have_both_limits(run: Run) -> None:
    assert run("generate", "flat.h5", "--count", "10", "--bits", "float", "--noise-std", "2", "--prior", "flat")[0] == 0
    code, out, _ = run("limits", "flat.h5", "--split", "val", "--steps", "2000")
    assert code == 0
    assert "Cramer-Rao bound" in out
    code, out, _ = run("limits", "flat.h5", "--steps", "2000", "--json", "-")
    figures = json.loads(out)
    assert figures["posterior"]["from_truth"]["CSO-mAP"][0] > 0
    assert figures["posterior_missing"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.h5"], "nowhere.h5"),
        (["DATA", "--split", "best"], "has no split 'best'"),
        (["DATA", "--limit", "0"], "limit must be a whole number >= 1, got 0"),
        (["DATA", "--steps", "0"], "steps must be a whole number >= 1, got 0"),
        (["DATA", "--workers", "-1"], "workers must be a whole number >= 1, got -1"),
        (["DATA", "--resamples", "0"], "resamples must be a whole number >= 1, got 0"),
        (["DATA", "-o", "bounds.txt"], "bounds.txt"),
        (["DATA", "-o", "missing/bounds.csv"], "missing/bounds.csv"),
        (["DATA", "-o", "a.csv", "--json", "a.csv"], "a.csv: two outputs have this name"),
        (["perfect.h5"], "neither noise nor rounding"),
    ],
)
def test_bad_use_gets_one_line(run: Run, store: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    if "perfect.h5" in arguments:
        assert run("generate", "perfect.h5", "--count", "10", "--bits", "float")[0] == 0
    before = sorted(tmp_path.iterdir())
    refused(run("limits", *(str(store) if each == "DATA" else each for each in arguments)), said)
    assert sorted(tmp_path.iterdir()) == before
