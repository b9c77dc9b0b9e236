"""The page of `fresh` names the windows that an asset lacks, and what fills them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from market_data_pipeline.operation.freshness import freshness
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline

pytestmark = pytest.mark.usefixtures("one_instrument")
SetClock = Callable[[datetime], None]
Make = Callable[..., Any]
NEXT = "2026-11-17T15:00-0300"
DAILY = "nothing: the free plan has daily bars only"


def page(pipeline: Pipeline, asset: str) -> tuple[str, dict[tuple[str, str], tuple[str, int]]]:
    """The description of the check, and its table: windows and their number by state and remedy."""
    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(freshness))
    definitions = dg.Definitions.merge(
        pipeline.definitions(), dg.Definitions(asset_checks=[freshness], jobs=[job])
    )
    result = definitions.resolve_job_def("check").execute_in_process(instance=pipeline.instance)
    [evaluation] = [
        each
        for each in result.get_asset_check_evaluations()
        if each.asset_key == dg.AssetKey(asset)
    ]
    table = evaluation.metadata["not_filled"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [record.data for record in table.records]
    return str(evaluation.description), {
        (str(row["state"]), str(row["what fills them"])): (str(row["windows"]), int(row["count"]))
        for row in rows
    }


def test_what_was_never_asked_for_is_told_from_what_is_missing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    assert pipeline.run(LIVE_ON_TUESDAY).success
    monkeypatch.setattr("market_data_pipeline.operation.missing.began", lambda *_: TUESDAY_15_00)
    set_clock(TUESDAY_15_00 + timedelta(minutes=65))

    said, rows = page(pipeline, "quotes")

    # Tuesday's first nine, and the sixteen of each of the four sessions before.
    assert said.endswith("had 75 windows: 1 filled, 1 missing, 73 before the first run.")
    assert rows["missing: no run, or skipped to save quota", DAILY] == (NEXT, 1)
    _, never_live = rows["before the first run", DAILY]
    closing, fillable = rows["before the first run", "materialize all assets"]
    assert (never_live, fillable) == (69, 4)
    assert closing.startswith("2026-11-11T17:30-0300, 2026-11-12T17:30-0300")


def test_a_window_that_the_plan_cannot_fill_stays_named_after_a_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    monkeypatch.setattr("market_data_pipeline.operation.missing.began", lambda *_: TUESDAY_15_00)
    set_clock(TUESDAY_15_00 + timedelta(minutes=65))
    pipeline.run(NEXT)

    _, rows = page(pipeline, "quotes")

    assert rows["empty", DAILY] == (NEXT, 1)


def test_intraday_bars_fill_what_was_missed(
    make_pipeline: Make, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    with make_pipeline(plan="pro") as pipeline:
        pipeline.run(LIVE_ON_TUESDAY)
        monkeypatch.setattr(
            "market_data_pipeline.operation.missing.began", lambda *_: TUESDAY_15_00
        )
        set_clock(TUESDAY_15_00 + timedelta(minutes=65))
        _, rows = page(pipeline, "quotes")
        assert rows["missing: no run, or skipped to save quota", "materialize all assets"] == (
            NEXT,
            1,
        )

        pipeline.run(NEXT)
        _, rows = page(pipeline, "quotes")
        assert not any(state.startswith("missing") for state, _ in rows)
        _, rows = page(pipeline, "kafka_publication")
        assert rows[
            "empty", "materialize `kafka_publication` with `publish_history: true`, if wanted"
        ] == (NEXT, 1)


def test_a_run_that_failed_is_named(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    pipeline.run(LIVE_ON_TUESDAY)
    monkeypatch.setattr("market_data_pipeline.operation.missing.began", lambda *_: TUESDAY_15_00)
    set_clock(TUESDAY_15_00 + timedelta(minutes=30))
    pipeline.brapi = {"token": ""}
    failed = pipeline.run(NEXT)
    assert not failed.success
    pipeline.brapi = {}
    set_clock(TUESDAY_15_00 + timedelta(minutes=65))

    _, rows = page(pipeline, "quotes")

    assert rows[f"missing: run {failed.run_id[:8]} failed", DAILY] == (NEXT, 1)
