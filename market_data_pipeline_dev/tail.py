"""Shows the events on the topic as they arrive: `make tail`.

    python -m market_data_pipeline_dev.tail [--from-beginning] [--count N]

It begins with the last window on the topic. It reads the broker of KAFKA_BOOTSTRAP_SERVERS,
otherwise the one that `make dev` runs, belongs to no consumer group and commits nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from market_data_pipeline.dotenv import environment
from market_data_pipeline.publication.errors import ConfigurationError
from market_data_pipeline.publication.properties import config_from_environment, without_secrets
from market_data_pipeline_dev.process import address_file, stop_on_signals
from market_data_pipeline_dev.settings import Environment, setting, state_folder

SAO_PAULO = ZoneInfo("America/Sao_Paulo")
DEFAULT_TOPIC = "trading-assets-market-data-v1"
LAST_FEW = 5
READ_BACK = 200
ANSWER_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 2.0
LINE = "{time:<19}  {place:>11}  {key:<7} {price:>10} {volume:>15}  {updated_at}\n"
TITLES = LINE.format(
    time="sent",
    place="part/offset",
    key="key",
    price="price",
    volume="volume",
    updated_at="updated_at (all times of São Paulo)",
)


class NoBrokerError(RuntimeError):
    """There is no broker to read from; the message says what to do."""


class Tail:
    """Reads all partitions of a topic, also those that appear later.

    Args:
        config: librdkafka's properties.
        topic: the topic, which need not exist yet.
        from_beginning: whether to start at the first event of each partition that exists. By
            default it starts at the first of the last window: the latest `ce_windowstart`, or at
            the last few events where none has one.
    """

    def __init__(self, config: dict[str, str], topic: str, *, from_beginning: bool) -> None:
        self._config, self._topic, self._from_beginning = config, topic, from_beginning
        self._reason = ""
        self._next_offsets: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "group.id": "market-data-tail",
                **config,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "error_cb": self._remember,
                "log_level": 0,  # what matters of it comes through error_cb
            }
        )

    def events(self) -> Iterator[Message | None]:
        """The events as they arrive, and None every now and then while there is none.

        Raises:
            NoBrokerError: no broker answers.
        """
        try:
            self._assign(at_start=True)
            looked = time.monotonic()
            while True:
                message = self._consumer.poll(0.2)
                if message is not None and message.error() is None:
                    self._next_offsets[message.partition() or 0] = (message.offset() or 0) + 1
                    yield message
                else:
                    yield None
                if time.monotonic() - looked > LOOK_AGAIN_SECONDS:
                    self._assign(at_start=False)
                    looked = time.monotonic()
        except KafkaException as error:
            self._consumer.poll(0)  # lets librdkafka tell the reason
            reason = without_secrets(self._reason or error.args[0].str(), self._config)
            servers = self._config["bootstrap.servers"]
            raise NoBrokerError(f"Kafka at {servers} does not answer: {reason}") from None
        finally:
            self._consumer.close()

    def _assign(self, *, at_start: bool) -> None:
        """Reads the partitions that are new, too."""
        topics = self._consumer.list_topics(self._topic, timeout=ANSWER_SECONDS).topics
        known = self._topic in topics and topics[self._topic].error is None
        partitions = topics[self._topic].partitions if known else {}
        ends = {
            partition: self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=ANSWER_SECONDS
            )
            for partition in partitions.keys() - self._next_offsets.keys()
        }
        if not ends:
            return
        if at_start and not self._from_beginning:
            self._next_offsets |= self._last_window(ends)
        else:
            self._next_offsets |= {partition: low for partition, (low, _) in ends.items()}
        self._read_from(self._next_offsets)

    def _read_from(self, offsets: Mapping[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, *place) for place in offsets.items()])

    def _last_window(self, ends: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """The offset in each partition at which the events of the last window begin.

        Args:
            ends: the first offset of each partition, and the one after its last.
        """
        back = READ_BACK
        while True:
            windows = self._windows({n: max(low, high - back) for n, (low, high) in ends.items()})
            last = max((each for of in windows.values() for each in of.values()), default="")
            if not last:
                return {n: max(low, high - LAST_FEW) for n, (low, high) in ends.items()}
            first = {
                n: min((offset for offset, each in of.items() if each == last), default=ends[n][1])
                for n, of in windows.items()
            }
            # Where the oldest event that was read is of that window, there may be more of them.
            if all(
                first[n] > min(of, default=-1) or first[n] == ends[n][0] or back > ends[n][1]
                for n, of in windows.items()
            ):
                return first
            back *= 4

    def _windows(self, starts: Mapping[int, int]) -> dict[int, dict[int, str]]:
        """The window of each event from these offsets to the ends, by partition and offset."""
        windows: dict[int, dict[int, str]] = {partition: {} for partition in starts}
        unfinished, patience = set(starts), time.monotonic() + ANSWER_SECONDS
        self._read_from(starts)
        while unfinished and time.monotonic() < patience:
            message = self._consumer.poll(0.2)
            if message is None:
                continue
            partition, error = message.partition() or 0, message.error()
            if error is None:
                windows[partition][message.offset() or 0] = _window(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                unfinished.discard(partition)
        return windows

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._reason = error.str()


def consumer_config(env: Environment) -> dict[str, str]:
    """The librdkafka properties that the environment asks for.

    Raises:
        NoBrokerError: no broker is named, and `make dev` runs none here.
        ConfigurationError: a KAFKA_CONFIG_ variable is not allowed.
    """
    servers = setting(env, "KAFKA_BOOTSTRAP_SERVERS")
    if servers:
        return config_from_environment(env) | {"bootstrap.servers": servers}
    file = address_file(state_folder(env), "kafka")
    if not file.exists():
        raise NoBrokerError(
            "There is no Kafka to read from: start `make dev`, or set KAFKA_BOOTSTRAP_SERVERS."
        )
    return {"bootstrap.servers": file.read_text()}


def _window(message: Message) -> str:
    """The start of an event's window in UTC, blank for an event that has none."""
    value = dict(message.headers() or []).get("ce_windowstart") or b""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def line(message: Message) -> str:
    """One event as a line of text; one that is not ours shows its bytes as they are."""
    value = message.value() or b""
    try:
        event = json.loads(value)
        fields = {name: event[name] for name in ("price", "volume", "updated_at")}
    except (ValueError, KeyError, TypeError):
        fields = {"price": "", "volume": "", "updated_at": repr(value[:60])}
    return LINE.format(
        time=_local(message.timestamp()[1] / 1000),
        place=f"{message.partition()}/{message.offset()}",
        key=(message.key() or b"").decode(errors="replace"),
        price=_number(fields["price"], ",.2f"),
        volume=_number(fields["volume"], ",d"),
        updated_at=_instant(fields["updated_at"]),
    )


def _number(value: Any, form: str) -> str:
    try:
        return format(value, form)
    except (TypeError, ValueError):
        return str(value)


def _instant(value: Any) -> str:
    """`updated_at` in the local time of B3, from seconds or ISO 8601."""
    if isinstance(value, int):
        return _local(value)
    try:
        return _local(datetime.fromisoformat(value).timestamp())
    except (TypeError, ValueError):
        return str(value)


def _local(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, SAO_PAULO):%Y-%m-%d %H:%M:%S}"


def _show(tail: Tail, count: int | None) -> None:
    """Writes the events until there were `count` of them, or its output is closed."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLERR)
    for number, message in enumerate(tail.events()):
        if number == 0:
            sys.stdout.write(TITLES)
        if message is not None:
            sys.stdout.write(line(message))
            count = count and count - 1
        sys.stdout.flush()
        if count == 0 or output.poll(0):
            return


def main() -> int:
    """Shows events until it is told to stop."""
    parser = argparse.ArgumentParser(description="Shows the events on the topic as they arrive.")
    parser.add_argument("--from-beginning", action="store_true", help="not only the last window")
    parser.add_argument("--count", type=int, help="stop after so many events")
    options = parser.parse_args()
    stop_on_signals()  # also where a shell in the background has it ignore Ctrl-C
    env = environment()
    topic = setting(env, "KAFKA_TOPIC", DEFAULT_TOPIC)
    try:
        tail = Tail(consumer_config(env), topic, from_beginning=options.from_beginning)
        _show(tail, options.count)
    except (NoBrokerError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KafkaException as error:
        sys.stderr.write(f"A KAFKA_CONFIG_ variable is wrong: {error.args[0].str()}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Python flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
