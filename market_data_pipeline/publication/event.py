"""What one quote looks like on Kafka. The contract for consumers is in `contract/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from market_data_pipeline.market.quote import Quote

UpdatedAtFormat = Literal["epoch", "iso8601"]

FORMAT_NOT_CHOSEN = (
    "updated_at is sent as Unix seconds (epoch), which java.time.Instant reads and "
    "java.time.LocalDateTime does not: set KAFKA_UPDATED_AT_FORMAT to iso8601 if a consumer maps "
    "it to LocalDateTime, otherwise to epoch."
)
"""What is said as long as the form of `updated_at` is the default, not a choice."""

SOURCE = "/market-data-pipeline/quotes"
MADE_UP_SOURCE = "/market-data-pipeline/made-up-quotes"
TYPE = "market_data.quote.v1"


@dataclass(frozen=True)
class Event:
    """One Kafka message: its key, its value and its headers, as they go over the wire."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def quote_event(quote: Quote, *, updated_at_format: UpdatedAtFormat = "epoch") -> Event:
    """The event of one quote: keyed by ticker, six fields of JSON, the rest in the headers.

    `epoch` writes `updated_at` as whole Unix seconds, `iso8601` as `2026-11-23T13:29:58.000Z`,
    which Jackson reads into a `java.time.LocalDateTime`.

    Raises:
        ValueError: the price is not a number.
    """
    value = {
        "ticker": quote.ticker,
        "name": quote.name,
        "short_name": quote.short_name,
        "price": float(quote.price),
        "volume": None if quote.volume is None else int(quote.volume),
        "updated_at": _instant(quote.updated_at)
        if updated_at_format == "iso8601"
        else int(quote.updated_at.timestamp()),
    }
    return Event(
        key=quote.ticker.encode(),
        value=json.dumps(value, ensure_ascii=False, allow_nan=False).encode(),
        headers=_cloud_event(quote),
    )


def _cloud_event(quote: Quote) -> tuple[tuple[str, bytes], ...]:
    """The attributes of CloudEvents 1.0 in Kafka's binary mode, with three extensions of ours."""
    price_time, window_start = _instant(quote.updated_at), _instant(quote.window_start)
    attributes = {
        "ce_specversion": "1.0",
        # Deterministic, so that a consumer can drop what a repeated run sends again.
        "ce_id": f"{quote.ticker}|{window_start}|{price_time}|{quote.price!r}",
        "ce_source": MADE_UP_SOURCE if quote.made_up else SOURCE,
        "ce_type": TYPE,
        "ce_subject": quote.ticker,
        "ce_time": price_time,
        "ce_windowstart": window_start,
        "ce_windowend": _instant(quote.window_end),
        "ce_quotesource": quote.source,
        "content-type": "application/json",
    }
    return tuple((name, value.encode()) for name, value in attributes.items())


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
