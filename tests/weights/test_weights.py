"""Weight files: what is written comes back, and what does not fit is refused in one line."""

from __future__ import annotations

import json
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from authors_helpers import authors_shapes
from csist.checks import InputError
from csist.create import create_method
from csist.physics.psf import AiryPSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.weights.cards import describe_machine, make_card, read_card
from csist.weights.files import load_state, save_weights
from csist.weights.pretrained import begin_from, find_pretrained

SENSOR = Sensor(shape=(5, 5))


def build(name: str = "ista-net", **options: Any) -> Any:
    torch.manual_seed(1)
    return create_method(name, sensor=SENSOR, ratio=3, pretrained=False, **({"stages": 1} | options))


def saved(folder: Path, name: str = "weights", sensor: Sensor = SENSOR, half: bool = False) -> Path:
    card = make_card("ista-net", sensor, 3, {"stages": 1}, {"seed": 1}, {"cso_map": 45.0})
    return save_weights(folder / name, build(), card, half)


def test_weights_and_card_come_back(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert path.name == "weights.safetensors" and sorted(p.name for p in tmp_path.iterdir()) == [
        "weights.json",
        "weights.safetensors",
    ]
    card = read_card(path)
    assert card == json.loads((tmp_path / "weights.json").read_text())
    assert card["method"] == "ista-net" and card["score"] == {"cso_map": 45.0}
    loaded = create_method("ista_net", pretrained=path)
    assert loaded.sensor == SENSOR and len(loaded.stages) == 1
    for key, value in build().state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_half_precision_is_half_the_size_and_close(tmp_path: Path) -> None:
    whole, half = saved(tmp_path, "whole"), saved(tmp_path, "half", half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    loaded = create_method("ista-net", pretrained=half)
    for key, value in build().state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    module = build()
    module.start.fill_(1e6)
    with pytest.raises(InputError, match="too much for half precision"):
        save_weights(tmp_path / "big", module, {}, half=True)


@pytest.mark.parametrize(
    ("name", "sensor", "ratio", "options", "message"),
    [
        ("ista-net-plus", SENSOR, 3, {}, "holds weights of ista-net, not of ista-net-plus"),
        ("ista-net", SENSOR, 5, {}, "trained for ratio 3, got 5: give ratio=3"),
        ("ista-net", Sensor(), 3, {}, r"another sensor \(gaussian PSF sigma_px=0.5, 5 x 5 px\)"),
        ("ista-net", Sensor(psf=GaussianPSF(0.6), shape=(5, 5)), 3, {}, "another sensor"),
        ("ista-net", Sensor(psf=AiryPSF(1.0), shape=(5, 5)), 3, {}, "another sensor"),
        ("ista-net", SENSOR, 3, {"stages": 2}, "trained with stages=1, got 2"),
    ],
)
def test_refuses_weights_of_another_kind(
    name: str, sensor: Sensor, ratio: int, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        create_method(name, sensor, ratio, pretrained=saved(tmp_path), **options)


def test_weights_of_another_ratio_are_a_beginning(tmp_path: Path) -> None:
    coarse = create_method("dista-net", SENSOR, 3, pretrained=False, stages=1)
    with torch.no_grad():
        # What a cell's weight says is its place, so that it can be compared on another map.
        rows, columns = torch.meshgrid(torch.arange(15.0), torch.arange(15.0), indexing="ij")
        coarse.stages[0].kernel_maker[0].weight.copy_(((rows + 0.5) / 15 + 10 * (columns + 0.5) / 15).reshape(1, -1))
    card = make_card("dista-net", SENSOR, 3, {"stages": 1}, {}, {})
    path = save_weights(tmp_path / "coarse", coarse, card)
    fine = create_method("dista-net", SENSOR, 5, pretrained=False, stages=2)
    second = fine.stages[1].forward_second.weight.detach().clone()
    start = fine.start.clone()
    begin_from(fine, "dista-net", path)
    assert torch.equal(fine.stages[0].forward_second.weight, coarse.stages[0].forward_second.weight)
    assert torch.equal(fine.stages[1].forward_second.weight, second) and torch.equal(fine.start, start)
    # In units of the longest stable step, the finer map's step is what the coarse one's was.
    taken = [float(each.stages[0].step.detach()) * each.operator.lipschitz for each in (coarse, fine)]
    assert taken[1] == pytest.approx(taken[0], rel=1e-5)
    rows, columns = torch.meshgrid(torch.arange(25.0), torch.arange(25.0), indexing="ij")
    expected = (rows + 0.5) / 25 + 10 * (columns + 0.5) / 25
    got = fine.stages[0].kernel_maker[0].weight[0].detach().view(25, 25)
    torch.testing.assert_close(got[1:-1, 1:-1], expected[1:-1, 1:-1])
    with pytest.raises(InputError, match="holds weights of dista-net, not of ista-net"):
        begin_from(build(), "ista-net", path)
    with pytest.raises(InputError, match="another sensor"):
        begin_from(create_method("dista-net", Sensor(), 5, pretrained=False, stages=1), "dista-net", path)


def test_noise_and_background_may_differ(tmp_path: Path) -> None:
    noisy = Sensor(shape=(5, 5), read_noise=2.0, background=10.0)
    assert create_method("ista-net", noisy, pretrained=saved(tmp_path)).sensor == noisy


def test_refuses_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged or not a safetensors file"):
        create_method("ista-net", pretrained=path)
    path.write_text("not weights")
    with pytest.raises(InputError, match="damaged or not a safetensors file"):
        create_method("ista-net", pretrained=path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="without a csist card"):
        create_method("ista-net", pretrained=path)
    with pytest.raises(InputError, match=r"no weight file .*nowhere"):
        create_method("ista-net", pretrained=tmp_path / "nowhere.safetensors")
    card = make_card("ista-net", SENSOR, 3, {"stages": 1})
    save_weights(path, torch.nn.Linear(2, 2), card)
    with pytest.raises(InputError, match="does not fit this method"):
        create_method("ista-net", pretrained=path)


class Evil:
    """A pickle that runs code when it is opened carelessly."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("opened-carelessly"),))


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (("torch.pt", torch.save), ("plain.pth", lambda v, p: p.write_bytes(pickle.dumps(v)))):
        path = tmp_path / name
        write({"state_dict": Evil()}, path)
        with pytest.raises(InputError, match="damaged or holds more than plain tensors"):
            create_method("dista-net", sensor=SENSOR, pretrained=path)
    assert not (tmp_path / "opened-carelessly").exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="does not hold a dictionary of tensors"):
        load_state(tmp_path / "list.pt")


def test_published_weights_load_from_a_pickle(tmp_path: Path) -> None:
    from csist.methods.dista_net import PUBLISHED_KEYS

    method = build("dista-net", published_code=True)
    state = method.state_dict()
    theirs = {f"fcs.0.{key}": state[f"stages.0.{ours}"] for key, ours in PUBLISHED_KEYS.items()}
    theirs["fcs.0.lambda_step"] = torch.tensor([0.25])
    torch.save({"state_dict": theirs, "meta": {"epoch": 3}}, tmp_path / "theirs.pth")
    loaded = create_method("dista-net", SENSOR, pretrained=tmp_path / "theirs.pth", stages=1, published_code=True)
    assert loaded.stages[0].step.item() == 0.25
    assert torch.equal(loaded.stages[0].forward_second.weight, method.stages[0].forward_second.weight)


# --- the authors' files -----------------------------------------------------------------------------------


def their_file(path: Path, prefix: str = "", cells: int = 225, stages: int = 2, **beside: Any) -> Path:
    """A file with the authors' names and shapes as MMEngine writes it, `beside` next to the weights."""
    shapes = authors_shapes(stages, cells)
    state = OrderedDict((prefix + name, torch.full(shape, 0.01)) for name, shape in shapes.items())
    torch.save({"meta": {"epoch": 3, "time": "20250101"}, "state_dict": state, **beside}, path)
    return path


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of the name under which MMEngine pickles its logs; gone when the file is read."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.log_history, self.count_history = np.arange(3.0), np.arange(3)
            self.statistics = {"mean": np.float64(1.0)}

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return HistoryBuffer


@pytest.mark.parametrize("prefix", ["", "model.", "generator.", "module.editor."])
def test_the_authors_file_loads_from_a_framework_s_wrapper(
    prefix: str, framework: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = {"log_scalars": OrderedDict({"train/loss": framework()}), "runtime_info": OrderedDict(epoch=3)}
    path = their_file(tmp_path / "theirs.pth", prefix, message_hub=hub, optimizer={"state": {}, "lr": 1e-4})
    monkeypatch.delitem(sys.modules, framework.__module__)
    before = set(torch.serialization.get_safe_globals())
    method = create_method("dista-net", SENSOR, pretrained=path)
    assert method.published_code and len(method.stages) == 2
    assert all(bool((p == 0.01).all()) for p in method.parameters())
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("name", "sensor", "ratio", "options", "message"),
    [
        ("dista-net", SENSOR, 5, {}, "for maps of 225 cells, this method's have 25 x 25: give the ratio"),
        ("dista-net", Sensor(shape=(5, 6)), 3, {}, "for maps of 225 cells, this method's have 15 x 18: .* shape"),
        ("dista-net", SENSOR, 3, {"stages": 3}, "weights are of 2 stages, got stages=3"),
        ("dista-net", SENSOR, 3, {"published_code": False}, "build the method with published_code=True"),
        ("ista-net", SENSOR, 3, {}, r"not a published ISTA-Net weight file: it holds 'fcs\.0\.w1"),
    ],
)
def test_the_authors_file_must_fit(
    name: str, sensor: Sensor, ratio: int, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = their_file(tmp_path / "theirs.pth")
    with pytest.raises(InputError, match=message) as caught:
        create_method(name, sensor, ratio, pretrained=path, **options)
    assert "theirs.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_code_beside_the_authors_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = their_file(tmp_path / "theirs.pth", message_hub={"log": Evil()})
    with pytest.raises(InputError, match=r"theirs\.pth .* it holds \S*(pathlib|Path)\S*, .* could run code"):
        create_method("dista-net", SENSOR, pretrained=path)
    # What stands in for a framework's names cannot be used to reach others either.
    reach = b"cbuiltins\ngetattr\n(cbuiltins\ngetattr\nS'__globals__'\ntR(S'x'\ntR."
    (tmp_path / "reach.pth").write_bytes(reach)
    with pytest.raises(InputError, match="damaged or holds more than plain tensors"):
        load_state(tmp_path / "reach.pth")
    assert not (tmp_path / "opened-carelessly").exists()


def test_damaged_and_foreign_files_of_authors_are_refused(tmp_path: Path) -> None:
    whole = their_file(tmp_path / "theirs.pth").read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "page": b"<!DOCTYPE html><html></html>"}
    for name, content in contents.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(InputError, match="damaged or holds more than plain tensors") as caught:
            create_method("dista-net", SENSOR, pretrained=tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    torch.save({"state_dict": {"backbone.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"not a published DISTA-Net weight file: it holds 'backbone\.weight'"):
        create_method("dista-net", SENSOR, pretrained=tmp_path / "other.pth", stages=1)
    two = {f"{prefix}fcs.0.lambda_step": torch.zeros(1) for prefix in ("generator.", "generator_ema.")}
    torch.save({"state_dict": two}, tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"holds several networks \(generator\., generator_ema\.\)"):
        create_method("dista-net", SENSOR, pretrained=tmp_path / "two.pth")


def test_finds_the_pretrained_weights_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = saved(tmp_path, "clean")
    noisy = saved(tmp_path, "noisy", Sensor(shape=(5, 5), read_noise=5.0))
    (tmp_path / "stray.json").write_text("{")
    for read_noise, expected in ((0.0, clean), (1.0, clean), (4.0, noisy)):
        sensor = Sensor(shape=(5, 5), read_noise=read_noise)
        assert find_pretrained("ista-net", sensor, 3, tmp_path) == expected
    with pytest.raises(InputError, match=r"no trained weights of ista-net for ratio 5.*these exist: ratio 3"):
        find_pretrained("ista-net", SENSOR, 5, tmp_path)
    with pytest.raises(InputError, match=r"none of this method exist.*pretrained=False"):
        find_pretrained("lista", SENSOR, 3, tmp_path)
    # A card without its weights tells how long they were trained.
    card = make_card("lista", SENSOR, 3, {}, {"samples": 12_800, "minutes": 5.0}, {})
    (tmp_path / "lista.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"none of this method.*`csist train lista --ratio 3 --max-samples 12800`"):
        find_pretrained("lista", SENSOR, 3, tmp_path)
    monkeypatch.setattr("csist.weights.pretrained.weights_folder", lambda: tmp_path)
    assert len(create_method("ista-net", SENSOR).stages) == 1
    with pytest.raises(InputError, match="no trained weights of ista-net"):
        create_method("ista-net", Sensor(shape=(6, 6)))


def test_the_machine_is_described() -> None:
    described = describe_machine()
    assert described["threads"] >= 1 and described["cpu"] and described["torch"] == torch.__version__
