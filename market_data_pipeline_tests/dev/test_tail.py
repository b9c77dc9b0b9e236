"""`make tail` on the topic of the embedded Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pytest
from confluent_kafka import Producer

from market_data_pipeline_dev import tail
from market_data_pipeline_tests.supervised import ROOT

EVENT = {"ticker": "PETR4", "price": 35.5, "volume": 15_234_567, "updated_at": 1795118400}


class Tail(subprocess.Popen[str]):
    """`make tail` as a process in a folder of its own."""

    stdout: IO[str]

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        super().__init__(
            [sys.executable, "-m", "market_data_pipeline_dev.tail", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": ""} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        output, errors = self.communicate(timeout=30)
        return self.returncode, output, errors


@pytest.fixture
def to(bootstrap_servers: str, topic: str) -> dict[str, str]:
    """Settings of a topic that nobody else writes to."""
    return {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "KAFKA_TOPIC": topic}


def publish(
    to: dict[str, str], values: Iterable[bytes], partitions: int = 1, window: str = ""
) -> None:
    """Publishes to so many partitions in turn."""
    producer = Producer({"bootstrap.servers": to["KAFKA_BOOTSTRAP_SERVERS"]})
    headers: dict[str, str | bytes | None] = {"ce_windowstart": window} if window else {}
    for number, value in enumerate(values):
        partition = number % partitions
        producer.produce(to["KAFKA_TOPIC"], value, b"PETR4", partition, headers=headers)
    assert producer.flush(10) == 0


def events(count: int) -> list[bytes]:
    """Events that differ in their volumes, from 0."""
    return [json.dumps({**EVENT, "volume": volume}).encode() for volume in range(count)]


def test_tail_waits_for_a_topic_and_shows_its_events(to: dict[str, str], tmp_path: Path) -> None:
    viewer = Tail(tmp_path, **to)
    assert "part/offset" in viewer.stdout.readline()
    publish(to, [json.dumps(EVENT).encode(), b"\xff not ours"])
    shown = [viewer.stdout.readline().split()[3:] for _ in range(2)]
    viewer.send_signal(signal.SIGINT)
    assert viewer.end() == (0, "", "")
    event = ["PETR4", "35.50", "15,234,567", "2026-11-19", "17:00:00"]
    assert shown == [event, ["PETR4", "b'\\xff", "not", "ours'"]]


def test_tail_shows_the_last_few_or_all_until_nobody_reads_it(
    to: dict[str, str], tmp_path: Path
) -> None:
    publish(to, events(9))
    # In .env, which counts more than the blank one of the environment.
    servers = to.pop("KAFKA_BOOTSTRAP_SERVERS")
    (tmp_path / ".env").write_text(f"KAFKA_BOOTSTRAP_SERVERS={servers}\n")
    assert len(Tail(tmp_path, "--count", "5", **to).end()[1].splitlines()) == 1 + 5
    code, output, errors = Tail(tmp_path, "--from-beginning", "--count", "9", **to).end()
    assert (code, errors) == (0, "")
    _, first, *_ = output.splitlines()
    assert first.split()[-4:] == ["35.50", "0", "2026-11-19", "17:00:00"]

    viewer = Tail(tmp_path, **to)
    viewer.stdout.readline()
    viewer.stdout.close()
    assert viewer.wait(30) == 0


def test_tail_begins_with_the_whole_last_window(to: dict[str, str], tmp_path: Path) -> None:
    publish(to, events(300), 4, "2026-11-19T16:30:00.000Z")
    # One of the four partitions has nothing of the last window.
    publish(to, events(950), 3, "2026-11-19T17:00:00.000Z")
    publish(to, events(3), 4, "2026-11-19T16:00:00.000Z")

    code, output, _ = Tail(tmp_path, "--count", str(950 + 3), **to).end()
    volumes = [int(line.split()[5].replace(",", "")) for line in output.splitlines()[1:]]
    assert (code, sorted(volumes)) == (0, sorted([*range(950), *range(3)]))


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
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tail, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", ["market-data-tail"])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert tail.main() == 1
    output, errors = capfd.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith(sentence)
