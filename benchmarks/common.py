"""Helpers of the benchmarks: output of results, and description of the machine."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import csist
from csist.weights.cards import processor

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


def machine() -> dict[str, Any]:
    """Return the processor, number of cores and versions."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "csist": csist.__version__,
    }


def read_result(name: str) -> dict[str, Any]:
    """Content of docs/results/NAME.json."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write docs/results/NAME.json and print it."""
    text = json.dumps(result | {"machine": machine()}, indent=2) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text)
    print(text)
