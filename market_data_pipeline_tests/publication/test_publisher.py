"""The publisher against librdkafka's own mock cluster: no services needed."""

from __future__ import annotations

import socket
import time
import weakref
from typing import Any
from unittest import mock

import pytest
from confluent_kafka import KafkaException, Producer

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.publication.errors import (
    BrokerUnreachableError,
    NotAcknowledgedError,
    PublicationError,
)
from market_data_pipeline.publication.event import Event, quote_event
from market_data_pipeline.publication.publisher import Publisher
from market_data_pipeline_tests.publication.helpers import a_quote, a_window, producer_that, read
from market_data_pipeline_tests.supervised import ROOT

# Left to itself librdkafka goes on for minutes.
LONG_BEFORE_LIBRDKAFKA = 30
PRODUCER = "market_data_pipeline.publication.client.Producer"


def test_so_many_tickers_change_partition_as_is_said_to_those_who_move(
    mock_kafka: str, topic: str
) -> None:
    tickers = load_watchlist().tickers
    publisher = Publisher(mock_kafka, topic)
    publisher.publish([quote_event(a_quote(ticker)) for ticker in tickers])
    script = Producer({"bootstrap.servers": mock_kafka})
    for ticker in tickers:
        script.produce(f"{topic}-script", b"{}", ticker, headers={"": b""})
    script.flush()
    ours, theirs = (
        {one.event.key: one.partition for one in read(mock_kafka, name)}
        for name in (topic, f"{topic}-script")
    )
    moved = sum(ours[ticker] != theirs[ticker] for ticker in ours)
    page = (ROOT / "docs" / "moving-from-the-script.md").read_text("utf-8")
    assert f"{moved} of the {len(tickers)} tickers" in page


@pytest.mark.parametrize("transactional_id", ["tests", None, ""])
def test_a_window_arrives_as_it_was_sent(
    mock_kafka: str, topic: str, transactional_id: str | None
) -> None:
    events = a_window()
    publication = Publisher(mock_kafka, topic, transactional_id=transactional_id).publish(events)
    seen = read(mock_kafka, topic)
    assert sorted(one.event.key for one in seen) == sorted(event.key for event in events)
    assert {one.event for one in seen} == set(events)
    assert publication.published == len(events)
    assert publication.transactional_id == (transactional_id or None)
    assert publication.offsets.keys() == {one.partition for one in seen}
    for partition, (first, last) in publication.offsets.items():
        offsets = [one.offset for one in seen if one.partition == partition]
        assert (first, last) == (min(offsets), max(offsets))
    phases = ["connect", "begin", "produce", "acknowledge", "commit"]
    if not transactional_id:
        phases = ["connect", "produce", "acknowledge"]
    assert list(publication.seconds) == phases


def test_events_of_one_instrument_keep_their_order(mock_kafka: str, topic: str) -> None:
    windows = [a_window(number) for number in range(10)]
    Publisher(mock_kafka, topic).publish([event for window in windows for event in window])
    seen = read(mock_kafka, topic)
    for ticker in {event.key for event in windows[0]}:
        mine = [one for one in seen if one.event.key == ticker]
        assert len(mine) == len(windows)
        assert len({one.partition for one in mine}) == 1
        assert [one.ce_id for one in mine] == sorted(one.ce_id for one in mine)


def test_nothing_to_publish_needs_no_broker(topic: str) -> None:
    publication = Publisher("127.0.0.1:1", topic, transactional_id="tests").publish([])
    assert (publication.published, publication.offsets, publication.seconds) == (0, {}, {})


def test_a_full_queue_is_waited_for(mock_kafka: str, topic: str) -> None:
    config = {"queue.buffering.max.messages": "100"}
    publication = Publisher(mock_kafka, topic, config=config).publish(a_window(size=5000))
    assert publication.published == 5000


def test_no_broker_is_an_error_within_the_bound(topic: str) -> None:
    started = time.monotonic()
    publisher = Publisher("127.0.0.1:1", topic, transactional_id="tests", timeout_seconds=2)
    with pytest.raises(BrokerUnreachableError) as caught:
        publisher.publish(a_window())
    assert time.monotonic() - started < LONG_BEFORE_LIBRDKAFKA
    assert str(caught.value) == (
        "Kafka at 127.0.0.1:1 could not be reached within 2 s (_TRANSPORT: 127.0.0.1:1/bootstrap: "
        "Connect to ipv4#127.0.0.1:1 failed: Connection refused): check that it runs and that "
        "KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_SECURITY_PROTOCOL are right."
    )


def test_a_broker_that_never_answers_is_an_error_within_the_bound(topic: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(BrokerUnreachableError, match=address):
            Publisher(address, topic, timeout_seconds=2).publish(a_window())
        assert time.monotonic() - started < LONG_BEFORE_LIBRDKAFKA


@pytest.mark.parametrize("transactional_id", ["tests", None])
def test_one_event_that_is_too_large_fails_the_window_and_is_named(
    mock_kafka: str, topic: str, transactional_id: str | None
) -> None:
    too_large = Event(b"HUGE3", b"x" * 2_000_000, ())
    publisher = Publisher(mock_kafka, topic, transactional_id=transactional_id)
    with pytest.raises(NotAcknowledgedError, match="MSG_SIZE_TOO_LARGE") as caught:
        publisher.publish([*a_window(size=3), too_large, *a_window(1, size=2)])
    assert "HUGE3" in caught.value.unacknowledged
    assert "HUGE3" in str(caught.value)
    assert "raise max.message.bytes" in str(caught.value)


def test_an_error_that_the_binding_lost_is_none_where_all_is_acknowledged(
    mock_kafka: str, topic: str
) -> None:
    """As `flush` of confluent-kafka raises it now and then where a run is fenced."""

    class Losing(Producer):
        def flush(self, *arguments: Any) -> int:
            super().flush(*arguments)
            raise SystemError("flush returned NULL without setting an exception")

    with mock.patch(PRODUCER, Losing):
        assert (
            Publisher(mock_kafka, topic, transactional_id="t").publish(a_window()).published == 50
        )


def test_a_run_that_failed_leaves_no_producer_behind(mock_kafka: str, topic: str) -> None:
    """It would go on to ask for its transaction, and end that of the next run."""
    producers = []

    class InTransaction(Producer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            producers.append(weakref.ref(self))
            self.init_transactions(10)
            self.begin_transaction()

    publisher = Publisher(mock_kafka, topic, transactional_id="tests")
    with mock.patch(PRODUCER, InTransaction), pytest.raises(PublicationError) as caught:
        publisher.publish(a_window())
    assert "opened no transaction" in str(caught.value)
    assert isinstance(caught.value.__context__, KafkaException)  # with all of its frames
    assert [each() for each in producers] == [None]


def test_an_interrupt_rolls_back(mock_kafka: str, topic: str) -> None:
    rolled_back = []

    class Interrupted(producer_that(_interrupt)):  # type: ignore[misc]
        def abort_transaction(self, *arguments: Any) -> None:
            rolled_back.append(True)
            Producer.abort_transaction(self, *arguments)

    with mock.patch(PRODUCER, Interrupted), pytest.raises(KeyboardInterrupt):
        Publisher(mock_kafka, topic, transactional_id="tests").publish(a_window())
    assert rolled_back == [True]


def _interrupt(number: int) -> None:
    if number == 10:
        raise KeyboardInterrupt
