"""Whether the collection holds what the files hold."""

from collections.abc import Sequence, Set

import dagster as dg

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.asset_keys import HISTORY
from market_data_pipeline.runs.checks import ERROR, of_window, some

HISTORY_EQUALS_QUOTES = dg.AssetCheckSpec(
    "history_equals_quotes",
    asset=HISTORY,
    description="Every quote of the window is in the collection as it is stored. If not: "
    "materialize `mongo_price_history` again.",
)


def history_equals_quotes(
    windows: Sequence[Window], quotes: Sequence[Quote], found: Set[Quote]
) -> dg.AssetCheckResult:
    """Compares what is stored of some windows with what the collection holds of them."""
    differing = [quote.ticker for quote in quotes if quote not in found]
    result = dg.AssetCheckResult(
        check_name=HISTORY_EQUALS_QUOTES.name,
        passed=not differing,
        severity=ERROR,
        description=(
            f"{len(differing)} of {len(quotes)} quotes are not in the collection as they are "
            f"stored: {some(differing)}. Materialize `mongo_price_history` again."
            if differing
            else f"All {len(quotes)} quotes are in the collection."
        ),
        metadata={"compared": len(quotes), "differing": len(differing)},
    )
    return of_window(result, windows)
