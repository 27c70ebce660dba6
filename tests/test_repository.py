"""The repository as a whole: what its files promise about each other, and the wheel that comes out of it."""

import csv
import importlib
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba.core.caching import _CacheLocator

import csist
from conftest import BUSY
from csist._compiled import COMPILING_TIME
from csist._types import FloatArray
from csist.io import read_image
from csist.methods.table import METHODS

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src" / "csist" / "data"

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the repository around it")


@pytest.fixture(scope="module")
def results_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "scripts" / "results_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None and cited[1] == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()
    assert version("csist") == project["version"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    entry = METHODS[name]
    module_name, _, attribute = entry.target.partition(":")
    module = importlib.import_module(f"csist.methods.{module_name}")
    assert entry.summary and entry.source
    assert module.__doc__ and getattr(module, attribute).__doc__


def test_sample_frames_are_small_and_their_licence_is_stated() -> None:
    frames = sorted(SAMPLES.glob("*.png"))
    stated = (SAMPLES / "README.md").read_text()
    assert frames and sum(path.stat().st_size for path in frames) < 300_000
    for path in frames:
        assert f"`{path.name}`" in stated
        assert read_image(path)[0].shape == (256, 320)


# --- README -----------------------------------------------------------------------------------------------


def test_readme_table_is_what_the_script_makes_of_the_results(results_table: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    for name, table in results_table.SECTIONS.items():
        assert results_table.filled(readme, name, table(ROOT / "docs" / "results")) == readme


def test_results_table_of_two_evaluations(results_table: ModuleType, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "results" / "published.json", tmp_path)
    data = {"images": 10_000, "split": "test", "sensor": {"read_noise": 0.0, "bits": None}}
    ours = {"name": "continuous", "CSO-mAP": 91.234, "AP05": 60.0, "interval": [90.9, 91.6]}
    oracle = {"name": "oracle", "reference": True, "CSO-mAP": 45.5, "AP05": None, "count_accuracy": 100.0}
    for name, rows, noise in (("a", [ours, oracle], 0.0), ("b", [oracle], 0.0), ("c", [ours], 2.0)):
        content = {"data": data | {"sensor": {"read_noise": noise, "bits": None}}, "ratio": 3, "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "speed.json").write_text("[1, 2]")  # of another kind
    quiet, noisy = results_table.results_table(tmp_path).split("\n\n10,000 images of the test split, read noise 2")
    lines = [line for line in quiet.splitlines() if line.startswith("|")]
    assert quiet.startswith("10,000 images of the test split, no noise but rounding:")
    assert lines[2] == "| `continuous` | none | 91.23 (90.9 to 91.6) | 60.00 |  |  |  |"
    assert [line.split(" | ")[0] for line in lines[3:]] == ["| DISTA-Net, as published"] * 2 + [
        "| DISTA-Net, as published",
        "| *oracle*",
    ]
    assert "published" not in noisy


def test_readme_markers_are_needed(results_table: ModuleType) -> None:
    with pytest.raises(ValueError, match="results:start"):
        results_table.filled("no markers", "results", "table")


def test_readme_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((example, shown),) = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len(example.strip().splitlines()) <= 7
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    names = runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert "CSO-mAP" in printed
    assert words_of(printed) == words_of(shown)
    # The samples of the posterior may differ between machines, so may the last digits and the order of equal scores.
    told, found = rows_of(shown), rows_of(printed)
    np.testing.assert_allclose(found[:, :2], told[:, :2], atol=0.01)  # x, y
    np.testing.assert_allclose(found[:, 2], told[:, 2], atol=5.0)  # intensity
    np.testing.assert_allclose(found[:, 3], told[:, 3], atol=0.02)  # score
    np.testing.assert_allclose(found[:, 4], told[:, 4], rtol=0.5, atol=0.001)  # x_std
    # A group at the border loses light, which a first example should not have to explain.
    assert all(1.0 < place < size - 2.0 for place, size in zip(found[:, :2].mean(axis=0), (11, 11), strict=True))
    assert len(names["truth"]) == 3


def words_of(output: str) -> list[str]:
    """Names of columns and of scores, and the number of rows."""
    return re.findall(r"[A-Za-z_][\w-]*|^\d+(?= )", output, re.MULTILINE)


def rows_of(output: str) -> FloatArray:
    """Rows of the printed table without their index, by x."""
    rows = [[float(cell) for cell in line.split()[1:]] for line in output.splitlines() if re.match(r"\d+ ", line)]
    return np.array(sorted(rows))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "src/csist/data/README.md"])
def test_links_to_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("document", ["README.md", "docs/index.md", "docs/howto/install.md", "docs/faq.md"])
def test_documents_state_the_waiting_time_of_the_first_call_as_the_program_does(document: str) -> None:
    assert COMPILING_TIME in " ".join((ROOT / document).read_text().split())


# --- set-up -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("found", [False, True])
def test_make_names_the_python_it_cannot_use(tmp_path: Path, found: bool) -> None:
    python = tmp_path / "python3"
    if found:  # as an interpreter that is too old answers
        python.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.9.2 && exit 0\nexit 1\n')
        python.chmod(0o755)
    make = ["make", "demo", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    run = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert ("Python 3.9.2, but Python 3.11 or newer is needed" if found else f"No {python} found") in run.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


def test_files_that_one_process_runs_are_there() -> None:
    assert [file for file in BUSY if not (ROOT / file).is_file()] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment whose csist is the wheel of this repository."""
    pytest.importorskip("build", reason="needs the extra `dev`")
    folder = tmp_path_factory.mktemp("wheel")
    source, dist, environment = folder / "source", folder / "dist", folder / "environment"
    # A copy, because a build writes into the folder it builds from.
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source, cwd=folder)
    (wheel,) = dist.glob("*.whl")

    # The dependencies are those of this environment: folders named in a .pth file are searched, their own .pth files
    # (an editable install is one) are not read.
    venv.create(environment, with_pip=False)
    python = next(path for path in environment.glob("*/python*") if path.stem == "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    command(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    home = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (home / "dependencies.pth").write_text("\n".join(sorted(shared)) + "\n")
    share_compiled_code(home / "csist")
    return python


def share_compiled_code(package: Path) -> None:
    """Give an installed package the machine code of the same files here: Numba takes it by the content of a file.

    A folder of machine code may be named after the place of the files, and then has its name there.
    """
    here = ROOT / "src" / "csist"
    folders = [here, *(path for path in here.rglob("*") if path.is_dir())]
    names = {numba_name(folder): numba_name(package / folder.relative_to(here)) for folder in folders}
    for path in here.rglob("*.nb[ic]"):
        copy = package.joinpath(*(names.get(part, part) for part in path.relative_to(here).parts))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def numba_name(folder: Path) -> str:
    """Numba's name for the machine code of the files of a folder, below its cache folder."""
    return _CacheLocator.get_suitable_cache_subpath(str(folder / "any.py"))


def test_wheel_unmixes_an_image_away_from_the_repository(installed: Path, tmp_path: Path) -> None:
    home = Path(command(installed, "-c", "import csist; print(csist.__file__)", cwd=tmp_path).strip()).parent
    assert installed.parent.parent in home.parents
    assert sorted(path.name for path in (home / "data").glob("*.png"))

    image = home / "data" / "airplane_clear_sky.png"
    rows = rows_by_command(installed, image, folder=tmp_path)
    assert any(abs(float(row["x"]) - 133) < 3 and abs(float(row["y"]) - 156) < 3 for row in rows)


def test_wheel_holds_the_package_alone_and_is_small(installed: Path) -> None:
    (wheel,) = (installed.parents[2] / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"csist", f"csist-{version('csist')}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".nbi", ".nbc"))]
    assert wheel.stat().st_size < 60e6  # as the page on the installation says


def test_wheel_holds_the_trained_weights(installed: Path, tmp_path: Path) -> None:
    sensor = csist.Sensor()
    scenes = csist.sample_scenes(csist.ScenePrior.csist_100k(), sensor, 3, seed=8)
    stack = np.stack([sensor.observe(scene, seed) for seed, scene in enumerate(scenes)])
    np.save(tmp_path / "stack.npy", stack)
    rows = rows_by_command(installed, "stack.npy", "--method", "dista-net", folder=tmp_path)
    expected = csist.unmix(stack, method="dista-net")
    found = [(int(row["frame"]), float(row["x"]), float(row["y"]), float(row["intensity"])) for row in rows]
    own = [(n, *each) for n, t in enumerate(expected) for each in zip(t.x, t.y, t.intensity, strict=True)]
    assert len(own) >= 3
    np.testing.assert_allclose(sorted(found), sorted(own), rtol=1e-4)


def rows_by_command(python: Path, *words: object, folder: Path) -> list[dict[str, str]]:
    """The table of `csist unmix` of an environment."""
    command(python.with_name("csist"), "unmix", *words, "-o", "targets.csv", cwd=folder)
    with (folder / "targets.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def command(*words: object, cwd: Path) -> str:
    """Run a command and return what it printed; its error output is part of the failure."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{words}: {run.stdout}{run.stderr}"
    return run.stdout
