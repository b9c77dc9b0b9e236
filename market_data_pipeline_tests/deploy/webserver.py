"""Asks a Dagster webserver what a person would ask its pages."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True)
class Run:
    """A run, with its tags."""

    id: str
    status: str
    tags: dict[str, str]


class NoAnswerError(Exception):
    """The webserver is down, or cannot tell."""


def runs(url: str) -> list[Run]:
    """All runs, the latest first."""
    return [
        Run(run["runId"], run["status"], {tag["key"]: tag["value"] for tag in run["tags"]})
        for run in _ask(url, RUNS)["runsOrError"].get("results", [])
    ]


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
