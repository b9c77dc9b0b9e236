"""What is on the topic, as the materializations of `kafka_publication` say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.common import PUBLICATION
from market_data_pipeline.runs.run_history import materializations, told

# In the metadata of a window: how many events were sent, where to, when the newest of their prices
# was observed, and which tickers were left out, as their prices were withheld.
PUBLISHED, TOPIC, OBSERVED_AT, LEFT_OUT = "published", "topic", "observed_at", "withheld_tickers"
_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """One publication of a window."""

    events: int
    observed_at: datetime
    """When the newest of its prices was observed (UTC)."""
    left_out: frozenset[str]
    """The tickers whose price was withheld."""

    def has(self, quote: Quote) -> bool:
        """Whether the price that is stored now was among them."""
        return quote.observed_at <= self.observed_at and quote.ticker not in self.left_out

    def metadata(self, topic: str) -> dict[str, Any]:
        """What its materialization says, for `sent` to find it."""
        return {
            PUBLISHED: self.events,
            TOPIC: topic,
            OBSERVED_AT: dg.MetadataValue.timestamp(self.observed_at),
            **({LEFT_OUT: sorted(self.left_out)} if self.left_out else {}),
        }


def sent(
    instance: dg.DagsterInstance, windows: Sequence[Window], topic: str
) -> dict[Window, list[Sent]]:
    """The publications of each of some windows to a topic, the newest first; there may be none."""
    found = materializations(instance, PUBLICATION, windows)
    return {
        window: [_sent(each) for each in events if told(each, TOPIC) == topic]
        for window, events in found.items()
    }


def missing(rows: Iterable[Quote], publications: Sequence[Sent]) -> list[str]:
    """The tickers whose stored live price was in none of the publications of its window."""
    due = (quote for quote in rows if quote.source == "live" and quote.trusted)
    return sorted(each.ticker for each in due if not any(sent.has(each) for sent in publications))


def _sent(event: dg.AssetMaterialization) -> Sent:
    # Older versions did not record when the prices were observed, nor whose were left out.
    observed_at = told(event, OBSERVED_AT)
    newest = datetime.fromtimestamp(observed_at, UTC) if observed_at else _EVER
    return Sent(told(event, PUBLISHED), newest, frozenset(told(event, LEFT_OUT) or ()))
