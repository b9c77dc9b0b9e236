"""What is on the topic, as the materializations of `kafka_publication` say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from market_data_pipeline.asset_keys import PUBLICATION
from market_data_pipeline.quote import Quote
from market_data_pipeline.run_history import materializations
from market_data_pipeline.windows import Window

# In the metadata of a window: how many events were sent, where to, and the newest of them.
PUBLISHED, TOPIC, OBSERVED_AT = "published", "topic", "observed_at"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a topic has of a window."""

    events: int
    """How many of its prices, at the most, one publication has sent."""
    observed_at: datetime | None
    """When the newest price was observed (UTC); None if that was not recorded."""

    def missing(self, rows: Iterable[Quote]) -> int:
        """How many of the live prices that are stored of the window are not on the topic."""
        due = [quote for quote in rows if quote.source == "live" and quote.trusted]
        newest = self.observed_at
        newer = [quote for quote in due if newest and quote.observed_at > newest]
        return max(len(due) - self.events, len(newer))

    def metadata(self, topic: str) -> dict[str, Any]:
        """What a materialization says, for `sent` to find it."""
        observed_at = self.observed_at and dg.MetadataValue.timestamp(self.observed_at)
        return {PUBLISHED: self.events, TOPIC: topic, OBSERVED_AT: observed_at}


def sent(instance: dg.DagsterInstance, windows: Sequence[Window], topic: str) -> dict[Window, Sent]:
    """Those of some windows that are on a topic, with what it has of them."""
    found = {
        window: [each.metadata for each in events if _value(each.metadata, TOPIC) == topic]
        for window, events in materializations(instance, PUBLICATION, windows).items()
    }
    return {window: _sent(several) for window, several in found.items() if several}


def _sent(several: Sequence[Mapping[str, dg.MetadataValue]]) -> Sent:
    instants = [told for each in several if (told := _value(each, OBSERVED_AT))]
    newest = datetime.fromtimestamp(max(instants), UTC) if instants else None
    return Sent(max(_value(each, PUBLISHED) for each in several), newest)


def _value(metadata: Mapping[str, dg.MetadataValue], name: str) -> Any:
    return metadata[name].value if name in metadata else None
