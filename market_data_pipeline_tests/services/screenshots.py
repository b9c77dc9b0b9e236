"""Makes the pictures of the documents: `make screenshots`, an hour after a session has begun."""

import tempfile
from pathlib import Path

from playwright.sync_api import FloatRect

from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.services.browser import dagster_in_a_browser
from market_data_pipeline_tests.supervised import ROOT

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 100_000
# Of a page that is 1500 wide and 1200 high.
DETAILS: FloatRect = {"x": 556, "y": 290, "width": 944, "height": 800}
CHECK: FloatRect = {"x": 240, "y": 104, "width": 1260, "height": 560}


def main() -> None:
    """Takes each picture anew from a deployment of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        dagster_in_a_browser(Path(folder), height=1200, plan="pro") as dagster,
    ):
        live = WINDOWS.from_key(dagster.live)
        *earlier, last = (each for each in WINDOWS.of_session(live.day) if each < live)
        dagster.backfill((earlier or [last])[0].key, last.key, len(earlier) + 1)
        for name, view, query, clip, mark in (
            ("window", "partitions", {"partition": last.key}, DETAILS, "PETR4"),
            ("checks", "checks", {}, CHECK, "coverage"),
        ):
            page = dagster.asset("quotes", view, **query)
            page.get_by_text(mark, exact=True).first.wait_for()
            page.wait_for_load_state("networkidle")
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path, clip=clip, animations="disabled")
            assert path.stat().st_size <= MOST_BYTES, f"{path.name} is larger than {MOST_BYTES}"


if __name__ == "__main__":
    main()
