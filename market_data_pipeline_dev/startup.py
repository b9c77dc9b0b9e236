"""Tells, from a Dagster webserver, what became of the run at startup."""

from __future__ import annotations

import json
import time
import urllib.request
from http.client import HTTPException
from typing import Any

QUERY = """
query Startup($since: Float!) {
  runsOrError(
    filter: {createdAfter: $since, tags: [{key: "market_data/startup", value: "true"}]}, limit: 1
  ) {
    ... on Runs { results {
      runId status tags { key value }
      assetMaterializations {
        assetKey { path }
        metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
    } }
  }
  repositoriesOrError { ... on RepositoryConnection { nodes { sensors { name sensorState {
    ticks(afterTimestamp: $since, statuses: [SKIPPED], limit: 1) { skipReason cursor }
  } } } } }
}
"""
SENSOR = "at_startup"
FAILED = {"FAILURE": "has failed", "CANCELED": "was canceled"}
# What an asset counts, by the names that it may have in the metadata.
COUNTS = ("published", "dagster/partition_row_count", "dagster/row_count")


def startup_report(address: str, since: float) -> str:
    """Waits for the run at startup to end, or to be found needless, and says so in a line.

    Args:
        address: where the webserver is, or will be.
        since: when the deployment started, in Unix seconds.
    """
    while True:
        time.sleep(0.5)
        try:
            said = report(address, _ask(address, since))
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            continue  # the webserver is not up, or has not loaded the definitions
        if said:
            return said


def _ask(address: str, since: float) -> dict[str, Any]:
    body = json.dumps({"query": QUERY, "variables": {"since": since}}).encode()
    request = urllib.request.Request(
        f"{address}/graphql", body, {"Content-Type": "application/json"}
    )
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(request, timeout=10) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
    return data


def report(address: str, data: dict[str, Any]) -> str | None:
    """What there is to say, given the answer to `QUERY`; None while that is not known."""
    for run in data["runsOrError"]["results"]:
        page = f"{address}/runs/{run['runId']}"
        if run["status"] in FAILED:
            return f"The run at startup {FAILED[run['status']]}. It says why at {page}"
        if run["status"] != "SUCCESS":
            return None
        window = {tag["key"]: tag["value"] for tag in run["tags"]}.get("dagster/partition", "")
        assets = [_asset(each) for each in run["assetMaterializations"]]
        return (
            f"The run at startup is finished: {len(assets)} assets materialized for {window} "
            f"({', '.join(assets)}).\n  See it at {page}, and the events with `make tail`."
        )
    for repository in data["repositoriesOrError"]["nodes"]:
        for sensor in repository["sensors"]:
            for tick in sensor["sensorState"]["ticks"]:
                # Until it has seen to this start, the cursor is none or says that it waits.
                seen_to = tick["cursor"] and "waiting" not in tick["cursor"]
                if sensor["name"] == SENSOR and seen_to:
                    return f"No run at startup: {tick['skipReason']} See {address}"
    return None


def _asset(materialization: dict[str, Any]) -> str:
    name = "/".join(materialization["assetKey"]["path"])
    numbers = {each["label"]: each.get("intValue") for each in materialization["metadataEntries"]}
    counted = [numbers[label] for label in COUNTS if numbers.get(label) is not None]
    return f"{name}: {counted[0]}" if counted else name
