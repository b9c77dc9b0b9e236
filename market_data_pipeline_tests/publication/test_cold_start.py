"""What a consumer finds that starts at the earliest event: a topic of ours, and any other."""

import re
import time
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from market_data_pipeline.publication.checks import LONGEST_PAUSE, topic_keeps_prices
from market_data_pipeline.publication.event import Event, quote_event
from market_data_pipeline.publication.topic import CONFIGURATION, configuration
from market_data_pipeline.runs.common import WINDOWS
from market_data_pipeline_tests.publication.helpers import (
    a_kafka,
    a_quote,
    a_window,
    create_topic,
    read,
    roll_back,
)
from market_data_pipeline_tests.services.kafka_broker import KafkaCluster, kafka_configs
from market_data_pipeline_tests.supervised import ROOT, wait_until

DAY = 24 * 60 * 60 * 1000
LAGS = ("min.compaction.lag.ms", "segment.ms")
DEFAULT_TOPIC = "trading-assets-market-data-v1"
KEPT = "The last price of each ticker stays on the topic."


def check(kafka: str, topic: str) -> tuple[bool, str]:
    """Whether the check of a topic passes, and what it says."""
    result = topic_keeps_prices(a_kafka(kafka, topic))
    assert isinstance(result, dg.AssetCheckResult)
    assert result.severity == dg.AssetCheckSeverity.WARN
    return result.passed, result.description or ""


def kept_for(limit: str) -> str:
    return f"A partition keeps its events for {limit}, so a consumer that starts late "


def test_the_market_pauses_for_as_long_as_is_said() -> None:
    days = (date(2026, 1, 1) + timedelta(n) for n in range(365))
    sessions = [windows for day in days if (windows := WINDOWS.of_session(day))]
    pauses = [later[0].end - each[-1].end for each, later in pairwise(sessions)]
    assert max(pauses) == LONGEST_PAUSE


def test_the_stand_in_has_no_configuration(bootstrap_servers: str, topic: str) -> None:
    assert check(bootstrap_servers, topic) == (
        True,
        "The embedded Kafka keeps its events until `make dev` ends.",
    )


def test_a_service_need_not_list_what_it_does_not_limit(
    topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"retention.ms": str(4 * DAY)}
    monkeypatch.setattr("market_data_pipeline.publication.checks.configuration", lambda *_: listed)

    passed, said = check("localhost:9092", topic)

    assert not passed
    assert said.startswith(kept_for("96 h"))


@pytest.mark.services  # which may take five seconds
def test_a_broker_that_is_away_is_no_failure_of_the_check(topic: str) -> None:
    passed, said = check("127.0.0.1:1", topic)
    assert passed
    assert said.startswith("The configuration of the topic is not known")


@pytest.mark.services
@pytest.mark.parametrize(
    ("configuration", "passed", "said"),
    [
        ({"cleanup.policy": "compact", "retention.bytes": "65536"}, True, KEPT),
        ({"cleanup.policy": "compact,delete", "retention.ms": "-1"}, True, KEPT),
        ({"retention.ms": "-1"}, True, KEPT),
        ({}, True, kept_for("168 h")),
        ({"retention.ms": str(5 * DAY)}, True, kept_for("120 h")),
        (
            {"cleanup.policy": "compact,delete", "retention.ms": str(4 * DAY)},
            False,
            kept_for("96 h"),
        ),
        ({"retention.bytes": "65536"}, False, kept_for("168 h or 65,536 bytes")),
        ({"retention.ms": "-1", "retention.bytes": "2097152"}, True, kept_for("2,097,152 bytes")),
    ],
)
def test_what_the_configuration_of_a_topic_means(
    kafka: str, topic: str, configuration: dict[str, str], passed: bool, said: str
) -> None:
    assert check(kafka, topic) == (True, "There is no topic yet.")
    create_topic(kafka, topic, config=configuration)
    result = check(kafka, topic)
    assert result[0] == passed
    assert result[1].startswith(said)


@pytest.mark.services
def test_a_topic_made_here_keeps_prices_and_so_does_one_changed_as_documented(
    kafka: str, topic: str
) -> None:
    a_kafka(kafka, topic).publish(a_window())
    assert check(kafka, topic) == (True, KEPT)

    create_topic(kafka, f"{topic}-old")
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    (documented,) = re.findall(
        r"kafka-configs\.sh --bootstrap-server \S+ (.*?)\n```", page, re.DOTALL
    )
    options = documented.replace("\\\n", " ").replace(DEFAULT_TOPIC, f"{topic}-old")
    kafka_configs(kafka, *options.split())
    assert check(kafka, f"{topic}-old") == (True, KEPT)
    assert found(kafka, topic) == found(kafka, f"{topic}-old")


@pytest.fixture(scope="module")
def busy_cleaner(
    kafka_services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """A broker that looks for something to compact all the time, not every 15 s."""
    folder = tmp_path_factory.mktemp("kafka") / "busy"
    with KafkaCluster(folder, properties={"log.cleaner.backoff.ms": "100"}) as cluster:
        yield cluster


@pytest.mark.services
def test_compaction_leaves_the_last_price_of_each_ticker_and_the_last_week_whole(
    busy_cleaner: KafkaCluster, topic: str
) -> None:
    """On a topic of ours, with a second for a day."""
    kafka = busy_cleaner.bootstrap_servers
    publisher = a_kafka(kafka, topic, topic)
    publisher.publish([quote_event(a_quote("GONE3")), *a_window(0, 10)])
    made = found(kafka, topic)
    assert {name: made[name] for name in CONFIGURATION} == CONFIGURATION
    seconds = ",".join(f"{name}={int(CONFIGURATION[name]) * 1000 // DAY}" for name in LAGS)
    kafka_configs(kafka, "--alter", "--topic", topic, "--add-config", seconds)

    windows: dict[int, float] = {}
    for number in range(1, 40):
        windows[number] = time.time()
        publisher.publish(a_window(number, 10))
        if number % 3 == 0:
            roll_back(kafka, topic, a_window(100 + number, 10))
        time.sleep(0.25)
    wait_until(lambda: not set(a_window(2, 10)) & seen(kafka, topic), "old prices are gone")

    left = seen(kafka, topic)
    assert {quote_event(a_quote("GONE3")), *a_window(39, 10)} <= left
    week = time.time() - 7
    recent = [number for number, sent in windows.items() if sent > week]
    assert {event for number in recent for event in a_window(number, 10)} <= left
    assert not {event for number in windows for event in a_window(100 + number, 10)} & left


@pytest.mark.services
def test_a_cluster_that_refuses_the_configuration_gets_the_topic_without_it(
    busy_cleaner: KafkaCluster, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka = busy_cleaner.bootstrap_servers
    limit = "log.cleaner.max.compaction.lag.ms=3600000"
    brokers = ("--entity-type", "brokers", "--entity-default")
    kafka_configs(kafka, "--alter", *brokers, "--add-config", limit)

    a_kafka(kafka, topic, topic).publish(a_window())
    assert f"does not let topic {topic} have cleanup.policy=compact, " in caplog.text
    assert "conflict topic config setting min.compaction.lag.ms" in caplog.text
    assert check(kafka, topic)[1].startswith(kept_for("168 h"))


def seen(kafka: str, topic: str) -> set[Event]:
    return {one.event for one in read(kafka, topic)}


def found(kafka: str, topic: str) -> dict[str, str]:
    """The configuration that a topic has."""
    return configuration(a_kafka(kafka, topic).settings, 10)
