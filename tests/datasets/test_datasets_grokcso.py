"""The published layout: round trips, the four conventions of its coordinates, and every broken file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from defusedxml.ElementTree import fromstring, parse
from PIL import Image

from csist.checks import InputError
from csist.datasets import ScenePrior, convert, generate, is_grokcso, load, read_grokcso, write_grokcso
from csist.physics.psf import AiryPSF
from csist.physics.sensor import Sensor


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canonical")
    generate(folder / "s.h5", count=60, seed=3)
    convert(folder / "s.h5", folder / "g")
    return folder


@pytest.fixture
def folder(canonical: Path, tmp_path: Path) -> Path:
    """A writable copy without our card, as a stranger would have made it: one split of 48 images."""
    return shutil.copytree(canonical / "g" / "train", tmp_path / "set")


def edit(path: Path, change: Callable[[ElementTree.Element], None]) -> None:
    root = fromstring(path.read_text())
    change(root)
    path.write_text(ElementTree.tostring(root, encoding="unicode"))


@pytest.mark.parametrize(
    ("options", "mode"),
    [({}, "I;16"), ({"bits": 8, "clip": True}, "L"), ({"bits": 16, "clip": True, "noise_std": 3.0}, "I;16")],
)
def test_round_trip_loses_nothing(tmp_path: Path, options: dict[str, object], mode: str) -> None:
    generate(tmp_path / "a.h5", count=40, seed=1, **options)  # type: ignore[arg-type]
    convert(tmp_path / "a.h5", tmp_path / "g")
    with Image.open(tmp_path / "g" / "test" / "cso_img" / "image_00036.png") as image:
        assert image.mode == mode
    convert(tmp_path / "g", tmp_path / "b.h5")
    # Images, targets, sensor, prior and seed: the files are the same to the last byte.
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_layout(canonical: Path) -> None:
    root = canonical / "g"
    assert is_grokcso(root)
    assert is_grokcso(root / "val")
    assert not is_grokcso(canonical)
    assert sorted(p.name for p in root.iterdir()) == ["csist.json", "test", "train", "val"]
    names = sorted(p.name for p in (root / "val" / "Annotations").iterdir())
    assert names == [f"CSO{i:05d}.xml" for i in range(48, 54)]
    tree = parse(root / "val" / "Annotations" / names[0]).getroot()
    assert [child.tag for child in tree][:3] == ["filename", "size", "sigma"]
    assert [child.tag for child in tree.find("size")] == ["width", "height", "depth"]  # type: ignore[union-attr]
    assert [child.tag for child in tree.find("object")] == ["name", "coordinate"]  # type: ignore[union-attr]
    truth = load(canonical / "s.h5")["val"].targets[0]
    assert [float(each.text or "") for each in tree.iter("xc")] == truth.x.tolist()


def test_generate_writes_the_same_layout(canonical: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = generate(tmp_path / "g", count=60, seed=3, layout="grokcso", progress=lambda d, t: seen.append((d, t)))
    assert [p.name for p in tmp_path.iterdir()] == ["g"]
    assert seen[-1] == (60, 60)
    for file in (canonical / "g").rglob("*.*"):
        assert (path / file.relative_to(canonical / "g")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("x_is_column", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_convention_is_found(tmp_path: Path, x_is_column: bool, first: int, clip: bool) -> None:
    generate(tmp_path / "s.h5", count=20, seed=5, bits=8 if clip else 16, clip=clip, noise_std=0.0)
    truth = load(tmp_path / "s.h5")["train"]
    root = write_grokcso(load(tmp_path / "s.h5"), tmp_path / "g") / "train"
    for path in (root / "Annotations").iterdir():

        def change(tree: ElementTree.Element) -> None:
            for item in tree.iter("coordinate"):
                x, y = item.find("xc"), item.find("yc")
                assert x is not None
                assert y is not None
                values = [float(each.text or "") + first for each in (x, y)]
                # The published annotations print a few digits only.
                x.text, y.text = (f"{v:.4f}" for v in (values if x_is_column else values[::-1]))

        edit(path, change)
        path.rename(path.with_name(path.name.replace("CSO", "COS")))
    data = read_grokcso(root)
    assert (data.convention.x_is_column, data.convention.first) == (x_is_column, first)
    assert data.convention.explained > 0.999
    assert f"count from {first}" in str(data.convention)
    assert list(data.splits) == ["test"]
    assert data.sensor == Sensor(bits=8 if clip else None)
    assert data.prior == ScenePrior.csist_100k()
    arrays = data.splits["test"]
    np.testing.assert_array_equal(arrays.images, truth.counts)
    np.testing.assert_allclose(arrays.targets, truth.target_arrays[0], atol=1e-4)


def test_background_and_noise_of_a_foreign_set_are_measured(tmp_path: Path) -> None:
    sensor = Sensor(background=3500.0, read_noise=5.0, bits=16)
    generate(tmp_path / "s.h5", count=200, seed=5, sensor=sensor)
    data = read_grokcso(write_grokcso(load(tmp_path / "s.h5"), tmp_path / "g") / "train")
    assert data.sensor.background == pytest.approx(3500, abs=1)
    assert data.sensor.read_noise == pytest.approx(5, rel=0.1)
    assert data.sensor.bits == 16
    assert data.convention.explained > 0.9


def test_scenes_of_another_law_get_the_flat_prior(tmp_path: Path) -> None:
    prior = ScenePrior(count_range=(0, 3), intensity_range=(100, 900), min_separation_px=0.3)
    generate(tmp_path / "s.h5", count=40, prior=prior)
    root = write_grokcso(load(tmp_path / "s.h5"), tmp_path / "g")
    assert read_grokcso(root).prior == prior  # our card says it
    (root / "csist.json").unlink()
    assert read_grokcso(root).prior == ScenePrior.flat()


def test_unpadded_ids_are_in_natural_order(folder: Path) -> None:
    for path in list((folder / "cso_img").iterdir()) + list((folder / "Annotations").iterdir()):
        stem, number = path.stem.rstrip("0123456789"), int(path.stem[-5:])
        path.rename(path.with_name(f"{stem}{number}{path.suffix}"))
    before = read_grokcso(folder).splits["test"]
    with Image.open(folder / "cso_img" / "image_10.png") as image:
        np.testing.assert_array_equal(before.images[10], np.asarray(image))


def test_annotations_of_other_images(folder: Path) -> None:
    names = sorted((folder / "Annotations").iterdir())
    texts = [path.read_text() for path in names]
    for path, text in zip(names, [*texts[1:], texts[0]], strict=True):
        path.write_text(text)
    with pytest.raises(InputError, match=r"do not explain the images with sigma 0\.5") as caught:
        read_grokcso(folder)
    assert "\n" not in str(caught.value)


def remove(tag: str) -> Callable[[ElementTree.Element], None]:
    def change(root: ElementTree.Element) -> None:
        for parent in root.iter():
            for child in parent.findall(tag):
                parent.remove(child)

    return change


def put(tag: str, text: str) -> Callable[[ElementTree.Element], None]:
    def change(root: ElementTree.Element) -> None:
        for element in root.iter(tag):
            element.text = text

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("sigma"), "lacks the field annotation/sigma"),
        (remove("size"), "lacks the field annotation/size"),
        (remove("width"), "lacks the field size/width"),
        (remove("coordinate"), "lacks the field object/coordinate"),
        (remove("xc"), "lacks the field coordinate/xc"),
        (remove("yc"), "lacks the field coordinate/yc"),
        (remove("brightness"), "lacks the field coordinate/brightness"),
        (put("xc", "left"), "coordinate/xc must be a number, got 'left'"),
        (put("yc", "nan"), "must be a number"),
        (put("brightness", ""), "lacks the field coordinate/brightness"),
        (put("width", "12"), r"has \(rows, columns\) = \(11, 11\), but .* says \(11, 12\)"),
        (put("sigma", "0.7"), "has sigma 0.7"),
    ],
)
def test_bad_annotation(folder: Path, change: Callable[[ElementTree.Element], None], said: str) -> None:
    edit(folder / "Annotations" / "CSO00005.xml", change)
    with pytest.raises(InputError, match=said) as caught:
        read_grokcso(folder)
    assert "CSO00005.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_xml_that_is_no_xml(folder: Path) -> None:
    path = folder / "Annotations" / "CSO00005.xml"
    text = path.read_text()
    bomb = '<!DOCTYPE a [<!ENTITY b "boom">]>\n' + text.replace("<filename>", "<filename>&b;").split("\n", 1)[1]
    for content in (text[:100], "", bomb):
        path.write_text(content)
        with pytest.raises(InputError, match=r"CSO00005\.xml") as caught:
            read_grokcso(folder)
        assert "\n" not in str(caught.value)


def test_missing_and_odd_files(folder: Path, tmp_path: Path) -> None:
    image, annotation = folder / "cso_img" / "image_00005.png", folder / "Annotations" / "CSO00005.xml"
    kept = annotation.read_bytes()
    annotation.unlink()
    with pytest.raises(InputError, match=r"image_00005.png has no annotation"):
        read_grokcso(folder)
    annotation.write_bytes(kept)
    pixels = image.read_bytes()
    image.unlink()
    with pytest.raises(InputError, match=r"CSO00005.xml has no image"):
        read_grokcso(folder)
    image.write_bytes(pixels[:60])
    with pytest.raises(InputError, match=r"image_00005.png"):
        read_grokcso(folder)
    Image.fromarray(np.zeros((11, 11), np.uint8)).save(image)
    with pytest.raises(InputError, match="pixel type uint8"):
        read_grokcso(folder)
    shutil.rmtree(folder / "Annotations")
    with pytest.raises(InputError, match="no folder Annotations"):
        read_grokcso(folder)
    for path in (folder / "cso_img").iterdir():
        path.unlink()
    (folder / "Annotations").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        read_grokcso(folder)
    with pytest.raises(InputError, match="neither cso_img with Annotations nor image with annotation"):
        read_grokcso(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_grokcso(tmp_path / "none")


def test_images_without_any_target_say_nothing_of_the_convention(tmp_path: Path) -> None:
    prior = ScenePrior(count_range=(0, 0), intensity_range=(1, 2))
    generate(tmp_path / "s.h5", count=5, prior=prior)
    data = read_grokcso(write_grokcso(load(tmp_path / "s.h5"), tmp_path / "g"))
    assert np.isnan(data.convention.explained)
    assert (data.convention.x_is_column, data.convention.first) == (True, 0)


def test_bad_card(canonical: Path, tmp_path: Path) -> None:
    root = shutil.copytree(canonical / "g", tmp_path / "g")
    (root / "csist.json").write_text("{")
    with pytest.raises(InputError, match=r"csist\.json"):
        read_grokcso(root)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise_std": 3.0}, "a PNG holds 0 to 65535, but values go from -"),
        ({"bits": "float"}, "whole counts only"),
        ({"sensor": Sensor(background=70000.0), "bits": 32}, "a PNG holds 0 to 65535"),
        ({"sensor": Sensor(psf=AiryPSF(1.5))}, "Gaussian PSF only"),
    ],
)
def test_what_cannot_be_stored(tmp_path: Path, options: dict[str, object], said: str) -> None:
    generate(tmp_path / "s.h5", count=5, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "s.h5", tmp_path / "g")
    with pytest.raises(InputError, match=said):
        generate(tmp_path / "g", count=5, layout="grokcso", **options)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_convert_says_what_it_needs(canonical: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already"):
        convert(canonical / "s.h5", tmp_path / "t.h5")
    with pytest.raises(InputError, match=r"must end in \.h5"):
        convert(canonical / "g", tmp_path / "t")
    with pytest.raises(InputError, match="cannot convert"):
        convert(tmp_path / "none", tmp_path / "t")
    with pytest.raises(InputError, match="there is no such file"):
        convert(tmp_path / "none.h5", tmp_path / "t")
    with pytest.raises(InputError, match="it already exists"):
        convert(canonical / "s.h5", canonical / "g")


def shift(folder: Path, split: str, first: int) -> int:
    """Give the images of a split from that place on the annotation of the image before; returns how many."""
    paths = sorted((folder / split / "Annotations").iterdir())[first:]
    texts = [path.read_bytes() for path in paths]
    for path, text in zip(paths, [texts[-1], *texts[:-1]], strict=True):
        path.write_bytes(text)
    return len(paths)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("many") / "g", count=300, layout="grokcso", noise_std=2.0, clip=True)


def test_labels_of_other_images_late_in_a_split_are_found(many: Path, tmp_path: Path) -> None:
    shutil.copytree(many, tmp_path / "g")
    count = shift(tmp_path / "g", "train", 160)
    said = r"(\d+) of 240 annotations do not explain their images, first that of .*image_0016\d\.png: are they numbered"
    with pytest.raises(InputError, match=said) as caught:
        read_grokcso(tmp_path / "g")
    found = int(str(caught.value).split(" of 240")[0].rpartition(" ")[2])
    assert 0.9 * count < found <= count  # two neighbours may be alike
    with pytest.raises(InputError, match="do not explain"):
        convert(tmp_path / "g", tmp_path / "g.h5")
    assert not (tmp_path / "g.h5").exists()


def test_labels_are_checked_in_every_split(many: Path, tmp_path: Path) -> None:
    shutil.copytree(many, tmp_path / "g")
    shift(tmp_path / "g", "test", 0)
    with pytest.raises(InputError, match=r"of 30 annotations do not explain .*test"):
        read_grokcso(tmp_path / "g")


def test_a_single_wrong_label_of_many_is_told_of(many: Path, tmp_path: Path) -> None:
    shutil.copytree(many, tmp_path / "g")
    folder = tmp_path / "g" / "train" / "Annotations"
    first, *_, last = sorted(folder.iterdir())
    shutil.copy(first, last)
    notes: list[str] = []
    convert(tmp_path / "g", tmp_path / "g.h5", notes=notes)
    assert len(notes) == 1
    assert notes[0].startswith("1 of 240 annotations do not explain their images, first that of ")
    assert read_grokcso(many).notes == ()


@pytest.mark.parametrize("prefix", ["CSO", "COS"])
def test_the_layout_of_seqcsist(many: Path, tmp_path: Path, prefix: str) -> None:
    root = tmp_path / "track"
    for split in ("train", "val", "test"):
        shutil.copytree(many / split / "cso_img", root / split / "image")
        (root / split / "annotation").mkdir()
        for path in (many / split / "Annotations").iterdir():
            shutil.copy(path, root / split / "annotation" / path.name.replace("CSO", prefix))
    (root / "train" / "qinit.mat").write_bytes(b"")
    (root / "phi_0.5.mat").write_bytes(b"")
    assert is_grokcso(root)
    found, expected = read_grokcso(root), read_grokcso(many)
    assert found.convention == expected.convention
    assert found.notes == ("phi_0.5.mat, train/qinit.mat not needed: the operator follows from sigma, size and ratio",)
    for split in expected.splits:
        np.testing.assert_array_equal(found.splits[split].images, expected.splits[split].images)
        np.testing.assert_array_equal(found.splits[split].targets, expected.splits[split].targets)
    assert is_grokcso(root / "test")
    shutil.rmtree(root / "test" / "annotation")
    assert not is_grokcso(root / "test")  # a folder called image alone may hold anything


def test_images_of_seqcsist_keep_their_names_in_an_evaluation(many: Path, tmp_path: Path) -> None:
    from csist.evaluation import read_labelled

    root = tmp_path / "track"
    shutil.copytree(many / "test" / "cso_img", root / "test" / "image")
    shutil.copytree(many / "test" / "Annotations", root / "test" / "annotation")
    expected, found = (read_labelled(path, "test") for path in (many, root))
    assert found.names == expected.names
    assert len(found.names) == 30
