"""What is checked of every window, and what to do when a check fails."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from market_data_pipeline import clock
from market_data_pipeline.asset_keys import HISTORY, PUBLICATION, QUOTES
from market_data_pipeline.assets.common import WINDOWS
from market_data_pipeline.assets.filling import (
    EARLIEST_CLOSE,
    cannot_be_filled,
    filled,
    in_words,
    why_empty,
)
from market_data_pipeline.assets.metadata import REASONS, failures_of, missing_in, table
from market_data_pipeline.dagster_internals import last_evaluations, record_again
from market_data_pipeline.observe import Observation
from market_data_pipeline.price_guard import LARGEST_FACTOR, explain, run_config
from market_data_pipeline.publications import Sent, missing
from market_data_pipeline.quote import Quote, by_window
from market_data_pipeline.windows import EXCHANGE_TIMEZONE, Window, start_of

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
MOST_ROWS = 100
# Beyond the plan's delay, how late after a window's end it may be observed.
OBSERVATION_GRACE = timedelta(minutes=10)
WINDOW = "window"

# Without partitions of their own: a check that has them is stored once for every window of a range,
# each time with the whole calendar (40 KB), and its evaluation of a range reaches none of these.
# Each evaluation names its window in the metadata, see `showing_the_newest`.
ALL_TICKERS_QUOTED = dg.AssetCheckSpec(
    "all_tickers_quoted",
    asset=QUOTES,
    description="Brapi answered for every ticker of the watchlist, and every window that the plan "
    "can fill has a row. If not: correct the watchlist, or materialize the windows that are named.",
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
    description=f"Every price is positive and between 1/{LARGEST_FACTOR:g} and {LARGEST_FACTOR:g} "
    "times the last trusted one. If not: it is stored, but withheld from the topic. "
    "If the move is real (a split, a crash), launch `kafka_publication` for the window with the "
    "ticker in `accept_moves`, or the job `accept_moves`.",
)
QUOTES_RECENT = dg.AssetCheckSpec(
    "quotes_recent",
    asset=QUOTES,
    description="Every live quote is as recent as the plan's delay allows, within the session. If "
    "not: the instrument is not traded, or Brapi is late; see its status page.",
)
OBSERVED_IN_TIME = dg.AssetCheckSpec(
    "observed_in_time",
    asset=QUOTES,
    description="The live quotes were observed within the plan's delay and ten minutes after the "
    "window's end, or after the session. If not: the run was late, and its prices are later than "
    "the window.",
)
QUOTES_CHECKS = [
    ALL_TICKERS_QUOTED,
    WATCHLIST_FREE_OF_RENAMES,
    PRICES_PLAUSIBLE,
    QUOTES_RECENT,
    OBSERVED_IN_TIME,
]

HISTORY_EQUALS_QUOTES = dg.AssetCheckSpec(
    "history_equals_quotes",
    asset=HISTORY,
    description="Every quote of the window is in the collection as it is stored. If not: "
    "materialize `mongo_price_history` again.",
)

EVERY_QUOTE_DELIVERED = dg.AssetCheckSpec(
    "every_quote_delivered",
    asset=PUBLICATION,
    description="The broker acknowledged an event for every live quote of the window. If not: "
    "materialize `kafka_publication` alone while the window is live.",
)


def check_quotes(
    windows: Sequence[Window],
    rows: Sequence[Quote],
    observations: Sequence[Observation],
    delay_minutes: int,
    publication: str,
) -> list[dg.AssetCheckResult]:
    """The checks of `quotes`, which speak of the windows of one run.

    Args:
        windows: the windows, in the order of time.
        rows: what is stored of them now.
        observations: what the run observed, with the account of what is missing.
        delay_minutes: how late the plan's quotes may be.
        publication: the name of the op that publishes, for the run config that accepts a move.
    """
    live = [quote for quote in rows if quote.source == "live"]
    delay = timedelta(minutes=delay_minutes)
    quoted = Counter(quote.window_start for quote in rows)
    results = [
        _all_tickers_quoted(quoted, observations, rows),
        _free_of_renames(observations),
        _prices_plausible(rows, publication),
        _quotes_recent(live, delay),
        _observed_in_time(live, delay),
    ]
    return [_of_window(result, windows) for result in results]


@contextmanager
def showing_the_newest(
    instance: dg.DagsterInstance, window: Window, specs: Sequence[dg.AssetCheckSpec]
) -> Iterator[None]:
    """Lets an asset and its checks go on showing the newest window while a run does older ones.

    Dagster shows the materialization and the evaluation that came last. Where those are of a window
    later than `window`, the last of the run, they are recorded again at the end.
    """
    is_newest = window == WINDOWS.last_ended(clock.utc_now())
    shown = [] if is_newest else last_evaluations(instance, [spec.key for spec in specs])
    asset = specs[0].asset_key
    materialization = None if is_newest else instance.get_latest_materialization_event(asset)
    yield
    if materialization and _is_later(materialization.dagster_event, window):
        record_again(instance, materialization)
    for evaluation in shown:
        newest = evaluation.metadata.get(WINDOW)
        if newest is None or start_of(str(newest.value)) <= window.start:
            continue
        said = evaluation.description or ""
        said = said if str(newest.value) in said else f"{newest.value}: {said}"
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=evaluation.asset_key,
                check_name=evaluation.check_name,
                passed=evaluation.passed,
                severity=evaluation.severity,
                metadata=evaluation.metadata,
                description=said,
            )
        )


def _is_later(event: dg.DagsterEvent | None, window: Window) -> bool:
    return bool(event and event.partition and start_of(event.partition) > window.start)


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


def _of_window(result: dg.AssetCheckResult, windows: Sequence[Window]) -> dg.AssetCheckResult:
    return result.with_metadata({**result.metadata, WINDOW: windows[-1].key})


def _all_tickers_quoted(
    quoted: Mapping[datetime, int], observations: Sequence[Observation], rows: Sequence[Quote]
) -> dg.AssetCheckResult:
    failures = failures_of(observations)
    kept = {
        quote.requested_ticker
        for observation in observations
        for quote in rows
        if quote.window in observation.windows and quote.requested_ticker in observation.failures
    }
    coverage = sorted(
        (window, quoted.get(window.start, 0), missing_in(window, observation))
        for observation in observations
        for window in observation.windows
    )
    empty = {
        window: observation
        for observation in observations
        for window in observation.windows
        if not quoted.get(window.start)
    }
    lacking = [each for each, asked in sorted(empty.items()) if not cannot_be_filled(each, asked)]
    reasons = {window: why_empty(window, observation) for window, observation in empty.items()}
    sentences = [
        f"{len(failures)} tickers failed: {_some(list(failures))}." if failures else "",
        f"An earlier quote is kept for {len(kept)} of them." if kept else "",
        f"{filled(reasons, len(coverage))}." if empty else "",
        f"Materialize again: {in_words(lacking)}." if lacking else "",
    ]
    return dg.AssetCheckResult(
        check_name=ALL_TICKERS_QUOTED.name,
        passed=not failures and not lacking,
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


def _free_of_renames(observations: Sequence[Observation]) -> dg.AssetCheckResult:
    renamed = {old: new for each in observations for old, new in each.renamed.items()}
    pairs = [f"{old} is now {new}" for old, new in renamed.items()]
    return dg.AssetCheckResult(
        check_name=WATCHLIST_FREE_OF_RENAMES.name,
        passed=not renamed,
        severity=WARN,
        description=(
            f"{', '.join(pairs)}: stored and published under the new symbol; put it into the "
            "watchlist."
            if renamed
            else "No instrument was answered under another symbol."
        ),
        metadata={"renamed": renamed},
    )


def _prices_plausible(rows: Sequence[Quote], publication: str) -> dg.AssetCheckResult:
    withheld = [quote for quote in rows if not quote.trusted]
    accepting = run_config(publication, {quote.ticker for quote in withheld[:MOST_ROWS]})
    return dg.AssetCheckResult(
        check_name=PRICES_PLAUSIBLE.name,
        passed=not withheld,
        severity=ERROR,
        description=(
            f"{len(withheld)} of {len(rows)} prices have moved too far: "
            f"{_some([explain(quote) for quote in withheld], '; ')}. They are stored, but withheld "
            "from the topic. If a move is real, launch `kafka_publication` for the window, with "
            f"those tickers that are right in `accept_moves`: {accepting}"
            if withheld
            else f"All {len(rows)} prices are plausible."
        ),
        metadata=_rows(
            "withheld",
            [
                {
                    "ticker": quote.ticker,
                    "window": quote.window.key,
                    "price": quote.price,
                    "reference_price": quote.reference_price,
                    "previous_close": quote.previous_close,
                }
                for quote in withheld[:MOST_ROWS]
            ],
        ),
    )


def _quotes_recent(live: Sequence[Quote], delay: timedelta) -> dg.AssetCheckResult:
    late = [quote for quote in live if _is_late(quote, delay)]
    return dg.AssetCheckResult(
        check_name=QUOTES_RECENT.name,
        passed=not late,
        severity=WARN,
        description=(
            f"{len(late)} of {len(live)} live quotes are older than they should be: "
            f"{_some([quote.ticker for quote in late])}. The instruments are not traded, or Brapi "
            "is late: see its status page."
            if late
            else f"All {len(live)} live quotes are recent."
        ),
        metadata=_rows(
            "late",
            [
                {"ticker": quote.ticker, "updated_at": quote.updated_at.isoformat()}
                for quote in late[:MOST_ROWS]
            ],
        ),
    )


def _observed_in_time(live: Sequence[Quote], delay: timedelta) -> dg.AssetCheckResult:
    late = [quote for quote in live if _lateness(quote) > delay + OBSERVATION_GRACE]
    latest = max(map(_lateness, late), default=timedelta(0)).total_seconds() / 60
    return dg.AssetCheckResult(
        check_name=OBSERVED_IN_TIME.name,
        passed=not late,
        severity=WARN,
        description=(
            f"{len(late)} of {len(live)} live quotes were observed up to {latest:.0f} minutes "
            "after the window's end: their prices may be later than the window."
            if late
            else f"All {len(live)} live quotes were observed in time."
        ),
    )


def _lateness(quote: Quote) -> timedelta:
    """How long after its window's end a quote was observed, while the session went on."""
    session_end = WINDOWS.of_session(quote.window.day)[-1].end
    return min(quote.observed_at, session_end) - quote.window_end


def _is_late(quote: Quote, delay: timedelta) -> bool:
    """Whether the market's last price should be newer, by the plan and the session.

    An instrument may go without a trade for as long as a window. Before the session is that old,
    its first price will do; after its close, the closing price is as new as can be.
    """
    start, end = quote.window_start, quote.window_end
    day = start.astimezone(EXCHANGE_TIMEZONE).date()
    close = datetime.combine(day, EARLIEST_CLOSE, EXCHANGE_TIMEZONE)
    due = min(end, close) - delay - (end - start)
    return quote.updated_at < due and due >= WINDOWS.of_session(day)[0].start


def _rows(name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """A table in the metadata, if it has a row."""
    return {name: table(records)} if records else {}


def _some(texts: Sequence[str], between: str = ", ") -> str:
    """A few of them, the others counted."""
    shown = between.join(texts[:10])
    return shown if len(texts) <= 10 else f"{shown} and {len(texts) - 10} more"


def history_equals_quotes(
    windows: Sequence[Window], quotes: Sequence[Quote], found: Sequence[Quote]
) -> dg.AssetCheckResult:
    """Compares what is stored of some windows with what the collection holds of them."""
    in_collection = set(found)
    differing = [quote.ticker for quote in quotes if quote not in in_collection]
    result = dg.AssetCheckResult(
        check_name=HISTORY_EQUALS_QUOTES.name,
        passed=not differing,
        severity=ERROR,
        description=(
            f"{len(differing)} of {len(quotes)} quotes are not in the collection as they are "
            f"stored: {_some(differing)}. Materialize `mongo_price_history` again."
            if differing
            else f"All {len(quotes)} quotes are in the collection."
        ),
        metadata={"compared": len(quotes), "differing": len(differing)},
    )
    return _of_window(result, windows)


def every_quote_delivered(
    windows: Sequence[Window],
    rows: Sequence[Quote],
    sent: Mapping[Window, Sequence[Sent]],
    published: int,
) -> dg.AssetCheckResult:
    """Whether every live quote of some windows is on the topic.

    Args:
        windows: the windows of the run.
        rows: what is stored of them.
        sent: the publications of each, by this run and by earlier ones.
        published: how many events this run sent.
    """
    grouped = by_window(rows)
    observed = {quote.window for quote in rows if quote.source == "live"}
    never = [each for each in windows if each in observed and not sent[each]]
    later = [
        (each, lacking)
        for each in windows
        if sent[each] and (lacking := missing(grouped[each], sent[each]))
    ]
    withheld = [quote for quote in rows if not quote.trusted and quote.window in observed]
    sentences = [
        f"{_some([_never_sent(window) for window in never])}." if never else "",
        f"{_some([_sent_without(*each) for each in later])}." if later else "",
        (
            f"{len(withheld)} quotes are withheld, as their prices have moved too far: "
            f"{_some([quote.ticker for quote in withheld])}; the others are on the topic. If a "
            "move is real, launch `kafka_publication` again with the ticker in "
            "`accept_moves`."
            if withheld and not never
            else ""
        ),
    ]
    well = f"The broker acknowledged all {published} events."
    if not published:
        well = (
            "Every live quote was already sent."
            if observed
            else "There were no live quotes to send."
        )
    result = dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=not any(sentences),
        severity=ERROR,
        description=" ".join(filter(None, sentences)) or well,
        metadata={"published": published, "withheld": [quote.ticker for quote in withheld]},
    )
    return _of_window(result, windows)


def _never_sent(window: Window) -> str:
    return f"{window.key} was never sent ({_live_until(window)})"


def _sent_without(window: Window, tickers: Sequence[str]) -> str:
    return (
        f"{window.key} was sent before all of its quotes were stored; missing on the topic: "
        f"{_some(tickers)} ({_live_until(window)})"
    )


def _live_until(window: Window) -> str:
    over = WINDOWS.live_until(window).astimezone(EXCHANGE_TIMEZONE)
    return f"it was live until {over:%H:%M}"


def not_delivered(windows: Sequence[Window], window: Window, reason: str) -> dg.AssetCheckResult:
    """What `every_quote_delivered` says when a window was not published whole."""
    result = dg.AssetCheckResult(
        check_name=EVERY_QUOTE_DELIVERED.name,
        passed=False,
        severity=ERROR,
        description=f"{window.key} is not on the topic: {reason}",
    )
    return _of_window(result, windows)
