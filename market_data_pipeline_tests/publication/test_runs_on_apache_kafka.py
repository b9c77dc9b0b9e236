"""Runs of the pipeline while Apache Kafka is down, and after."""

from __future__ import annotations

import pytest

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import logs
from market_data_pipeline_tests.publication.helpers import read
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster

pytestmark = pytest.mark.services


def test_broker_down_for_the_whole_run_and_the_asset_alone_again(
    pipeline: Pipeline, fragile_broker: KafkaCluster
) -> None:
    pipeline.bootstrap_servers = fragile_broker.bootstrap_servers
    pipeline.kafka = {"timeout_seconds": 3}
    fragile_broker.kill()
    run = pipeline.run(LIVE_ON_TUESDAY)
    assert not run.success
    assert f"Kafka at {fragile_broker.bootstrap_servers} could not be reached" in logs(
        pipeline, run
    )
    kept = pipeline.documents()
    assert len(kept) > 1

    fragile_broker.start()
    again = pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication")
    assert again.success
    events = read(fragile_broker.bootstrap_servers, pipeline.topic)
    assert {one.event.key.decode() for one in events} == {one["ticker"] for one in kept}
    assert pipeline.documents() == kept
