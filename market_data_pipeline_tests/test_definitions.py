"""What the definitions hold, and that loading them needs nothing."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest

from market_data_pipeline.assets.common import OWNERS
from market_data_pipeline.definitions import defs

ASSETS = {"quotes", "mongo_price_history", "kafka_publication"}
GRAPH = defs.resolve_asset_graph()
PRELUDE = "import market_data_pipeline.definitions as d; d.defs.resolve_all_job_defs();"


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_three_assets_in_their_lineage() -> None:
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in GRAPH.get(key).parent_keys}
        for key in GRAPH.materializable_asset_keys
    }

    assert parents == {
        "quotes": set(),
        "mongo_price_history": {"quotes"},
        "kafka_publication": {"quotes"},
    }


def test_a_run_is_of_the_three_assets() -> None:
    job = defs.resolve_job_def("market_data_job")

    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == ASSETS


def test_the_report_is_an_asset_of_sessions_that_is_shown_and_not_materialized() -> None:
    node = GRAPH.get(dg.AssetKey("session_report"))

    assert (node.group_name, node.owners, node.kinds) == ("market_data", OWNERS, {"html"})
    assert not node.is_materializable
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


@pytest.mark.parametrize("name", ["quotes", "mongo_price_history"])
def test_every_column_has_a_type_and_a_description(name: str) -> None:
    schema = GRAPH.get(dg.AssetKey(name)).metadata["dagster/column_schema"]

    assert len(schema.columns) >= 11
    assert all(column.type and column.description for column in schema.columns)


def test_every_check_says_what_to_do() -> None:
    for key in GRAPH.asset_check_keys:
        description = GRAPH.get_check_spec(key).description
        assert description, key
        assert "If not:" in description, key


def test_whatever_runs_by_itself_says_what_it_does() -> None:
    repository = defs.get_repository_def()

    for each in (*repository.schedule_defs, *repository.sensor_defs):
        assert each.description, each.name
    assert defs.resolve_job_def("market_data_job").description


@pytest.mark.parametrize("name", ["brapi", "mongo", "kafka", "quote_store"])
def test_every_setting_of_a_resource_is_described(name: str) -> None:
    fields = type((defs.resources or {})[name]).model_fields

    assert [key for key, field in fields.items() if not field.description] == []


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_config_field_is_described(name: str) -> None:
    schema = GRAPH.get(dg.AssetKey(name)).assets_def.op.config_schema
    fields = getattr(schema.config_type, "fields", {}) if schema else {}

    assert [key for key, field in fields.items() if not field.description] == []


def test_schedule_and_sensor_run_by_default() -> None:
    repository = defs.get_repository_def()

    (schedule,) = repository.schedule_defs
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == "America/Sao_Paulo"
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert sensors["at_startup"] == dg.DefaultSensorStatus.RUNNING


def test_loading_needs_no_setting_and_opens_no_connection() -> None:
    no_network = "import socket; socket.socket.connect = None;"
    done = in_a_process(no_network + "print('loaded')")

    assert done.stdout == "loaded\n", done.stderr


def test_what_is_heavy_is_not_imported_before_it_is_needed() -> None:
    done = in_a_process("import sys; print([m for m in ('pyarrow.parquet',) if m in sys.modules])")

    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SYNC_INTERVAL_MINUTES", "7", "set it to one of 5, 10, 15, 20, 30, 60"),
        ("BRAPI_TICKERS_PER_REQUEST", "half", "set it to a whole number"),
        ("PARTITIONS_START", "yesterday", "set it to a date such as 2026-01-02"),
        ("BRAPI_PLAN", "gold", "set it to one of free, startup, pro"),
        ("BRAPI_MIN_INTERVAL_SECONDS", "-1", "set it to a number"),
        ("KAFKA_UPDATED_AT_FORMAT", "text", "set it to one of"),
        ("BRAPI_QUOTA_SHARE", "50", "set it to a number from 0 to 1"),
        ("ASSET_KEY_PREFIX", "blue-chips", "set it to letters, digits and underscores"),
        ("KAFKA_CREATE_TOPIC", "maybe", "set it to true or false"),
    ],
)
def test_a_wrong_setting_is_one_sentence_at_start(name: str, value: str, sentence: str) -> None:
    done = in_a_process("", **{name: value})

    assert done.returncode != 0
    last_line = done.stderr.strip().splitlines()[-1]
    assert name in last_line
    assert sentence in last_line


def test_a_secret_is_shown_by_its_variable_alone() -> None:
    done = in_a_process(
        "print(d.brapi, d.mongo, d.defs.resources)",
        BRAPI_TOKEN="token-5d1c",
        MONGO_URI="mongodb://user:word-77aa@127.0.0.1/",
    )

    assert done.returncode == 0, done.stderr
    assert "token-5d1c" not in done.stdout
    assert "word-77aa" not in done.stdout
