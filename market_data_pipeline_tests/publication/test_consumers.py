"""The topic, read by the consumers' own code: Spring Kafka, and Kafka's console consumer."""

import hashlib
import os
import subprocess

import pytest

from market_data_pipeline.publication.event import UpdatedAtFormat, quote_event
from market_data_pipeline_tests.publication.helpers import a_kafka, a_quote, a_window
from market_data_pipeline_tests.services.kafka_broker import (
    HERE,
    alone,
    cache,
    class_path,
    java_command,
    maven,
)

pytestmark = pytest.mark.services

MODULE = HERE / "java-consumers"
READ_BACK = [
    "BRCR11|BRCR11|null|35.5|null|",
    "PETR4|PETR4|Petróleo Brasileiro S.A. - Petrobras|35.5|15234567|",
]


@pytest.fixture(scope="module")
def spring(kafka_services: None) -> str:
    """The class path of the Java consumers, compiled."""
    sources = sorted(MODULE.rglob("*.java"))
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    target = cache() / f"java-consumers-{version}"
    with alone():
        if not (target / "classes").exists():
            maven("compile", f"-Dbuild.folder={target}", folder=MODULE)
    return os.pathsep.join([str(target / "classes"), class_path(MODULE)])


@pytest.mark.parametrize(
    ("consumer", "updated_at_format", "said"),
    [
        ("QuoteWithDateTime", "iso8601", [f"{each}2026-11-23T13:29:58" for each in READ_BACK]),
        ("QuoteWithSeconds", "epoch", [f"{each}1795440598" for each in READ_BACK]),
        (
            "QuoteWithDateTime",
            "epoch",
            ["ERROR raw timestamp (1795440598) not allowed for `java.time.LocalDateTime`"],
        ),
        (
            "QuoteWithSeconds",
            "iso8601",
            [
                "ERROR Cannot deserialize value of type `long` from String "
                '"2026-11-23T13:29:58.000Z"'
            ],
        ),
    ],
)
def test_each_consumer_reads_the_format_meant_for_it_and_no_other(
    kafka: str,
    topic: str,
    spring: str,
    consumer: str,
    updated_at_format: UpdatedAtFormat,
    said: list[str],
) -> None:
    quotes = [a_quote(), a_quote("BRCR11", name=None, volume=None)]
    events = [quote_event(quote, updated_at_format=updated_at_format) for quote in quotes]
    a_kafka(kafka, topic, topic).publish(events)
    command = ["java", "-Xmx128m", "-cp", spring, "consumers.Main", kafka, topic, consumer]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    # In any order; of an error the beginning.
    lines = ended.stdout.splitlines()
    assert sorted(line if "|" in line else line[: len(said[0])] for line in lines) == said


def test_the_console_consumer_shows_keys_headers_and_values(kafka: str, topic: str) -> None:
    a_kafka(kafka, topic, topic).publish(a_window())
    shown = ["print.key=true", "print.headers=true"]
    options = [part for option in shown for part in ("--formatter-property", option)]
    command = java_command(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *["--bootstrap-server", kafka, "--topic", topic, "--from-beginning"],
        *["--isolation-level", "read_committed", "--max-messages", "50", *options],
    )
    lines = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    expected = set()
    for event in a_window():
        headers = b",".join(name.encode() + b":" + value for name, value in event.headers)
        expected.add(b"\t".join([headers, event.key, event.value]))
    assert {line for line in lines.splitlines() if line.startswith(b"ce_")} == expected
