"""The job with which an operator accepts withheld prices, given nothing but their tickers."""

from collections.abc import Sequence

import dagster as dg
from dagster_mongo import MongoResource
from pydantic import Field

from market_data_pipeline.market import clock
from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.price_guard import LOOK_BACK_SESSIONS, AcceptanceError
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import LONGEST_INTERVAL, Window, start_of
from market_data_pipeline.publication.asset import accept_in_store, publish_window
from market_data_pipeline.publication.checks import every_quote_delivered
from market_data_pipeline.publication.publications import sent
from market_data_pipeline.publication.resource import KafkaResource
from market_data_pipeline.runs.asset_keys import PREFIX, PUBLICATION
from market_data_pipeline.runs.checks import as_evaluation
from market_data_pipeline.runs.common import WINDOWS, failing_clearly
from market_data_pipeline.storage.price_history import record_acceptance
from market_data_pipeline.storage.quote_store import QuoteStore


class AcceptanceConfig(dg.Config):
    """Which withheld prices are right."""

    tickers: list[str] = Field(description="Tickers whose withheld price is right.")


@dg.op(name="_".join(filter(None, [PREFIX, "accept"])))
def accept(
    context: dg.OpExecutionContext,
    config: AcceptanceConfig,
    quote_store: QuoteStore,
    mongo: MongoResource,
    kafka: KafkaResource,
) -> None:
    """Accepts each ticker in the newest window where it is withheld; a live window is published.

    One of an earlier SYNC_INTERVAL_MINUTES, or from before PARTITIONS_START, is not published.
    """
    with failing_clearly():
        for window, tickers in _newest_withheld(quote_store, config.tickers).items():
            rows = accept_in_store(context, quote_store, [window.key], tickers)
            if window in WINDOWS.of_session(window.day):
                _publish(context, quote_store, kafka, window, rows)
            record_acceptance(mongo, rows)


def _publish(
    context: dg.OpExecutionContext,
    store: QuoteStore,
    kafka: KafkaResource,
    window: Window,
    rows: list[Quote],
) -> None:
    """Publishes a window if it is live, and says anew whether all of it is on the topic."""
    done = publish_window(context, kafka, store, window, publish_history=False)
    if done:
        rows = done.rows
        context.log_event(
            dg.AssetMaterialization(PUBLICATION, partition=window.key, metadata=done.described)
        )
    there = sent(context.instance, [window], kafka.topic)
    delivered = every_quote_delivered([window], rows, there, done.sent.events if done else 0)
    context.instance.report_runless_asset_event(as_evaluation(PUBLICATION, delivered))


def _newest_withheld(store: QuoteStore, tickers: Sequence[str]) -> dict[Window, list[str]]:
    """The symbols of some tickers by their newest window, in which they are withheld.

    Or accepted, by a run of this job that failed before the price was published.

    Raises:
        AcceptanceError: a ticker is not withheld there, or none is given.
    """
    wanted = set(filter(None, tickers))
    if not wanted:
        raise AcceptanceError("`tickers` is empty: name those whose withheld price is right.")
    newest = _newest(store, wanted)
    if unknown := sorted(wanted - newest.keys()):
        raise AcceptanceError(f"{', '.join(unknown)}: no price is stored.")
    found: dict[Window, list[str]] = {}
    for ticker, quote in sorted(newest.items()):
        if quote.decision == "clear":
            raise AcceptanceError(
                f"{ticker} is not withheld: see {quote.window.key}, its newest window."
            )
        found.setdefault(quote.window, []).append(quote.ticker)
    return found


def _newest(store: QuoteStore, tickers: set[str]) -> dict[str, Quote]:
    """The row of the window that ended last, of each ticker or symbol that has one."""
    coming = WINDOWS.next_ending(clock.utc_now())
    oldest = sessions_back(coming.day, LOOK_BACK_SESSIONS)
    newest: dict[str, Quote] = {}
    for key, stored in store.newest_first(coming.start, oldest):
        # Of windows of different lengths, one that starts earlier may end later.
        oldest_end = start_of(key) + LONGEST_INTERVAL
        if newest.keys() == tickers and all(q.window_end >= oldest_end for q in newest.values()):
            break
        for quote in filter(store.may_leave, stored):
            for ticker in tickers.intersection(quote.symbols):
                there = newest.get(ticker)
                if there is None or quote.window_end > there.window_end:
                    newest[ticker] = quote
    return newest


@dg.job(
    name="accept_moves",
    description="Accepts withheld prices, given their tickers: in the newest window where they are "
    "withheld. A live window is published at once; otherwise the next window compares with them.",
)
def accept_moves() -> None:
    """The op alone."""
    accept()
