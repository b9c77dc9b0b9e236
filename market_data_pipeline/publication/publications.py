"""What is on the topic, as the materializations of `kafka_publication` record it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.common import PUBLICATION
from market_data_pipeline.runs.run_history import materializations, value_of

# Keys of the metadata of a window.
PUBLISHED, TOPIC, OBSERVED_AT, WITHHELD = "published", "topic", "observed_at", "withheld_tickers"


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication of a window."""

    published: int
    """How many events it had."""
    observed_at: datetime
    """When the newest of its prices was observed (UTC)."""
    withheld: frozenset[str]
    """The tickers whose price was withheld."""

    def includes(self, quote: Quote) -> bool:
        """Whether the price that is stored now was among the events."""
        return quote.observed_at <= self.observed_at and quote.ticker not in self.withheld

    def metadata(self, topic: str) -> dict[str, Any]:
        """What its materialization records, for `publications` to read."""
        return {
            PUBLISHED: self.published,
            TOPIC: topic,
            OBSERVED_AT: dg.MetadataValue.timestamp(self.observed_at),
            **({WITHHELD: sorted(self.withheld)} if self.withheld else {}),
        }


def publications(
    instance: dg.DagsterInstance, windows: Sequence[Window], topic: str
) -> dict[Window, list[Publication]]:
    """The publications of each of some windows to a topic, the newest first; there may be none."""
    found = materializations(instance, PUBLICATION, windows)
    return {
        window: [_recorded(each) for each in events if value_of(each, TOPIC) == topic]
        for window, events in found.items()
    }


def _recorded(event: dg.AssetMaterialization) -> Publication:
    # Older versions did not record when the prices were observed, nor whose were withheld.
    seconds = value_of(event, OBSERVED_AT)
    newest = datetime.fromtimestamp(seconds, UTC) if seconds else datetime.max.replace(tzinfo=UTC)
    withheld = frozenset(value_of(event, WITHHELD) or ())
    return Publication(value_of(event, PUBLISHED), newest, withheld)


def unpublished(quotes: Iterable[Quote], published: Sequence[Publication]) -> list[str]:
    """The tickers whose live price, as it is stored of a window, is in none of its publications."""
    due = (quote for quote in quotes if quote.source == "live" and quote.trusted)
    return sorted(each.ticker for each in due if not any(one.includes(each) for one in published))
