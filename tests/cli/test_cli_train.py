"""`csist train`: what it leaves, how it is cut off and resumed, and one line for bad use."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import Run, refused

pytest.importorskip("lightning")

import csist
from csist.datasets import generate
from csist.training import TrainingConfig, TrainingResult
from csist.training.config import FLAGS, descriptions
from csist.training.module import UnmixingModule

SENSOR = csist.Sensor(shape=(5, 5))
TINY = ("--batch-size", 16, "--val-limit", 4, "--accelerator", "cpu", "--sensor", "card.json")


@pytest.fixture(autouse=True)
def card(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(SENSOR.to_card()))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that the training is called with, instead of a training."""
    kept: dict[str, Any] = {"first_process": True}

    def fake(name: str, config: TrainingConfig, **_: Any) -> TrainingResult:
        kept.update(vars(config), name=name)
        ratio = config.ratio
        figures = {"method": name, "ratio": ratio, "score": {"interval_95": [1.0, 2.0], "images": 4}}
        return TrainingResult(Path("w.safetensors"), figures, 128, 0.5, float("nan"), kept["first_process"])

    monkeypatch.setattr("csist.training.run.train", fake)
    return kept


def test_a_tiny_training_and_its_continuation(run: Run) -> None:
    two_stages = ("train", "ista_net", "--option", "stages=2", *TINY)
    code, out, err = run(*two_stages, "--max-samples", 128)
    assert code == 0
    assert "128 samples" in err  # the log of the last validation
    weights = Path("runs/ista-net/ista-net-c3.safetensors")
    for said in ("ista-net, ratio 3", "on 4 validation images", "samples  128", str(weights)):
        assert said in out
    assert {path.name for path in weights.parent.iterdir()} == {
        weights.name, "ista-net-c3.json", "last.ckpt", "csv", "tensorboard",
    }  # fmt: skip
    method = csist.create_method("ista-net", pretrained=weights)
    assert (len(method.stages), method.sensor) == (2, SENSOR)

    refused(run(*two_stages, "--max-samples", 192), "runs/ista-net holds an earlier training")
    other = ("train", "ista-net", "--option", "stages=1", *TINY)
    refused(run(*other, "--max-samples", 192, "--resume"), "begun with another method, ratio or other options")

    code, out, err = run(*two_stages, "--max-samples", 192, "--resume", "--json", "-", "--plot", "curves.png")
    assert code == 0 and Path("curves.png").stat().st_size > 1000
    assert "times the exact map's; its CSO-mAP" in err
    figures = json.loads(out)
    assert (figures["samples"], figures["method"], figures["weights"]) == (192, "ista-net", str(weights))
    assert figures["card"]["options"] == {"stages": 2}
    low, high = figures["interval_95"]
    assert low <= figures["cso_map"] <= high


def test_a_store_brings_sensor_and_truth(run: Run, tmp_path: Path) -> None:
    generate(tmp_path / "data.h5", 40, seed=1, sensor=SENSOR)
    options = ("--data", "data.h5", "--option", "stages=1", "--max-samples", 32, "--ratio", 2, "-o", "out")
    assert run("train", "ista-net", *options, *TINY[:-2], "--json", "out.json")[0] == 0
    card = json.loads(Path("out.json").read_text())["card"]
    assert (card["training"]["data"], card["sensor"]["shape"], card["ratio"]) == ("data.h5", [5, 5], 2)
    refused(run("train", "ista-net", *options, *TINY), "data.h5 has its own sensor")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    ends = UnmixingModule.on_train_batch_end

    def pressed(module: UnmixingModule, *arguments: Any) -> None:
        ends(module, *arguments)
        if module.trainer.global_step == 2:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(UnmixingModule, "on_train_batch_end", pressed)
    before = signal.getsignal(signal.SIGINT)
    long = ("train", "ista-net", "--option", "stages=1", *TINY, "--max-samples", 100_000, "-o", "out")
    code, out, err = run(*long)
    assert (code, out) == (130, "")
    assert signal.getsignal(signal.SIGINT) is before
    last = err.splitlines()[-1]
    if times == 2:  # at once, before anything was kept
        assert last == "csist: interrupted: out holds no checkpoint yet, start again"
        return
    assert last.startswith("csist: interrupted: all ")
    assert "out/last.ckpt, continue with the same command and --resume" in last
    done = int(last.split()[3])
    assert done < 100
    monkeypatch.setattr(UnmixingModule, "on_train_batch_end", ends)
    code, out, _ = run(*long[:-3], done + 32, "-o", "out", "--resume", "--json", "-")
    assert code == 0
    assert json.loads(out)["samples"] == done + 32


def test_every_option_arrives(run: Run, called: dict[str, Any], tmp_path: Path) -> None:
    given = {
        "max_samples": 7, "max_minutes": 1.5, "seed": 3, "batch_size": 9, "learning_rate": 0.01, "warmup_samples": 11,
        "schedule": "one-cycle", "decay": 0.3, "gradient_clip": 0.7, "ema_decay": 0.9, "constraint_share": 0.5,
        "devices": 2, "num_nodes": 4, "strategy": "ddp", "accelerator": "gpu", "precision": "16-mixed",
        "val_limit": 5, "validate_every": 6, "checkpoint_minutes": 0.25, "window": 3, "window_share": 0.4,
        "start": Path("begun.safetensors"), "optimiser": "adam", "targets": "posterior",
    }  # fmt: skip
    typed = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = run(
        "train", "DISTA_net", "--ratio", 5, "-o", "there", "--half", "--resume", "--compile", "--prior", "flat",
        "--sensor", "card.json", "--grow", "2,4,6", "--exact-map", *typed, "--option", "a=1", "--option", "b=true",
        "--option", "c=False",
        "--option", "d=text=2", "--option", "e-f=0.5",
    )  # fmt: skip
    assert code == 0
    assert "CSO-mAP  - (1.0 - 2.0) on 4 validation images" in out
    assert {name: called[name] for name in given} == given
    assert called["options"] == {"a": 1, "b": True, "c": False, "d": "text=2", "e_f": 0.5}
    assert (called["name"], called["ratio"], called["output"]) == ("dista-net", 5, Path("there"))
    assert (called["grow"], called["exact_map"]) == ((2, 4, 6), True)
    assert (called["half"], called["resume"], called["compiled"], called["data"]) == (True, True, True, None)
    assert (called["sensor"], called["prior"]) == (SENSOR, csist.ScenePrior.flat())


@pytest.mark.parametrize(("word", "limit"), [("running", "running"), ("none", "none"), ("0.5", 0.5)])
def test_clipping_is_a_word_or_a_number(run: Run, called: dict[str, Any], word: str, limit: str | float) -> None:
    assert run("train", "ista-net", "--max-samples", 1, "--clip", word)[0] == 0
    assert called["gradient_clip"] == limit


def test_every_field_is_an_option_with_its_words(run: Run) -> None:
    told = descriptions()
    assert list(told) == [each.name for each in fields(TrainingConfig)]
    shown = " ".join(run("train", "--help")[1].split())
    for name, words in told.items():
        assert FLAGS.get(name, (f"--{name.replace('_', '-')}",))[0] in shown
        assert " ".join(words.split()[1:4]) in shown, name


def test_one_process_speaks_for_all(run: Run, called: dict[str, Any]) -> None:
    called["first_process"] = False
    assert run("train", "ista-net", "--max-samples", 1, "--json", "out.json") == (0, "", "")
    assert not Path("out.json").exists()


@pytest.mark.parametrize("package", ["lightning", "tensorboard"])
def test_a_missing_extra_says_how_to_install_it(run: Run, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("train", "ista-net", "--max-samples", 128)
    refused(result, f"training needs {package} (extra `train`): pip install 'csist[train]'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "METHOD"),
        (["ista-nett"], "did you mean 'ista-net'"),
        (["ista"], "'ista' has nothing to train"),
        (["ista-net+refine", "--max-samples", "9"], "ista-net+refine"),
        (["ista-net"], "max_samples or max_minutes"),
        (["ista-net", "--max-samples", "0"], "max_samples must be a finite number > 0, got 0"),
        (["ista-net", "--max-samples", "many"], "many"),
        (["ista-net", "--max-minutes", "nan"], "max_minutes must be a finite number > 0, got nan"),
        (["ista-net", "--max-samples", "9", "--batch-size", "-1"], "batch_size must be a finite number > 0, got -1"),
        (["ista-net", "--max-samples", "9", "--learning-rate", "-1"], "learning_rate"),
        (["ista-net", "--max-samples", "9", "--schedule", "cosine"], "schedule must be one of"),
        (["ista-net", "--max-samples", "9", "--data", "nowhere.h5"], "nowhere.h5"),
        (["ista-net", "--max-samples", "9", "--ratio", "0"], "ratio must be a whole number >= 1, got 0"),
        (["ista-net", "--max-samples", "9", "--sensor", "nowhere.json"], "nowhere.json"),
        (["ista-net", "--max-samples", "9", "--prior", "flatt"], "unknown prior 'flatt'"),
        (["ista-net", "--max-samples", "9", "--json", "missing/a.json"], "missing/a.json"),
        (["ista-net", "--max-samples", "9", "--option", "stages"], "--option must be NAME=VALUE, such as stages=2"),
        (["ista-net", "--max-samples", "9", "--option", "=2"], "got '=2'"),
        (["ista-net", "--max-samples", "9", "--option", "ratio=5"], "--option cannot set ratio"),
        (["ista-net", "--max-samples", "9", "--option", "stages=1", "--option", "stages=2"], "stages is given twice"),
        (["ista-net", "--max-samples", "9", "--option", "stagess=2"], "does not take stagess"),
        (["ista-net", "--max-samples", "9", "--option", "stages=two"], "{'stages': 'two'}"),
        (["ista-net", "--max-samples", "9", "--option", "stages=0"], "{'stages': 0} has nothing to train"),
        (["ista-net", "--max-samples", "9", "--strategy", "together"], "strategy together"),
        (["ista-net", "--max-samples", "9", "--optimiser", "sgd"], "optimiser must be one of muon, adam, got 'sgd'"),
        (["ista-net", "--max-samples", "9", "--clip", "often"], "running or none, got 'often'"),
        (["ista-net", "--max-samples", "9", "--clip", "-1"], "gradient_clip must be a finite number > 0, got -1"),
        (["ista-net", "--max-samples", "9", "--grow", "2,x"], "--grow must be numbers of stages such as 2,4,6"),
        (["ista-net", "--max-samples", "9", "--targets", "posterior", "--prior", "flat"], "exact map needs groups"),
        (["ista-net", "--max-samples", "9", "--precision", "99"], "precision 99"),
        (["ista-net", "--max-samples", "9", "--accelerator", "abacus"], "accelerator abacus"),
        (["ista-net", "--max-samples", "9", "-o", "card.json"], "cannot write card.json"),
    ],
)  # fmt: skip
def test_bad_use_gets_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    before = sorted(tmp_path.iterdir())
    small = ["--val-limit", "2"] if len(arguments) > 1 else []
    refused(run("train", *arguments, *small), said)
    assert sorted(tmp_path.iterdir()) == before


def test_simulated_scenes_follow_sensor_and_prior(run: Run) -> None:
    law = csist.ScenePrior.csist_100k().to_card() | {"count_range": [1, 2]}
    Path("law.json").write_text(json.dumps(law))
    options = ("--option", "stages=1", *TINY, "--prior", "law.json", "--max-samples", 16)
    code, out, _ = run("train", "ista-net", *options, "--json", "-")
    assert code == 0
    card = json.loads(out)["card"]
    assert card["training"]["prior"]["count_range"] == [1, 2]
    assert np.shape(card["sensor"]["shape"]) == (2,)
