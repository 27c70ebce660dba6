"""`csist benchmark real`: measured images whose truth is known to some degree."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from csist.checks import InputError
from csist.cli.output import make_console, progress, write_json

PARTS = ("sirst", "injected", "m2", "spitzer")


def real(
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="Folder that holds the parts' folders, such as sirst.")
    ],
    part: Annotated[
        list[str] | None, typer.Option("--part", help=f"{', '.join(PARTS)}; may be given several times, default all.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the figures and pictures, real_NAME.json and .png.")
    ] = Path("out/results"),
) -> None:
    """Measure detection, positions and fluxes on real infrared frames and star fields.

    Parts: sirst (labelled infrared frames), injected (simulated groups in infrared frames), m2 (a crowded star field
    beside a sharper telescope's catalogue), spitzer (catalogued stars at 4.5 um). The data are not part of csist; the
    documentation says where they come from.
    """
    names = list(dict.fromkeys(part or PARTS))
    modules = {name: _module(name) for name in names}
    for module in modules.values():  # before hours of work
        for folder in module.FOLDERS:
            _folder(data, folder)
    output.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        _measure(name, module, data, output)


def _module(name: str) -> Any:
    if name not in PARTS:
        raise InputError(f"unknown part {name!r}: use {', '.join(PARTS)}")
    return import_module(f"csist.benchmarking.{name}")


def _folder(data: Path, name: str) -> None:
    from csist.benchmarking.common import folder_of

    folder_of(data, name)


def _measure(name: str, module: Any, data: Path, output: Path) -> None:
    from csist.benchmarking.common import machine
    from csist.plots.style import save_figure

    with progress() as report:
        result = module.run(data, report)
    target = output / f"real_{name}.json"
    write_json(result | {"machine": machine()}, str(target))
    save_figure(module.draw(result), target.with_suffix(".png"))
    console = make_console()
    for each in result["targets"]:
        value = f"{each['value']:.3f}" if isinstance(each["value"], float) else each["value"]
        console.print(f"{name}: {each['aim']}: {value}, {'met' if each['met'] else 'missed'}", soft_wrap=True)
    console.print(f"{name}: {target}", soft_wrap=True)
