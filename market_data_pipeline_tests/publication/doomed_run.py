"""A run that kills itself while it publishes: `doomed_run ADDRESS TOPIC WINDOW SECONDS`.

It dies that many seconds after its first message was handed over, and takes longer over the way
to the commit than a run does, so that there is more to hit.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any
from unittest import mock

from confluent_kafka import Producer

from market_data_pipeline_tests.publication.helpers import a_kafka, a_window

PRODUCER = "market_data_pipeline.publication.client.Producer"


class SlowProducer(Producer):
    """Sends each message by itself, and dies on time."""

    started = False

    def produce(self, *arguments: Any, **options: Any) -> None:
        if not self.started:
            self.started = True
            threading.Timer(float(sys.argv[4]), os.kill, (os.getpid(), signal.SIGKILL)).start()
        super().produce(*arguments, **options)
        super().poll(0.001)

    def commit_transaction(self, *arguments: Any) -> None:
        time.sleep(0.02)
        super().commit_transaction(*arguments)
        os.write(1, b"committed")


if __name__ == "__main__":
    _, address, topic, window, _ = sys.argv
    with mock.patch(PRODUCER, SlowProducer):
        a_kafka(address, topic, topic).publish(a_window(int(window)))
    signal.pause()
