"""What is checked of every window, and what to do when a check fails."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from market_data_pipeline.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.assets.common import WINDOWS
from market_data_pipeline.assets.metadata import REASONS, failures_of, missing_in, table
from market_data_pipeline.assets.moves import LARGEST_FACTOR, Move
from market_data_pipeline.brapi.collect import Collection
from market_data_pipeline.quote import COLUMNS, Quote
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
# Stocks close at 17:00 while New York has daylight saving time, and at 17:55 otherwise.
EARLIEST_CLOSE = time(17)
MOST_ROWS = 100

# Without partitions of their own: a check that has them is stored once for every window of a range,
# each time with the whole calendar (40 KB), and its evaluation of a range reaches none of these.
ALL_TICKERS_QUOTED = dg.AssetCheckSpec(
    "all_tickers_quoted",
    asset=QUOTES,
    description="Brapi answered for every ticker of the watchlist, and every window has a row for "
    "each that was traded. If not: mend the watchlist, or materialize the window again.",
)
WATCHLIST_FREE_OF_RENAMES = dg.AssetCheckSpec(
    "watchlist_free_of_renames",
    asset=QUOTES,
    description="Brapi answers under the symbols of the watchlist. If not: put the new symbols "
    "into the watchlist.",
)
PRICES_PLAUSIBLE = dg.AssetCheckSpec(
    "prices_plausible",
    asset=QUOTES,
    description=f"Every price is positive and at most {LARGEST_FACTOR:g} times, at least 1/"
    f"{LARGEST_FACTOR:g} of the one in the window before. If not: it is stored, but withheld from "
    "the topic. If the move is real (a split, a crash), launch `kafka_publication` for the live "
    "window with the ticker in `accept_moves`.",
)
QUOTES_RECENT = dg.AssetCheckSpec(
    "quotes_recent",
    asset=QUOTES,
    description="Every live quote is as recent as the plan's delay allows, within the session. If "
    "not: the paper is not traded, or Brapi is late; see its status page.",
)
QUOTES_CHECKS = [ALL_TICKERS_QUOTED, WATCHLIST_FREE_OF_RENAMES, PRICES_PLAUSIBLE, QUOTES_RECENT]

EVERY_QUOTE_DELIVERED = dg.AssetCheckSpec(
    "every_quote_delivered",
    asset=PUBLICATION,
    description="The broker acknowledged an event for every quote that was to be published. If "
    "not: materialize `kafka_publication` alone again.",
)


def check_quotes(
    quoted: Mapping[datetime, int],
    collections: Sequence[Collection],
    implausible: Sequence[Move],
    delay_minutes: int,
) -> list[dg.AssetCheckResult]:
    """The checks of `quotes`.

    Args:
        quoted: how many rows there are, by the start of the window.
        collections: where the rows come from, with the account of what is missing.
        implausible: the rows whose price has moved too far.
        delay_minutes: how late the plan's quotes may be.
    """
    rows = [quote for collection in collections for quote in collection.quotes]
    return [
        _all_tickers_quoted(quoted, collections),
        _free_of_renames(collections),
        _prices_plausible(len(rows), implausible),
        _quotes_recent(rows, timedelta(minutes=delay_minutes)),
    ]


def _all_tickers_quoted(
    quoted: Mapping[datetime, int], collections: Sequence[Collection]
) -> dg.AssetCheckResult:
    failures = failures_of(collections)
    coverage = sorted(
        (window, quoted.get(window.start, 0), missing_in(window, collection))
        for collection in collections
        for window in collection.windows
    )
    empty = [missing for _, rows, missing in coverage if not rows]
    # Which window lacks a row for most of the tickers because of what.
    reasons = Counter(max(REASONS, key=lambda reason: len(missing[reason])) for missing in empty)
    because = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
    sentences = [
        f"{len(failures)} tickers failed: {_some(list(failures))}." if failures else "",
        f"{len(empty)} of {len(coverage)} windows have no row ({because})." if empty else "",
    ]
    return dg.AssetCheckResult(
        check_name=ALL_TICKERS_QUOTED.name,
        passed=not failures and not empty,
        severity=WARN,
        description=" ".join(filter(None, sentences)) or "Every ticker was answered.",
        metadata={
            "failed": failures,
            "coverage": table(
                [
                    {"window": window.key, "quotes": rows}
                    | {reason: _some(missing[reason]) for reason in REASONS}
                    for window, rows, missing in coverage
                ]
            ),
        },
    )


def _free_of_renames(collections: Sequence[Collection]) -> dg.AssetCheckResult:
    renamed = {old: new for each in collections for old, new in each.renamed.items()}
    pairs = [f"{old} is {new} now" for old, new in renamed.items()]
    return dg.AssetCheckResult(
        check_name=WATCHLIST_FREE_OF_RENAMES.name,
        passed=not renamed,
        severity=WARN,
        description=(
            f"{', '.join(pairs)}: stored and published under the new symbol; mend the watchlist."
            if renamed
            else "No paper was answered under another symbol."
        ),
        metadata={"renamed": renamed},
    )


def _prices_plausible(rows: int, implausible: Sequence[Move]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=PRICES_PLAUSIBLE.name,
        passed=not implausible,
        severity=ERROR,
        description=(
            f"{len(implausible)} of {rows} prices have moved too far: "
            f"{_some([str(move) for move in implausible])}. They are stored, but withheld from the "
            "topic. If a move is real, launch `kafka_publication` for the live window with the "
            "ticker in `accept_moves`."
            if implausible
            else f"All {rows} prices are plausible."
        ),
        metadata=_rows(
            "implausible",
            [
                {
                    "ticker": move.quote.ticker,
                    "window": f"{move.quote.window_start:%Y-%m-%d %H:%M} UTC",
                    "price": move.quote.price,
                    "before": move.before,
                }
                for move in implausible[:MOST_ROWS]
            ],
        ),
    )


def _quotes_recent(rows: Sequence[Quote], delay: timedelta) -> dg.AssetCheckResult:
    late = [quote for quote in rows if quote.source == "live" and _is_late(quote, delay)]
    live = sum(quote.source == "live" for quote in rows)
    return dg.AssetCheckResult(
        check_name=QUOTES_RECENT.name,
        passed=not late,
        severity=WARN,
        description=(
            f"{len(late)} of {live} live quotes are older than they should be: "
            f"{_some([quote.ticker for quote in late])}. The papers are not traded, or Brapi is "
            "late: see its status page."
            if late
            else f"All {live} live quotes are recent."
        ),
        metadata=_rows(
            "late",
            [
                {"ticker": quote.ticker, "updated_at": quote.updated_at.isoformat()}
                for quote in late[:MOST_ROWS]
            ],
        ),
    )


def _is_late(quote: Quote, delay: timedelta) -> bool:
    """Whether the market's last price should be newer, by the plan and the session.

    A paper may go without a trade for as long as a window. Before the session is that old, the
    last session's price will do; after its close, the closing price is as new as can be.
    """
    start, end = quote.window_start, quote.window_end
    day = start.astimezone(EXCHANGE_TIMEZONE).date()
    close = datetime.combine(day, EARLIEST_CLOSE, EXCHANGE_TIMEZONE)
    due = min(end, close) - delay - (end - start)
    return quote.updated_at < due and due >= WINDOWS.of_session(day)[0].start


def _rows(name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """A table in the metadata, if it has a row."""
    return {name: table(records)} if records else {}


def _some(tickers: Sequence[str]) -> str:
    """A few of them by name, the others counted."""
    shown = ", ".join(tickers[:10])
    return shown if len(tickers) <= 10 else f"{shown} and {len(tickers) - 10} more"


@dg.asset_check(
    asset=HISTORY,
    additional_ins={"quotes": dg.AssetIn(QUOTES)},
    partitions_def=WINDOWS.partitions,
    description="Every quote of the window is in the collection as it was asked. If not: "
    "materialize `mongo_price_history` again.",
)
def history_equals_quotes(
    mongo_price_history: pd.DataFrame,
    quotes: pd.DataFrame,
) -> dg.AssetCheckResult:
    """Reads the windows back from MongoDB and compares them with the quotes that were stored."""
    differing = _differing(mongo_price_history, quotes)
    return dg.AssetCheckResult(
        passed=differing.empty,
        severity=ERROR,
        description=(
            f"{len(differing)} of {len(quotes)} quotes are not in the collection as they were "
            f"asked: {_some(list(differing['ticker']))}. Materialize `mongo_price_history` again."
            if len(differing)
            else f"All {len(quotes)} quotes are in the collection."
        ),
        metadata={"compared": len(quotes), "differing": len(differing)},
    )


def _differing(history: pd.DataFrame, quotes: pd.DataFrame) -> pd.DataFrame:
    """The quotes whose document is missing or different.

    A live price that was observed stays in the history when a bar comes later: no difference.
    """
    key = ["ticker", "window_start"]
    found = quotes.merge(history, on=key, how="left", suffixes=("", " found"), indicator=True)
    equal = found["_merge"] == "both"
    for column in set(COLUMNS) - set(key):
        asked, stored = found[column], found[f"{column} found"]
        equal &= ((asked == stored) | (asked.isna() & stored.isna())).fillna(False).astype(bool)
    kept_live = (found["source"] != "live") & (found["source found"] == "live")
    return quotes[~(equal | kept_live).to_numpy()]


def delivered(published: int, withheld: Sequence[str]) -> dg.AssetCheckResult:
    """What `every_quote_delivered` says when all that could be published is on the topic."""
    return dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=not withheld,
        severity=ERROR,
        description=(
            f"{len(withheld)} quotes are withheld, as their prices have moved too far: "
            f"{_some(list(withheld))}; the other {published} are on the topic. If a move is real, "
            "launch `kafka_publication` again with the ticker in `accept_moves`."
            if withheld
            else f"The broker acknowledged all {published} events."
        ),
        metadata={"published": published, "withheld": list(withheld)},
    )


def not_delivered(window: Window, reason: str) -> dg.AssetCheckResult:
    """What `every_quote_delivered` says when a window was not published whole."""
    return dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=False,
        severity=ERROR,
        description=f"{window.key} is not on the topic: {reason}",
    )
