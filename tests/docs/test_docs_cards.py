"""The table of a card's fields, from the schema of its model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from csist.io.cards import card_schemas
from csist.physics.psf import KINDS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the repository around it")


def test_every_field_is_listed_with_what_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    card = importlib.import_module("docs_tables").card
    lines = [line.strip() for line in card("sensor").splitlines()]
    for name in card_schemas()["sensor"]["properties"]:
        assert any(line.startswith(f"| `{name}` |") for line in lines), name
    for kind in KINDS:
        assert any(f"kind `{kind}`" in line for line in lines), kind
    assert "| `gain` | number > 0 | none |" in lines
    assert "| `count_range` | list of 2: integer >= 0 and <= 1000 | `[1, 10]` |" in card("prior")
