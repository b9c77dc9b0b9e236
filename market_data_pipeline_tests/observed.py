"""What the engineer sees of a run: metadata, checks, log lines."""

from pathlib import Path
from typing import Any

import dagster as dg

from market_data_pipeline_tests.conftest import Pipeline


def metadata(
    result: dg.ExecuteInProcessResult, asset: str, partition: str | None = None
) -> dict[str, Any]:
    """The metadata of an asset's materialization (of one partition), tables as lists of rows."""
    for event in result.asset_materializations_for_node(asset):
        if partition in (None, event.partition):
            return {name: _plain(value) for name, value in event.metadata.items()}
    raise AssertionError(f"{asset} was not materialized")


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    """For each check of a run, whether it passed, and its description."""
    evaluations = result.get_asset_check_evaluations()
    assert evaluations, "no check was evaluated"
    return {each.check_name: (each.passed, each.description or "") for each in evaluations}


def failure_of(result: dg.ExecuteInProcessResult, asset: str = "quotes") -> str:
    """The sentence that the step of an asset failed with."""
    data = result.failure_data_for_node(asset)
    assert data is not None
    assert data.user_failure_data is not None, data.error
    return str(data.user_failure_data.description)


def logs(pipeline: Pipeline, result: dg.ExecuteInProcessResult) -> str:
    """Every line of the run's log, errors and their causes included."""
    lines = []
    for entry in pipeline.instance.all_logs(result.run_id):
        lines.append(entry.user_message)
        if entry.dagster_event and (failure := entry.dagster_event.event_specific_data):
            lines.append(str(getattr(failure, "error", "")))
            lines.append(str(getattr(failure, "user_failure_data", "")))
    return "\n".join(lines)


def said(instance: dg.DagsterInstance, text: str) -> bool:
    """Whether a run has logged it."""
    return any(
        text in entry.user_message
        for run in instance.get_runs()
        for entry in instance.all_logs(run.run_id)
    )


def left_by_runs(instance: dg.DagsterInstance, folder: Path, output: str) -> dict[str, bytes]:
    """What runs leave, by place: all files of a folder with an instance in files, also its events
    and runs as they are read from there, and what was printed."""
    assert {"history", "logs"} <= {path.name for path in (folder / "home").iterdir()}
    runs = instance.get_runs()
    events = [event for run in runs for event in instance.all_logs(run.run_id)]
    assert events
    left = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return left | {"events": f"{events} {runs}".encode(), "output": output.encode()}


def _plain(value: dg.MetadataValue) -> Any:
    if isinstance(value, dg.TableMetadataValue):
        return [dict(record.data) for record in value.records]
    return value.value
