"""Compiled code: where it is kept, what renews it, and how many times each kernel is compiled."""

import ast
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from csist import _compiled
from csist._compiled import KEPT_FOLDERS, PACKAGE, PREFIX, kernel_sources, open_cache, remove_old, source_key


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's sources."""
    copy = tmp_path / "csist"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "data"))
    return copy


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable names a folder; the user's cache lies in the folder returned."""
    monkeypatch.delenv("CSIST_CACHE_DIR", raising=False)
    monkeypatch.setattr(_compiled._numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(_compiled, "user_cache_folder", lambda: tmp_path / "user")
    return tmp_path / "user"


def test_an_edit_in_any_kernel_file_changes_the_key(package: Path) -> None:
    assert source_key(package) == source_key()
    seen = {source_key(package)}
    for path in kernel_sources(package):
        path.write_text(path.read_text() + "\n# edited\n")
        seen.add(source_key(package))
    assert len(seen) == 1 + len(kernel_sources(package))
    assert {"optimise.py", "kernels.py", "grid.py", "scenes.py", "_compiled.py"} <= {
        path.name for path in kernel_sources(package)
    }


def test_an_edit_elsewhere_keeps_the_key(package: Path) -> None:
    before = source_key(package)
    (package / "targets.py").write_text((package / "targets.py").read_text() + "\n# edited\n")
    assert source_key(package) == before


def kernel_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    decorators = ("compiled", "compiled_exactly", "inner", "lean", "fused", "inlined", "linked")
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d).split("(")[0] in decorators for d in node.decorator_list)
    ]


def test_kernels_take_no_value_from_a_file_that_is_not_in_the_key() -> None:
    """A constant is frozen into the machine code; from elsewhere it would change without the key."""
    keyed = {".".join(("csist", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in kernel_sources()}
    for path in kernel_sources():
        if path.name == "_compiled.py":
            continue
        tree = ast.parse(path.read_text())
        foreign = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("csist")
            for alias in node.names
            if node.module not in keyed and node.module != "csist._types"
        }
        derived = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            and {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)} & foreign
            for each in node.targets
            for target in ast.walk(each)
            if isinstance(target, ast.Name)
        }
        for function in kernel_functions(tree):
            names = {n.id for part in function.body for n in ast.walk(part) if isinstance(n, ast.Name)}
            assert not names & (foreign | derived), f"{path.name}: {function.name}"


OF_NUMBERS = {f"np.{name}" for name in ("float32", "int32", "uint32", "floor", "rint", "log", "isfinite")}


def is_lean(function: ast.FunctionDef) -> bool:
    marks = {ast.unparse(decorator) for decorator in function.decorator_list}
    return bool(marks & {"lean", "fused"}) or any("is_lean=True" in mark for mark in marks)


def test_kernels_that_count_no_references_neither_return_arrays_nor_call_one_that_counts() -> None:
    """The caller of an array that was not counted would free it too early; one that nobody lets go would never be.

    A function of an array that Numba writes itself is compiled with its first caller, and counts or not like that one.
    """
    kernels = {f.name: f for path in kernel_sources() for f in kernel_functions(ast.parse(path.read_text()))}
    lean = [function for function in kernels.values() if is_lean(function)]
    assert len(lean) > 60
    for function in lean:
        result = {node.id for node in ast.walk(function.returns or ast.Constant(None)) if isinstance(node, ast.Name)}
        assert result <= {"bool", "int", "float", "tuple", "Row"}, function.name
        seen, waiting = set(), [function]
        while waiting:  # what is inlined is part of the function
            calls = [node.func for part in waiting.pop().body for node in ast.walk(part) if isinstance(node, ast.Call)]
            names = {called.id for called in calls if isinstance(called, ast.Name)}
            others = {ast.unparse(called) for called in calls if not isinstance(called, ast.Name)}
            of_arrays = {name for name in others - OF_NUMBERS if not name.startswith("math.")}
            assert all(name.endswith(".reshape") for name in of_arrays), f"{function.name} calls {of_arrays}"
            for called in (kernels[name] for name in (names & kernels.keys()) - seen):
                if "inlined" in {ast.unparse(decorator) for decorator in called.decorator_list}:
                    waiting.append(called)
                else:
                    assert is_lean(called), f"{function.name} calls {called.name}"
            seen |= names


def test_the_package_folder_holds_the_cache(package: Path, no_variables: Path) -> None:
    assert open_cache(package) == package / "__pycache__" / (PREFIX + source_key(package))


@pytest.mark.skipif(os.name == "nt", reason="folders are not made read-only this way")
def test_a_read_only_package_falls_back_to_the_users_folder(
    package: Path, no_variables: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = Path.mkdir

    def refuse(path: Path, *args: object, **kwargs: object) -> None:  # root may write everywhere
        if path.is_relative_to(package):
            raise PermissionError(path)
        make(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert open_cache(package) == no_variables / (PREFIX + source_key(package))
    assert not caplog.records
    monkeypatch.setattr(_compiled, "user_cache_folder", lambda: package / "nowhere")
    with caplog.at_level(logging.WARNING):
        assert open_cache(package) is None
    assert len(caplog.records) == 1 and "CSIST_CACHE_DIR" in caplog.records[0].message


def test_variables_name_the_folder(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled._numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.delenv("CSIST_CACHE_DIR", raising=False)
    assert open_cache(package) == tmp_path / "numba" / (PREFIX + source_key(package))
    monkeypatch.setenv("CSIST_CACHE_DIR", str(tmp_path / "own"))
    assert open_cache(package) == tmp_path / "own" / (PREFIX + source_key(package))


def test_old_folders_go_and_nothing_else(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSIST_CACHE_DIR", str(tmp_path / "own"))
    (tmp_path / "own" / "mine").mkdir(parents=True)
    for age in range(KEPT_FOLDERS + 3):
        old = tmp_path / "own" / f"{PREFIX}{age:016x}"
        old.mkdir()
        (old / "kernel.nbc").touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    current = open_cache(package)
    left = {path.name for path in (tmp_path / "own").iterdir()}
    assert current is not None
    assert left == {"mine", current.name, *(f"{PREFIX}{age:016x}" for age in range(KEPT_FOLDERS - 1))}
    remove_old(tmp_path / "own")
    assert {path.name for path in (tmp_path / "own").iterdir()} == left


PROGRAM = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from csist.grid import merge_cells
print(merge_cells(np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 9.0]]), 1, 9))
"""


def run_program(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)


def test_compiling_is_told_once_a_machine(tmp_path: Path) -> None:
    first, second = run_program(CSIST_CACHE_DIR=str(tmp_path)), run_program(CSIST_CACHE_DIR=str(tmp_path))
    assert first.stdout == second.stdout
    assert first.stderr.count("compiling the solver") == 1
    assert "compiling" not in second.stderr


COUNT_SIGNATURES = """
import gc
import numpy as np
import csist
from numba.core.dispatcher import Dispatcher
prior = csist.ScenePrior.csist_100k()
sensor = csist.Sensor(read_noise=1.0)
window = sensor.observe(csist.Targets(x=[5.2, 4.9], y=[4.9, 5.1], intensity=[240.0, 230.0]), 0)
for mode in ("fast", "accurate"):
    csist.unmix(window, sensor, prior, mode=mode)
    csist.unmix(window, sensor, mode=mode)
    csist.unmix(window, sensor, mode=mode, background="plane")
x, y = np.random.default_rng(0).uniform(10, 54, (2, 5))
field = csist.Sensor(read_noise=1.0, background=50.0, shape=(64, 64))
csist.unmix(field.observe(csist.Targets(x=x, y=y, intensity=np.full(5, 900.0)), 0))
for kernel in gc.get_objects():
    if isinstance(kernel, Dispatcher) and kernel.py_func.__module__.startswith("csist"):
        print(kernel.py_func.__module__, kernel.py_func.__name__, len(kernel.signatures))
"""

SEVERAL_TYPES = {
    "quantile_of_sorted": "rows of both precisions",
    "clip_sorted": "rows of both precisions",
    "add_products": "images of both precisions",
    "adopt": "places in a list and in a table",
    "aligned": "shapes with one axis and more",
    "_render_part": "a switch that is on or off for good",
    "seed_chains": "one block for good, or several",
}
"""Kernels that take more than one type of argument, and of what; the last four are parts of others."""


def test_each_kernel_has_one_signature() -> None:
    said = subprocess.run([sys.executable, "-c", COUNT_SIGNATURES], capture_output=True, text=True, check=True)
    counts = {(module, name): int(number) for module, name, number in map(str.split, said.stdout.splitlines())}
    used = [key for key, number in counts.items() if number]
    assert len(used) > 20
    several = {name for (_, name), number in counts.items() if number > 1}
    assert several <= set(SEVERAL_TYPES)
