"""MkDocs hook that converts formulas to MathML at build time, so that browsers show them without scripts."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>|<div class="arithmatex">\\\[(?P<block>.*?)\\\]</div>',
    re.DOTALL,
)


def with_mathml(content: str) -> str:
    """Replace the LaTeX source of every formula in a page's HTML by MathML.

    Raises:
        ValueError: if a formula contains an unknown command, which would otherwise be printed verbatim.
    """

    def formula(found: re.Match[str]) -> str:
        inline = found["inline"] is not None
        source = html.unescape(found["inline"] if inline else found["block"]).strip()
        written = convert(source, display="inline" if inline else "block")
        if "\\" in written:
            raise ValueError(f"cannot convert the formula {source!r}: it contains an unknown command")
        return written if inline else f'<div class="formula">{written}</div>'

    return FORMULA.sub(formula, content)


def on_page_content(content: str, **_kwargs: Any) -> str:
    """Convert the formulas of a page; called by MkDocs."""
    return with_mathml(content)
