"""The prices on Kafka, where other services react to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from market_data_pipeline.market import clock
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import Window
from market_data_pipeline.publication.checks import (
    EVERY_QUOTE_DELIVERED,
    every_quote_delivered,
    not_delivered,
)
from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN, quote_event
from market_data_pipeline.publication.publications import PUBLISHED, Sent, sent
from market_data_pipeline.publication.resource import Kafka
from market_data_pipeline.runs.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    PUBLICATION,
    QUOTES,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.runs.filling import HOLDS, holds, tell_filled
from market_data_pipeline.runs.turn import KAFKA, turn
from market_data_pipeline.storage.quote_store import QuoteStore

ROW_COUNT = "dagster/partition_row_count"
SECONDS_AFTER = "seconds_after_window_end"


@dataclass(frozen=True)
class Published:
    """A window that a run has published."""

    rows: list[Quote]
    """What is stored of it, as it was read for the publication."""
    sent: Sent
    described: dict[str, Any]
    """The metadata of its materialization."""


class PublicationConfig(dg.Config):
    """What a run may publish."""

    publish_history: bool = Field(
        default=False,
        description="Publish windows that are not live too. Consumers of the topic then get prices "
        "that are older than those they have.",
    )


@dg.asset(
    key=PUBLICATION,
    deps=[QUOTES],
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"kafka"},
    check_specs=[EVERY_QUOTE_DELIVERED],
)
def kafka_publication(
    context: dg.AssetExecutionContext,
    config: PublicationConfig,
    quote_store: dg.ResourceParam[QuoteStore],
    kafka: dg.ResourceParam[Kafka],
) -> Iterator[Any]:
    """One event for each quote of the live window, in one transaction.

    A window that is not live is not sent, unless the run config asks for it: the topic is for
    current prices. A price that has moved too far is withheld until an operator accepts it.
    """
    windows = windows_of(context)
    published: dict[Window, Published] = {}
    with failing_clearly():
        rows = by_window(quote_store.load([window.key for window in windows]))
        due = [each for each in windows if config.publish_history or _is_live(each)]
        if due and not kafka.settings.kafka_updated_at_format:
            context.log.warning(FORMAT_NOT_CHOSEN)
        for window in (each for each in due if rows[each]):
            try:
                done = publish_window(context, kafka, quote_store, window, config.publish_history)
            except PublicationError as error:
                yield not_delivered(windows, window, str(error))
                raise
            if done:
                published[window], rows[window] = done, done.rows
    earlier = sent(context.instance, windows, kafka.settings.kafka_topic)
    _describe_windows(context, windows, rows, published, earlier)
    count = sum(each.sent.events for each in published.values())
    now = {window: [each.sent] for window, each in published.items()}
    there = {window: [*now.get(window, []), *earlier[window]] for window in windows}
    stored = [quote for window in windows for quote in rows[window]]
    yield dg.MaterializeResult(check_results=[every_quote_delivered(windows, stored, there, count)])


def _describe_windows(
    context: dg.AssetExecutionContext,
    windows: list[Window],
    rows: Mapping[Window, Sequence[Quote]],
    published: Mapping[Window, Published],
    earlier: Mapping[Window, Sequence[Sent]],
) -> None:
    """Adds metadata: what the topic has of each window, and how much the run published."""
    unpublished = {
        window: _why_not_published(window, rows[window], earlier[window])
        for window in windows
        if window not in published
    }
    ran = tell_filled(context, unpublished, len(windows), "published")
    for window, reason in unpublished.items():
        most = max((each.events for each in earlier[window]), default=0)
        held = holds(most, "events", reason)
        described = {HOLDS: held, PUBLISHED: 0, ROW_COUNT: most, "reason": reason, **ran}
        context.add_asset_metadata(described, partition_key=window.key)
    for window, done in published.items():
        context.add_asset_metadata({**done.described, **ran}, partition_key=window.key)


def _why_not_published(window: Window, rows: Sequence[Quote], earlier: Sequence[Sent]) -> str:
    if earlier:
        return "published by an earlier run"
    if not rows:
        return "`quotes` has no price for it"
    if not _is_live(window):
        return "the window is not live, and `publish_history` is not set"
    return "every quote is withheld or history"


def publish_window(
    context: dg.AssetExecutionContext,
    kafka: Kafka,
    store: QuoteStore,
    window: Window,
    publish_history: bool,
) -> Published | None:
    """Publishes what is due of one window in one transaction, while no other run publishes.

    Args:
        context: of the step.
        kafka: the brokers, the topic and the form of `updated_at`.
        store: where the rows are stored. Withheld ones are never published.
        window: the window. It is not published if it stops being live while this run waits.
        publish_history: publish bars as well, and the window even if it is not live.

    Returns:
        What was sent; None if nothing was.

    Raises:
        MadeUpPricesError: the prices are made up, and may not be published.
        MissingQuotesError: the window was never stored.
        PublicationError: they are not on the topic, or it is not known whether they are.
        QuoteStoreError: the rows cannot be read.
    """
    # Two runs with one transactional id would end each other's transactions.
    with turn(context, KAFKA):
        if not (publish_history or _is_live(window)):
            context.log.info(f"{window.key}: not published: the window is not live")
            return None
        # Read only now: while this run waited, another may have stored and sent newer prices.
        rows = by_window(store.load([window.key]))[window]
        due = [each for each in rows if each.trusted and (publish_history or each.source == "live")]
        if not due:
            context.log.info(f"{window.key}: nothing to publish")
            return None
        updated_at_format = kafka.settings.kafka_updated_at_format or "epoch"
        events = [quote_event(quote, updated_at_format=updated_at_format) for quote in due]
        publication = kafka.publisher().publish(events)
    context.log.info(f"{window.key}: {publication.published} events published")
    reason = "the window is live" if _is_live(window) else "publish_history is set"
    there = Sent(
        publication.published,
        max(quote.observed_at for quote in due),
        frozenset(quote.ticker for quote in rows if not quote.trusted),
    )
    described = {
        HOLDS: holds(publication.published, "events", reason),
        **there.metadata(publication.topic),
        ROW_COUNT: publication.published,
        "withheld": len(rows) - len(due),
        "reason": reason,
        SECONDS_AFTER: round((clock.utc_now() - window.end).total_seconds(), 1),
        "publish_milliseconds": round(sum(publication.seconds.values()) * 1000),
        "offsets": {
            f"partition {partition}": f"{first} to {last}"
            for partition, (first, last) in sorted(publication.offsets.items())
        },
        "updated_at_format": kafka.settings.kafka_updated_at_format or FORMAT_NOT_CHOSEN,
    }
    return Published(rows, there, described)


def _is_live(window: Window) -> bool:
    return WINDOWS.is_live(window, clock.utc_now())
