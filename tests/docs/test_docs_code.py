"""Every code block of the README and of the documentation runs, page by page, in an empty folder.

Python blocks of a page share one namespace; of a console block, `csist` runs with options that make it quick (the last
value given counts), `make` and `python` only have to name something that exists. What cannot run stands below a comment
`<!-- not run: reason -->`. A text block after code that runs shows what it prints, but for times;
its numbers may differ slightly.
"""

from __future__ import annotations

import re
import runpy
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from csist.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the repository around it")

FENCE = re.compile(
    r"^(?:<!-- not run:(?P<reason>[^\n]*)-->\n)?^(?P<indent> *)```(?P<kind>\S*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
KINDS = ("python", "console", "text")

QUICK = {
    "generate": "--count 40",
    "evaluate": "--limit 4 --resamples 20",
    "limits": "--limit 2 --steps 2000 --resamples 20",
    "train": "--max-samples 32 --batch-size 16 --val-limit 4 --accelerator cpu --option stages=1",
}


class Block(NamedTuple):
    """A fenced block of a page; `reason` says why it is not run."""

    kind: str
    code: str
    reason: str | None


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [Block(found["kind"], found["code"], found["reason"]) for found in FENCE.finditer(text)]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COLUMN = 112
"""Number of characters that a code block of the site shows on a wide screen, left of the button that copies."""

RUNNABLE = [page for page in PAGES if any(each.kind != "text" and each.reason is None for each in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_have_a_known_kind_and_what_is_not_run_says_why(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        assert block.kind in KINDS, block
        assert block.reason is None or len(block.reason.split()) >= 2, block
    assert text.count("<!-- not run") == sum(block.reason is not None for block in blocks(page))
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_code_fit_the_column_of_the_site(page: Path) -> None:
    """Commands wrap, but lines of Python would be cut."""
    lines = [line for block in blocks(page) if block.kind == "python" for line in block.code.splitlines()]
    assert [line for line in lines if len(line) > COLUMN] == []


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "csist train" in page.read_text(encoding="utf-8"):
        pytest.importorskip("lightning", reason="needs the extra `train`")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    printed: str | None = None
    for number, block in enumerate(blocks(page)):
        if block.kind == "text":
            if printed is not None:
                assert_agree(printed, block.code)
        elif block.reason is not None:
            printed = None
        elif block.kind == "python":
            script = tmp_path / f"{page.stem}_{number}.py"
            script.write_text(block.code, encoding="utf-8")
            namespace |= runpy.run_path(str(script), namespace, page.stem)
            printed = capsys.readouterr().out
        else:
            printed = "".join(run_line(line, capsys) for line in block.code.splitlines())


def assert_agree(printed: str, shown: str) -> None:
    """Check that a page shows what is printed: equal words, and numbers that agree to a few percent."""
    lines = [[line.split() for line in text.splitlines() if line.strip()] for text in (printed, shown)]
    lines = [[line for line in each if line[0] != "seconds"] for each in lines]
    assert len(lines[0]) == len(lines[1]), printed
    for found, expected in zip(*lines, strict=True):
        assert len(found) == len(expected), f"{' '.join(found)} instead of {' '.join(expected)}"
        for one, other in zip(found, expected, strict=True):
            numbers = [re.sub(r"[:,()}{]", "", word) for word in (one, other)]
            if all(re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", word) for word in numbers):
                assert float(numbers[0]) == pytest.approx(float(numbers[1]), rel=0.05, abs=0.02), printed
            else:
                assert one == other, printed


def test_what_a_page_shows_is_compared_with_what_is_printed() -> None:
    assert_agree("targets  2 in 1 group\nseconds 3.1\n", "targets 2 in 1 group\n")
    assert_agree("{'AP05': 99.8}", "{'AP05': 100.0}")
    for other in ("targets 3 in 1 group", "targets 2 in 1", "targets 2 in 1 blob", "targets 2 in 1 group\nmore"):
        with pytest.raises(AssertionError):
            assert_agree("targets 2 in 1 group", other)


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a line of a console block; return what it printed."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # a variable of the environment
        words.pop(0)
    if not words:
        return ""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, line
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), line
    else:
        assert words[0] == "csist", f"{line}: say why it is not run"
        code = main(words[1:] + quick(words[1:]))
        said = capsys.readouterr()
        assert code == 0, f"{line}: {said.out}{said.err}"
        return said.out
    return ""


def quick(words: list[str]) -> list[str]:
    """Options that make a command quick; a mode is only for the continuous method."""
    methods = [value for name, value in pairwise(words) if name == "--method"] or ["continuous"]
    takes_mode = words[0] in ("unmix", "evaluate") and "continuous" in methods
    return QUICK.get(words[0], "").split() + (["--mode", "fast"] if takes_mode else [])


def test_quick_options_are_those_of_the_command() -> None:
    assert quick(["unmix", "a.png"]) == ["--mode", "fast"]
    assert quick(["evaluate", "a.h5", "--method", "ista"]) == QUICK["evaluate"].split()
    assert quick(["methods"]) == []
