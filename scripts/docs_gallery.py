"""The gallery: description, picture and source of each example."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def gallery() -> str:
    """Markdown with one section per numbered script in examples/.

    Raises:
        FileNotFoundError: if the picture of an example is missing.
    """
    return "\n\n".join(_section(path) for path in sorted((ROOT / "examples").glob("[0-9]*_*.py")))


def _section(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    title, _, told = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    picture = f"images/gallery/{path.stem}.png"
    if not (ROOT / "docs" / picture).is_file():
        raise FileNotFoundError(f"docs/{picture} is missing: run make pictures")
    indented = "\n".join(f"    {line}".rstrip() for line in source.rstrip().splitlines())
    return "\n\n".join(
        [
            f"## {title.rstrip('.')}",
            told,
            f"![{title}]({picture})",
            f'??? example "examples/{path.name}"\n\n    ```py\n{indented}\n    ```',
        ]
    )
