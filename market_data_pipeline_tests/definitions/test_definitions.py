"""What the definitions hold, and that loading them needs nothing."""

import socket
from datetime import UTC, datetime

import dagster as dg
import pytest

from market_data_pipeline.definitions import defs
from market_data_pipeline.runs.common import ONE_RUN_A_RANGE, OWNERS, QUOTES, WINDOWS
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, LoadDefinitions, Pipeline, tags_of

ASSETS = {"quotes", "mongo_price_history", "kafka_publication"}
GRAPH = defs.resolve_asset_graph()
REPOSITORY = defs.get_repository_def()


def test_the_assets_in_their_lineage_and_groups() -> None:
    found = {
        key.to_user_string(): (
            GRAPH.get(key).group_name,
            {parent.to_user_string() for parent in GRAPH.get(key).parent_keys},
        )
        for key in GRAPH.materializable_asset_keys
    }

    assert found == {
        "quotes": ("market_data", set()),
        "mongo_price_history": ("market_data", {"quotes"}),
        "kafka_publication": ("market_data", {"quotes"}),
        "official_close": ("b3", set()),
        "session_report": ("reports", {"quotes"}),
    }


def test_the_report_is_of_sessions() -> None:
    partitions = GRAPH.get(dg.AssetKey("session_report")).partitions_def

    assert partitions
    keys = partitions.get_partition_keys(datetime(2026, 11, 23, 21, tzinfo=UTC))
    assert keys[-3:] == ["2026-11-18", "2026-11-19", "2026-11-23"]  # the 20th is a holiday


def test_every_asset_check_schedule_sensor_job_and_field_says_what_it_is() -> None:
    for key in GRAPH.materializable_asset_keys:
        node = GRAPH.get(key)
        assert (node.owners, bool(node.kinds), bool(node.description)) == (OWNERS, True, True), key
    for name in ("quotes", "mongo_price_history"):
        columns = GRAPH.get(dg.AssetKey(name)).metadata["dagster/column_schema"].columns
        assert len(columns) >= 11
        assert all(column.type and column.description for column in columns)
    assert len(GRAPH.asset_check_keys) > 7
    for check in GRAPH.asset_check_keys:
        assert "If not:" in (GRAPH.get_check_spec(check).description or ""), check
    assert all(each.description for each in REPOSITORY.schedule_defs)
    assert all(each.description for each in REPOSITORY.sensor_defs)
    assert defs.resolve_job_def("market_data_job").description
    for name, expected in {"quotes": "accept", "kafka_publication": "publish_history"}.items():
        schema = GRAPH.get(dg.AssetKey(name)).assets_def.op.config_schema
        fields = getattr(schema.config_type, "fields", {}) if schema else {}
        assert [key for key, field in fields.items() if field.description] == [expected]


def test_the_job_is_of_the_three_assets_whose_windows_one_run_may_fill() -> None:
    job = defs.resolve_job_def("market_data_job")

    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == ASSETS
    nodes = [GRAPH.get(dg.AssetKey(name)) for name in ASSETS]
    assert {node.backfill_policy for node in nodes} == {dg.BackfillPolicy.single_run()}
    assert all(node.partitions_def == nodes[0].partitions_def for node in nodes)


def test_no_sink_comes_before_the_publication(
    pipeline: Pipeline, four_instruments: tuple[str, ...]
) -> None:
    """Dagster runs steps of the same priority by their names."""

    @dg.asset(deps=[QUOTES], partitions_def=WINDOWS.partitions, backfill_policy=ONE_RUN_A_RANGE)
    def archive() -> None: ...

    sink = dg.Definitions([archive], jobs=[dg.define_asset_job("all_sinks")])
    job = dg.Definitions.merge(pipeline.definitions(), sink).resolve_job_def("all_sinks")
    result = job.execute_in_process(instance=pipeline.instance, tags=tags_of(LIVE_ON_TUESDAY))

    steps = [event.step_key for event in result.all_events if event.is_step_start]
    assert steps[:3] == ["quotes", "kafka_publication", "archive"]


def test_schedules_and_sensors_run_by_default() -> None:
    schedules = {
        (each.name, each.default_status, each.execution_timezone)
        for each in REPOSITORY.schedule_defs
    }
    assert schedules == {
        (name, dg.DefaultScheduleStatus.RUNNING, "America/Sao_Paulo")
        for name in ("every_evening", "every_session", "every_window")
    }
    assert {each.name: each.default_status for each in REPOSITORY.sensor_defs} == {
        "alerts": dg.DefaultSensorStatus.STOPPED,
        "launch_missing": dg.DefaultSensorStatus.RUNNING,
        "watch_freshness": dg.DefaultSensorStatus.RUNNING,
    }


def test_loading_needs_no_setting_and_opens_no_connection(
    load_definitions: LoadDefinitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)

    assert "market_data_job" in {job.name for job in load_definitions().defs.resolve_all_job_defs()}
