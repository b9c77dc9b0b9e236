"""The quotes of the watchlist, one window at a time."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from threading import Thread
from time import monotonic

import dagster as dg
from pydantic import Field

from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.observe import Observation, as_stored, observe
from market_data_pipeline.brapi.quota import Quota, last_recorded, measured, record
from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.price_guard import LOOK_BACK_SESSIONS, accept, decide
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import LARGEST_CLOCK_SKEW, LAUNCH_AHEAD, Window, duration
from market_data_pipeline.quotes.checks import OF_THE_ANSWERS, check_answers
from market_data_pipeline.quotes.metadata import describe_windows
from market_data_pipeline.runs.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    QUOTES,
    WINDOWS,
    Connect,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.runs.results import column_schema
from market_data_pipeline.runs.turn import BRAPI, turn
from market_data_pipeline.storage.quote_store import QuoteStore

# How long before its window's end a run takes the turn. Until then, others may ask Brapi.
TURN_AHEAD = timedelta(seconds=5)


class QuotesConfig(dg.Config):
    """What a run does beside asking Brapi."""

    accept: list[str] | None = Field(  # `accept:` without a value is null
        default=[],
        description="Tickers whose price is withheld in these windows although it is right, after "
        "a split for instance. The run then asks Brapi nothing: it records the decision, and the "
        "sinks follow.",
    )


@dg.asset(
    key=QUOTES,
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"brapi", "parquet"},
    check_specs=OF_THE_ANSWERS,
    metadata={"dagster/column_schema": column_schema()},
)
def quotes(
    context: dg.AssetExecutionContext,
    config: QuotesConfig,
    brapi: dg.ResourceParam[Brapi],
    quote_store: dg.ResourceParam[QuoteStore],
    services: dg.ResourceParam[Sequence[Connect]],
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """The price of every instrument of the watchlist as of the window's end.

    The live window (the last one that has ended) takes them from Brapi's quote endpoint. Any
    earlier window takes them from the price history, and where the plan has no bar for a window,
    the window gets no row. A ticker that fails is reported, and keeps the row that is stored of it;
    the others are not affected. A price that is far from the last trusted one is withheld from the
    topic.
    """
    windows = windows_of(context)
    keys = [window.key for window in windows]
    with failing_clearly():
        _refuse_future(windows[-1])
        watchlist = load_watchlist(brapi.settings.watchlist_file)
        tickers = [*watchlist.tickers]
        if watchlist.left_out:
            context.log.warning(watchlist.left_out)
        if not config.accept:
            _get_ready(context, brapi, quote_store, services, windows[-1])
        # Kept until the rows are stored: what they are compared with must not change before.
        with turn(context, BRAPI):
            first_request = monotonic() + brapi.settings.brapi_min_interval_seconds
            stored, day = quote_store.reading(), windows[0].day
            stored.windows(keys)
            earlier = stored.sessions(sessions_back(day, 1), day)
            quote_store.try_writing(len(windows))
            if config.accept:
                rows = _accept(context, stored.all_rows_of(keys), config.accept)
                observation = as_stored(brapi.plan, tickers, windows, clock.utc_now(), rows)
                quota = last_recorded(context.instance, clock.utc_now())
            else:
                clock.sleep(_seconds_to(windows[-1].end))
                clock.sleep(max(0.0, first_request - monotonic()))
                observation, quota = _observe(context, brapi, windows, tickers)
                oldest = sessions_back(day, LOOK_BACK_SESSIONS)
                trusted = stored.last_trusted(observation.quotes, windows[0], oldest)
                rows, left_out = decide(stored.rows_of(keys), observation.quotes, trusted)
                observation.note_left_out(left_out)
            quote_store.save(rows, keys)
    grouped = by_window(rows)
    there = {window: grouped[window] for window in windows}
    describe_windows(context, tickers, observation, earlier | there, quota, quote_store.folder)
    yield dg.MaterializeResult(check_results=check_answers(there, observation, watchlist, stored))


def _refuse_future(window: Window) -> None:
    """Raises a failure if a window ends later than a run for it is launched."""
    missing = window.end - clock.utc_now()
    if missing > LAUNCH_AHEAD + LARGEST_CLOCK_SKEW:
        raise dg.Failure(
            f"{window.key} has not ended: materialize it in {duration(missing)}, or "
            "set this machine's clock.",
            allow_retries=False,
        )


def _get_ready(
    context: dg.AssetExecutionContext,
    brapi: Brapi,
    quote_store: QuoteStore,
    services: Sequence[Connect],
    window: Window,
) -> None:
    """Tries the storage and the token, and connects to the services, until it is time for the turn.

    The log has which services cannot be reached.

    Raises:
        QuoteStoreError: the stored quotes cannot be read or written.
        RunError: the token or the address of Brapi cannot be used.
    """
    if not _seconds_to(window.end):
        return
    quote_store.reading().windows([window.key])
    quote_store.try_writing(1)
    with brapi.client():
        pass  # it takes the token
    troubles: list[str] = []
    threads = [
        Thread(target=lambda each=each: troubles.append(each()), daemon=True) for each in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_seconds_to(window.end - TURN_AHEAD))
    for trouble in filter(None, troubles):
        context.log.warning(trouble)
    clock.sleep(_seconds_to(window.end - TURN_AHEAD))


def _seconds_to(instant: datetime) -> float:
    return max(0.0, (instant - clock.utc_now()).total_seconds())


def _accept(
    context: dg.AssetExecutionContext, stored: Sequence[Quote], tickers: Sequence[str]
) -> list[Quote]:
    """The stored rows with the withheld prices of some tickers accepted."""
    rows = accept(stored, tickers)
    live = any(WINDOWS.is_live(quote.window, clock.utc_now()) for quote in rows)
    effect = "published now" if live else "not live, so they take effect with the next window"
    context.log.info(f"Accepted {', '.join(tickers)}: {effect}.")
    return rows


def _observe(
    context: dg.AssetExecutionContext, brapi: Brapi, windows: list[Window], tickers: list[str]
) -> tuple[Observation, Quota | None]:
    """What Brapi answers, and what is then left of the quota, which is recorded in any case."""
    now = max(clock.utc_now(), windows[-1].end)
    with brapi.client() as client:
        try:
            observation = observe(client, tickers, windows, now)
        finally:
            quota = measured(client, last_recorded(context.instance, now), now)
            if quota:
                context.log_event(record(quota))
    return observation, quota
