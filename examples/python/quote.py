"""The price of an instrument, read from the value of an event."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal


@dataclass(frozen=True)
class Quote:
    ticker: str
    name: str | None
    short_name: str | None
    price: Decimal
    volume: int | None
    updated_at: datetime


def read(value: bytes | None) -> Quote:
    """Raises ValueError if it is no quote. `updated_at` may have either form."""
    try:
        fields = json.loads(value or b"", parse_float=Decimal)
        ticker, price = fields["ticker"], fields["price"]
        if not isinstance(ticker, str) or isinstance(price, bool) or not Decimal(price).is_finite():
            raise ValueError(f"the ticker is {ticker}, the price {price}")
        return Quote(
            ticker=ticker,
            name=fields.get("name"),
            short_name=fields.get("short_name"),
            price=Decimal(price),
            volume=fields.get("volume"),
            updated_at=_instant(fields["updated_at"]),
        )
    except (ArithmeticError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(repr(error)) from error


def _instant(updated_at: int | str) -> datetime:
    if isinstance(updated_at, str):
        return datetime.fromisoformat(updated_at)
    return datetime.fromtimestamp(updated_at, UTC)
