"""The embedded Kafka and MongoDB as processes, and `make tail` on the topic."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pymongo
import pytest
from confluent_kafka import Producer

from market_data_pipeline_dev import tail
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo
from market_data_pipeline_tests.supervised import ROOT

TOPIC = "events"
EVENT = {"ticker": "PETR4", "price": 35.5, "volume": 15_234_567, "updated_at": 1795118400}


def test_mongo_keeps_its_data_and_its_databases_apart(tmp_path: Path) -> None:
    with embedded_mongo(tmp_path) as uri, pymongo.MongoClient[dict[str, str]](uri) as client:
        client["one"]["instruments"].insert_one({"_id": "PETR4"})
        client["two"]["instruments"].insert_one({"_id": "VALE3"})
    with embedded_mongo(tmp_path) as uri, pymongo.MongoClient[dict[str, str]](uri) as client:
        assert [each["_id"] for each in client["one"]["instruments"].find()] == ["PETR4"]


@pytest.fixture
def broker() -> Iterator[str]:
    """A Kafka that nobody else writes to."""
    with embedded_kafka() as servers:
        yield servers


class Tail:
    """`make tail` as a process in a folder of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "market_data_pipeline_dev.tail", *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "KAFKA_BOOTSTRAP_SERVERS": "",
                "KAFKA_TOPIC": TOPIC,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=30)
        return self.process.returncode, output, errors


def publish(servers: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for value in values:
        producer.produce(TOPIC, value, b"PETR4")
    assert producer.flush(10) == 0


def test_tail_waits_for_a_topic_and_shows_its_events(broker: str, tmp_path: Path) -> None:
    viewer = Tail(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": broker})
    assert "part/offset" in viewer.output.readline()
    publish(broker, json.dumps(EVENT).encode(), b"\xff not ours")
    shown = [viewer.output.readline().split()[3:] for _ in range(2)]
    viewer.process.send_signal(signal.SIGINT)
    assert viewer.end() == (0, "", "")
    event = ["PETR4", "35.50", "15,234,567", "2026-11-19", "17:00:00"]
    assert sorted(shown) == [event, ["PETR4", "b'\\xff", "not", "ours'"]]


def test_tail_shows_the_last_few_or_all(broker: str, tmp_path: Path) -> None:
    publish(broker, *(json.dumps({**EVENT, "volume": n}).encode() for n in range(9)))
    # In .env, which counts more than the blank one of the environment.
    (tmp_path / ".env").write_text(f"KAFKA_BOOTSTRAP_SERVERS={broker}\n")
    assert len(Tail(tmp_path, {}, "--count", "5").end()[1].splitlines()) == 1 + 5
    code, output, errors = Tail(tmp_path, {}, "--from-beginning", "--count", "9").end()
    assert (code, errors) == (0, "")
    _, first, *_ = output.splitlines()
    assert first.split()[-4:] == ["35.50", "0", "2026-11-19", "17:00:00"]


def test_tail_begins_with_the_whole_last_window(broker: str, tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": broker})
    sizes = {"2026-11-19T16:30": 300, "2026-11-19T17:00": 950, "2026-11-19T16:00": 3}
    for window, size in sizes.items():
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_windowstart", f"{window}:00.000Z".encode())
        ]
        for volume in range(size):
            event = json.dumps({**EVENT, "volume": volume}).encode()
            # One of the four partitions has nothing of the last window.
            partition = volume % (3 if window == "2026-11-19T17:00" else 4)
            producer.produce(TOPIC, event, b"PETR4", partition, headers=headers)
        assert producer.flush(10) == 0

    expected = 950 + 3
    code, output, _ = Tail(
        tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": broker}, "--count", str(expected)
    ).end()
    volumes = [int(line.split()[5].replace(",", "")) for line in output.splitlines()[1:]]
    assert (code, sorted(volumes)) == (0, sorted([*range(950), *range(3)]))


def test_tail_ends_when_nobody_reads_it(broker: str, tmp_path: Path) -> None:
    viewer = Tail(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": broker})
    viewer.output.readline()
    viewer.output.close()
    assert viewer.process.wait(30) == 0


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, "`make dev` does not run with these settings: start it."),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "x:1", "KAFKA_CONFIG_FOO": "1"},
            'Kafka at x:1 cannot be read: No such configuration property: "foo"',
        ),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "x:1", "KAFKA_CONFIG_SECURITY_PROTOCOL": "s3cr3t"},
            'Kafka at x:1 cannot be read: Invalid value "KAFKA_CONFIG_SECURITY_PROTOCOL"',
        ),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
            "Kafka at 127.0.0.1:1 cannot be read: 127.0.0.1:1/bootstrap: Connect",
        ),
        ({"MONGO_HOST": "me:s3cr3t@db"}, "MONGO_HOST cannot be used: "),
    ],
)
def test_tail_says_what_is_missing(
    env: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tail, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", ["market-data-tail"])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert tail.main() == 1
    output, errors = capfd.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith(sentence)
