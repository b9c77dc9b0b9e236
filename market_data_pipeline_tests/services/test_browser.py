"""What the data engineer sees, in a real browser that looks at `make dev`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.services.browser import DagsterPages, dagster_in_a_browser
from market_data_pipeline_tests.supervised import wait_until

pytestmark = pytest.mark.services
CHECKS = {"quotes": 8, "mongo_price_history": 2, "kafka_publication": 3}


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterPages]:
    with dagster_in_a_browser(tmp_path_factory.mktemp("deployment")) as pages:
        yield pages


def test_the_lineage_shows_three_assets_and_their_checks(dagster: DagsterPages) -> None:
    page = dagster.lineage()

    for name in CHECKS:
        page.get_by_text(name, exact=True).first.wait_for()
    for count in sorted(set(CHECKS.values())):
        # The sensor of `fresh` has its second look a minute after the start.
        page.get_by_text(f"{count} / {count} Passed").first.wait_for()
    for kind in ("Kafka", "MongoDB", "Parquet", "brapi"):
        page.get_by_text(kind, exact=True).first.wait_for()


@pytest.mark.parametrize("name", CHECKS)
def test_an_asset_s_page_lacks_nothing_and_every_check_says_what_to_do(
    dagster: DagsterPages, name: str
) -> None:
    page = dagster.asset(name)
    page.get_by_text("market-data", exact=True).first.wait_for()

    said = dagster.text()
    assert "No description" not in said
    assert "No column schema" not in said
    assert not re.search(r"\bunknown\b|something went wrong", said, re.IGNORECASE)
    for title in ("Group", "Owners", "Kinds", "Jobs", "Sensors", "Schedules"):
        assert title in said
    assert dagster.complaints() == []

    page = dagster.asset(name, "checks")
    page.get_by_text("If not:").first.wait_for()
    assert f"Checks ({CHECKS[name]})" in dagster.text()
    assert dagster.text().count("Succeeded") == CHECKS[name]


@pytest.mark.parametrize(
    ("name", "mark", "shown"),
    [
        ("quotes", "PETR4", "VALE3 median_change_percent oldest_quote_minutes"),
        ("quotes", "PETR4", "failures requests fetch_seconds quota_left"),
        ("kafka_publication", "published", "reason trading-assets-market-data-v1"),
    ],
)
def test_a_window_shows_what_it_holds_and_what_it_cost(
    dagster: DagsterPages, name: str, mark: str, shown: str
) -> None:
    page = dagster.asset(name, "partitions", partition=dagster.live)
    page.get_by_text(mark, exact=True).first.wait_for()

    said = dagster.text()
    assert "Show Markdown" not in said
    assert [each for each in shown.split() if each not in said] == []


def test_the_schedule_runs_and_says_what_it_would_do(dagster: DagsterPages) -> None:
    page = dagster.automation("schedules", "every_window")
    page.get_by_text("Running", exact=True).first.wait_for()

    page.get_by_text("Preview tick result").click()
    page.get_by_role("button", name="Continue").click()
    page.get_by_text(re.compile("Skip reason|1 run request")).first.wait_for()


def test_the_sensor_runs_and_says_why_it_launches_nothing(dagster: DagsterPages) -> None:
    page = dagster.automation("sensors", "launch_missing")
    page.get_by_text("Running", exact=True).first.wait_for()

    why = "Nothing is missing|is no longer live|in progress|less than a minute"

    def says_why() -> bool:
        page.mouse.move(0, 0)  # a new tick moves the rows, and what was shown is gone
        page.get_by_role("table").last.get_by_text("0 runs requested").first.hover()
        page.wait_for_timeout(500)
        return bool(re.search(why, dagster.text()))

    wait_until(says_why, "the reason of a tick")


def test_a_backfill_is_launched_from_the_page(dagster: DagsterPages) -> None:
    second = WINDOWS.last_ended(WINDOWS.from_key(dagster.live).start)
    first = second and WINDOWS.last_ended(second.start)
    assert first
    assert second
    dagster.backfill(first.key, second.key, 2)
