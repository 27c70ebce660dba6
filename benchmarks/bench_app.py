"""Time until the app is usable, and until an example is unmixed after the click, in a real browser.

python benchmarks/bench_app.py [VISITS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from browsing import CHROMIUM, FLAGS, running_app
from common import write_result

PAGE_LIMIT_S, EXAMPLE_LIMIT_S = 6.0, 2.0
"""Target times in seconds of the first page and of an example."""

LEFT_ALONE_S = 8.0
"""Seconds after the first page in which the app loads its solver, before a user has chosen anything."""


def visit(browser: Browser, address: str, started: float, settle_s: float) -> dict[str, float]:
    """Time one visit in seconds: page usable (since `started`), targets shown, pictures complete (since the click)."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(address)
    page.locator("#run:enabled").wait_for()
    usable = time.perf_counter() - started
    time.sleep(settle_s)
    clicked = time.perf_counter()
    page.locator("#run").click()
    page.locator("#results section td").first.wait_for()
    targets = time.perf_counter() - clicked
    page.locator("#results nav").wait_for()
    complete = time.perf_counter() - clicked
    context.close()
    return {"page_usable_s": usable, "targets_shown_s": targets, "pictures_complete_s": complete}


def spread(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the median and extremes of each figure."""
    return {
        name: {
            "median": statistics.median(values),
            "fastest": min(values),
            "slowest": max(values),
        }
        for name in rows[0]
        for values in [[row[name] for row in rows]]
    }


def main(visits: int) -> None:
    """Start the app once and time the visits."""
    load = os.getloadavg()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        started = time.perf_counter()
        with running_app() as address:
            listening = time.perf_counter() - started
            first = visit(browser, address, started, LEFT_ALONE_S)
            later = [visit(browser, address, time.perf_counter(), 0.0) for _ in range(visits)]
        browser.close()
    figures = spread(later)
    write_result(
        "app",
        {
            "example": "airplane_clear_sky, method continuous, mode accurate",
            "command_to_listening_s": listening,
            "command_to_first_page_usable_s": first["page_usable_s"],
            "first_example": {name: first[name] for name in ("targets_shown_s", "pictures_complete_s")},
            "later_visits": visits,
            **figures,
            "limits_s": {"page_usable_s": PAGE_LIMIT_S, "targets_shown_s": EXAMPLE_LIMIT_S},
            "within_limits": {
                "page_usable_s": figures["page_usable_s"]["median"] <= PAGE_LIMIT_S,
                "targets_shown_s": figures["targets_shown_s"]["median"] <= EXAMPLE_LIMIT_S,
            },
            "load_average_at_start": load,
        },
    )


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit(f"{Path(__file__).name} needs the browser Chromium")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
