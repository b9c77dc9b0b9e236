"""Fresh at 15:10 if the 14:30 window is there; never stale at night or on a holiday."""

import dagster as dg
import pytest

from market_data_pipeline.brapi.quota import Quota, record
from market_data_pipeline.definitions import fresh
from market_data_pipeline_tests.conftest import at
from market_data_pipeline_tests.schedule.conftest import ASSETS, Operation

TUESDAY_14_30, TUESDAY_14_00 = "2026-11-17T14:30-0300", "2026-11-17T14:00-0300"
THURSDAYS_LAST = "2026-11-19T17:30-0300"  # Friday the 20th is a holiday
FRESH, STALE = dict.fromkeys(ASSETS, True), dict.fromkeys(ASSETS, False)
UNCHANGED = "Nothing has been materialized or become due since the last check."


def test_at_15_10_the_14_30_window_has_to_be_there(operation: Operation) -> None:
    operation.materialize(TUESDAY_14_00)
    assert operation.is_fresh("2026-11-17T15:09") == FRESH
    assert operation.is_fresh("2026-11-17T15:10") == STALE
    assert operation.is_fresh("2026-11-17T15:11") == UNCHANGED

    operation.materialize(TUESDAY_14_30)
    assert operation.is_fresh("2026-11-17T15:12") == FRESH
    assert operation.is_fresh("2026-11-17T15:13") == UNCHANGED
    # After each materialization, Dagster calls the check not evaluated.
    operation.materialize("2026-03-10T14:30-0300", "quotes")
    assert operation.is_fresh("2026-11-17T15:14") == FRESH
    assert operation.is_fresh("2026-11-17T15:40") == STALE


@pytest.mark.parametrize(
    ("stored", "moment", "expected"),
    [
        ((TUESDAY_14_30,), "2026-11-17T15:01", FRESH),  # it makes up for the one before
        ((THURSDAYS_LAST,), "2026-11-19T23:00", FRESH),
        ((THURSDAYS_LAST,), "2026-11-20T14:00", FRESH),
        ((THURSDAYS_LAST,), "2026-11-22T14:00", FRESH),
        ((THURSDAYS_LAST,), "2026-11-23T10:39", FRESH),
        ((THURSDAYS_LAST,), "2026-11-23T10:40", STALE),
        (("2026-03-10T14:30-0300", "2026-03-10T15:00-0300"), "2026-11-17T15:10", STALE),
    ],
)
def test_what_is_stored_is_fresh_as_long_as_nothing_later_is_due(
    operation: Operation, stored: tuple[str, ...], moment: str, expected: dict[str, bool]
) -> None:
    for key in stored:
        operation.materialize(key)

    assert operation.is_fresh(moment) == expected
    named = f"{stored[-1]} is materialized. " if expected is FRESH else " is missing; it ended "
    assert all(named in said for said in operation.said.values())


@pytest.mark.parametrize(
    ("requests_left", "missed"),
    [(50, {"15:10": False, "18:44": False, "18:45": True}), (8_000, {"15:10": True})],
)
def test_a_window_that_pacing_leaves_out_is_not_missed(
    operation: Operation, requests_left: int, missed: dict[str, bool]
) -> None:
    """With one run left, the close of today is what it is kept for."""
    quota = Quota(requests_left, 15_000, 50, at("2026-11-17T20:00"), "billing-cycle")
    operation.instance.report_runless_asset_event(record(quota))
    operation.materialize(TUESDAY_14_00)

    for moment, expected in missed.items():
        said = operation.is_fresh(f"2026-11-17T{moment}")
        assert said == STALE if expected else "was not due. Paced:" in said


def test_a_new_deployment_is_judged_at_the_second_look_but_not_while_a_run_is_in_progress(
    operation: Operation,
) -> None:
    operation.cursor = None

    assert operation.is_fresh("2026-11-22T12:00:05") == "The first run begins now."
    assert operation.is_fresh("2026-11-22T12:00:35") == STALE
    operation.run(THURSDAYS_LAST)
    assert (
        operation.is_fresh("2026-11-22T12:01:05") == f"A run is in progress for {THURSDAYS_LAST}."
    )
    operation.materialize(THURSDAYS_LAST)
    assert operation.is_fresh("2026-11-22T12:01:35") == FRESH


def test_the_check_says_the_same_when_it_is_run_for_each_asset(operation: Operation) -> None:
    operation.materialize(TUESDAY_14_30, "quotes")
    reported = operation.is_fresh("2026-11-17T15:10")
    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(fresh))
    checks = dg.Definitions(asset_checks=[fresh], jobs=[job])

    result = checks.resolve_job_def("check").execute_in_process(instance=operation.instance)

    ran = {each.asset_key.to_user_string(): each for each in result.get_asset_check_evaluations()}
    assert {name: each.passed for name, each in ran.items()} == reported == STALE | {"quotes": True}
    assert {name: each.description for name, each in ran.items()} == operation.said
    assert operation.said["kafka_publication"].startswith(
        f"{TUESDAY_14_30} is missing; it ended Tue 17 Nov 15:00 in São Paulo. Look at the last run "
        "and at the ticks of `every_window` and `launch_missing`. "
    )


def test_how_much_is_missing_or_empty_of_the_last_sessions_is_told(operation: Operation) -> None:
    operation.is_fresh("2026-11-17T15:10")
    assert operation.said["quotes"].endswith(
        "of the last 5 sessions, 74 are missing (2026-11-11T10:00-0300 to 2026-11-17T14:30-0300)."
    )

    operation.materialize("2026-11-11T10:00-0300", "quotes")
    operation.materialize(TUESDAY_14_00, "quotes", **{"dagster/partition_row_count": 0})
    operation.is_fresh("2026-11-17T15:10")
    assert operation.said["quotes"].endswith(
        "of the last 5 sessions, 72 are missing (2026-11-11T10:30-0300 to "
        f"{TUESDAY_14_30}) and 1 are empty ({TUESDAY_14_00} to {TUESDAY_14_00})."
    )
