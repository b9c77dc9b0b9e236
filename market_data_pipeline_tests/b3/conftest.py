"""The asset `official_close` in a run, against a server of B3's files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pymongo
import pytest

from market_data_pipeline_tests.b3.files import FileServer, serve_files
from market_data_pipeline_tests.conftest import Pipeline, SetClock, at, tags_of

EVENING = at("2026-11-17T20:30")


@dataclass
class Official:
    """The asset, what B3 serves, and the pipeline that it is of."""

    b3: FileServer
    pipeline: Pipeline

    def __call__(
        self, first: str = "2026-11-17", last: str = "", url: str = ""
    ) -> dg.ExecuteInProcessResult:
        """Runs the asset for a session, from one to another, or without any."""
        from market_data_pipeline.b3.asset import official_close, official_close_job
        from market_data_pipeline.b3.files import B3History

        resources = {
            **(self.pipeline.definitions().resources or {}),
            "b3": B3History(url or self.b3.url, pause=0.01),
        }
        job = dg.Definitions(
            [official_close], jobs=[official_close_job], resources=resources
        ).resolve_job_def("official_close_job")
        return job.execute_in_process(
            instance=self.pipeline.instance, raise_on_error=False, tags=tags_of(first, last)
        )

    def documents(self) -> dict[str, dict[str, Any]]:
        """What the collection holds, by `_id`."""
        with pymongo.MongoClient[dict[str, Any]](self.pipeline.mongo_uri, tz_aware=True) as client:
            found = client["market_data_db"]["official_close"].find()
            return {str(document["_id"]): document for document in found}


@pytest.fixture
def b3() -> Iterator[FileServer]:
    with serve_files() as server:
        yield server


@pytest.fixture
def official(pipeline: Pipeline, b3: FileServer, set_clock: SetClock) -> Official:
    """On the evening of 17 November 2026."""
    set_clock(EVENING)
    return Official(b3, pipeline)
