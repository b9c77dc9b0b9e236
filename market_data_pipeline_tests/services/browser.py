"""A deployment of `make dev` and a real browser that looks at it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings

LOCATION = "market_data_pipeline.definitions"
PATIENCE_MS = 240_000


class DagsterPages:
    """Dagster's UI in one tab."""

    def __init__(self, page: Page, base: str, live: str) -> None:
        self.page = page
        self.live = live
        """The window that the run at startup materialized."""
        self._base = base
        page.set_default_timeout(PATIENCE_MS)

    def lineage(self) -> Page:
        """The graph of the assets of a window: *Lineage*, group `market_data`."""
        return self._open(f"locations/{LOCATION}/asset-groups/market_data", "mongo_price_history")

    def asset(self, name: str, view: str = "overview", **query: str) -> Page:
        """The page of an asset: its overview, partitions, checks, …"""
        marks = {"overview": "Definition", "partitions": "Metadata", "checks": "Latest execution"}
        return self._open(f"assets/{name}?{urlencode({'view': view, **query})}", marks[view])

    def automation(self, kind: str, name: str) -> Page:
        """The page of a schedule or sensor."""
        return self._open(f"locations/{LOCATION}/{kind}/{name}", "Preview tick result")

    def backfill(self, first: str, last: str, count: int) -> None:
        """Fills a range of so many windows from the lineage, and waits for the end."""
        page = self.lineage()
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.get_by_role("dialog")
        text = dialog.get_by_role("textbox").first
        text.fill(f"[{first}...{last}]")
        text.press("Enter")
        dialog.get_by_text(f"{count} partitions").first.wait_for()
        dialog.get_by_role("button", name="Launch backfill").click()
        dialog.wait_for(state="detached")
        page = self._open("runs?view=backfills", "Launched by")
        page.get_by_text("Success", exact=True).first.wait_for()

    def text(self) -> str:
        """All that the page says."""
        return self.page.inner_text("body")

    def complaints(self) -> list[str]:
        """What the browser's console calls an error on this page."""
        said = self.page.console_messages(filter="since-navigation")
        raised = self.page.page_errors(filter="since-navigation")
        return [each.text for each in said if each.type == "error"] + [*map(str, raised)]

    def _open(self, path: str, mark: str) -> Page:
        self.page.goto(f"{self._base}/{path}")
        self.page.get_by_text(mark, exact=True).first.wait_for()
        return self.page


@contextmanager
def dagster_in_a_browser(
    folder: Path, *, width: int = 1500, height: int = 1000, plan: str = "free"
) -> Iterator[DagsterPages]:
    """A deployment of its own in `folder`, past its run at startup, and a tab that shows it."""
    executable = shutil.which("chromium")
    if executable is None:
        raise RuntimeError("Chromium is not installed: Debian's package is `chromium`")
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    environment = {**settings(folder / "state"), "BRAPI_PLAN": plan}
    supervisor = Supervisor(folder, environment)
    try:
        window = supervisor.first_window()
        base = f"http://127.0.0.1:{environment['DAGSTER_PORT']}"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable)
            page = browser.new_page(
                viewport={"width": width, "height": height}, timezone_id="America/Sao_Paulo"
            )
            yield DagsterPages(page, base, window)
            browser.close()
    finally:
        supervisor.end(signal.SIGTERM)
