"""MkDocs hook: formulas become MathML when the site is built, so that browsers show them without any script."""

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
    """A page's HTML with every formula in place of its LaTeX source.

    Raises:
        ValueError: if a command of the formula is not understood, which would be printed as it is.
    """

    def formula(found: re.Match[str]) -> str:
        inline = found["inline"] is not None
        source = html.unescape(found["inline"] if inline else found["block"]).strip()
        written = convert(source, display="inline" if inline else "block")
        if "\\" in written:
            raise ValueError(f"cannot write the formula {source!r}: it holds a command that is not known")
        return written if inline else f'<div class="formula">{written}</div>'

    return FORMULA.sub(formula, content)


def on_page_content(content: str, **_kwargs: Any) -> str:
    """Called by MkDocs with each page's HTML."""
    return with_mathml(content)
