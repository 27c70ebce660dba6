"""What the commands print: tables on terminals of any width."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from csist.cli.output import print_figures

NAMES = ("", ["continuous", "oracle, ratio 3, by closeness"])
COLUMNS = [(f"figure {n}", [f"{n}1.25", f"{n}{n}.5"]) for n in range(1, 9)]


def printed(width: int, title: str | None = None) -> list[str]:
    file = StringIO()
    print_figures(Console(file=file, width=width, highlight=False, markup=False), NAMES, COLUMNS, title)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 132])
def test_tables_are_stacked_and_numbers_never_cut(width: int) -> None:
    lines = printed(width, "ratio 3")
    assert max(map(len, lines)) <= width
    assert lines[0] == "ratio 3"
    words = " ".join(lines).split()
    for _, cells in COLUMNS:
        for cell in cells:
            assert words.count(cell) == 1
    assert "…" not in "".join(lines)
    tables = "\n".join(lines).split("\n\n")
    assert all("continuous" in table and "by closeness" in table for table in tables)
    assert len(tables) == {60: 3, 80: 2, 132: 1}[width]


def test_one_figure_a_row_stays_in_its_row() -> None:
    text = "\n".join(printed(60))
    assert re.search(r"^continuous +11\.25 +21\.25 +31\.25$", text, re.MULTILINE)
    assert re.search(r"^oracle, ratio 3, by closeness +11\.5 +22\.5 +33\.5$", text, re.MULTILINE)


@given(st.lists(st.text("0123456789.", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(20, 140))
def test_every_column_is_printed_once_at_any_width(cells: list[str], width: int) -> None:
    file = StringIO()
    columns = [(f"c{n}", [cell]) for n, cell in enumerate(cells)]
    print_figures(Console(file=file, width=max(width, 40), highlight=False, markup=False), ("", ["row"]), columns)
    headings = [word for word in file.getvalue().split() if word.startswith("c")]
    assert headings == [name for name, _ in columns]
