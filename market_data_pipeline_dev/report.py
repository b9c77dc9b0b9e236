"""What `make dev` says of the runs, which it asks the webserver for: a line for each that ended."""

import time
from collections.abc import Iterator
from typing import Any

import requests

QUERY = """
query Report($start: Float!) {
  runsOrError(filter: {createdAfter: $start}, limit: 20) { ... on Runs { results {
    runId status startTime endTime tags { key value }
    assetMaterializations {
      assetKey { path }
      metadataEntries { label ... on IntMetadataEntry { intValue } }
    }
  } } }
  repositoriesOrError { ... on RepositoryConnection { nodes { sensors { name sensorState {
    ticks(afterTimestamp: $start, statuses: [SKIPPED], limit: 1) { skipReason }
  } } } } }
}
"""
# The first run that it launches is the run at startup, unless it skips that one.
SENSOR = "launch_missing"
ENDED = {"SUCCESS": "finished", "FAILURE": "has failed", "CANCELED": "was canceled"}
# What an asset counts, by the names that it may have in the metadata.
COUNTS = ("published", "dagster/partition_row_count", "dagster/row_count")


def news(address: str, start: float) -> Iterator[str]:
    """A line for each run since `start` (Unix seconds) that has ended, and blanks meanwhile."""
    query = {"query": QUERY, "variables": {"start": start}}
    told: set[str] = set()
    while True:
        try:
            url, no_proxy = f"{address}/graphql", {"http": ""}
            answer = requests.post(url, json=query, timeout=10, proxies=no_proxy)
            for key, line in lines(address, answer.json()["data"], SENSOR in told):
                if key not in told:
                    told |= {key, SENSOR} if line.startswith("Startup") else {key}
                    yield line
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the webserver is not up, or has not loaded the definitions
        yield ""
        time.sleep(0.5)


def lines(address: str, data: dict[str, Any], started: bool) -> Iterator[tuple[str, str]]:
    """A line for each run that has ended, with its id; or that no run was needed at startup.

    `started` says that the run at startup has ended or was skipped.
    """
    for run in reversed(data["runsOrError"]["results"]):
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        startup = not started and tags.get("dagster/sensor_name") == SENSOR
        started |= startup
        if run["status"] in ENDED:
            yield run["runId"], _line(run, tags, startup, f"{address}/runs/{run['runId']}")
    for repository in () if started else data["repositoriesOrError"]["nodes"]:
        for sensor in repository["sensors"]:
            for tick in sensor["sensorState"]["ticks"] if sensor["name"] == SENSOR else ():
                yield SENSOR, f"Startup run skipped: {tick['skipReason']} See {address}"


def _line(run: dict[str, Any], tags: dict[str, str], startup: bool, page: str) -> str:
    window = tags.get("dagster/partition")
    ends = [tags.get(f"dagster/asset_partition_range_{end}", "") for end in ("start", "end")]
    what = f"Window {window}" if window else f"Run {run['runId'][:8]}"
    what = f"Windows {' to '.join(ends)}" if any(ends) else what
    what = "Startup run" if startup else what
    if run["status"] != "SUCCESS":
        return f"{what} {ENDED[run['status']]}. See why at {page}"
    assets = _assets(run)
    if startup:
        count = "1 asset" if len(assets) == 1 else f"{len(assets)} assets"
        return (
            f"{what} finished: {count} materialized for {window} "
            f"({', '.join(assets)}).\n  See it at {page}, and the events with `make tail`."
        )
    seconds = run["endTime"] - run["startTime"]
    return f"{what}: {', '.join(assets) or 'nothing new'} ({seconds:.1f} s)"


def _assets(run: dict[str, Any]) -> list[str]:
    """Each asset of a run with what it counts; of several windows, how many count something."""
    counts: dict[str, list[int]] = {}
    for each in run["assetMaterializations"]:
        numbers = {entry["label"]: entry.get("intValue") for entry in each["metadataEntries"]}
        found = [numbers[label] for label in COUNTS if numbers.get(label) is not None]
        counts.setdefault("/".join(each["assetKey"]["path"]), []).extend(found[:1])
    return [f"{name}{_in_words(found)}" for name, found in counts.items()]


def _in_words(counts: list[int]) -> str:
    windows = f" in {sum(map(bool, counts))} of {len(counts)} windows" if counts[1:] else ""
    return f": {sum(counts)}{windows}" if counts else ""
