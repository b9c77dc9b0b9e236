"""What the definitions hold, and that loading them needs nothing."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType

import dagster as dg
import pytest

from market_data_pipeline.definitions import defs
from market_data_pipeline.runs.common import OWNERS

Load = Callable[..., ModuleType]
ASSETS = {"quotes", "mongo_price_history", "kafka_publication"}
GRAPH = defs.resolve_asset_graph()


def test_three_assets_in_their_lineage() -> None:
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in GRAPH.get(key).parent_keys}
        for key in GRAPH.materializable_asset_keys
    }

    assert parents == {
        "quotes": set(),
        "mongo_price_history": {"quotes"},
        "kafka_publication": {"quotes"},
        "official_close": set(),
        "session_report": {"quotes"},
    }


def test_the_report_is_an_asset_of_sessions_in_a_group_of_its_own() -> None:
    node = GRAPH.get(dg.AssetKey("session_report"))

    assert (node.group_name, node.owners, node.kinds) == ("reports", OWNERS, {"html"})
    assert node.parent_keys == {dg.AssetKey("quotes")}
    assert node.partitions_def
    keys = node.partitions_def.get_partition_keys(datetime(2026, 11, 23, 21, tzinfo=UTC))
    assert keys[-3:] == ["2026-11-18", "2026-11-19", "2026-11-23"]  # the 20th is a holiday


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_says_what_it_is(name: str) -> None:
    node = GRAPH.get(dg.AssetKey(name))

    assert node.group_name == "market_data"
    assert node.owners
    assert node.kinds
    assert node.description
    assert node.partitions_def == GRAPH.get(dg.AssetKey("quotes")).partitions_def
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    if name != "kafka_publication":
        columns = node.metadata["dagster/column_schema"].columns
        assert len(columns) >= 11
        assert all(column.type and column.description for column in columns)


def test_every_check_says_what_to_do() -> None:
    keys = GRAPH.asset_check_keys

    assert len(keys) > 7
    for key in keys:
        description = GRAPH.get_check_spec(key).description
        assert description, key
        assert "If not:" in description, key


def test_whatever_runs_by_itself_says_what_it_does_and_the_job_is_of_the_three_assets() -> None:
    repository = defs.get_repository_def()

    assert all(each.description for each in repository.schedule_defs)
    assert all(each.description for each in repository.sensor_defs)
    job = defs.resolve_job_def("market_data_job")
    assert job.description
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == ASSETS


def test_every_config_field_is_described() -> None:
    def described(name: str) -> set[str]:
        schema = GRAPH.get(dg.AssetKey(name)).assets_def.op.config_schema
        fields = getattr(schema.config_type, "fields", {}) if schema else {}
        return {key for key, field in fields.items() if field.description}

    assert {name: described(name) for name in ASSETS} == {
        "quotes": {"accept"},
        "mongo_price_history": set(),
        "kafka_publication": {"publish_history"},
    }


def test_schedules_and_sensors_run_by_default() -> None:
    repository = defs.get_repository_def()

    assert {each.name for each in repository.schedule_defs} == {
        "every_evening",
        "every_session",
        "every_window",
    }
    for schedule in repository.schedule_defs:
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "America/Sao_Paulo"
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert sensors.pop("alerts") == dg.DefaultSensorStatus.STOPPED
    assert sensors.keys() == {"launch_missing", "watch_freshness"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}


def test_loading_needs_no_setting_and_opens_no_connection(
    load_definitions: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)

    assert "market_data_job" in {job.name for job in load_definitions().defs.resolve_all_job_defs()}
