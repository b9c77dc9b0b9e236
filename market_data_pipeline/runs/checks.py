"""What the results of all checks have in common."""

from collections.abc import Sequence

import dagster as dg

from market_data_pipeline.market.windows import Window

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
# Keys of a check's metadata: the last window that it is about, and the instruments that it names.
WINDOW, NAMED = "window", "named"


def as_evaluation(asset_key: dg.AssetKey, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """The same result as an event that needs no step of the asset."""
    assert result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=result.check_name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )


def of_window(result: dg.AssetCheckResult, windows: Sequence[Window]) -> dg.AssetCheckResult:
    """The same result, with the last window that it is about, if any, in the metadata."""
    named = {WINDOW: windows[-1].key} if windows else {}
    return result.with_metadata({**result.metadata, **named})


def some(texts: Sequence[str], between: str = ", ", most: int = 10) -> str:
    """The first texts, `most` of them, and how many more there are."""
    shown = between.join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"
