"""`train`: what it writes, that it resumes to the same bits, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csist.checks import InputError
from csist.create import create_method
from csist.datasets import generate, generate_sequences
from csist.grid import SubPixelGrid
from csist.methods.crop import Cropper
from csist.methods.exact_map import exact_maps
from csist.physics.psf import GaussianPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.physics.symmetry import symmetries_of
from csist.scenes import ScenePrior
from csist.weights.cards import read_card
from csist.weights.files import load_state

pytest.importorskip("lightning")

from csist.training import TrainingConfig, TrainingResult
from csist.training import train as run
from csist.training.average import AveragedWeights
from csist.training.datamodule import Labelled, SimulatedSource, StoredSource, open_data
from csist.training.logs import read_log
from csist.training.posterior import BLOCK_BATCHES, PosteriorMaps
from csist.training.schedule import learning_rate_share

SENSOR = Sensor(shape=(5, 5))
TINY: dict[str, Any] = {
    "method": "ista-net",
    "max_samples": 320,
    "batch_size": 8,
    "val_limit": 8,
    "validate_every": 128,
    "checkpoint_minutes": 0.0,
    "sensor": SENSOR,
    "options": {"stages": 1},
    "seed": 3,
    "accelerator": "cpu",
}
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
TRACED_ONLY = "aot_eager"
"""A backend of torch.compile that captures the graphs and their gradients, but writes no C++, which takes longest."""
SCRIPT = """
import sys
from csist.physics.sensor import Sensor
import torch
from csist.training import TrainingConfig, train
if __name__ == "__main__":
    torch.set_num_threads(1)  # as here: another number of threads sums in another order
    train("ista-net", TrainingConfig(
          output=sys.argv[1], batch_size=8, val_limit=8, validate_every=128,
          checkpoint_minutes=0.0, sensor=Sensor(shape=(5, 5)), options={"stages": 1}, seed=3,
          accelerator="cpu", **eval(sys.argv[2])))
"""


def train(method: str, stop_asked: Callable[[], bool] | None = None, **settings: Any) -> TrainingResult:
    return run(method, TrainingConfig(**settings), stop_asked=stop_asked)


def start(tmp_path: Path, output: Path, extra: dict[str, Any]) -> subprocess.Popen[bytes]:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    with (tmp_path / "log.txt").open("wb") as log:
        return subprocess.Popen([sys.executable, str(script), str(output), repr(extra)], stdout=log, stderr=log)


def wait_for(condition: Any, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, "the training ended too early"
        assert time.monotonic() - began < seconds, "the training takes too long"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(**TINY, output=tmp_path_factory.mktemp("undisturbed"))


def test_leaves_weights_card_and_logs(undisturbed: Any) -> None:
    card = read_card(undisturbed.weights)
    assert undisturbed.samples == 320 and card["training"]["samples"] <= 320
    assert card["method"] == "ista-net" and card["options"] == {"stages": 1} and card["training"]["seed"] == 3
    recipe = {"optimiser": "muon", "learning_rate": 1.5e-3, "gradient_clip": "running", "targets": "labels"}
    assert recipe.items() <= card["training"].items() and card["score"]["squared_error"] > 0.0
    assert card["sensor"] == SENSOR.to_card() and card["score"]["images"] == 8
    low, high = card["score"]["interval_95"]
    assert low <= card["score"]["cso_map"] <= high
    assert json.loads(undisturbed.weights.with_suffix(".json").read_text()) == card
    folder = undisturbed.weights.parent
    assert "discrepancy" in (folder / "csv" / "session-1" / "metrics.csv").read_text()
    assert list((folder / "tensorboard").glob("events*"))
    method = create_method("ista-net", pretrained=undisturbed.weights)
    assert method.sensor == SENSOR and len(method.stages) == 1


def test_resumes_after_a_kill_to_the_same_bits(tmp_path: Path, undisturbed: Any) -> None:
    output = tmp_path / "run"
    process = start(tmp_path, output, {"max_samples": 320})
    wait_for((output / "last.ckpt").is_file, process)
    process.kill()
    process.wait()
    seen = torch.load(output / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < seen <= 40
    resumed = train(**TINY, output=output, resume=True)
    expected = torch.load(undisturbed.weights.parent / "last.ckpt", weights_only=True)
    got = torch.load(output / "last.ckpt", weights_only=True)
    assert got["global_step"] == expected["global_step"] == 40
    for key, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][key], value), key
    for mine, theirs in zip(got["csist"]["averaged"]["average"], expected["csist"]["averaged"]["average"], strict=True):
        assert torch.equal(mine, theirs)
    one, other = load_state(resumed.weights), load_state(undisturbed.weights)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_stops_when_asked_and_goes_on_to_the_same_bits(tmp_path: Path, undisturbed: Any) -> None:
    answers = iter([False] * 9 + [True])
    stopped = train(**TINY, output=tmp_path, stop_asked=lambda: next(answers))
    assert stopped.samples == 80 and stopped.weights.is_file()
    resumed = train(**TINY, output=tmp_path, resume=True, stop_asked=lambda: False)
    expected = torch.load(undisturbed.weights.parent / "last.ckpt", weights_only=True)["state_dict"]
    got = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert resumed.samples == 320 and all(torch.equal(got[key], value) for key, value in expected.items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize(
    ("name", "options", "backend"),
    [
        pytest.param("ista-net", {"stages": 2}, "inductor", marks=NEEDS_COMPILER),
        ("fista-net", {"stages": 3}, TRACED_ONLY),
        ("lista", {"layers": 1}, TRACED_ONLY),
        ("srcnn", {}, TRACED_ONLY),
    ],
)
def test_a_compiled_training_ends_where_an_eager_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], backend: str
) -> None:
    import torch._dynamo

    few = {**TINY, "method": name, "options": options, "max_samples": 64, "validate_every": 32}
    eager = train(**few, output=tmp_path / "eager")
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled = train(**few, output=tmp_path / "compiled", compiled=True)
    # The probe's; then one, or two where the first stage's map needs no gradient and the next one's does.
    assert graphs["unique_graphs"] in (2, 3)
    expected, got = load_state(eager.weights), load_state(compiled.weights)
    assert compiled.samples == 64 and compiled.card["training"]["compiled"] and expected.keys() == got.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_where_nothing_can_be_compiled_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_function: Any) -> Any:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"cannot compile here, which needs a C\+\+ compiler .*no compiler at all"):
        train(**TINY, output=tmp_path / "run", compiled=True)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_goes_on_with_more_samples(undisturbed: Any) -> None:
    before = torch.load(undisturbed.weights.parent / "last.ckpt", weights_only=True)["global_step"]
    more = train(**{**TINY, "max_samples": 352}, output=undisturbed.weights.parent, resume=True)
    assert before == 40 and more.samples == 352
    log = read_log(undisturbed.weights.parent, more.card["training"]["batch_size"])
    assert log["samples"].max() == 352 and log["samples"].min() < 320  # the first session's log is still there


def test_two_processes(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(tmp_path, output, {"max_samples": 64, "devices": 2, "strategy": "ddp"})
    assert process.wait(timeout=180) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    card = read_card(output / "ista-net-c3.safetensors")
    assert card["training"]["samples"] == 64 and card["training"]["batch_size"] == 16


def test_stops_by_the_clock(tmp_path: Path) -> None:
    limits = {**TINY, "max_samples": None, "max_minutes": 0.02}
    result = train(**limits, output=tmp_path)
    assert result.samples > 0 and result.minutes < 1.0


def test_trains_on_a_store(tmp_path: Path) -> None:
    store = generate(tmp_path / "data.h5", count=60, seed=1, sensor=SENSOR)
    limits = {**TINY, "max_samples": 64, "sensor": None}
    result = train(**limits, data=store, output=tmp_path / "run")
    assert result.card["training"]["data"] == "data.h5" and result.card["sensor"] == SENSOR.to_card()
    with pytest.raises(InputError, match="its own sensor"):
        train(**{**limits, "sensor": Sensor(shape=(7, 7))}, data=store, output=tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "ista"}, "nothing to train"),
        ({"method": "ista-net+refine"}, "nothing to train"),
        ({"method": "ista-nett"}, "did you mean 'ista-net'"),
        ({"max_samples": None}, "max_samples or max_minutes"),
        ({"max_samples": 0}, "max_samples must be"),
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"schedule": "cosine"}, "schedule must be one of"),
        ({"ema_decay": 1.5}, "ema_decay must be"),
        ({"options": {"stagess": 1}}, "does not take stagess"),
        ({"data": "nowhere.h5"}, "nowhere.h5"),
        ({"ratio": 0}, "ratio must be"),
        ({"options": {"stages": "two"}}, "cannot build ista-net with the options {'stages': 'two'}"),
        ({"options": {"stages": 0}}, "has nothing to train"),
        ({"strategy": "together"}, "strategy together"),
        ({"optimiser": "sgd"}, "optimiser must be one of muon, adam, got 'sgd'"),
        ({"gradient_clip": "often"}, "gradient_clip must be a number > 0, running or none, got 'often'"),
        ({"gradient_clip": 0.0}, "gradient_clip must be a finite number > 0, got 0"),
        ({"targets": "guesses"}, "targets must be one of labels, posterior"),
        ({"targets": "posterior", "prior": ScenePrior.flat()}, "exact map needs groups inside one pixel"),
        ({"exact_map": True, "prior": ScenePrior.flat()}, "exact map needs groups inside one pixel"),
        ({"grow": (2, 1)}, "grow must be rising numbers of stages such as 2,4,6, got 2,1"),
        ({"grow": (1, 2)}, "grow must end with the 1 stages of the network, got 2"),
        ({"method": "fista-net", "options": {}, "grow": (2, 7)}, "FISTANet cannot grow"),
        ({"grow": (1,), "devices": 2}, "grow works in one process, got 2"),
        ({"method": "lista", "options": {"layers": 1}, "optimiser": "muon"}, "no kernels of 16 or more channels"),
    ],
)
def test_refuses(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(**{**TINY, **change}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_refuses_an_occupied_folder_and_another_batch_size(undisturbed: Any) -> None:
    with pytest.raises(InputError, match="holds an earlier training"):
        train(**TINY, output=undisturbed.weights.parent)
    with pytest.raises(InputError, match="batches of 8"):
        train(**{**TINY, "batch_size": 16}, output=undisturbed.weights.parent, resume=True)
    with pytest.raises(InputError, match="another method, ratio or other options"):
        train(**{**TINY, "options": {"stages": 2}}, output=undisturbed.weights.parent, resume=True)


def test_a_resume_with_another_optimiser_or_a_damaged_checkpoint_overwrites_nothing(
    tmp_path: Path, undisturbed: Any
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.weights.parent, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="begun with optimiser muon, got adam: resume it with --optimiser muon"):
        train(**TINY, output=folder, resume=True, optimiser="adam")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for content in (b"", b"nonsense", before[folder / "last.ckpt"][:5000]):
        (folder / "last.ckpt").write_bytes(content)
        with pytest.raises(InputError, match=r"last\.ckpt is damaged or no checkpoint of this version") as caught:
            train(**TINY, output=folder, resume=True)
        assert "\n" not in str(caught.value) and (folder / "last.ckpt").read_bytes() == content
    torch.save({"state_dict": {}}, folder / "last.ckpt")
    with pytest.raises(InputError, match="it lacks 'csist'"):
        train(**TINY, output=folder, resume=True)


def test_adam_resumes_to_the_same_bits(tmp_path: Path) -> None:
    settings = {**TINY, "optimiser": "adam", "gradient_clip": 0.5}
    whole = train(**settings, output=tmp_path / "whole")
    answers = iter([False] * 9 + [True])
    train(**settings, output=tmp_path / "parts", stop_asked=lambda: next(answers))
    train(**settings, output=tmp_path / "parts", resume=True)
    one, other = (
        torch.load(tmp_path / each / "last.ckpt", weights_only=True)["state_dict"] for each in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole.card["training"]["optimiser"] == "adam" and whole.card["training"]["gradient_clip"] == 0.5


def test_a_network_grows_by_stages_that_change_nothing(tmp_path: Path) -> None:
    settings = {**TINY, "options": {"stages": 3}, "grow": (1, 3), "learning_rate": 1e-12}
    trained = train(**settings, output=tmp_path / "a")
    assert trained.card["training"]["grow"] == [1, 3]
    one = create_method("ista-net", SENSOR, pretrained=False, stages=1)
    grown = create_method("ista-net", pretrained=trained.weights)
    image = torch.rand(2, 1, 5, 5) * 200.0
    with torch.no_grad():
        torch.testing.assert_close(grown(image), one(image), rtol=1e-4, atol=1e-3)
    settings = {**settings, "learning_rate": 1e-3, "max_samples": 160}
    train(**settings, output=tmp_path / "b")
    answers = iter([False] * 9 + [True])
    train(**settings, output=tmp_path / "c", stop_asked=lambda: next(answers))
    train(**settings, output=tmp_path / "c", resume=True)
    whole, parts = (torch.load(tmp_path / each / "last.ckpt", weights_only=True)["state_dict"] for each in ("b", "c"))
    assert all(float(whole[f"method.stages.{stage}.step"]) != 0.0 for stage in range(3))
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_a_stored_source_shows_every_image_once_a_turn() -> None:
    data = Labelled(np.arange(10.0)[:, None, None] * np.ones((1, 3, 3)), np.full((10, 1, 3), np.nan))
    source = StoredSource(data, seed=0)
    seen = [image[0, 0] for step in range(4) for rank in (0, 1) for image in source.batch(step, 5, rank, 2)[0]]
    assert len(seen) == 40
    for turn in range(4):
        assert sorted(seen[10 * turn : 10 * turn + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_a_simulated_source_depends_on_the_step_alone() -> None:
    from csist.scenes import ScenePrior

    one, other = (SimulatedSource(ScenePrior.csist_100k(), SENSOR, seed=1) for _ in range(2))
    in_order = [one.batch(step, 2, 0, 1)[0] for step in range(40)]
    assert np.array_equal(other.batch(37, 2, 0, 1)[0], in_order[37])
    assert not np.array_equal(other.batch(37, 2, 1, 2)[0], in_order[37])


def test_the_learning_rate_rises_stays_and_falls() -> None:
    shares = [learning_rate_share(p, 0.1, 0.2, "stable") for p in (0.0, 0.05, 0.1, 0.5, 0.8, 0.9, 1.0, 1.2)]
    assert shares == pytest.approx([0.001, 0.5, 1.0, 1.0, 1.0, 0.5, 0.01, 0.01])
    cycle = [learning_rate_share(p, 0.1, 0.2, "one-cycle") for p in np.linspace(0.1, 1.0, 20)]
    assert cycle[0] == pytest.approx(1.0) and cycle[-1] == pytest.approx(0.01) and np.all(np.diff(cycle) < 0)


def test_averaged_weights_follow_and_step_aside() -> None:
    layer = torch.nn.Linear(2, 1)
    averaged = AveragedWeights(layer, 0.9)
    first = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    averaged.update()
    with averaged.applied():
        # After the first update the decay is 2 / 11.
        assert torch.allclose(layer.weight, first + 9.0 / 11.0)
    assert torch.allclose(layer.weight, first + 1.0)


def test_importing_csist_training_does_not_import_lightning() -> None:
    code = "import sys, csist.training; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_windows_come_first_and_whole_images_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = Cropper.forward

    def noted(self: Cropper, truth: torch.Tensor) -> Any:
        seen.append(self.size)
        return forward(self, truth)

    monkeypatch.setattr(Cropper, "forward", noted)
    trained = train(**{**TINY, "sensor": Sensor(shape=(7, 7))}, output=tmp_path, window=5, window_share=0.75)
    assert seen == [5] * 30  # of 40 steps
    assert trained.card["training"]["window"] == 5 and trained.card["training"]["window_share"] == 0.75


def test_windows_need_groups_inside_one_pixel(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="window needs groups inside one pixel"):
        train(**TINY, output=tmp_path, window=3, prior=ScenePrior.flat())


def test_begins_from_given_weights(tmp_path: Path, undisturbed: Any) -> None:
    short = {**TINY, "max_samples": 8, "learning_rate": 1e-12}
    trained = train(**short, output=tmp_path, start=undisturbed.weights)
    assert trained.card["training"]["start"]["samples"] == read_card(undisturbed.weights)["training"]["samples"]
    one, other = load_state(trained.weights), load_state(undisturbed.weights)
    assert all(torch.allclose(one[key], other[key], atol=1e-6) for key in other)


def test_a_network_trained_on_keeps_its_own_options(tmp_path: Path, undisturbed: Any) -> None:
    short = {name: value for name, value in {**TINY, "max_samples": 8}.items() if name != "options"}
    trained = train(**short, output=tmp_path, start=undisturbed.weights)
    assert trained.card["options"] == {"stages": 1}
    assert len(create_method("ista-net", pretrained=trained.weights).stages) == 1


def test_a_diverged_training_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"diverged: after \d+ samples .* lower the learning rate, now 1e\+30"):
        train(**TINY, output=tmp_path, learning_rate=1e30)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "named"), [({"seed": 4}, "seed 3, got 4"), ({"sensor": Sensor(GaussianPSF(0.8), (5, 5))}, "sensor")]
)
def test_a_resumed_training_goes_on_with_its_data(undisturbed: Any, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"this run was begun with {named}"):
        train(**{**TINY, **change}, output=undisturbed.weights.parent, resume=True)


def test_frames_of_sequences_are_not_taken_for_groups_in_one_pixel(tmp_path: Path) -> None:
    generate_sequences(tmp_path / "s.h5", 10, seed=9)
    for more in ({"targets": "posterior"}, {"window": 5}, {"exact_map": True}):
        with pytest.raises(InputError, match="inside one pixel"):
            train("ista-net", data=tmp_path / "s.h5", max_samples=8, val_limit=2, output=tmp_path / "run", **more)


def test_exact_maps_can_be_learned_and_are_the_line_to_reach(tmp_path: Path, undisturbed: Any) -> None:
    settings = {**TINY, "max_samples": 64, "validate_every": 32, "targets": "posterior", "exact_map": True}
    whole = train(**settings, output=tmp_path / "whole")
    assert whole.card["training"]["targets"] == "posterior"
    log = read_log(tmp_path / "whole", 8)
    scored = np.isfinite(log["cso_map"])
    exact, error = log["exact_cso_map"][scored], log["exact_squared_error"][scored]
    assert len(set(exact)) == len(set(error)) == 1 and 0.0 < error[0] < log["squared_error"][scored].min()
    kept = json.loads((tmp_path / "whole" / "exact-map.json").read_text())
    assert (kept["cso_map"], kept["squared_error"]) == (exact[0], error[0])
    answers = iter([False] * 4 + [True])
    train(**settings, output=tmp_path / "parts", stop_asked=lambda: next(answers))
    train(**settings, output=tmp_path / "parts", resume=True)
    one, other = (
        torch.load(tmp_path / each / "last.ckpt", weights_only=True)["state_dict"] for each in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_exact_maps_come_with_every_image_in_every_orientation() -> None:
    config = TrainingConfig(max_samples=1, sensor=SENSOR, val_limit=2)
    data, grid = open_data(config), SubPixelGrid(SENSOR.shape, 3)
    orientations = symmetries_of(SENSOR)
    assert len(orientations) == len(set(orientations)) == 8
    posterior = PosteriorMaps(data, grid)
    every = 8 * BLOCK_BATCHES
    for step in (0, 1, 2 * BLOCK_BATCHES + 1, 4 * BLOCK_BATCHES, every + 2, 3):
        images, exact = posterior.batch(step, 3, 0, 1)
        block, turn = step // every, step % every // BLOCK_BATCHES
        source = data.source.batch(block * BLOCK_BATCHES + step % BLOCK_BATCHES, 3, 0, 1)[0]
        assert np.array_equal(images, orientations[turn].turn(source))
        # The maps are those of the images as they lie, but for the chance of the samples.
        direct = exact_maps(images, grid, SENSOR, data.prior)
        assert np.abs(exact - direct).mean() < 0.25 * np.abs(direct).mean()
        if turn == 0:
            assert np.array_equal(exact, direct)


@pytest.mark.parametrize(("shape", "count"), [((5, 5), 8), ((5, 7), 4)])
def test_orientations_agree_with_the_sensor(shape: tuple[int, int], count: int) -> None:
    sensor = Sensor(shape=shape)
    grid = SubPixelGrid(shape, 3)
    matrix = grid.steering_matrix(sensor.psf)
    cells = np.random.default_rng(0).random((1, *grid.map_shape))
    image = (matrix @ cells.ravel()).reshape(1, *shape)
    assert len(symmetries_of(sensor)) == count
    for orientation in symmetries_of(sensor):
        np.testing.assert_allclose(
            (matrix @ orientation.turn(cells).ravel()).reshape(1, *shape), orientation.turn(image)
        )
    uneven = SampledPSF(np.outer(np.arange(1.0, 10.0), np.ones(9)), 3)
    assert symmetries_of(Sensor(psf=uneven)) == ((False, False, False),)
