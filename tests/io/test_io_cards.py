"""Cards from outside: any JSON gives what it describes or one line, in files, stores and weight files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csist import ScenePrior, Sensor
from csist.checks import InputError
from csist.datasets import generate, load
from csist.io import cards, read_image
from csist.physics.psf import KINDS, AiryPSF, EllipticalGaussianPSF, FieldPSF, GaussianPSF, MoffatPSF, SampledPSF
from csist.trajectories import MotionPrior
from csist.weights.cards import make_card

PSFS = [
    GaussianPSF(0.5), AiryPSF(1.2), SampledPSF(np.outer(np.hanning(11), np.hanning(11)), 2),
    EllipticalGaussianPSF(1.0, 0.7, 20.0), MoffatPSF(1.3, 3.0),
    FieldPSF(np.array([0.0, 5.0]), np.array([2.0]), np.array([[np.outer(np.hanning(11), np.hanning(11))] * 2]), 2),
]  # fmt: skip

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("psf", PSFS, ids=lambda psf: psf.kind)
def test_every_card_that_is_written_is_read(psf: Any) -> None:
    assert {each.kind for each in PSFS} == set(KINDS)
    sensor = Sensor(psf=psf, shape=(9, 8), background=2.0, read_noise=1.0, gain=3.0, bits=12, saturation=4000.0)
    for one in (sensor, Sensor(psf=psf)):
        assert cards.sensor_of_card(json.loads(json.dumps(one.to_card()))) == one
    for prior in (ScenePrior.flat(), ScenePrior.csist_100k()):
        assert cards.prior_of_card(json.loads(json.dumps(prior.to_card()))) == prior
    motion = MotionPrior()
    assert cards.motion_of_card(json.loads(json.dumps(motion.to_card()))) == motion
    card = make_card("dista-net", sensor, 3, training={"samples": 5})
    assert cards.check_weight_card(json.loads(json.dumps(card)), "it")["ratio"] == 3
    assert cards.sensor_of_card({}) == Sensor()


BAD: list[tuple[Any, str]] = [
    ({"gain": "2"}, "gain: Input should be a valid number, got '2'"),
    ({"gain": float("inf")}, "gain: .*finite"),
    ({"gain": 0}, "gain: .*greater than 0, got 0"),
    ({"gain": [2]}, "gain: .*number, got \\[2\\]"),
    ({"gain": True}, "gain: .*number, got True"),
    ({"gain": 10**400}, "gain"),
    ({"read_noise": -1.0}, "read_noise"),
    ({"bits": 12.5}, "bits"),
    ({"bits": 64}, "bits"),
    ({"quantised": 1}, "quantised"),
    ({"shape": [11]}, "shape"),
    ({"shape": [11, 10**9]}, "shape.1"),
    ({"shape": "11"}, "shape"),
    ({"colour": 1}, "it may hold psf, shape, .*; got colour"),
    ({"psf": {"kind": "gaussian"}}, "psf.gaussian.sigma_px: Field required"),
    ({"psf": {"kind": "gaussian", "sigma_px": 1e300}}, "psf.gaussian.sigma_px"),
    ({"psf": {"kind": "gaussian", "sigma_px": "wide"}}, "psf.gaussian.sigma_px"),
    ({"psf": {"kind": "square", "sigma_px": 1.0}}, "psf"),
    ({"psf": {"kind": ["gaussian"]}}, "psf"),
    ({"psf": None}, "sensor card"),
    ({"psf": 3}, "psf"),
    ({"psf": {"kind": "sampled", "oversampling": 1, "shape": [3, 3], "float32": "!!"}}, "sensor card"),
    ({"psf": {"kind": "sampled", "oversampling": 1, "shape": [5, 5], "float32": "AAAA"}}, "sensor card"),
    ([1, 2], "it: "),
    ("card", "it: "),
    (None, "it: "),
    (3, "it: "),
]


@pytest.mark.parametrize(("card", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_sensor_cards(card: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        cards.sensor_of_card(card)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError):
        cards.check_weight_card({"method": "ista", "ratio": 3, "options": {}, "sensor": card}, "it")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"count_range": [1, "3"]}, "count_range.1"),
        ({"count_range": [3, 1]}, "count_range must be"),
        ({"count_range": [1, 10**9]}, "count_range.1"),
        ({"intensity_law": "normal"}, "intensity_law"),
        ({"intensity_range": [float("nan"), 3.0]}, "intensity_range.0"),
        ({"snr_range": None}, "snr_range"),
        ({"single_pixel": "yes"}, "single_pixel"),
        ({"more": 1}, "more"),
        ([], "it: "),
    ],
)
def test_bad_prior_and_motion_cards(card: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        cards.prior_of_card(card)
    with pytest.raises(InputError):
        cards.motion_of_card({"start": card})


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FULL = [Sensor(psf=psf, shape=(9, 8), read_noise=1.0, gain=3.0, bits=12, saturation=4000.0).to_card() for psf in PSFS]


@settings(max_examples=300)
@given(which=st.integers(0, len(PSFS) - 1), data=st.data())
def test_any_value_anywhere_gives_a_sensor_or_one_line(which: int, data: st.DataObject) -> None:
    card = json.loads(json.dumps(FULL[which]))
    target = data.draw(st.sampled_from([card, card["psf"]]))
    target[data.draw(st.sampled_from(sorted(target)) | st.text(max_size=3))] = data.draw(ANY)
    for read, value in ((cards.sensor_of_card, card), (cards.prior_of_card, target), (cards.motion_of_card, target)):
        try:
            read(value)
        except InputError as error:
            assert "\n" not in str(error)


def test_text_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for text, said in (
        ("{", "it is not JSON"),
        (DEEP, "nested too deeply|not JSON|it: "),
        ("", "not JSON"),
        ('"a"', "it: "),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"card\.json.*({said})") as caught:
            cards.read_sensor(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            cards.read_prior(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"card\.json"):
        cards.read_sensor(path)


def test_schemas_describe_the_cards() -> None:
    schemas = cards.card_schemas()
    json.dumps(schemas)
    assert set(schemas["sensor"]["properties"]) == set(Sensor().to_card())
    assert set(schemas["prior"]["properties"]) == set(ScenePrior().to_card())
    assert set(schemas["motion"]["properties"]) == set(MotionPrior().to_card())


# --- the same in a store ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("store") / "s.h5", count=20)


@pytest.fixture
def store(plain_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(plain_store, tmp_path / "s.h5"))


@pytest.mark.parametrize("name", ["sensor", "prior", "schema_version", "format", "csist_version", "seed"])
@pytest.mark.parametrize(
    "value",
    [
        "{", "[1]", "null", "3", '{"gain": "x"}', '{"shape": [1e400, 2]}', DEEP[:60_000], b"\xff", np.zeros(3), np.nan,
        10**18, np.array(["a", "b"], "S1"),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_attributes_that_are_no_cards(store: Path, name: str, value: Any) -> None:
    with h5py.File(store, "r+", libver=("v108", "v108")) as file:
        file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
    try:
        split = load(store)["test"]
        assert split.images.shape == (2, 11, 11)
    except InputError as error:
        assert "s.h5" in str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 400


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual", "split elsewhere"])
def test_a_store_does_not_read_other_files(store: Path, tmp_path: Path, kind: str) -> None:
    secret = Path(shutil.copy(store, tmp_path / "secret.h5"))
    (tmp_path / "secret.bin").write_bytes(bytes(2 * 11 * 11 * 2))
    with h5py.File(store, "r+") as file:
        group = file["test"]
        shape, dtype = group["image"].shape, group["image"].dtype
        if kind == "split elsewhere":
            del file["test"]
            file["test"] = h5py.ExternalLink(secret.name, "/test")
        else:
            del group["image"]
        if kind == "external link":
            group["image"] = h5py.ExternalLink(secret.name, "/test/image")
        elif kind == "soft link":
            group["image"] = h5py.SoftLink("/train/image")
        elif kind == "external storage":
            group.create_dataset("image", shape, dtype, external=[(str(tmp_path / "secret.bin"), 0, 484)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(str(secret), "test/image", shape)
            group.create_virtual_dataset("image", layout)
    for read in (load, read_image):
        with pytest.raises(InputError, match=r"s\.h5.*(link|other file|another file)"):
            read(store)


def test_a_store_that_states_more_than_it_holds(store: Path) -> None:
    with h5py.File(store, "r+") as file:
        for name, shape in (("image", (10**8, 11, 11)), ("targets", (10**8, 5, 3)), ("count", (10**8,))):
            dtype = file["test"][name].dtype
            del file["test"][name]
            file["test"].create_dataset(name, shape, dtype, chunks=(1000, *shape[1:]))
    with pytest.raises(InputError, match=r"states .* bytes and holds 0"):
        load(store)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_flipped_bytes_of_a_store(plain_store: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(plain_store.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "f.h5").write_bytes(content)
    try:
        split = load(tmp_path / "f.h5")["test"]
        assert len(split.images) == len(split.targets)
    except InputError as error:
        assert "\n" not in str(error)
