"""Each consumer of `examples/`, as it is, on a topic with all that can happen to a topic."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from market_data_pipeline.market.quote import SANDBOX, Quote
from market_data_pipeline.publication.event import UpdatedAtFormat, quote_event
from market_data_pipeline_dev.process import Child
from market_data_pipeline_tests.examples import programs
from market_data_pipeline_tests.publication.helpers import a_kafka, a_quote, roll_back
from market_data_pipeline_tests.supervised import wait_until

pytestmark = pytest.mark.services

ALL = ("none", "gzip", "snappy", "lz4", "zstd")
NO_QUOTES = [
    b"not json",
    b"",
    None,
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'"PETR4"',
    b"[" * 200_000,
    b'{"ticker": null, "price": 35.5, "updated_at": 1795440598}',
    b'{"ticker": "PETR4", "price": true, "updated_at": 1795440598}',
    b'{"ticker": "PETR4", "price": NaN, "updated_at": 1795440598}',
    b'{"ticker": "PETR4", "price": null, "updated_at": 1795440598}',
    b'{"ticker": "PETR4", "price": 35.5, "updated_at": null}',
    b'{"ticker": "PETR4", "price": 35.5, "updated_at": "yesterday"}',
    b'{"ticker": "PETR4", "price": "dear", "updated_at": 1795440598}',
]
OUTAGE_SECONDS = 12.0


@pytest.mark.parametrize(
    ("command", "codecs"),
    [
        (programs.spring_boot, ALL),
        (programs.python, ALL),
        (programs.kafkajs, ("none", "gzip")),
        (programs.confluent, ALL[:-1]),  # zstd depends on how it was built
        (programs.go, ALL),
    ],
    ids=("spring_boot", "python", "kafkajs", "confluent", "go"),
)
def test_each_quote_is_handled_once_whatever_happens(
    kafka: str,
    topic: str,
    tmp_path: Path,
    command: Callable[[], list[str]],
    codecs: Sequence[str],
) -> None:
    prices, log = tmp_path / "disk" / "prices.tsv", tmp_path / "log"
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "KAFKA_TOPIC": topic}
    example = command(), environment | {"PRICES_FILE": str(prices)}, log
    due = publish_all(kafka, topic, codecs)
    with running(*example):
        wait_until(lambda: str(prices) in log.read_text(), "the first quote is tried")
        time.sleep(OUTAGE_SECONDS)
    with running(*example):  # restarted while it cannot write: what it had got is not lost
        prices.parent.mkdir()
        wait_until(lambda: len(handled(prices)) >= len(due), "all quotes are handled")
        last = [a_quote(f"LAST{n}", 9) for n in range(20)]
        publish(kafka, topic, last)
        wait_until(lambda: len(handled(prices)) >= len(due + last), "the last ones are, too")
        assert sorted(handled(prices)) == sorted(map(told, due + last))
    with running(*example):  # restarted once more: nothing is handled again
        publish(kafka, topic, [a_quote("NEXT")])
        wait_until(lambda: told(a_quote("NEXT")) in handled(prices), "the next quote is handled")
    assert sorted(handled(prices)) == sorted(map(told, [*due, *last, a_quote("NEXT")]))


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """An example as a process, which does not end by itself."""
    child = Child("The example", command, os.environ | environment, log, patience=30)
    try:
        yield
        child.check()
    finally:
        child.stop()


def publish_all(kafka: str, topic: str, codecs: Sequence[str]) -> list[Quote]:
    """Fills a topic, and returns the quotes that have to be handled."""
    window = [a_quote(f"TICK{n}", price=10 + n / 100) for n in range(50)]
    later = [a_quote(f"TICK{n}", 1, price=20 + n / 100) for n in range(50)]
    corrected = [a_quote("TICK7", price=10.5)]
    of_script = [a_quote(f"TICK{n}", -1) for n in range(6)]
    publish(kafka, topic, [a_quote("FAKE3", origin=SANDBOX)])
    without_headers(kafka, topic, of_script)
    publish(kafka, topic, window)
    roll_back(kafka, topic, [quote_event(a_quote(f"TICK{n}", 1, price=99.0)) for n in range(50)])
    publish(kafka, topic, window)  # repeated
    publish(kafka, topic, later, "iso8601")
    publish(kafka, topic, corrected)
    due = [*of_script, *window, *later, *corrected]
    for codec in codecs:
        compressed = [a_quote(f"{codec}{n}", 2) for n in range(5)]
        publish(kafka, topic, compressed, compression=codec)
        due += compressed
    return due


def publish(
    kafka: str,
    topic: str,
    quotes: Sequence[Quote],
    form: UpdatedAtFormat = "epoch",
    compression: str = "none",
) -> None:
    config = {"compression.type": compression}
    publisher = a_kafka(kafka, topic, topic, client_properties=config)
    publisher.publish([quote_event(quote, updated_at_format=form) for quote in quotes])


def without_headers(kafka: str, topic: str, quotes: Sequence[Quote]) -> None:
    """Events of the script, in either form, and between them what is none."""
    producer = Producer({"bootstrap.servers": kafka})
    for number, quote in enumerate(quotes):
        form: UpdatedAtFormat = "epoch" if number % 2 else "iso8601"
        producer.produce(topic, quote_event(quote, updated_at_format=form).value, quote.ticker)
    for partition in range(4):
        for value in NO_QUOTES:
            producer.produce(topic, value, b"PETR4", partition=partition)
    assert producer.flush(30) == 0


def told(quote: Quote) -> tuple[str, Decimal, datetime, str | None]:
    """What the handler of an example writes of a quote."""
    return (quote.ticker, Decimal(str(quote.price)), quote.updated_at, quote.short_name)


def handled(prices: Path) -> list[Any]:
    """What an example has written."""
    if not prices.exists():
        return []
    lines = [line.split("\t") for line in prices.read_text("utf-8").splitlines()]
    return [
        (ticker, Decimal(price), datetime.fromisoformat(updated_at), short_name)
        for ticker, price, updated_at, short_name in lines
    ]
