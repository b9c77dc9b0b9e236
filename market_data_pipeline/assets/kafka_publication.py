"""The prices on Kafka, where other services react to them."""

from typing import Any, cast

import dagster as dg
import pandas as pd
from pydantic import Field

from market_data_pipeline import clock
from market_data_pipeline.asset_keys import PUBLICATION, QUOTES
from market_data_pipeline.assets.checks import EVERY_QUOTE_DELIVERED, delivered, not_delivered
from market_data_pipeline.assets.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    windows_of,
)
from market_data_pipeline.assets.moves import ACCEPTED, doubted_tickers
from market_data_pipeline.kafka.errors import PublicationError
from market_data_pipeline.kafka.event import UpdatedAtFormat, quote_event
from market_data_pipeline.kafka.publisher import Publication
from market_data_pipeline.quote import Quote, quotes_from
from market_data_pipeline.resources import KafkaResource


class PublicationConfig(dg.Config):
    """What a run may publish."""

    publish_history: bool = Field(
        default=False,
        description="Publish windows that are not live too. Consumers of the topic then get prices "
        "that are older than those they have.",
    )
    accept_moves: list[str] = Field(
        default=[],
        description="Tickers whose price has really moved as far as it seems, after a split for "
        "instance: publish them, and compare the next windows with their new price.",
    )


@dg.asset(
    key=PUBLICATION,
    ins={"quotes": dg.AssetIn(QUOTES)},
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    pool="kafka",  # two runs with one transactional id would end each other's transactions
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
    what the market does now. A price that has moved implausibly far is withheld.
    """
    windows, live = windows_of(context), WINDOWS.live(clock.utc_now())
    due = [window for window in windows if window == live or config.publish_history]
    by_start = dict(list(quotes.groupby("window_start")))
    published = 0
    withheld: list[str] = []
    for window in due:
        doubted = doubted_tickers(context.instance, window) - set(config.accept_moves)
        stored = quotes_from(by_start.get(window.start, quotes.iloc[:0]))
        rows = [quote for quote in stored if quote.ticker not in doubted]
        withheld += sorted(doubted)
        refused = _why_not(rows, config)
        try:
            publication = None if refused else _publish(kafka, rows)
        except PublicationError as error:
            yield not_delivered(window, str(error))
            raise dg.Failure(str(error), allow_retries=False) from None
        published += publication.published if publication else 0
        context.log.info(f"{window.key}: {refused or f'{len(rows)} events published'}")
        reason = refused or ("the window is live" if window == live else "publish_history is set")
        described = _describe(publication, reason)
        described["withheld"] = len(doubted)
        if config.accept_moves:
            described[ACCEPTED] = config.accept_moves
        context.add_asset_metadata(described, partition_key=window.key)
    now = f"the live one is {live.key}" if live else "a new session has begun"
    not_live = f"not published: the window is not live ({now})"
    if len(due) < len(windows):
        context.log.info(f"{len(windows) - len(due)} of {len(windows)} windows {not_live}")
    # It stands on every window that has not said otherwise above.
    others = _describe(None, not_live)
    yield dg.MaterializeResult(metadata=others, check_results=[delivered(published, withheld)])


def _why_not(rows: list[Quote], config: PublicationConfig) -> str | None:
    """Why nothing is published of a window that may be, None if it is."""
    if not rows:
        return "nothing to publish: the window has no quote"
    if not config.publish_history and any(quote.source != "live" for quote in rows):
        return "not published: its prices are from the price history"
    return None


def _publish(kafka: KafkaResource, quotes: list[Quote]) -> Publication:
    updated_at_format = cast(UpdatedAtFormat, kafka.updated_at_format)
    events = [quote_event(quote, updated_at_format=updated_at_format) for quote in quotes]
    return kafka.publisher().publish(events)


def _describe(publication: Publication | None, reason: str) -> dict[str, Any]:
    if publication is None:
        return {"published": 0, "reason": reason}
    return {
        "published": publication.published,
        "reason": reason,
        "topic": publication.topic,
        "publish_milliseconds": round(sum(publication.seconds.values()) * 1000),
        "offsets": {
            f"partition {partition}": f"{first} to {last}"
            for partition, (first, last) in sorted(publication.offsets.items())
        },
    }
