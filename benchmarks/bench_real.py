"""Detection, positions and fluxes on real infrared frames and star fields.

Parts: sirst (labelled infrared frames), wild (the same and drones by default options), injected (simulated groups in
infrared frames), m2 (a crowded star field with the catalogue of a sharper telescope), spitzer (catalogued stars at
4.5 um). The data are not part of csist; their
sources are in the documentation.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from common import RESULTS, machine
from csist.checks import InputError
from csist.cli.output import progress, write_json
from csist.plots import save_figure
from real.common import folder_of

PARTS = ("sirst", "wild", "injected", "m2", "spitzer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the sub-folders of the parts, such as sirst"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="part to run; repeatable; default: all")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for real_NAME.json and .png")
    options = parser.parse_args()
    modules = {name: import_module(f"real.{name}") for name in dict.fromkeys(options.part or PARTS)}
    for module in modules.values():  # fail before hours of computation
        for folder in module.FOLDERS:
            try:
                folder_of(options.data, folder)
            except InputError as error:
                parser.error(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        measure(name, module, options.data, options.output)


def measure(name: str, module: Any, data: Path, output: Path) -> None:
    with progress() as report:
        result = module.run(data, report)
    target = output / f"real_{name}.json"
    write_json(result | {"machine": machine()}, str(target))
    save_figure(module.draw(result), target.with_suffix(".png"))
    for each in result["targets"]:
        value = f"{each['value']:.3f}" if isinstance(each["value"], float) else each["value"]
        print(f"{name}: {each['aim']}: {value}, {'met' if each['met'] else 'missed'}")
    print(f"{name}: {target}")


if __name__ == "__main__":
    main()
