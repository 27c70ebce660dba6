"""MkDocs hook: converts formulas to MathML when the site is built, so that browsers show them without a script."""

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
    """The HTML of a page with every LaTeX formula replaced by MathML.

    Raises:
        ValueError: if a formula holds an unknown command, which would otherwise be printed literally.
    """

    def formula(found: re.Match[str]) -> str:
        inline = found["inline"] is not None
        source = html.unescape(found["inline"] if inline else found["block"]).strip()
        written = convert(source, display="inline" if inline else "block")
        if "\\" in written:
            raise ValueError(f"cannot convert the formula {source!r}: it holds an unknown command")
        return written if inline else f'<div class="formula">{written}</div>'

    return FORMULA.sub(formula, content)


def on_page_content(content: str, **_kwargs: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    return with_mathml(content)
