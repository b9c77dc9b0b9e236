"""The quotes of the watchlist, one window at a time."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from threading import Thread
from time import monotonic

import dagster as dg
from pydantic import Field

from market_data_pipeline.brapi.client import Brapi, BrapiClient
from market_data_pipeline.brapi.errors import BrapiError, OutageError
from market_data_pipeline.brapi.observe import (
    Observation,
    as_stored,
    observe_history,
    observe_live,
    unasked,
)
from market_data_pipeline.brapi.quota import Quota, last_recorded, measured, record
from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.price_guard import LOOK_BACK_SESSIONS, accept, decide
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import LARGEST_CLOCK_SKEW, LAUNCH_AHEAD, Window, duration
from market_data_pipeline.quotes.checks import OF_THE_ANSWERS, check_answers
from market_data_pipeline.quotes.metadata import describe_windows
from market_data_pipeline.quotes.session import stored_sessions
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
from market_data_pipeline.storage.reading import Reading


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
    with failing_clearly():
        _refuse_future(windows[-1])
        watchlist = load_watchlist(brapi.settings.watchlist_file)
        tickers = [*watchlist.tickers]
        if watchlist.left_out:
            context.log.warning(watchlist.left_out)
        # Kept until the rows are stored: what they are compared with must not change before.
        with turn(context, BRAPI):
            entered = monotonic()
            stored = quote_store.reading()
            earlier = _read_ahead(stored, windows, tickers)
            quote_store.try_writing(len(windows))
            if config.accept:
                rows = _accept(context, quote_store, windows, config.accept)
                now = clock.utc_now()
                observation = as_stored(brapi.plan, tickers, windows, now, rows)
                quota = last_recorded(context.instance, now)
            else:
                if clock.utc_now() < windows[-1].end:
                    _prepare(context, brapi, services, windows[-1])
                _wait_for_the_end(windows[-1], entered + brapi.settings.brapi_min_interval_seconds)
                observation, quota = _observe(context, brapi, windows, tickers)
                rows = _decide(stored, windows, observation.quotes)
            quote_store.save(rows, [window.key for window in windows])
    grouped = by_window(rows)
    rows = [quote for window in windows for quote in grouped[window]]
    of_sessions = {**earlier, **{window: grouped[window] for window in windows}}
    describe_windows(context, tickers, observation, of_sessions, quota, quote_store.folder)
    yield dg.MaterializeResult(
        check_results=check_answers(windows, rows, observation, watchlist, stored)
    )


def _refuse_future(window: Window) -> None:
    """Raises a failure if a window ends later than a run for it is launched."""
    missing = window.end - clock.utc_now()
    if missing > LAUNCH_AHEAD + LARGEST_CLOCK_SKEW:
        raise dg.Failure(
            f"{window.key} has not ended: materialize it in {duration(missing)}, or "
            "set this machine's clock.",
            allow_retries=False,
        )


def _prepare(
    context: dg.AssetExecutionContext,
    brapi: Brapi,
    services: Sequence[Connect],
    window: Window,
) -> None:
    """Checks the token and connects to the services, until the window ends; logs what fails.

    Raises:
        RunError: the token or the address of Brapi cannot be used.
    """
    brapi.client().close()
    troubles: list[str] = []
    threads = [
        Thread(target=lambda each=each: troubles.append(each()), daemon=True) for each in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, (window.end - clock.utc_now()).total_seconds()))
    for trouble in filter(None, troubles):
        context.log.warning(trouble)


def _wait_for_the_end(window: Window, first_request: float) -> None:
    """Waits for the end of a window, and for the instant (monotonic) of the first request."""
    clock.sleep(max(0.0, (window.end - clock.utc_now()).total_seconds()))
    clock.sleep(max(0.0, first_request - monotonic()))


def _accept(
    context: dg.AssetExecutionContext,
    store: QuoteStore,
    windows: Sequence[Window],
    tickers: Sequence[str],
) -> list[Quote]:
    """The rows of the windows with the withheld prices of some tickers accepted."""
    rows = accept(store.load([window.key for window in windows]), tickers)
    live = any(WINDOWS.is_live(window, clock.utc_now()) for window in windows)
    effect = "published now" if live else "not live, so they take effect with the next window"
    context.log.info(f"Accepted {', '.join(tickers)}: {effect}.")
    return rows


def _observe(
    context: dg.AssetExecutionContext,
    brapi: Brapi,
    windows: list[Window],
    tickers: list[str],
) -> tuple[Observation, Quota | None]:
    """Observes the live window and the past ones, if there are any.

    Also returns what is left of the quota, if that is known, and records it even if the requests
    fail.
    """
    now = max(clock.utc_now(), windows[-1].end)
    live = next((each for each in windows if WINDOWS.is_live(each, now)), None)
    past = [window for window in windows if window != live]
    with brapi.client() as client:
        started, observation = monotonic(), Observation(client.plan)
        try:
            # The live one first: it does not stay live for long.
            if live:
                observation |= observe_live(client, tickers, live)
            failures, cost = observation.failures, client.account.spent
            if past:
                observation |= observe_history(client, tickers, past, now)
        except BrapiError as error:
            if not observation.missing:
                _record_quota(context, client, 0, now)
                raise
            # The live window is not lost with the others.
            missed = unasked(client.plan, tickers, past, now)
            missed.fail(dict.fromkeys(tickers, str(error)))
            observation |= missed
        observation.requests, observation.seconds = client.requests, monotonic() - started
        quota = _record_quota(context, client, cost, now)
    _report(context, tickers, observation)
    # Of the live window, if it is among them: the others can be asked for again.
    _demand_an_answer(tickers, failures if live else observation.failures)
    return observation, quota


def _record_quota(
    context: dg.AssetExecutionContext, client: BrapiClient, cost: int, now: datetime
) -> Quota | None:
    quota = measured(client, last_recorded(context.instance, now), cost, now)
    if quota:
        context.log_event(record(quota))
    return quota


def _read_ahead(
    stored: Reading, windows: list[Window], tickers: Sequence[str]
) -> dict[Window, list[Quote]]:
    """Reads what the run compares with; the windows of this session and the one before.

    A row that is further back is read when it is needed.
    """
    stored.windows([window.key for window in windows])
    stored.last_trusted(tickers, windows[0], sessions_back(windows[0].day, 1))
    return stored_sessions(stored, windows[0].day)


def _decide(stored: Reading, windows: list[Window], observed: list[Quote]) -> list[Quote]:
    """The rows of the windows with what was observed merged in."""
    wanted = {symbol for quote in observed for symbol in quote.symbols}
    trusted = stored.last_trusted(
        wanted,
        windows[0],
        sessions_back(windows[0].day, LOOK_BACK_SESSIONS),
        made_up=any(quote.made_up for quote in observed),
    )
    return decide(stored.rows_of([window.key for window in windows]), observed, trusted)


def _report(
    context: dg.AssetExecutionContext, tickers: list[str], observation: Observation
) -> None:
    if not observation.requests:
        context.log.info("No request was sent: Brapi has no bar for any of these windows.")
        return
    for ticker, reason in observation.failures.items():
        context.log.warning(f"{ticker} failed: {reason}")
    failed = len(observation.failures)
    context.log.info(f"Ingestion completed: {len(tickers) - failed} succeeded, {failed} failed")


def _demand_an_answer(tickers: list[str], failures: Mapping[str, str]) -> None:
    """Raises an OutageError if all tickers failed."""
    if len(failures) == len(tickers):
        reasons = list(failures.values())
        commonest = max(set(reasons), key=reasons.count)
        raise OutageError(
            f"Brapi answered for 0 of {len(tickers)} tickers, most often because: {commonest}. "
            "Nothing was stored; materialize the window again."
        )
