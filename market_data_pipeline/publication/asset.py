"""The prices on Kafka, where other services react to them."""

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import dagster as dg
from pydantic import Field

from market_data_pipeline import ClearError
from market_data_pipeline.market import clock
from market_data_pipeline.market.quote import Quote, by_window
from market_data_pipeline.market.windows import Window
from market_data_pipeline.publication.checks import (
    EVERY_QUOTE_DELIVERED,
    PUBLISHED,
    Publication,
    every_quote_delivered,
    lacking,
    not_delivered,
    publications,
)
from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN, Event, quote_event
from market_data_pipeline.publication.kafka import Kafka
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
from market_data_pipeline.runs.results import ROW_COUNT, contents, tell_filled
from market_data_pipeline.runs.turn import KAFKA, turn
from market_data_pipeline.storage.quote_store import QuoteStore

SECONDS_AFTER = "seconds_after_window_end"


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
    op_tags={"dagster/priority": "1"},  # services wait for it: no other sink comes first
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
    published = dict[Window, Publication]()
    with failing_clearly():
        quotes = by_window(quote_store.load([window.key for window in windows]))
        due = [each for each in windows if _due(each, quotes[each], config.publish_history)]
        if due and not kafka.settings.kafka_updated_at_format:
            context.log.warning(FORMAT_NOT_CHOSEN)
        for window in due:
            try:
                # Two runs with one transactional id would end each other's transactions.
                with turn(context, KAFKA):
                    quotes[window], publication = _publish(
                        context, kafka, quote_store, window, config.publish_history
                    )
            except ClearError as error:
                _record(context, published, kafka.settings.kafka_topic)
                yield not_delivered(windows, window, str(error))
                raise
            if publication:
                published[window] = publication
    earlier = publications(context.instance, windows, kafka.settings.kafka_topic)
    reasons = {
        window: _why_not_published(window, quotes[window], earlier[window])
        for window in windows
        if window not in published
    }
    for window, reason in reasons.items():
        most = max((each.published for each in earlier[window]), default=0)
        nothing = {PUBLISHED: 0, ROW_COUNT: most, "reason": reason}
        described = contents(most, "events", reason) | nothing
        context.add_asset_metadata(described, partition_key=window.key)
    ran = tell_filled(context, reasons, len(windows), "published")
    for window in windows if ran else []:
        context.add_asset_metadata(ran, partition_key=window.key)
    result = every_quote_delivered(
        {window: quotes[window] for window in windows},
        {each: [published[each]] if each in published else earlier[each] for each in windows},
        sum(each.published for each in published.values()),
    )
    yield dg.MaterializeResult(check_results=[result])


def _publish(
    context: dg.AssetExecutionContext,
    kafka: Kafka,
    quote_store: QuoteStore,
    window: Window,
    publish_history: bool,
) -> tuple[list[Quote], Publication | None]:
    """Publishes what is due of one window in one transaction, and describes it.

    Returns:
        The quotes of the window, and what was published: None if, while this run waited for its
        turn, the window has stopped being live.
    """
    quotes, due = list[Quote](), list[Quote]()
    updated_at_format = kafka.settings.kafka_updated_at_format

    def events() -> Iterator[Event]:
        # Only now can no other run publish: while this one waited, newer prices may have come.
        quotes.extend(by_window(quote_store.load([window.key]))[window])
        due.extend(_due(window, quotes, publish_history))
        for quote in due:
            yield quote_event(quote, updated_at_format=updated_at_format or "epoch")

    started = monotonic()
    offsets = kafka.publish(events())
    context.log.info(f"{window.key}: {len(due)} events published")
    if not due:
        return quotes, None
    milliseconds = round((monotonic() - started) * 1000)
    publication = Publication(
        len(due),
        max(quote.observed_at for quote in due),
        frozenset(quote.ticker for quote in quotes if not quote.trusted),
    )
    is_history = publish_history and not _is_live(window)
    reason = "publish_history is set" if is_history else "the window is live"
    described = {
        **contents(len(due), "events", reason),
        **publication.metadata(kafka.settings.kafka_topic),
        ROW_COUNT: len(due),
        "withheld": len(publication.withheld),
        "reason": reason,
        SECONDS_AFTER: round((clock.utc_now() - window.end).total_seconds(), 1),
        "publish_milliseconds": milliseconds,
        "offsets": {
            f"partition {partition}": f"{first} to {last}"
            for partition, (first, last) in offsets.items()
        },
        "updated_at_format": updated_at_format or FORMAT_NOT_CHOSEN,
    }
    context.add_asset_metadata(described, partition_key=window.key)
    return quotes, publication


def _record(
    context: dg.AssetExecutionContext, published: Mapping[Window, Publication], topic: str
) -> None:
    """Records the windows that a run has published before it fails: they are on the topic."""
    for window, each in published.items():
        described = {**contents(each.published, "events", ""), **each.metadata(topic)}
        event = dg.AssetMaterialization(PUBLICATION, partition=window.key, metadata=described)
        context.log_event(event)


def _why_not_published(
    window: Window, quotes: Sequence[Quote], earlier: Sequence[Publication]
) -> str:
    if earlier and not lacking(quotes, earlier):
        return "published by an earlier run"
    if not quotes:
        return "`quotes` has no price for it"
    if not _is_live(window):
        return "the window is not live, and `publish_history` is not set"
    return "every quote is withheld or history"


def _due(window: Window, quotes: Sequence[Quote], publish_history: bool) -> list[Quote]:
    """What is to be published of a window."""
    if publish_history:
        return [quote for quote in quotes if quote.trusted]
    live = _is_live(window)
    return [quote for quote in quotes if live and quote.trusted and quote.source == "live"]


def _is_live(window: Window) -> bool:
    return WINDOWS.is_live(window, clock.utc_now())
