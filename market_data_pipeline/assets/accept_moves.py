"""The job with which an operator accepts withheld prices, given nothing but their tickers."""

import dagster as dg
from dagster_mongo import MongoResource
from pydantic import Field

from market_data_pipeline import clock
from market_data_pipeline.asset_keys import PREFIX, PUBLICATION
from market_data_pipeline.assets.checks import as_evaluation, every_quote_delivered
from market_data_pipeline.assets.common import WINDOWS, failing_clearly
from market_data_pipeline.assets.kafka_publication import accept_in_store, publish_window
from market_data_pipeline.assets.mongo_price_history import record_acceptance
from market_data_pipeline.b3_calendar import sessions_back
from market_data_pipeline.price_guard import LOOK_BACK_SESSIONS, AcceptanceError
from market_data_pipeline.publications import sent
from market_data_pipeline.quote import Quote
from market_data_pipeline.quote_store import QuoteStore
from market_data_pipeline.resources import KafkaResource
from market_data_pipeline.windows import Window


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
        for key, tickers in _newest_withheld(quote_store, config.tickers).items():
            rows = accept_in_store(context, quote_store, [key], tickers)
            window = next(quote.window for quote in rows if quote.ticker in tickers)
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


def _newest_withheld(store: QuoteStore, tickers: list[str]) -> dict[str, list[str]]:
    """The tickers by the newest window that has a row of them, which is withheld there.

    Or accepted, by a run of this job that failed before the price was published.

    Raises:
        AcceptanceError: a ticker is not withheld there.
    """
    now = clock.utc_now()
    newest = WINDOWS.next_ending(now)
    oldest = sessions_back(newest.day, LOOK_BACK_SESSIONS)
    wanted, found = set(tickers), dict[str, list[str]]()
    for key, stored in store.newest_first(newest.key, oldest):
        rows = {quote.ticker: quote for quote in stored}
        for ticker in sorted(wanted & rows.keys()):
            if rows[ticker].decision == "clear":
                raise AcceptanceError(f"{ticker} is not withheld: see {key}, its newest window.")
            found.setdefault(key, []).append(ticker)
            wanted.remove(ticker)
        if not wanted:
            return found
    raise AcceptanceError(f"{', '.join(sorted(wanted))}: no price is stored.")


@dg.job(
    name="accept_moves",
    description="Accepts withheld prices, given their tickers: in the newest window where they are "
    "withheld. A live window is published at once; otherwise the next window compares with them.",
)
def accept_moves() -> None:
    """The op alone."""
    accept()
