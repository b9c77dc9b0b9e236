"""What the tests of sequences do, and what they look at."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from brapi_sandbox.faults import Fault

from market_data_pipeline.operation.session_report import session_report
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import Pipeline, tags_of

Later = Callable[[float], None]
HALF_AN_HOUR = timedelta(minutes=30)
SECOND, THIRD, FOURTH = (f"2026-11-17T{time}-0300" for time in ("15:00", "15:30", "16:00"))
VICTIM = "VALE3"
NOWHERE = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500"
CENTS = Fault(
    ticker=VICTIM, fields={"regularMarketPrice": 9_000}, without=["regularMarketPreviousClose"]
)


def times(pipeline: Pipeline, factor: float, ticker: str = VICTIM, **fields: Any) -> Fault:
    """The sandbox's price of a ticker, so many times as high."""
    (first,) = pipeline.documents(
        {"ticker": ticker, "window_start": datetime(2026, 11, 17, 17, 30)}
    )
    return Fault(ticker=ticker, fields={"regularMarketPrice": first["price"] * factor, **fields})


def prices(pipeline: Pipeline, ticker: str = VICTIM) -> list[float]:
    """Every price of a ticker on the topic."""
    events = [json.loads(seen.event.value) for seen in pipeline.events()]
    return [event["price"] for event in events if event["ticker"] == ticker]


def row(pipeline: Pipeline, key: str, ticker: str = VICTIM) -> Any:
    """The stored row of a ticker in a window."""
    (found,) = [quote for quote in pipeline.store.load([key]) if quote.ticker == ticker]
    return found


def accept(pipeline: Pipeline, key: str, *tickers: str) -> dg.ExecuteInProcessResult:
    """A run that accepts withheld prices of a window."""
    return pipeline.run(key, config={"quotes": {"accept": list(tickers)}})


def report(
    pipeline: Pipeline, day: str, store: QuoteStore | None = None, last: str = ""
) -> dg.ExecuteInProcessResult:
    """A run that reports a session, or is to report all from one to the `last`."""
    return dg.materialize(
        [session_report],
        tags=tags_of(day, last),
        instance=pipeline.instance,
        resources={"quote_store": store or pipeline.store},
        raise_on_error=False,
    )
