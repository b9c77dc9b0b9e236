"""Shows the events on the topic as they arrive: `make tail`.

    python -m market_data_pipeline_dev.tail [--from-beginning] [--count N]

It begins with the last window on the topic. It reads the broker of KAFKA_BOOTSTRAP_SERVERS,
otherwise the one that `make dev` runs, belongs to no consumer group and commits nothing.
"""

import argparse
import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import dropwhile
from typing import Any
from zoneinfo import ZoneInfo

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from market_data_pipeline.publication.client import without_values
from market_data_pipeline.settings import SettingError, Settings
from market_data_pipeline_dev.process import stop_on_signals
from market_data_pipeline_dev.settings import join, read_settings

SAO_PAULO = ZoneInfo("America/Sao_Paulo")
# How many events of each partition are looked at for the last window, and shown if none has one.
READ_BACK, LAST_FEW = 5_000, 5
ANSWER_SECONDS = 10.0
LINE = "{:<19}  {:>11}  {:<7} {:>10} {:>15}  {}\n"
TITLES = ("sent", "part/offset", "key", "price", "volume", "updated_at (all times of São Paulo)")


def events(consumer: Consumer, topic: str, *, from_beginning: bool) -> Iterator[Message | None]:
    """The events of a topic as they arrive, and None every now and then while there is none.

    The topic need not exist yet. Unless it is read from the beginning, the first events are those
    of the last window (the latest `ce_windowstart`), or the last few where none has one. Raises a
    KafkaException if no broker answers.
    """
    while not (there := consumer.list_topics(topic, ANSWER_SECONDS).topics[topic].partitions):
        yield None
        time.sleep(1)
    places = [TopicPartition(topic, number) for number in there]
    for place in places:
        low, high = consumer.get_watermark_offsets(place, ANSWER_SECONDS)
        place.offset = low if from_beginning else max(low, high - READ_BACK)
    consumer.assign(places)
    if not from_beginning:
        yield from _last_window(consumer, len(places))
    while True:
        message = consumer.poll(0.2)
        yield None if message is None or message.error() else message


def _last_window(consumer: Consumer, unread: int) -> Iterator[Message]:
    """The last window and what follows it; so many partitions are read to their ends."""
    read: dict[int, list[Message]] = {}
    patience = time.monotonic() + ANSWER_SECONDS
    while unread and time.monotonic() < patience:
        if (message := consumer.poll(0.2)) is None:
            continue
        if (error := message.error()) is None:
            read.setdefault(message.partition() or 0, []).append(message)
        else:
            unread -= error.code() == KafkaError._PARTITION_EOF
    last = max((_window(each) for several in read.values() for each in several), default=b"")
    for several in read.values():
        from_last = dropwhile(lambda each: _window(each) != last, several)
        yield from from_last if last else several[-LAST_FEW:]


def _window(message: Message) -> Any:
    return dict(message.headers() or []).get("ce_windowstart") or b""


def line(message: Message) -> str:
    """One event as a line of text; one that is not ours shows its bytes as they are."""
    value = message.value() or b""
    try:
        event = json.loads(value)
        volume = "" if event["volume"] is None else f"{event['volume']:,d}"
        shown = [f"{event['price']:,.2f}", volume, _local(event["updated_at"])]
    except (ValueError, KeyError, TypeError):
        shown = ["", "", repr(value[:60])]
    key = (message.key() or b"").decode(errors="replace")
    sent = _local(message.timestamp()[1] // 1000)
    return LINE.format(sent, f"{message.partition()}/{message.offset()}", key, *shown)


def _local(instant: int | str) -> str:
    if isinstance(instant, str):
        instant = int(datetime.fromisoformat(instant).timestamp())
    return f"{datetime.fromtimestamp(instant, SAO_PAULO):%Y-%m-%d %H:%M:%S}"


def _show(found: Iterator[Message | None], count: int) -> None:
    """Writes the events until there were `count` of them, or its output is closed."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLERR)
    text = LINE.format(*TITLES)
    for message in found:
        if message is not None:
            text, count = text + line(message), count - 1
        sys.stdout.write(text)
        sys.stdout.flush()
        if count == 0 or output.poll(0):
            return
        text = ""


def main() -> int:
    """Shows events until it is told to stop (0) or says why it cannot (1)."""
    parser = argparse.ArgumentParser(description="Shows the events on the topic as they arrive.")
    parser.add_argument("--from-beginning", action="store_true", help="not only the last window")
    parser.add_argument("--count", type=int, default=-1, help="stop after so many events")
    options = parser.parse_args()
    stop_on_signals()  # also where a shell in the background has it ignore Ctrl-C
    try:
        given = read_settings()
        given = given if given.is_set("KAFKA_BOOTSTRAP_SERVERS") else join(given)
        with _consumer(given) as consumer:
            found = events(consumer, given.kafka_topic, from_beginning=options.from_beginning)
            _show(found, options.count)
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Python flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextlib.contextmanager
def _consumer(given: Settings) -> Iterator[Consumer]:
    """A consumer without a group. Raises a SettingError, with the reason, if it cannot read."""
    hidden = {n: value.get_secret_value() for n, value in given.kafka_client_properties.items()}
    errors: list[KafkaError] = []
    config = {
        "group.id": "market-data-tail",
        **hidden,
        "bootstrap.servers": given.kafka_bootstrap_servers,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "error_cb": errors.append,
        "log_level": 0,  # what matters of it comes through error_cb
    }
    try:
        with contextlib.closing(Consumer(config)) as consumer:
            yield consumer
    except KafkaException as error:
        told = [each for each in errors if each.code() != KafkaError._ALL_BROKERS_DOWN]
        reason = without_values([error.args[0], *told][-1].str(), hidden, shortest=1)
        where = given.kafka_bootstrap_servers
        raise SettingError(f"Kafka at {where} cannot be read: {reason}") from None


if __name__ == "__main__":
    sys.exit(main())
