"""Options in the documentation are shown as they are typed: not split after a hyphen, no backslash before a bar."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the repository around it")


@pytest.mark.parametrize(
    ("page", "whole"),
    [
        ("<p><code>csist unmix --mode fast</code></p>", ["--mode"]),
        ("<p><code>a - b</code> well-known</p>", ["-"]),
        ('<code><span class="go">csist unmix a.npy -o t.csv --times --joint 20</span></code>',
         ["-o t.csv", "--times", "--joint 20"]),
        ('<code><span class="go">csist unmix https://a-very-long-address.of.a.file/image.fits</span></code>', []),
    ],
)  # fmt: skip
def test_words_with_hyphens_stay_whole(monkeypatch: pytest.MonkeyPatch, page: str, whole: list[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    shown = importlib.import_module("docs_wrapping").with_whole_words(page)
    assert re.findall(r'<span class="whole">([^<]*)</span>', shown) == whole
    assert re.sub("<[^>]*>", "", shown) == re.sub("<[^>]*>", "", page)  # what is copied stays the same


def test_bars_are_escaped_outside_code_only(monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = pytest.importorskip("markdown", reason="needs the extra `docs`")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    html = markdown.markdown(importlib.import_module("docs_cli").command_line(), extensions=["tables"])
    assert "<code>--prior flat|csist-100k|FILE</code>" in html
    assert "\\|" not in html
