"""What `make dev` shows of Dagster: a line for each run that has ended, and what concerns the user.

The runs are asked for at the webserver; the rest is in what Dagster's processes write.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from http.client import HTTPException
from typing import Any

RUN = """{ ... on Runs { results {
  runId status startTime endTime tags { key value }
  assetMaterializations {
    assetKey { path }
    metadataEntries { label ... on IntMetadataEntry { intValue } }
  }
} } }"""
QUERY = f"""
query Report($start: Float!, $lately: Float!) {{
  startup: runsOrError(
    filter: {{createdAfter: $start, tags: [{{key: "market_data/startup", value: "true"}}]}}
    limit: 1
  ) {RUN}
  ended: runsOrError(
    filter: {{updatedAfter: $lately, statuses: [SUCCESS, FAILURE, CANCELED]}}, limit: 20
  ) {RUN}
  repositoriesOrError {{ ... on RepositoryConnection {{ nodes {{ sensors {{ name sensorState {{
    ticks(afterTimestamp: $start, statuses: [SKIPPED], limit: 1) {{ skipReason cursor }}
  }} }} }} }} }}
}}
"""
SENSOR = "at_startup"
FAILED = {"FAILURE": "has failed", "CANCELED": "was canceled"}
# What an asset counts, by the names that it may have in the metadata.
COUNTS = ("published", "dagster/partition_row_count", "dagster/row_count")
RANGE = "dagster/asset_partition_range_"
LATELY_SECONDS = 300

LINE = re.compile(
    rb"(?:\x1b\[\d+m)?\d{4}-\d\d-\d\d [^-]+ - (\S+) - (?:\x1b\[\d+m)?([A-Z]+)\S* - (.*)"
)
RUN_ID = re.compile(rb"\S+ - [0-9a-f]{8}-[0-9a-f-]{27} - ")
# Warnings at every start that ask for nothing.
NOISE = (
    b"Found a dagster instance configuration value (dagster.yaml) in the current folder",
    b"No cursor for event type",
)

Say = Callable[[str], None]


class Filter:
    """Decides which lines of Dagster's output are shown, given one after the other.

    They are warnings, errors, what a run of the pipeline says, and tracebacks.
    """

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, line: bytes) -> bool:
        """Whether the line is shown; one that has no head of its own belongs to the one before."""
        if head := LINE.match(line):
            logger, level, text = head.groups()
            of_a_run = logger == b"dagster" and RUN_ID.match(text)
            noise = any(each in text for each in NOISE)
            loud = level in (b"WARNING", b"ERROR", b"CRITICAL") and not noise
            self._shown = bool(of_a_run or loud)
        elif line.startswith(b"Traceback "):
            self._shown = True
        return self._shown


def report_runs(address: str, start: float, say: Say) -> None:
    """Reports the outcome of the startup run, then of every run that ends; it does not return.

    Args:
        address: where the webserver is, or will be.
        start: when the deployment started, in Unix seconds.
        say: takes the lines.
    """
    told: set[str] = set()
    started = False
    while True:
        time.sleep(2 if started else 0.5)
        try:
            data = _ask(address, start)
            if not started and (line := startup_line(address, data)):
                started = True
                told |= {run["runId"] for run in data["startup"]["results"]}
                say(line)
            if started:
                for run_id, line in ended_lines(address, data, start, told):
                    told.add(run_id)
                    say(line)
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            continue  # the webserver is not up, or has not loaded the definitions


def _ask(address: str, start: float) -> dict[str, Any]:
    lately = max(start, time.time() - LATELY_SECONDS)
    body = json.dumps({"query": QUERY, "variables": {"start": start, "lately": lately}}).encode()
    request = urllib.request.Request(
        f"{address}/graphql", body, {"Content-Type": "application/json"}
    )
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(request, timeout=10) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
    return data


def startup_line(address: str, data: dict[str, Any]) -> str | None:
    """The outcome of the startup run, given the answer to `QUERY`; None if it is not known yet."""
    for run in data["startup"]["results"]:
        page = f"{address}/runs/{run['runId']}"
        if run["status"] in FAILED:
            return f"Startup run {FAILED[run['status']]}. See why at {page}"
        if run["status"] != "SUCCESS":
            return None
        assets = _assets(run)
        return (
            f"Startup run finished: {len(assets)} assets materialized for "
            f"{_tags(run).get('dagster/partition', '')} ({', '.join(assets)}).\n"
            f"  See it at {page}, and the events with `make tail`."
        )
    for repository in data["repositoriesOrError"]["nodes"]:
        for sensor in repository["sensors"]:
            for tick in sensor["sensorState"]["ticks"]:
                # Until the sensor has decided, its cursor is none or says that it waits.
                decided = tick["cursor"] and "waiting" not in tick["cursor"]
                if sensor["name"] == SENSOR and decided:
                    return f"Startup run skipped: {tick['skipReason']} See {address}"
    return None


def ended_lines(
    address: str, data: dict[str, Any], start: float, told: set[str]
) -> Iterator[tuple[str, str]]:
    """The id and a line of each run that has ended since `start`, but of those in `told`."""
    for run in reversed(data["ended"]["results"]):
        if run["runId"] in told or (run["endTime"] or 0) < start:
            continue
        if run["status"] in FAILED:
            page = f"{address}/runs/{run['runId']}"
            yield run["runId"], f"{_windows(run)} {FAILED[run['status']]}. See why at {page}"
        else:
            assets = ", ".join(_assets(run))
            seconds = run["endTime"] - run["startTime"]
            yield run["runId"], f"{_windows(run)}: {assets or 'nothing new'} ({seconds:.1f} s)"


def _windows(run: dict[str, Any]) -> str:
    """The window of a run by the local time it starts at, or the first and the last of a range."""
    tags = _tags(run)
    if key := tags.get("dagster/partition"):
        return f"Window {datetime.fromisoformat(key):%a %d %b %H:%M}"
    if f"{RANGE}start" in tags:
        return f"Windows {tags[f'{RANGE}start']} to {tags[f'{RANGE}end']}"
    return f"Run {run['runId'][:8]}"


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def _assets(run: dict[str, Any]) -> list[str]:
    """Each asset of a run with what it counts; of several windows, how many count something."""
    counts: dict[str, list[int | None]] = {}
    for each in run["assetMaterializations"]:
        counts.setdefault("/".join(each["assetKey"]["path"]), []).append(_count(each))
    return [f"{name}{_in_words(counted)}" for name, counted in counts.items()]


def _in_words(counts: list[int | None]) -> str:
    numbers = [count for count in counts if count is not None]
    if not numbers:
        return ""
    filled = sum(map(bool, numbers))
    windows = f" in {filled} of {len(numbers)} windows" if len(numbers) > 1 else ""
    return f": {sum(numbers)}{windows}"


def _count(materialization: dict[str, Any]) -> int | None:
    numbers = {each["label"]: each.get("intValue") for each in materialization["metadataEntries"]}
    return next((numbers[label] for label in COUNTS if numbers.get(label) is not None), None)
