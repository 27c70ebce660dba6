"""`csist doctor`: say what this installation is and can do."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from csist.cli.options import JsonOption
from csist.cli.output import check_outputs, make_console, write_json

CORE_PACKAGES = ("numpy", "scipy", "numba", "torch", "h5py", "tifffile", "astropy", "photutils")
"""Packages whose versions a report of a fault should name."""


def doctor(json_target: JsonOption = None) -> None:
    """Show versions, processor and GPU, whether the solver is compiled, and which extras are installed."""
    check_outputs([], json_target)
    found = _examine()
    if json_target is not None:
        write_json(found, json_target)
    if json_target != "-":
        _report(found)


def _examine() -> dict[str, Any]:
    import os
    import platform
    import sys

    import csist
    from csist.weights.cards import describe_machine
    from csist.weights.pretrained import list_pretrained

    return {
        "csist": csist.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "machine": describe_machine(),
        "packages": {name: _version(name) for name in CORE_PACKAGES},
        "compiled": _compiled(),
        "extras": _extras(),
        "trained_networks": len(list_pretrained()),
    }


def _version(package: str) -> str | None:
    """Version of an installed package; None where it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _compiled() -> dict[str, Any]:
    """Where the machine code of the solver is kept, and how many kernels are there."""
    from csist._compiled import cache_folder

    folder = cache_folder()
    if folder is None:
        return {"folder": None, "kernels": 0}
    return {"folder": str(folder), "kernels": sum(1 for _ in folder.rglob("*.nbi"))}


def _extras() -> dict[str, list[str]]:
    """What each extra lacks, as requirements: absent packages and too old ones."""
    from importlib.metadata import metadata, requires

    from packaging.requirements import Requirement

    extras: dict[str, list[str]] = {name: [] for name in metadata("csist").get_all("Provides-Extra") or []}
    for requirement in map(Requirement, requires("csist") or []):
        for extra, lacking in extras.items():
            if requirement.name == "csist" or requirement.marker is None:
                continue
            if requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate({"extra": ""}):
                installed = _version(requirement.name)
                if installed is None or not requirement.specifier.contains(installed, prereleases=True):
                    lacking.append(f"{requirement.name}{requirement.specifier}")
    return extras


def _report(found: dict[str, Any]) -> None:
    from csist._compiled import COMPILING_TIME

    machine, compiled = found["machine"], found["compiled"]
    if compiled["folder"] is None:
        solver = "no folder for compiled code can be written: set CSIST_CACHE_DIR to one"
    elif compiled["kernels"]:
        solver = f"{compiled['kernels']} kernels in {compiled['folder']}"
    else:
        solver = f"nothing yet in {compiled['folder']}; the first use compiles it: {COMPILING_TIME}"
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    packages = ", ".join(f"{name} {version or '-'}" for name, version in found["packages"].items())
    rows = {
        "csist": found["csist"],
        "Python": f"{found['python']}, {found['executable']}",
        "system": found["system"],
        "processor": f"{machine['cpu']}, {found['cores']} cores, {machine['threads']} threads for networks",
        "GPU": machine["accelerator"] or "none that PyTorch can use",
        "packages": packages,
        "compiled": solver,
        "networks": f"{found['trained_networks']} with trained weights (csist methods)",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for name, lacking in found["extras"].items():
        said = f"lacks {', '.join(lacking)}: pip install 'csist[{name}]'" if lacking else "installed"
        table.add_row(f"extra {name}", said)
    make_console().print(table)
