"""The prices on Kafka, where other services react to them."""

from typing import Any, cast

import dagster as dg
import pandas as pd
from pydantic import Field

from market_data_pipeline import clock
from market_data_pipeline.assets.checks import EVERY_QUOTE_DELIVERED, delivered, not_delivered
from market_data_pipeline.assets.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    windows_of,
)
from market_data_pipeline.kafka.errors import PublicationError
from market_data_pipeline.kafka.event import UpdatedAtFormat, quote_event
from market_data_pipeline.kafka.publisher import Publication
from market_data_pipeline.quote import Quote, quotes_from
from market_data_pipeline.resources import KafkaResource
from market_data_pipeline.windows import Window


class PublicationConfig(dg.Config):
    """What a run may publish."""

    publish_history: bool = Field(
        default=False,
        description="Publish windows that are not live too. Consumers of the topic then get prices "
        "that are older than those they have.",
    )


@dg.asset(
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"kafka"},
    check_specs=[EVERY_QUOTE_DELIVERED],
)
def kafka_publication(  # type: ignore[misc]  # of an iterator, Dagster takes the item's type alone
    context: dg.AssetExecutionContext,
    config: PublicationConfig,
    quotes: pd.DataFrame,
    kafka: KafkaResource,
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One event for each quote of the live window, in one transaction.

    A window that is not live is not published, unless the run config asks for it: the topic says
    what the market does now.
    """
    live = WINDOWS.live(clock.utc_now())
    due: dict[Window, list[Quote]] = {window: [] for window in windows_of(context)}
    for quote in quotes_from(quotes):
        due[Window(quote.window_start, quote.window_end)].append(quote)
    published = 0
    for window, quotes_of_window in due.items():
        reason = _why_not(window, quotes_of_window, live, config)
        try:
            publication = None if reason else _publish(kafka, quotes_of_window)
        except PublicationError as error:
            yield not_delivered(window, str(error))
            raise dg.Failure(str(error), allow_retries=False) from None
        published += publication.published if publication else 0
        context.log.info(f"{window.key}: {reason or f'{len(quotes_of_window)} events published'}")
        context.add_asset_metadata(_describe(publication, reason), partition_key=window.key)
    yield dg.MaterializeResult(check_results=[delivered(published)])


def _why_not(
    window: Window, quotes: list[Quote], live: Window | None, config: PublicationConfig
) -> str | None:
    """Why nothing of the window is published, None if it is."""
    if not quotes:
        return "nothing to publish: the window has no quote"
    if config.publish_history:
        return None
    if window != live:
        now = f"the live one is {live.key}" if live else "a new session has begun"
        return f"not published: the window is not live ({now})"
    if any(quote.source != "live" for quote in quotes):
        return "not published: its prices are from the price history"
    return None


def _publish(kafka: KafkaResource, quotes: list[Quote]) -> Publication:
    updated_at_format = cast(UpdatedAtFormat, kafka.updated_at_format)
    events = [quote_event(quote, updated_at_format=updated_at_format) for quote in quotes]
    return kafka.publisher().publish(events)


def _describe(publication: Publication | None, reason: str | None) -> dict[str, Any]:
    if publication is None:
        return {"published": 0, "reason": reason}
    return {
        "published": publication.published,
        "topic": publication.topic,
        "publish_milliseconds": round(sum(publication.seconds.values()) * 1000),
        "offsets": {
            f"partition {partition}": f"{first} to {last}"
            for partition, (first, last) in sorted(publication.offsets.items())
        },
    }
