"""What is checked of every window, and what to do when a check fails."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain

import dagster as dg

from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.observe import Observation
from market_data_pipeline.brapi.quota import last_recorded, shortage
from market_data_pipeline.market import clock
from market_data_pipeline.market.price_guard import LARGEST_FACTOR, explain
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.watchlist import Watchlist
from market_data_pipeline.market.windows import Window, close_of, duration
from market_data_pipeline.runs.common import QUOTES, WINDOWS, failing_clearly, windows_of
from market_data_pipeline.runs.results import (
    ERROR,
    WARN,
    as_ranges,
    filled,
    some,
    table,
    table_if_any,
    verdict,
)
from market_data_pipeline.storage.official_close import corporate_action
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline.storage.reading import FILES_READABLE, Reading, files_readable

MOST_ROWS = 100
# Beyond the plan's delay, how late after a window's end it may be observed.
OBSERVATION_GRACE = timedelta(minutes=10)

# The checks have no partitions: with them, Dagster would store a check for every window of a range,
# each time with the whole calendar (40 KB), and show its evaluation at none of these windows.
# Instead, each evaluation names its window in the metadata.
ALL_TICKERS_QUOTED = dg.AssetCheckSpec(
    "all_tickers_quoted",
    asset=QUOTES,
    description="Brapi answered for every ticker of the watchlist, and every window that the plan "
    "can fill has a row. If not: correct the watchlist, or materialize the windows that are named.",
)
WATCHLIST_FREE_OF_RENAMES = dg.AssetCheckSpec(
    "watchlist_free_of_renames",
    asset=QUOTES,
    description="Every line of the watchlist is a ticker, and Brapi answers under it. If not: "
    "correct the lines that are named, and put the new symbols into the watchlist.",
)
PRICES_PLAUSIBLE = dg.AssetCheckSpec(
    "prices_plausible",
    asset=QUOTES,
    description=f"Every price is positive and between 1/{LARGEST_FACTOR:g} and {LARGEST_FACTOR:g} "
    "times the last trusted one. If not: it is stored, but withheld from the topic. "
    "If the move is real (a split, a crash), materialize the window with the ticker in `accept` of "
    "the config of `quotes`.",
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
    description="The live quotes were observed no later after the window's end than the plan's "
    "delay and ten minutes, or after the session. If not: the run was late, and its prices are "
    "later than the window.",
)
QUOTA_LASTS = dg.AssetCheckSpec(
    "quota_lasts",
    asset=QUOTES,
    description="Until Brapi renews the quota, no more windows have to be skipped than two "
    "sessions have. If not: find out who else uses the token, shorten the watchlist, or move to a "
    "larger plan.",
)
OF_THE_ANSWERS = [ALL_TICKERS_QUOTED, WATCHLIST_FREE_OF_RENAMES, FILES_READABLE]
OF_THE_RECORD = [PRICES_PLAUSIBLE, QUOTES_RECENT, OBSERVED_IN_TIME, QUOTA_LASTS]


def check_answers(
    rows: Mapping[Window, Sequence[Quote]],
    observation: Observation,
    watchlist: Watchlist,
    stored: Reading,
) -> list[dg.AssetCheckResult]:
    """The results of the checks that only the run which asked can evaluate.

    The rows are what is stored of the windows now, `stored` is what the run has read before.
    """
    return [
        _all_tickers_quoted(rows, observation),
        _watchlist_free_of_renames(rows, watchlist),
        files_readable(stored, [*rows]),
    ]


# After the sinks: no price waits for it.
@dg.multi_asset_check(specs=OF_THE_RECORD, op_tags={"dagster/priority": "-1"})
def check_record(
    context: dg.AssetCheckExecutionContext,
    brapi: dg.ResourceParam[Brapi],
    quote_store: dg.ResourceParam[QuoteStore],
) -> Iterator[dg.AssetCheckResult]:
    """What the stored rows of the run's windows show; without a partition, of the last window."""
    now = clock.utc_now()
    if context.has_partition_key or context.has_partition_key_range:
        windows = windows_of(context)
    else:
        windows = [*filter(None, [WINDOWS.last_ended(now)])]
    with failing_clearly():
        rows = quote_store.reading().rows_of([window.key for window in windows])
    live = [quote for quote in rows if quote.source == "live"]
    delay = timedelta(minutes=brapi.plan.delay_minutes)
    yield _prices_plausible(windows, rows, quote_store)
    yield _quotes_recent(windows, live, delay)
    yield _observed_in_time(windows, live, delay)
    quota = last_recorded(context.instance, now)
    well = "The quota lasts." if quota else "The quota is not known yet."
    yield verdict(QUOTA_LASTS, windows, shortage(quota, now) if quota else "", well, ERROR)


def _all_tickers_quoted(
    rows: Mapping[Window, Sequence[Quote]], observation: Observation
) -> dg.AssetCheckResult:
    windows, failures = [*rows], observation.failures
    kept = {
        quote.requested_ticker
        for quote in chain(*rows.values())
        if observation.missing[quote.window].get(quote.requested_ticker) == "failed"
    }
    empty = {each: observation.why_empty(each) for each in windows if not rows[each]}
    lacking = [window for window in empty if observation.is_lacking(window)]
    sentences = [
        f"{len(failures)} tickers failed: {some(list(failures))}." if failures else "",
        f"An earlier quote is kept for {len(kept)} of them." if kept else "",
        f"{filled(empty, len(windows))}." if empty else "",
        f"Materialize again: {as_ranges(lacking)}." if lacking else "",
    ]
    said = " ".join(filter(None, sentences))
    coverage = [
        {"window": window.key, "quotes": len(rows[window])}
        | {why: some(each) for why, each in observation.by_reason(window).items()}
        for window in windows
    ]
    return verdict(
        ALL_TICKERS_QUOTED,
        windows,
        said if failures or lacking else "",
        said or "Every ticker was answered.",
        WARN,
        failed=failures,
        coverage=table(coverage),
    )


def _watchlist_free_of_renames(
    rows: Mapping[Window, Sequence[Quote]], watchlist: Watchlist
) -> dg.AssetCheckResult:
    answered_as = {
        quote.requested_ticker: quote.ticker
        for quote in chain(*rows.values())
        if quote.ticker != quote.requested_ticker in watchlist.tickers
    }
    pairs = [f"{old} as {new}" for old, new in answered_as.items()]
    under = (
        f"Answered under another symbol: {', '.join(pairs)}. Stored and published under it; if B3 "
        "has renamed the instrument, put the new symbol into the watchlist."
    )
    return verdict(
        WATCHLIST_FREE_OF_RENAMES,
        [*rows],
        " ".join(filter(None, [under if pairs else "", watchlist.left_out])),
        "No instrument was answered under another symbol.",
        WARN,
        answered_as=answered_as,
    )


def _prices_plausible(
    windows: Sequence[Window], rows: Sequence[Quote], store: QuoteStore
) -> dg.AssetCheckResult:
    withheld = [quote for quote in rows if not quote.trusted]
    reasons = [
        explain(quote) + corporate_action(store, quote.ticker, quote.window.day)
        for quote in withheld
    ]
    prices = "made-up prices" if any(quote.made_up for quote in withheld) else "prices"
    fault = (
        f"{len(withheld)} of {len(rows)} {prices} have moved too far: {some(reasons, '; ')}. They "
        "are stored, but withheld from the topic. If a move is real, materialize the window with "
        f"the config {run_config({quote.ticker for quote in withheld[:MOST_ROWS]})}"
    )
    shown = [
        {
            "ticker": quote.ticker,
            "window": quote.window.key,
            "price": quote.price,
            "reference_price": quote.reference_price,
            "previous_close": quote.previous_close,
        }
        for quote in withheld[:MOST_ROWS]
    ]
    return verdict(
        PRICES_PLAUSIBLE,
        windows,
        fault if withheld else "",
        f"All {len(rows)} prices are plausible.",
        ERROR,
        [quote.ticker for quote in withheld],
        **table_if_any("withheld", shown),
    )


def run_config(tickers: Iterable[str]) -> str:
    """The run config, as JSON, with which `quotes` accepts the prices of some tickers."""
    op = QUOTES.to_python_identifier()
    return json.dumps({"ops": {op: {"config": {"accept": sorted(tickers)}}}})


def _quotes_recent(
    windows: Sequence[Window], live: Sequence[Quote], delay: timedelta
) -> dg.AssetCheckResult:
    late = [quote for quote in live if _is_late(quote, delay)]
    fault = (
        f"{len(late)} of {len(live)} live quotes are older than they should be: "
        f"{some([quote.ticker for quote in late])}. The instruments are not traded, or Brapi is "
        "late: see its status page."
    )
    shown = [
        {"ticker": quote.ticker, "updated_at": quote.updated_at.isoformat()}
        for quote in late[:MOST_ROWS]
    ]
    return verdict(
        QUOTES_RECENT,
        windows,
        fault if late else "",
        f"All {len(live)} live quotes are recent.",
        WARN,
        **table_if_any("late", shown),
    )


def _observed_in_time(
    windows: Sequence[Window], live: Sequence[Quote], delay: timedelta
) -> dg.AssetCheckResult:
    late = [late for quote in live if (late := _lateness(quote)) > delay + OBSERVATION_GRACE]
    fault = (
        f"{len(late)} of {len(live)} live quotes were observed up to "
        f"{duration(max(late, default=delay))} after the window's end: their prices may be later "
        "than the window."
    )
    well = f"All {len(live)} live quotes were observed in time."
    return verdict(OBSERVED_IN_TIME, windows, fault if late else "", well, WARN)


def _lateness(quote: Quote) -> timedelta:
    """How long after its window's end a quote was observed, while the session went on."""
    session_end = WINDOWS.of_session(quote.window.day)[-1].end
    return min(quote.observed_at, session_end) - quote.window_end


def _is_late(quote: Quote, delay: timedelta) -> bool:
    """Whether a price should be newer, by the plan's delay and the session.

    An instrument may have no trade for as long as a window. Early in a session any price will do;
    after its close, the closing price is the newest.
    """
    start, end, day = quote.window_start, quote.window_end, quote.window.day
    due = min(end, close_of(day)) - delay - (end - start)
    return quote.updated_at < due and due >= WINDOWS.of_session(day)[0].start
