"""Fresh at 15:10 if the 14:30 window is there; never stale at night or on a holiday."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from market_data_pipeline.brapi.resource import BrapiResource
from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.freshness import freshness, watch_freshness
from market_data_pipeline_tests.conftest import SetClock, at
from market_data_pipeline_tests.schedule.conftest import unfinished_run

ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
TUESDAY_14_30, TUESDAY_14_00 = "2026-11-17T14:30-0300", "2026-11-17T14:00-0300"
THURSDAYS_LAST = "2026-11-19T17:30-0300"  # Friday the 20th is a holiday


class Watch:
    """The sensor as the daemon looks with it, at moments in São Paulo."""

    def __init__(self, instance: dg.DagsterInstance, set_clock: SetClock) -> None:
        self.instance = instance
        self.cursor: str | None = ""
        self._set_clock = set_clock

    def store(self, *keys: str, assets: tuple[str, ...] = ASSETS) -> None:
        for asset in assets:
            for key in keys:
                event = dg.AssetMaterialization(asset, partition=key)
                self.instance.report_runless_asset_event(event)

    def at(self, text: str) -> dict[str, bool] | str:
        """What it reports then: whether each asset is fresh, or why it reports nothing."""
        self._set_clock(at(text))
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=defs.get_repository_def(),
            resources={"brapi": BrapiResource()},
        )
        data = watch_freshness.evaluate_tick(context)
        assert not data.run_requests
        self.cursor = data.cursor
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        fresh = {event.asset_key.to_user_string(): event.passed for event in data.asset_events}
        return fresh or str(data.skip_message)


@pytest.fixture
def watch(instance: dg.DagsterInstance, set_clock: SetClock) -> Watch:
    return Watch(instance, set_clock)


FRESH, STALE = dict.fromkeys(ASSETS, True), dict.fromkeys(ASSETS, False)


def test_at_15_10_the_14_30_window_has_to_be_there(watch: Watch) -> None:
    watch.store(TUESDAY_14_00)
    assert watch.at("2026-11-17T15:09") == FRESH
    assert watch.at("2026-11-17T15:10") == STALE

    watch.store(TUESDAY_14_30)
    assert watch.at("2026-11-17T15:11") == FRESH
    assert str(watch.at("2026-11-17T15:12")).startswith("Nothing has been materialized")


def test_each_asset_is_watched_by_itself(watch: Watch) -> None:
    watch.store(TUESDAY_14_30, assets=("quotes", "mongo_price_history"))

    assert watch.at("2026-11-17T15:10") == FRESH | {"kafka_publication": False}


def test_the_next_window_makes_up_for_the_one_that_is_missing(watch: Watch) -> None:
    watch.store(TUESDAY_14_30)

    assert watch.at("2026-11-17T15:01") == FRESH


@pytest.mark.parametrize(
    "closed",
    ["2026-11-19T23:00", "2026-11-20T14:00", "2026-11-22T14:00", "2026-11-23T10:39"],
    ids=["night", "holiday", "Sunday", "Monday before the first window is due"],
)
def test_nothing_is_due_while_b3_is_closed(watch: Watch, closed: str) -> None:
    watch.store(THURSDAYS_LAST)

    assert watch.at(closed) == FRESH


def test_a_backfill_of_old_windows_makes_nothing_fresh(watch: Watch) -> None:
    watch.store("2026-03-10T14:30-0300", "2026-03-10T15:00-0300")

    assert watch.at("2026-11-17T15:10") == STALE


def test_a_window_that_the_pacing_left_out_is_not_missed(watch: Watch) -> None:
    spent = {
        "quota_left": 46,
        "quota_limit": 15_000,
        "quota_cost_of_a_run": 46,
        "quota_until": dg.MetadataValue.timestamp(datetime(2026, 12, 1, tzinfo=UTC)),
        "quota_window": "billing-cycle",
    }
    watch.instance.report_runless_asset_event(dg.AssetObservation("quotes", metadata=spent))
    watch.store(TUESDAY_14_00, assets=("quotes",))

    said = watch.at("2026-11-17T15:10")

    assert isinstance(said, str)
    assert f"{TUESDAY_14_30} was not due. Paced:" in said

    watch.store(TUESDAY_14_30)
    assert watch.at("2026-11-17T15:11") == FRESH


def test_what_has_not_changed_is_reported_once(watch: Watch) -> None:
    assert watch.at("2026-11-17T15:10") == STALE
    assert str(watch.at("2026-11-17T15:11")).startswith("Nothing has been materialized")
    assert watch.at("2026-11-17T15:40") == STALE


def test_a_new_deployment_is_judged_when_its_run_at_startup_has_ended(watch: Watch) -> None:
    watch.cursor = None

    assert watch.at("2026-11-22T12:00:05") == "The startup run has not begun yet."
    run = unfinished_run(watch.instance, "quotes", THURSDAYS_LAST)
    assert watch.at("2026-11-22T12:00:35") == f"Run {run.run_id[:8]} is in progress."
    watch.store(THURSDAYS_LAST)
    assert watch.at("2026-11-22T12:01:05") == FRESH


def test_a_deployment_without_a_run_at_startup_is_stale_at_the_second_look(watch: Watch) -> None:
    watch.cursor = None

    assert watch.at("2026-11-22T12:00:05") == "The startup run has not begun yet."
    assert watch.at("2026-11-22T12:00:35") == STALE


def test_after_each_materialization_the_check_is_evaluated_again(watch: Watch) -> None:
    """Dagster calls it not evaluated from then on."""
    watch.store(TUESDAY_14_30)
    assert watch.at("2026-11-17T15:11") == FRESH

    watch.store("2026-03-10T14:30-0300", assets=("quotes",))
    assert watch.at("2026-11-17T15:12") == FRESH


def test_the_check_says_the_same_when_it_is_run(watch: Watch) -> None:
    watch.store(TUESDAY_14_30, assets=("quotes",))
    watch.at("2026-11-17T15:10")
    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(freshness))
    checks = dg.Definitions(
        asset_checks=[freshness], jobs=[job], resources={"brapi": BrapiResource()}
    )

    result = checks.resolve_job_def("check").execute_in_process(instance=watch.instance)

    said = {each.asset_key.to_user_string(): each for each in result.get_asset_check_evaluations()}
    assert {name: each.passed for name, each in said.items()} == STALE | {"quotes": True}
    assert "then materialize it" in str(said["kafka_publication"].description)
