"""Container and conda recipe: they agree with pyproject.toml, and the image builds where a Docker daemon runs."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from csist.cli.entry import app

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge names otherwise than PyPI."""
INSTRUCTIONS = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}

pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").is_file(), reason="needs the repository around it")


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, with continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def recipe() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "recipe" / "recipe.yaml").read_text()
    found = yaml.safe_load(text)
    for name, value in found["context"].items():  # what the recipe's own templates stand for
        text = text.replace("${{ " + name + " }}", value)
    return dict(yaml.safe_load(text))


def test_every_instruction_of_the_image_is_known() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= INSTRUCTIONS


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "*"
    for _, words in (each for each in instructions() if each[0] == "COPY"):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(fnmatch.fnmatch(source.removeprefix("./"), name) for name in kept)


def test_the_image_installs_known_extras_as_the_constraints_say() -> None:
    (install,) = [words for name, words in instructions() if name == "RUN" and "pip install" in words]
    extras = re.search(r"\.\[([a-z,]+)\]", install)
    assert extras is not None and set(extras[1].split(",")) <= set(project()["optional-dependencies"])
    assert "-c constraints-cpu.txt" in install
    base = dict(instructions())["FROM"]
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
    assert version is not None and f">={version[1]}" == project()["requires-python"]


def test_the_command_of_the_image_is_one_of_csist() -> None:
    found = dict(instructions())
    assert json.loads(found["ENTRYPOINT"]) == ["csist"]
    command, *options = json.loads(found["CMD"])
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert all(option in shown for option in options if option.startswith("--"))
    assert options[options.index("--port") + 1] == found["EXPOSE"]


def test_the_image_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    assert "USER" in names[: names.index("ENTRYPOINT")]


@pytest.fixture
def daemon() -> str:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("no Docker daemon")
    return docker


def test_the_image_builds_and_unmixes(daemon: str) -> None:
    built = subprocess.run([daemon, "build", "--tag", "csist-test", str(ROOT)], capture_output=True, check=False)
    assert built.returncode == 0, built.stderr.decode()
    said = subprocess.run([daemon, "run", "--rm", "csist-test", "doctor"], capture_output=True, text=True, check=True)
    assert "csist" in said.stdout


def test_the_recipe_has_the_dependencies_of_the_package() -> None:
    wanted = {}
    for text in project()["dependencies"]:
        name, bound = re.fullmatch(r"([a-z0-9]+)(>=[\d.]+)", text).groups()  # type: ignore[union-attr]
        wanted[CONDA_NAMES.get(name, name)] = bound
    run = dict(line.split() for line in recipe()["requirements"]["run"])
    assert run.pop("python") == project()["requires-python"]
    assert run == wanted


def test_the_recipe_is_rendered_to_one_package() -> None:
    build = pytest.importorskip("rattler_build", reason="needs py-rattler-build")
    stage = build.Stage0Recipe.from_yaml((ROOT / "recipe" / "recipe.yaml").read_text())
    (variant,) = stage.render(build.VariantConfig())
    assert "csist" in repr(variant) and project()["version"] in repr(variant)


def test_the_recipe_says_what_the_package_says() -> None:
    found = recipe()
    assert (found["package"]["name"], found["package"]["version"]) == (project()["name"], project()["version"])
    assert found["about"]["summary"] == project()["description"]
    assert found["about"]["license"] == project()["license"]
    (entry,) = project()["scripts"].items()
    assert found["build"]["python"]["entry_points"] == [" = ".join(entry)]
    assert (ROOT / "recipe" / found["source"]["path"] / "pyproject.toml").resolve() == ROOT / "pyproject.toml"
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert [line.replace(" ", "") for line in found["requirements"]["host"] if line.startswith("setuptools")] == build
