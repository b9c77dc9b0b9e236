"""A backfill does not hide the present: what is shown of an asset is its newest window."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline

ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
NEXT = "2026-11-17T15:00-0300"


pytestmark = pytest.mark.usefixtures("one_instrument")


def shown(pipeline: Pipeline, asset: str) -> tuple[str | None, str, float]:
    """The window, the run and the time of what the overview calls the latest materialization."""
    entry = pipeline.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert entry
    assert entry.dagster_event
    return entry.dagster_event.partition, entry.run_id, entry.timestamp


@pytest.mark.parametrize("asset", ASSETS)
def test_after_a_backfill_the_newest_window_is_shown(pipeline: Pipeline, asset: str) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    before = shown(pipeline, asset)

    assert pipeline.run("2026-11-16T16:30-0300", "2026-11-16T17:30-0300").success

    assert before[0] == LIVE_ON_TUESDAY
    assert shown(pipeline, asset) == before


def test_a_newer_window_takes_its_place(
    pipeline: Pipeline, set_clock: Callable[[datetime], None]
) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    set_clock(datetime(2026, 11, 17, 18, 30, 5, tzinfo=UTC))
    pipeline.run(NEXT)

    assert {shown(pipeline, asset)[0] for asset in ASSETS} == {NEXT}
