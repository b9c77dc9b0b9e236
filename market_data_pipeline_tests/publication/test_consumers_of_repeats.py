"""What a consumer gets of windows that were rolled back and repeated, as docs/contracts.md says."""

from collections import Counter
from datetime import timedelta

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
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


def test_how_often_a_consumer_gets_a_quote(
    pipeline: Pipeline, kafka: str, set_clock: SetClock
) -> None:
    """Of a window that was rolled back, published with newer prices, and repeated."""
    pipeline.bootstrap_servers = kafka
    killed_run(pipeline, "before the commit")
    set_clock(TUESDAY_15_00 + timedelta(minutes=5))
    assert pipeline.run(LIVE_ON_TUESDAY).success
    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success

    for (isolation, drops_repeats), expected in TIMES_AND_PRICES.items():
        seen = read(kafka, pipeline.topic, isolation)
        if isolation == "read_uncommitted":
            different = Counter(key for key, _ in {(one.event.key, one.ce_id) for one in seen})
            moved = {key for key, prices in different.items() if prices == 2}
            assert moved
        handled = {one.ce_id: one for one in seen}.values() if drops_repeats else seen
        times = Counter(one.event.key for one in handled)
        prices = Counter(key for key, _ in {(one.event.key, one.event.value) for one in handled})
        assert {(times[key], prices[key]) for key in moved} == {expected}
