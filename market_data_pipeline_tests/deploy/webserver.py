"""Asks a Dagster webserver what a person would ask its pages."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

RUNS = """
query Runs($limit: Int) {
  runsOrError(limit: $limit) { ... on Runs { results {
    runId status startTime endTime tags { key value }
  } } }
}
"""
FAILURES = """
query Failures($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
  ... on ExecutionStepFailureEvent { error { message errorChain { error { message } } } }
  ... on RunFailureEvent { message }
} } } } }
"""
MESSAGES = """
query Messages($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
  ... on MessageEvent { message }
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
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }
"""
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
        for run in _ask(url, RUNS, {"limit": limit})["runsOrError"].get("results", [])
    ]


def why_it_failed(url: str, run: str) -> list[str]:
    """What caused the failure of its steps, and then what the run says."""
    found = _ask(url, FAILURES, {"run": run})["runOrError"]["eventConnection"]["events"]
    errors = [event["error"] for event in found if event.get("error")]
    causes = [[error, *(link["error"] for link in error["errorChain"])][-1] for error in errors]
    messages = [cause["message"] for cause in causes]
    return messages + [event["message"] for event in found if "message" in event]


def messages(url: str, run: str) -> str:
    """What the log of a run says so far."""
    found = _ask(url, MESSAGES, {"run": run})["runOrError"]["eventConnection"]["events"]
    return "\n".join(event.get("message", "") for event in found)


def materialized(url: str, asset: str, partitions: list[str]) -> set[str]:
    """Those of the partitions that the asset has."""
    answer = _ask(url, MATERIALIZED, {"asset": {"path": [asset]}, "partitions": partitions})
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
    answer = _ask(url, LAUNCH, {"params": params})["launchRun"]
    if "run" not in answer:
        raise NoAnswerError(answer)
    return str(answer["run"]["runId"])


def terminate_run(url: str, run: str) -> None:
    """Asks a run to end."""
    _ask(url, TERMINATE, {"run": run})


def launch_backfill(
    url: str, assets: list[str], partitions: list[str], config: dict[str, Any]
) -> str:
    """Starts a backfill and returns its id."""
    params = {
        "assetSelection": [{"path": [asset]} for asset in assets],
        "partitionNames": partitions,
        "runConfigData": config,
    }
    answer = _ask(url, BACKFILL, {"params": params})["launchPartitionBackfill"]
    if "backfillId" not in answer:
        raise NoAnswerError(answer)
    return str(answer["backfillId"])


def backfill_status(url: str, backfill: str) -> str:
    """What the webserver says of a backfill, such as `COMPLETED_SUCCESS`."""
    answer = _ask(url, BACKFILL_STATUS, {"id": backfill})
    return str(answer["partitionBackfillOrError"]["status"])


def _ask(url: str, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=20) as answer:
            data: dict[str, Any] | None = json.load(answer)["data"]
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise NoAnswerError from error
    if not data:
        raise NoAnswerError
    return data
