"""Asks a Dagster webserver what a person would ask its pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

RUNS = """
query Runs($limit: Int) {
  runsOrError(limit: $limit) { ... on Runs { results {
    runId status startTime endTime tags { key value }
  } } }
}
"""
EVENTS = """
query Events($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
  __typename
  ... on MessageEvent { message }
  ... on ExecutionStepFailureEvent { error { message errorChain { error { message } } } }
} } } } }
"""
MATERIALIZED = """
query Materialized($asset: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $asset) {
    ... on AssetNode { latestMaterializationByPartition(partitions: $partitions) { partition } }
  }
}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = "mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query BackfillStatus($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


@dataclass(frozen=True)
class Run:
    """A run, with its tags, and when it began and ended in seconds of the epoch."""

    id: str
    status: str
    tags: dict[str, str]
    began: float | None
    ended: float | None


class NoAnswerError(Exception):
    """The webserver is down, or cannot tell."""


def runs(url: str, limit: int | None = None) -> list[Run]:
    """All runs, or so many, the latest first."""
    return [
        Run(
            run["runId"],
            run["status"],
            {tag["key"]: tag["value"] for tag in run["tags"]},
            run["startTime"],
            run["endTime"],
        )
        for run in _ask(url, RUNS, limit=limit)["runsOrError"].get("results", [])
    ]


def why_it_failed(url: str, run: str) -> list[str]:
    """What caused the failure of its steps, and then what the run says."""
    found = _events(url, run)
    errors = [event["error"] for event in found if event.get("error")]
    causes = [[error, *(link["error"] for link in error["errorChain"])][-1] for error in errors]
    ends = [event for event in found if event["__typename"] == "RunFailureEvent"]
    return [each["message"] for each in [*causes, *ends]]


def messages(url: str, run: str) -> str:
    """What the log of a run says so far."""
    return "\n".join(event.get("message", "") for event in _events(url, run))


def _events(url: str, run: str) -> list[dict[str, Any]]:
    return list(_ask(url, EVENTS, run=run)["runOrError"]["eventConnection"]["events"])


def materialized(url: str, asset: str, partitions: list[str]) -> set[str]:
    """Those of the partitions that the asset has."""
    answer = _ask(url, MATERIALIZED, asset={"path": [asset]}, partitions=partitions)
    found = answer["assetNodeOrError"]["latestMaterializationByPartition"]
    return {each["partition"] for each in found if each}


def launch_run(url: str, location: str, job: str, partition: str) -> str:
    """Starts a run of a job for a partition and returns its id."""
    params = {
        "selector": {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": job,
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
    }
    answer = _ask(url, LAUNCH, params=params)["launchRun"]
    if "run" not in answer:
        raise NoAnswerError(answer)
    return str(answer["run"]["runId"])


def terminate_run(url: str, run: str) -> None:
    """Asks a run to end."""
    _ask(url, TERMINATE, run=run)


def launch_backfill(
    url: str, assets: list[str], partitions: list[str], config: dict[str, Any]
) -> str:
    """Starts a backfill and returns its id."""
    params = {
        "assetSelection": [{"path": [asset]} for asset in assets],
        "partitionNames": partitions,
        "runConfigData": config,
    }
    answer = _ask(url, BACKFILL, params=params)["launchPartitionBackfill"]
    if "backfillId" not in answer:
        raise NoAnswerError(answer)
    return str(answer["backfillId"])


def backfill_status(url: str, backfill: str) -> str:
    """What the webserver says of a backfill, such as `COMPLETED_SUCCESS`."""
    answer = _ask(url, BACKFILL_STATUS, id=backfill)
    return str(answer["partitionBackfillOrError"]["status"])


def _ask(url: str, query: str, **variables: Any) -> Any:
    direct = requests.Session()
    direct.trust_env = False  # no proxy
    body = {"query": query, "variables": variables}
    try:
        data = direct.post(f"{url}/graphql", json=body, timeout=20).json()["data"]
    except (requests.RequestException, KeyError) as error:
        raise NoAnswerError from error
    if not data:
        raise NoAnswerError
    return data
