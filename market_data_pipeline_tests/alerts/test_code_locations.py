"""Whose run it is, as Dagster records it: an upgrade of Dagster may break this."""

import dagster as dg
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from market_data_pipeline.runs.dagster_internals import is_of_this_location


def location(name: str) -> InProcessCodeLocationOrigin:
    return InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name=name), location_name=name)


def test_a_run_is_of_the_code_location_that_launched_it() -> None:
    job = dg.GraphDefinition("everything", node_defs=[]).to_job()
    with dg.DagsterInstance.ephemeral() as instance:

        def launched_by(name: str) -> dg.DagsterRun:
            repository = RemoteRepositoryOrigin(location(name), "__repository__")
            origin = RemoteJobOrigin(repository, "everything")
            return instance.create_run_for_job(job, remote_job_origin=origin)

        def sensor_in(name: str) -> dg.SensorEvaluationContext:
            return dg.SensorEvaluationContext(
                instance_ref=None,
                last_tick_completion_time=None,
                last_run_key=None,
                cursor=None,
                repository_name=None,
                instance=instance,
                code_location_origin=location(name),
            )

        ours, by_hand = launched_by("ours"), instance.create_run_for_job(job)
        assert is_of_this_location(sensor_in("ours"), ours)
        assert not is_of_this_location(sensor_in("others"), ours)
        assert not is_of_this_location(sensor_in("ours"), by_hand)
