"""What is used of Dagster beyond its documented interface: names what an upgrade has broken."""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage import tags
from dagster._daemon.types import DaemonHeartbeat

from market_data_pipeline.runs import dagster_internals as internals
from market_data_pipeline_tests.pools import claimed_at_once

KEY = dg.AssetCheckKey(dg.AssetKey("quotes"), "prices_plausible")


@dg.asset
def something() -> None: ...


JOB = dg.Definitions([something], jobs=[dg.define_asset_job("job")]).resolve_job_def("job")


def test_the_tags_of_partitions_are_dagsters() -> None:
    assert internals.PARTITION_TAG == tags.PARTITION_NAME_TAG
    assert internals.ASSET_PARTITION_RANGE_START_TAG == tags.ASSET_PARTITION_RANGE_START_TAG
    assert internals.ASSET_PARTITION_RANGE_END_TAG == tags.ASSET_PARTITION_RANGE_END_TAG


def test_the_daemon_has_an_id(instance: dg.DagsterInstance) -> None:
    assert internals.daemon_id(instance) is None
    now = datetime.now(UTC).timestamp()
    instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "first", []))

    assert internals.daemon_id(instance) == "first"


def test_the_last_evaluation_of_a_check_is_found(instance: dg.DagsterInstance) -> None:
    assert internals.last_evaluations(instance, [KEY]) == []
    for description in ("older", "newer"):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=KEY.asset_key,
                check_name=KEY.name,
                passed=True,
                metadata={"window": "2026-11-17T14:30-0300"},
                description=description,
            )
        )

    (found,) = internals.last_evaluations(instance, [KEY])
    assert found.description == "newer"
    assert found.metadata["window"].value == "2026-11-17T14:30-0300"


def test_a_pool_has_one_place(instance: dg.DagsterInstance) -> None:
    assert internals.claim(instance, "pool", "first", "step") is None
    assert internals.claim(instance, "pool", "second", "step") == ["first"]
    assert internals.claim(instance, "another pool", "second", "step") is None

    internals.release(instance, "first", "step")
    assert internals.claim(instance, "pool", "second", "step") is None
    internals.release(instance, "second")
    assert internals.claim(instance, "pool", "third", "step") is None


def test_a_limit_that_somebody_has_raised_is_one_again(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("pool", 5)

    assert internals.claim(instance, "pool", "first", "step") is None
    assert internals.claim(instance, "pool", "second", "step") == ["first"]


def test_two_places_for_a_moment_let_one_run_in_at_the_most(instance: dg.DagsterInstance) -> None:
    """Both were given while the limit was higher."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots("pool", 2)
    assert storage.claim_concurrency_slot("pool", "first", "step").is_claimed
    assert storage.claim_concurrency_slot("pool", "second", "step").is_claimed

    assert internals.claim(instance, "pool", "second", "step") == ["first"]
    assert internals.claim(instance, "pool", "first", "step") is None


def test_a_new_pool_lets_in_one_of_two_runs_that_open_it_at_once(
    instance: dg.DagsterInstance,
) -> None:
    with dg.DagsterInstance.from_ref(instance.get_ref()) as same:
        for number in range(20):
            let_in = claimed_at_once([instance, same], f"pool {number}")
            assert sorted(let_in) == [False, True]


def test_an_instance_in_memory_has_no_pools() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert internals.claim(instance, "pool", "first", "step") is None
        assert internals.claim(instance, "pool", "second", "step") is None
        internals.release(instance, "first", "step")


def test_a_run_is_failed_with_a_reason(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(JOB, status=dg.DagsterRunStatus.STARTED)

    internals.fail_run(instance, run, "The process of this run has ended.")

    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is dg.DagsterRunStatus.FAILURE
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
    messages = [event.message for event in events if event]
    assert "The process of this run has ended." in messages


def test_when_a_pool_was_left_is_known_to_all_runs(instance: dg.DagsterInstance) -> None:
    assert internals.last_left(instance, "pool") == 0
    internals.note_left(instance, "pool", 1_795_000_000.25)

    assert internals.last_left(instance, "pool") == 1_795_000_000.25
    assert internals.last_left(instance, "another pool") == 0
