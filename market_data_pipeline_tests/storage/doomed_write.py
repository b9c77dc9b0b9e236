"""A run that is killed while it writes: `doomed_write SANDBOX PLAN MONGO KAFKA FOLDER TOPIC`."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import cast
from unittest import mock

import dagster as dg
from brapi_sandbox.sandbox import Sandbox
from upath import UPath

from market_data_pipeline.market import clock
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline

if __name__ == "__main__":
    _, sandbox, plan, mongo, kafka, folder, topic = sys.argv
    with (
        mock.patch.object(clock, "utc_now", return_value=TUESDAY_15_00),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        server = cast(Sandbox, SimpleNamespace(url=sandbox, plan=plan))
        Pipeline(server, mongo, kafka, UPath(folder), topic, instance).run(LIVE_ON_TUESDAY)  # type: ignore[arg-type]
