"""Brapi's own client for Python works against the sandbox, its errors too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import brapi
import pytest

from brapi_sandbox import Fault, Sandbox, serve

NOW = datetime(2026, 11, 19, 17, 52, 5, tzinfo=UTC)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve(plan="startup", token="right", now=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[brapi.Brapi]:
    with brapi.Brapi(base_url=sandbox.url, api_key="right", max_retries=0) as client:
        yield client


def test_quotes(client: brapi.Brapi) -> None:
    results = client.quote.retrieve("GGBR4,WEGE3").results
    assert results is not None
    assert [result.symbol for result in results] == ["GGBR4", "WEGE3"]
    gerdau = results[0]
    assert (gerdau.currency, gerdau.long_name) == ("BRL", "Gerdau S.A.")
    assert gerdau.regular_market_price is not None
    assert gerdau.regular_market_price > 0
    assert gerdau.regular_market_time == "2026-11-19T17:44:20.000Z"


def test_history(client: brapi.Brapi) -> None:
    answer = client.quote.retrieve("GGBR4", range="5d", interval="1d")
    assert answer.results is not None
    bars = answer.results[0].historical_data_price
    assert bars is not None
    days = [datetime.fromtimestamp(bar.date or 0, UTC).day for bar in bars]
    assert days == [13, 16, 17, 18, 19]
    assert bars[-1].close == answer.results[0].regular_market_price


def test_an_unknown_ticker(client: brapi.Brapi) -> None:
    with pytest.raises(brapi.NotFoundError, match="XXXX3"):
        client.quote.retrieve("XXXX3")


def test_a_wrong_token(client: brapi.Brapi) -> None:
    with pytest.raises(brapi.AuthenticationError) as refused:
        client.with_options(api_key="wrong").quote.retrieve("GGBR4")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["code"] == "INVALID_TOKEN"


def test_a_spent_quota(client: brapi.Brapi, sandbox: Sandbox) -> None:
    sandbox.remaining = 0
    with pytest.raises(brapi.RateLimitError) as refused:
        client.quote.retrieve("GGBR4")
    assert refused.value.response.headers["x-ratelimit-remaining"] == "0"


def test_a_failure_of_the_server(client: brapi.Brapi, sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(status=500)]
    with pytest.raises(brapi.InternalServerError):
        client.quote.retrieve("GGBR4")


def test_the_client_tries_again_after_a_failure(client: brapi.Brapi, sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(numbers=[1], status=500)]
    assert client.with_options(max_retries=1).quote.retrieve("GGBR4").results
    assert len(sandbox.requests) == 2
