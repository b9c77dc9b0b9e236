"""A backfill as the UI launches it, through webserver and daemon: cancelled and launched again."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest

from market_data_pipeline.market.clock import utc_now
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_tests.conftest import INSTRUMENTS
from market_data_pipeline_tests.supervised import ROOT, Supervisor, settings

pytestmark = [
    pytest.mark.services,  # for its time: it needs none
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc"),
]

ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
WINDOWS = TradingWindows(60)
LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess { backfillId }
  }
}
"""
CANCEL = """
mutation ($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }
"""
BACKFILL = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs { status tags { key value } } }
} }
"""
FILLED = """
query { assetNodes(assetKeys: [{path: ["quotes"]}, {path: ["mongo_price_history"]},
                               {path: ["kafka_publication"]}]) {
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } }
} }
"""
SCHEDULE = """
query { repositoriesOrError { ... on RepositoryConnection { nodes { schedules {
  scheduleState { status }
} } } } }
"""


class Deployment:
    """Dagster's webserver, as a browser talks to it, and the sandbox."""

    def __init__(self, env: dict[str, str]) -> None:
        self._dagster = f"http://127.0.0.1:{env['DAGSTER_PORT']}/graphql"
        self._sandbox = f"http://127.0.0.1:{env['SANDBOX_PORT']}/sandbox"
        self.mongo_uri = f"mongodb://127.0.0.1:{env['EMBEDDED_MONGO_PORT']}"

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of the one field that is asked for."""
        answer = _post(self._dagster, {"query": query, "variables": variables})
        assert "errors" not in answer, answer
        [data] = answer["data"].values()
        return data

    def launch(self, keys: Sequence[str]) -> str:
        """Launches a backfill of the three assets for some windows; returns its id."""
        selection = [{"path": [name]} for name in ASSETS]
        params = {"assetSelection": selection, "partitionNames": keys, "fromFailure": False}
        backfill_id: str = self.ask(LAUNCH, params=params)["backfillId"]
        return backfill_id

    def unfilled(self, keys: Sequence[str]) -> list[str]:
        """Those of the windows that not every asset is materialized for."""
        filled = []
        for node in self.ask(FILLED):
            ranges = node["assetPartitionStatuses"]["ranges"]
            spans = [
                (WINDOWS.from_key(each["startKey"]), WINDOWS.from_key(each["endKey"]))
                for each in ranges
                if each["status"] == "MATERIALIZED"
            ]
            filled.append(spans)
        return [
            key
            for key in keys
            if not all(
                any(first <= WINDOWS.from_key(key) <= last for first, last in spans)
                for spans in filled
            )
        ]

    def spoil(self, *faults: dict[str, Any]) -> None:
        """Sets the faults of the sandbox."""
        _post(f"{self._sandbox}/faults", list(faults))


def _post(address: str, content: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """`make dev` with windows of an hour and a short watchlist, after its run at startup.

    No window ends while the test runs: the schedule's run would ask for the same instruments.
    """
    left = WINDOWS.after(WINDOWS.last_ended(utc_now())).end - utc_now()
    if left < timedelta(minutes=4):
        time.sleep(left.total_seconds() + 1)
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "watchlist.csv").write_text("\n".join(["ticker", *INSTRUMENTS]) + "\n")
    env = settings(tmp_path / "state") | {
        "SYNC_INTERVAL_MINUTES": "60",
        "BRAPI_TIMEOUT_SECONDS": "210",
        "WATCHLIST_FILE": str(tmp_path / "watchlist.csv"),
    }
    supervisor = Supervisor(tmp_path, env)
    try:
        supervisor.wait_for("Startup run ")
        yield Deployment(env)
    finally:
        supervisor.end(signal.SIGTERM)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 90) -> None:
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def test_a_cancelled_backfill_is_launched_again_for_what_is_missing(
    deployment: Deployment,
) -> None:
    keys = WINDOWS.partitions.get_partition_keys()[-129:-1]
    early, late = keys[:56], keys[64:]  # three weeks around a day: two blocks, so two runs
    three_weeks = [*early, *late]

    def status(backfill_id: str) -> str:
        return str(deployment.ask(BACKFILL, id=backfill_id)["status"])

    def runs(backfill_id: str) -> list[str]:
        found = deployment.ask(BACKFILL, id=backfill_id)["runs"]
        return sorted(run["status"] for run in found)

    # Whichever run is second waits for an instrument, for longer than the test takes.
    deployment.spoil({"ticker": INSTRUMENTS[2], "numbers": [2], "delay": 200})
    cancelled = deployment.launch(three_weeks)
    wait_until(lambda: runs(cancelled) == ["STARTED", "SUCCESS"], "one run done, one under way")
    deployment.ask(CANCEL, id=cancelled)
    wait_until(lambda: status(cancelled) == "CANCELED", "the backfill's end")
    assert runs(cancelled) == ["CANCELED", "SUCCESS"]

    left = deployment.unfilled(three_weeks)
    assert left in (early, late)
    deployment.spoil()
    again = deployment.launch(left)
    wait_until(lambda: runs(again) == ["SUCCESS"], "the rest")
    wait_until(lambda: status(again) == "COMPLETED_SUCCESS", "the end of the backfill")
    [run] = deployment.ask(BACKFILL, id=again)["runs"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/asset_partition_range_start"] == left[0]
    assert tags["dagster/asset_partition_range_end"] == left[-1]

    assert deployment.unfilled(three_weeks) == []
    schedules = [each for node in deployment.ask(SCHEDULE)["nodes"] for each in node["schedules"]]
    assert {each["scheduleState"]["status"] for each in schedules} == {"RUNNING"}
    with pymongo.MongoClient[dict[str, Any]](deployment.mongo_uri, tz_aware=True) as client:
        documents = list(client["market_data_db"]["price_history"].find({"source": "daily"}))
    closing = [key for key in three_weeks if WINDOWS.is_last(WINDOWS.from_key(key))]
    assert sorted((each["ticker"], each["window_start"]) for each in documents) == sorted(
        (ticker, WINDOWS.from_key(key).start) for ticker in INSTRUMENTS for key in closing
    )
