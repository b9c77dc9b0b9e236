"""Makes the pictures of the README: `make screenshots`."""

import tempfile
from pathlib import Path

from market_data_pipeline_tests.services.browser import dagster_in_a_browser
from market_data_pipeline_tests.supervised import ROOT

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 100_000


def main() -> None:
    """Takes each picture anew from a deployment of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        dagster_in_a_browser(Path(folder), width=1100, height=640) as dagster,
    ):
        pages = {
            "lineage": dagster.lineage,
            "window": lambda: dagster.asset("quotes", "partitions", partition=dagster.live),
            "checks": lambda: dagster.asset("quotes", "checks"),
        }
        for name, open_page in pages.items():
            page = open_page()
            page.wait_for_load_state("networkidle")
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path, animations="disabled")
            assert path.stat().st_size <= MOST_BYTES, f"{path.name} is larger than {MOST_BYTES}"


if __name__ == "__main__":
    main()
