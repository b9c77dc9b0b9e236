"""A run of the whole pipeline in a process of its own, that is killed while it publishes.

`doomed_pipeline MOMENT SANDBOX PLAN MONGO KAFKA FOLDER TOPIC`, where MOMENT is one of
`MOMENTS`, each of them with the number of events that the brokers have acknowledged by then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import dagster as dg
from confluent_kafka import Producer
from upath import UPath

from market_data_pipeline.market import clock
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline

PRODUCER = "market_data_pipeline.publication.client.Producer"
MOMENTS = {"first event": 0, "half of the events": 25, "before the commit": 50, "committed": 50}


class DoomedProducer(Producer):
    """Kills its process at the moment that the command line names."""

    taken = 0

    def produce(self, *arguments: Any, **options: Any) -> None:
        moment = sys.argv[1]
        if self.taken == MOMENTS[moment] and moment != "committed":
            _die(self)
        super().produce(*arguments, **options)
        self.taken += 1

    def commit_transaction(self, *arguments: Any) -> None:
        if sys.argv[1] == "committed":
            super().commit_transaction(*arguments)
        _die(self)


def _die(producer: Producer) -> None:
    producer.flush(10)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_run(pipeline: Pipeline, moment: str) -> None:
    """A run of all assets for the live window, to its end: it is killed at that moment."""
    command = [
        *[sys.executable, "-m", __name__, moment],
        *[pipeline.sandbox.url, pipeline.sandbox.plan, pipeline.mongo_uri],
        *[pipeline.bootstrap_servers, str(pipeline.folder), pipeline.topic],
    ]
    assert subprocess.run(command).returncode == -signal.SIGKILL


def main() -> None:
    _, _, sandbox, plan, mongo, kafka, folder, topic = sys.argv
    with (
        mock.patch(PRODUCER, DoomedProducer),
        mock.patch.object(clock, "utc_now", return_value=TUESDAY_15_00),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server: Any = SimpleNamespace(url=sandbox, plan=plan)
        where: Any = UPath(folder)
        Pipeline(server, mongo, kafka, where, topic, instance).run(LIVE_ON_TUESDAY)


if __name__ == "__main__":
    main()
