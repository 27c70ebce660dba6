"""The documentation builds without a warning, has no dead link, loads nothing from elsewhere, and can be searched."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import csist
from browsing import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="needs the repository around it")


class Page(HTMLParser):
    """What a page links to, what it loads by itself, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.headings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note the links, resources and anchors of a tag."""
        given = dict(attributes)
        self.headings += tag == "h1"
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.loaded += [value for name in ("href", "src") if (value := given.get(name))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name, reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_no_link_leads_nowhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    for path, page in pages.items():
        if path.name == "404.html":  # written for any place of the site, so its links begin at the root
            continue
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors | {"__skip"}, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert not [each for each in page.loaded if re.match(r"(https?:)?//", each)], path
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium (Debian: apt-get install chromium)")
def test_opened_from_a_folder_it_can_be_searched_and_fits_a_phone(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, in the extra `dev`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 390, "height": 844})
        asked: list[str] = []
        errors: list[object] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        for opened in ("index.html", "howto/frames.html"):
            page.goto((site / opened).as_uri())
            # The search listens to keys, which `fill` does not press.
            page.locator("[data-md-component=search-query]").press_sequentially("Levenberg")
            page.wait_for_selector(".md-search-result__item", state="attached", timeout=60_000)
            found = page.eval_on_selector_all(".md-search-result__item a", "links => links.map(each => each.href)")
            assert found[0].startswith((site / "methods" / "continuous.html").as_uri())
        reference = (site / "api" / "index.html").as_uri()
        for value in (csist.unmix_frame, csist.Targets, csist.FrameResult):
            for name in (value.__name__, f"csist.{value.__name__}"):
                page.goto((site / "index.html").as_uri())
                page.locator("[data-md-component=search-query]").press_sequentially(name)
                described = f".md-search-result__item a[href*='#{value.__module__}.{value.__name__}']"
                page.wait_for_selector(described, state="attached", timeout=60_000)
                assert (
                    page.locator(".md-search-result__item a").first.evaluate("link => link.href").startswith(reference)
                )
        for path in ("results.html", "gallery.html", "comparison.html", "api/index.html"):
            page.goto((site / path).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            wrapped = "cells => cells.filter(each => getComputedStyle(each).whiteSpace !== 'nowrap').length"
            assert page.eval_on_selector_all("td[style*=right]", wrapped) == 0, path
        for path in ("howto/video.html", "cli.html"):
            page.goto((site / path).as_uri())
            split = "words => words.filter(each => each.getClientRects().length !== 1).map(each => each.textContent)"
            assert page.eval_on_selector_all(".whole", split) == [], path
        browser.close()
    assert all(each.startswith("file:") for each in asked)
    assert not errors


def test_pages_are_complete(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        text = path.read_text(encoding="utf-8")
        assert page.headings == 1, path
        assert "{{ " not in text, path
        assert 'class="arithmatex"' not in text, path
    assert "<math" in (site / "problem.html").read_text(encoding="utf-8")


def test_every_public_name_is_described(site: Path, pages: dict[Path, Page]) -> None:
    described = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "api"))
    for package in (csist, csist.datasets, csist.metrics):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert f"{value.__module__}.{value.__name__}" in described, name


def test_every_picture_is_shown_and_every_page_reachable(site: Path, pages: dict[Path, Page]) -> None:
    shown = {(path.parent / each).resolve() for path, page in pages.items() for each in page.loaded}
    for picture in (*(site / "images").rglob("*.png"), *(site / "results").rglob("*.png")):
        assert picture.resolve() in shown, picture
    reached = {
        (path.parent / urlsplit(link).path).resolve() for path, page in pages.items() for link in page.links
    }  # fmt: skip
    for path in pages:
        assert path.resolve() in reached or path.name == "404.html", path
