"""What is used of Dagster beyond its documented interface: names what an upgrade has broken.

Whose run it is stands in `alerts/test_runs.py`.
"""

import dagster as dg
from dagster._core.storage import tags

from market_data_pipeline.runs import dagster_internals as internals

KEY = dg.AssetCheckKey(dg.AssetKey("quotes"), "prices_plausible")


def test_the_tags_of_partitions_are_dagsters() -> None:
    assert internals.PARTITION_TAG == tags.PARTITION_NAME_TAG
    assert internals.ASSET_PARTITION_RANGE_START_TAG == tags.ASSET_PARTITION_RANGE_START_TAG
    assert internals.ASSET_PARTITION_RANGE_END_TAG == tags.ASSET_PARTITION_RANGE_END_TAG


def test_the_evaluations_of_a_check_are_found(instance: dg.DagsterInstance) -> None:
    assert [*internals.evaluations(instance, KEY)] == []
    for description in ("older", "newer"):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=KEY.asset_key, check_name=KEY.name, passed=True, description=description
            )
        )

    found = internals.evaluations(instance, KEY)
    assert [each.description for each in found] == ["newer", "older"]


def test_the_last_materialization_is_a_number_that_grows(instance: dg.DagsterInstance) -> None:
    assert internals.last_materializations(instance, [KEY.asset_key]) == []
    numbers = []
    for _ in range(2):
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY.asset_key))
        numbers += internals.last_materializations(instance, [KEY.asset_key])

    assert 0 < numbers[0] < numbers[1]
