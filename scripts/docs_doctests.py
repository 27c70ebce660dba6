"""Griffe extension: shows the doctests of a docstring as its section of examples."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Doctests(griffe.Extension):
    """Puts every docstring paragraph that begins with `>>>` under the heading "Examples"."""

    def on_object(self, *, obj: griffe.Object, **_kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(
                lambda found: "Examples:\n" + re.sub(r"^", "    ", found[0], flags=re.MULTILINE), obj.docstring.value
            )
