"""The publication on librdkafka's own mock cluster: no services needed."""

import socket
import time
import weakref
from collections import defaultdict
from typing import Any
from unittest import mock

import pytest
from confluent_kafka import KafkaException, Producer

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import Event, quote_event
from market_data_pipeline_tests.publication.doomed_pipeline import PRODUCER
from market_data_pipeline_tests.publication.helpers import a_kafka, a_quote, a_window, read
from market_data_pipeline_tests.supervised import ROOT

# Left to itself librdkafka goes on for minutes.
LONG_BEFORE_LIBRDKAFKA = 30


def test_so_many_tickers_change_partition_as_is_said_to_those_who_move(
    bootstrap_servers: str, topic: str
) -> None:
    tickers = load_watchlist().tickers
    a_kafka(bootstrap_servers, topic).publish([quote_event(a_quote(ticker)) for ticker in tickers])
    script = Producer({"bootstrap.servers": bootstrap_servers})
    for ticker in tickers:
        script.produce(f"{topic}-script", b"{}", ticker, headers={"": b""})
    script.flush()
    ours, theirs = (
        {one.event.key: one.partition for one in read(bootstrap_servers, name)}
        for name in (topic, f"{topic}-script")
    )
    moved = sum(ours[ticker] != theirs[ticker] for ticker in ours)
    page = (ROOT / "docs" / "moving-from-the-script.md").read_text("utf-8")
    assert f"{moved} of the {len(tickers)} tickers" in page


@pytest.mark.parametrize("transactional_id", ["tests", ""])
def test_events_arrive_once_in_the_order_of_each_instrument_also_through_a_full_queue(
    bootstrap_servers: str, topic: str, transactional_id: str
) -> None:
    events = [event for number in range(100) for event in a_window(number)]
    full = {"queue.buffering.max.messages": "100"}
    found = a_kafka(bootstrap_servers, topic, transactional_id, client_properties=full).publish(
        events
    )
    seen = read(bootstrap_servers, topic)
    offsets = defaultdict[int, list[int]](list)
    for one in seen:
        offsets[one.partition].append(one.offset)
    assert found == {number: (min(each), max(each)) for number, each in offsets.items()}
    assert len(seen) == len(events)
    for key in {event.key for event in events}:
        mine = [one for one in seen if one.event.key == key]
        assert [one.event for one in mine] == [event for event in events if event.key == key]
        assert len({one.partition for one in mine}) == 1


def test_what_has_connected_before_publishes(bootstrap_servers: str, topic: str) -> None:
    kafka = a_kafka(bootstrap_servers, topic, "tests", timeout_seconds=1)
    assert kafka.connect() == ""
    time.sleep(1.5)  # the time counts from the publication on
    for window in range(2):
        kafka.publish(a_window(window))
    assert {one.event for one in read(bootstrap_servers, topic)} == {*a_window(0), *a_window(1)}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (
            False,
            r"_TRANSPORT: {address}/bootstrap: Connect to ipv4#{address} failed: "
            "Connection refused",
        ),
        (True, ".*"),  # it takes the connection, and says nothing
    ],
)
def test_a_broker_that_does_not_answer_is_an_error_within_the_bound(
    topic: str, answers: bool, reason: str
) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1] if answers else 1}"
        with pytest.raises(PublicationError) as caught:
            a_kafka(address, topic, "tests", timeout_seconds=2).publish(a_window())
    assert time.monotonic() - started < LONG_BEFORE_LIBRDKAFKA
    caught.match(
        rf"^Kafka at {address} could not be reached within 2 s "
        rf"\({reason.format(address=address)}\): check that it runs "
        r"and that KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_SECURITY_PROTOCOL are right\.$"
    )


@pytest.mark.parametrize("transactional_id", ["tests", ""])
def test_one_event_that_is_too_large_fails_the_window_and_is_named(
    bootstrap_servers: str, topic: str, transactional_id: str
) -> None:
    too_large = Event(b"HUGE3", b"x" * 2_000_000, ())
    events = [*a_window(size=3), too_large, *a_window(1, size=2)]
    with pytest.raises(PublicationError, match=r"HUGE3.*MSG_SIZE_TOO_LARGE.*raise max\.message"):
        a_kafka(bootstrap_servers, topic, transactional_id).publish(events)


def test_an_error_that_the_binding_lost_is_none_where_all_is_acknowledged(
    bootstrap_servers: str, topic: str
) -> None:
    """As `flush` of confluent-kafka raises it now and then where a run is fenced."""

    class Losing(Producer):
        def flush(self, *arguments: Any) -> int:
            super().flush(*arguments)
            raise SystemError("flush returned NULL without setting an exception")

    with mock.patch(PRODUCER, Losing):
        a_kafka(bootstrap_servers, topic, "t").publish(a_window())
    assert len(read(bootstrap_servers, topic)) == 50


def test_a_run_that_failed_leaves_no_producer_behind(bootstrap_servers: str, topic: str) -> None:
    """It would go on to ask for its transaction, and end that of the next run."""
    producers = []

    class InTransaction(Producer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            producers.append(weakref.ref(self))
            self.init_transactions(10)
            self.begin_transaction()

    with mock.patch(PRODUCER, InTransaction), pytest.raises(PublicationError) as caught:
        a_kafka(bootstrap_servers, topic, "tests").publish(a_window())
    assert "opened no transaction" in str(caught.value)
    assert isinstance(caught.value.__context__, KafkaException)  # with all of its frames
    assert [each() for each in producers] == [None]


def test_an_interrupt_rolls_back(bootstrap_servers: str, topic: str) -> None:
    rolled_back = []

    class Interrupted(Producer):
        def produce(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        def abort_transaction(self, *arguments: Any) -> None:
            rolled_back.append(True)
            super().abort_transaction(*arguments)

    with mock.patch(PRODUCER, Interrupted), pytest.raises(KeyboardInterrupt):
        a_kafka(bootstrap_servers, topic, "tests").publish(a_window())
    assert rolled_back == [True]
