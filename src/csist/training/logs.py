"""The figures that a training left in its folder: one CSV a session, read as one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError

FOLDER, FILE = "csv", "metrics.csv"
SESSION = "session-"
"""Sessions are numbered from 1; the logger empties the folder that it is given, so a resumed run needs another."""

COLUMNS = (
    "samples", "discrepancy", "constraint", "learning_rate", "gradient_norm", "cso_map", "squared_error",
    "exact_cso_map", "exact_squared_error",
)  # fmt: skip


def next_session(output: Path, resumed: bool) -> str:
    """Name of the log folder of the session that begins, below `output`/csv."""
    return f"{SESSION}{len(_sessions(output)) + 1 if resumed else 1}"


def read_log(output: str | Path, batch_size: int) -> dict[str, FloatArray]:
    """What `csist train` logged in a folder, all sessions together, by the names of `COLUMNS`, NaN where not logged.

    Steps that a killed session had logged beyond its checkpoint, and the next one took again, are those of the latter.

    Args:
        output: the folder of the training.
        batch_size: samples per step, of all processes together (`batch_size` of the card's `training`).

    Raises:
        InputError: if there is no log.
    """
    sessions = _sessions(Path(output))
    if not sessions:
        raise InputError(f"{output} holds no log of a training ({FOLDER}/{SESSION}1/{FILE})")
    rows: list[list[float]] = []
    for path in sessions:
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
        # A step is counted from 0; rows of validations tell the samples themselves.
        steps = [int(row.get("samples") or batch_size * (int(row["step"]) + 1)) for row in table]
        rows = [row for row in rows if not steps or row[0] < steps[0]]
        rows += [
            [samples, *(float(row.get(name) or "nan") for name in COLUMNS[1:])]
            for samples, row in zip(steps, table, strict=True)
        ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS)).T
    return dict(zip(COLUMNS, columns, strict=True))


def _sessions(output: Path) -> list[Path]:
    """Log files in the order of the sessions."""
    found = (output / FOLDER).glob(f"{SESSION}*/{FILE}")
    return sorted(found, key=lambda path: int(path.parent.name.removeprefix(SESSION)))
