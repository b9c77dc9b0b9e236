"""A run of the whole pipeline that is killed while it publishes.

`doomed_pipeline MOMENT SANDBOX PLAN MONGO KAFKA FOLDER TOPIC`, where MOMENT is one of
`MOMENTS`, each of them with the number of events that the brokers have acknowledged by then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import dagster as dg
from brapi_sandbox.sandbox import Sandbox
from confluent_kafka import Producer

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
    """Runs all assets for the live window in a process that is killed at that moment."""
    ended = subprocess.run(
        [
            *[sys.executable, "-m", __name__, moment],
            *[pipeline.sandbox.url, pipeline.sandbox.plan, pipeline.mongo_uri],
            *[pipeline.bootstrap_servers, str(pipeline.folder), pipeline.topic],
        ],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def main() -> None:
    _, _, sandbox, plan, mongo, kafka, folder, topic = sys.argv
    with (
        mock.patch(PRODUCER, DoomedProducer),
        mock.patch.object(clock, "utc_now", return_value=TUESDAY_15_00),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server = cast(Sandbox, SimpleNamespace(url=sandbox, plan=plan))
        Pipeline(server, mongo, kafka, Path(folder), topic, instance).run(LIVE_ON_TUESDAY)


if __name__ == "__main__":
    main()
