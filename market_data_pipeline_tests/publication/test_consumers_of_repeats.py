"""What a consumer gets of windows that were rolled back and repeated, as docs/contracts.md says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.publication.doomed_pipeline import killed_run
from market_data_pipeline_tests.publication.helpers import read

pytestmark = pytest.mark.services

TIMES_AND_PRICES = {
    # How often a consumer gets each quote, and how many different prices.
    ("read_uncommitted", False): (3, 2),
    ("read_uncommitted", True): (2, 2),
    ("read_committed", False): (2, 1),
    ("read_committed", True): (1, 1),
}


@pytest.fixture
def topic(pipeline: Pipeline, kafka: str, set_clock: Callable[[datetime], None]) -> str:
    """A topic on which a window was rolled back, published with newer prices, and repeated."""
    pipeline.bootstrap_servers = kafka
    killed_run(pipeline, "before the commit")
    set_clock(TUESDAY_15_00 + timedelta(minutes=5))
    assert pipeline.run(LIVE_ON_TUESDAY).success
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success
    return pipeline.topic


@pytest.fixture
def moved(kafka: str, topic: str) -> set[str]:
    """The tickers that were traded between the two observations."""
    prices = {(one.event.key, one.ce_id) for one in read(kafka, topic, "read_uncommitted")}
    tickers = {
        key.decode() for key, times in Counter(key for key, _ in prices).items() if times == 2
    }
    assert tickers
    return tickers


def test_how_often_a_consumer_gets_a_quote(kafka: str, topic: str, moved: set[str]) -> None:
    for (isolation, drops_repeats), expected in TIMES_AND_PRICES.items():
        got = _consume(kafka, topic, isolation, drops_repeats)
        times = Counter(value["ticker"] for value in got)
        prices = {(value["ticker"], value["updated_at"]) for value in got}
        different = Counter(ticker for ticker, _ in prices)
        assert {(times[ticker], different[ticker]) for ticker in moved} == {expected}


def _consume(kafka: str, topic: str, isolation: str, drops_repeats: bool) -> list[dict[str, Any]]:
    """The values that a consumer handles."""
    seen = read(kafka, topic, isolation)
    handled = {one.ce_id: one for one in seen}.values() if drops_repeats else seen
    return [json.loads(one.event.value) for one in handled]
