"""What a consumer gets of windows that were rolled back and repeated, as docs/contracts.md says."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline
from market_data_pipeline_tests.publication.doomed_pipeline import killed_run
from market_data_pipeline_tests.publication.helpers import read
from market_data_pipeline_tests.services.kafka_broker import HERE, class_path
from market_data_pipeline_tests.supervised import ROOT

pytestmark = pytest.mark.services

CONTRACT = (ROOT / "docs" / "contracts.md").read_text("utf-8")
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


def test_in_python(kafka: str, topic: str, moved: set[str]) -> None:
    for (isolation, drops_repeats), expected in TIMES_AND_PRICES.items():
        got = _consume(kafka, topic, isolation, drops_repeats)
        times = Counter(value["ticker"] for value in got)
        prices = {(value["ticker"], value["updated_at"]) for value in got}
        different = Counter(ticker for ticker, _ in prices)
        assert {(times[ticker], different[ticker]) for ticker in moved} == {expected}


def test_in_java(kafka: str, topic: str, moved: set[str], tmp_path: Path) -> None:
    configuration = _block("properties").replace("spring.kafka.consumer.", "").replace("-", ".")
    handled = Counter(_listen(kafka, topic, configuration, tmp_path))
    assert {handled[ticker] for ticker in moved} == {1}
    handled = Counter(_listen(kafka, topic, "", tmp_path))
    assert {handled[ticker] for ticker in moved} == {2}


def _consume(kafka: str, topic: str, isolation: str, drops_repeats: bool) -> list[dict[str, Any]]:
    """The values that a consumer handles, the one that drops repeats with the contract's code."""
    got: list[dict[str, Any]] = []
    names: dict[str, Any] = {"json": json, "Message": Message, "handle": got.append}
    exec(_block("python"), names)
    settings = {
        "bootstrap.servers": kafka,
        "group.id": f"{topic}-{isolation}-{drops_repeats}",
        "isolation.level": isolation,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer, at_end = Consumer(settings), set()
    consumer.subscribe([topic])
    while len(at_end) < 4:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        if error and error.code() == KafkaError._PARTITION_EOF:
            at_end.add(message.partition())
        elif drops_repeats:
            names["on_message"](message)
        else:
            got.append(json.loads(message.value() or b""))
    consumer.close()
    return got


def _listen(kafka: str, topic: str, configuration: str, folder: Path) -> list[str]:
    """The tickers that the contract's listener handles, in a container of Spring Kafka."""
    listener = _block("java").replace("trading-assets-market-data-v1", topic)
    frame = Path(__file__).with_name("Listener.java").read_text()
    source = folder / "Listener.java"
    source.write_text(frame.replace("// THE LISTENER", listener))
    group = f"group.id={topic}-{len(configuration)}"
    defaults = f"bootstrap.servers={kafka}\n{group}\nauto.offset.reset=earliest\n"
    ended = subprocess.run(
        ["java", "-Xmx128m", "-cp", class_path(HERE / "java-consumers"), str(source)],
        input=defaults + configuration,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", CONTRACT, re.DOTALL)
    return str(block)
