"""What goes over the wire, byte for byte."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_pipeline.publication.event import quote_event
from market_data_pipeline_tests.publication.helpers import a_quote

GOLDEN = (
    '{"ticker": "PETR4", "name": "Petróleo Brasileiro S.A. - Petrobras", '
    '"short_name": "PETROBRAS PN", "price": 35.5, "volume": 15234567, "updated_at": %s}'
)
FIELDS = ["ticker", "name", "short_name", "price", "volume", "updated_at"]


def test_value_in_epoch_seconds() -> None:
    assert quote_event(a_quote()).value.decode() == GOLDEN % "1795440598"


def test_value_in_iso8601() -> None:
    event = quote_event(a_quote(), updated_at_format="iso8601")
    assert event.value.decode() == GOLDEN % '"2026-11-23T13:29:58.000Z"'


def test_fractions_of_a_second_are_cut_off_and_milliseconds_kept() -> None:
    quote = a_quote(updated_at=datetime(2026, 11, 23, 13, 29, 58, 987654, tzinfo=UTC))
    assert json.loads(quote_event(quote).value)["updated_at"] == 1795440598
    iso8601 = quote_event(quote, updated_at_format="iso8601")
    assert json.loads(iso8601.value)["updated_at"] == "2026-11-23T13:29:58.987Z"


def test_key_is_the_ticker() -> None:
    assert quote_event(a_quote("VALE3")).key == b"VALE3"


def test_headers_are_a_cloud_event() -> None:
    assert quote_event(a_quote()).headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"PETR4|2026-11-23T13:00:00.000Z|2026-11-23T13:29:58.000Z|35.5"),
        ("ce_source", b"/market-data-pipeline/quotes"),
        ("ce_type", b"market_data.quote.v1"),
        ("ce_subject", b"PETR4"),
        ("ce_time", b"2026-11-23T13:29:58.000Z"),
        ("ce_windowstart", b"2026-11-23T13:00:00.000Z"),
        ("ce_windowend", b"2026-11-23T13:30:00.000Z"),
        ("ce_quotesource", b"live"),
        ("content-type", b"application/json"),
    )


def test_the_source_of_a_made_up_price_is_another() -> None:
    headers = dict(quote_event(a_quote(origin="brapi-sandbox")).headers)
    assert headers["ce_source"] == b"/market-data-pipeline/made-up-quotes"


def test_id_tells_repeats_from_news() -> None:
    def ce_id(**changes: Any) -> bytes:
        return dict(quote_event(a_quote(**changes)).headers)["ce_id"]

    first = a_quote()
    assert ce_id() == ce_id(observed_at=first.observed_at + timedelta(hours=3), name=None)
    assert ce_id() != ce_id(window=1, updated_at=first.updated_at)
    assert ce_id() != ce_id(updated_at=first.updated_at + timedelta(seconds=1))
    assert ce_id() != ce_id(price=first.price + 0.01)
    assert ce_id() != ce_id(ticker="VALE3")


def test_instants_are_written_in_utc() -> None:
    brasilia = timezone(timedelta(hours=-3))
    quote = a_quote(updated_at=datetime(2026, 11, 23, 10, 29, 58, tzinfo=brasilia))
    assert quote_event(quote) == quote_event(a_quote())


def test_what_is_not_known_is_null() -> None:
    value = json.loads(quote_event(a_quote(name=None, short_name=None, volume=None)).value)
    assert (value["name"], value["short_name"], value["volume"]) == (None, None, None)


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf])
def test_a_price_that_is_no_number_is_refused(price: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        quote_event(a_quote(price=price))


@given(
    name=st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))),
    price=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    volume=st.one_of(st.none(), st.integers(min_value=0, max_value=2**63 - 1)),
)
def test_every_value_reads_back_as_it_was(
    name: str | None, price: float, volume: int | None
) -> None:
    value = json.loads(quote_event(a_quote(name=name, price=price, volume=volume)).value)
    assert list(value) == FIELDS
    assert (value["name"], value["price"], value["volume"]) == (name, price, volume)
