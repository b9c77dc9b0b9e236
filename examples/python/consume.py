"""Hands each quote on the topic to `handle` once.

pip install confluent-kafka
python consume.py
"""

import logging
import os
import signal
import sys
import time

from confluent_kafka import Consumer, Message, TopicPartition
from handle import handle
from quote import read

TOPIC = os.environ.get("KAFKA_TOPIC", "trading-assets-market-data-v1")
MADE_UP = b"/market-data-pipeline/made-up-quotes"
PAUSE_SECONDS = 5

handled: dict[bytes, None] = {}


def on_message(message: Message) -> None:
    """The events of the script that the pipeline replaced have no headers."""
    headers = dict(message.headers() or [])
    ce_id = headers.get("ce_id")
    if headers.get("ce_source") == MADE_UP or ce_id in handled:
        return
    try:
        quote = read(message.value())
    except ValueError as error:
        place = f"{message.partition()}/{message.offset()}"
        logging.warning("the record at %s is no quote and is skipped: %s", place, error)
        return
    handle(quote)
    if ce_id is not None:
        handled[ce_id] = None
        if len(handled) > 100_000:
            del handled[next(iter(handled))]


def consume(consumer: Consumer) -> None:
    """An event is committed when it is handled; until then it is handled again."""
    consumer.subscribe([TOPIC])
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            logging.warning("%s", message.error())
            continue
        try:
            on_message(message)
        except Exception:
            logging.exception("not handled, again in %s s", PAUSE_SECONDS)
            time.sleep(PAUSE_SECONDS)
            consumer.seek(TopicPartition(message.topic(), message.partition(), message.offset()))
        else:
            consumer.store_offsets(message)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
            "group.id": "quotes-example",
            # A new group begins with what is on the topic, not with the next window.
            "auto.offset.reset": "earliest",
            # Nothing of a window that was rolled back.
            "isolation.level": "read_committed",
            # Commit what `store_offsets` was called for, not all that was received.
            "enable.auto.offset.store": False,
        }
    )
    try:
        consume(consumer)
    finally:
        consumer.close()  # commits


if __name__ == "__main__":
    main()
