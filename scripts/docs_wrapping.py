"""MkDocs hook: wrapped code keeps `--mode` whole, and an option of a console line beside its value.

The style sheet keeps elements of the class `whole` on one line. A line of a console is a block of its own, of the class
`command`, so that its continuation is indented and cannot be taken for the next command.
"""

from __future__ import annotations

import re
from typing import Any

INLINE = re.compile(r"(?<=<code>)[^<>\n]+(?=</code>)")
CONSOLE_LINE = re.compile(r'(?<=<span class="go">)[^<>\n]+(?=</span>)')
# The lengths are those that fit on a line of a phone.
WORD = r"(?=\S*-)\S{1,30}(?!\S)"
OPTION = r"--?[a-z][\w-]* [^\s-]\S{,17}(?!\S)"
HYPHENATED = re.compile(rf"(?<!\S){WORD}")
OPTION_OR_HYPHENATED = re.compile(rf"(?<!\S)(?:{OPTION}|{WORD})")


def _kept(found: re.Match[str]) -> str:
    return f'<span class="whole">{found[0]}</span>'


def with_whole_words(content: str) -> str:
    """The HTML of a page in which words with hyphens in code, and options with values in consoles, are not split."""
    content = INLINE.sub(lambda code: HYPHENATED.sub(_kept, code[0]), content)
    return CONSOLE_LINE.sub(
        lambda line: f'<span class="command">{OPTION_OR_HYPHENATED.sub(_kept, line[0])}</span>', content
    )


def on_page_content(content: str, **_kwargs: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    return with_whole_words(content)
