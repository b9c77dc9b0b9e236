"""Whatever is in a body: typed errors alone leave the client, and no price is made up."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox, serve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from market_data_pipeline.brapi import client
from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.errors import BrapiError
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline_tests.conftest import brapi_with

WINDOW = TradingWindows().from_key("2026-11-17T14:30-0300")
TICKERS = ["ABEV3", "TIMS3", "ELET3"]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 2**63, -(10**30)])
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(["2026-11-17T18:00:00.000Z", "0001-01-01T00:00:00+14:00", "\ud800", "9" * 30])
)
VALUES = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=6,
)
SYMBOLS = st.sampled_from([*TICKERS, "AXIA3", "abev3", "", "A" * 5_000]) | VALUES
PRICES = st.floats(0.01, 1_000) | VALUES
TIMES = st.sampled_from(["2026-11-17T18:00:00.000Z", 1_794_938_000, 0, "today"]) | VALUES
BARS = st.fixed_dictionaries({}, optional={"date": TIMES, "close": PRICES, "volume": VALUES})
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "symbol": SYMBOLS,
        "requestedSymbol": SYMBOLS,
        "longName": VALUES,
        "shortName": VALUES,
        "regularMarketPrice": PRICES,
        "regularMarketTime": TIMES,
        "regularMarketVolume": VALUES,
        "historicalDataPrice": st.lists(BARS | VALUES, max_size=4) | VALUES,
    },
)
ANSWERS = st.fixed_dictionaries({"results": st.lists(RESULTS | VALUES, max_size=4) | VALUES})
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from(["QUOTES_PER_REQUEST_EXCEEDED", "INVALID_RANGE"]) | VALUES,
        "message": VALUES,
        "error": VALUES | st.fixed_dictionaries({"issues": VALUES | st.lists(VALUES)}),
    },
)
BODIES = ANSWERS.map(json.dumps) | VALUES.map(json.dumps) | st.text(max_size=30).map(repr)
GOOD = {
    "symbol": "ABEV3",
    "regularMarketPrice": 12.5,
    "regularMarketTime": "2026-11-17T18:00:00.000Z",
}
WITH_A_BAR = json.dumps(
    {"results": [GOOD | {"historicalDataPrice": [{"date": 1_794_920_400, "close": 12.5}]}]}
)
BODIES_WITH_BARS = st.lists(BARS, min_size=1, max_size=4).map(
    lambda bars: json.dumps({"results": [GOOD | {"historicalDataPrice": bars}]})
)
STATUSES = st.sampled_from([204, 301, 400, 401, 402, 403, 404, 417, 429, 500, 503])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve(plan="pro", burst=1_000) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ATTEMPTS", 1)


def brapi(sandbox: Sandbox) -> Brapi:
    return brapi_with(base_url=sandbox.url, token="x", plan="pro", min_interval_seconds=0)


def numbers_of(body: str, *names: str) -> list[Any]:
    """Every number that the body gives one of these fields, anywhere in it."""
    found: list[Any] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(v for name, v in pairs if name in names and isinstance(v, int | float))
        return dict(pairs)

    json.loads(body, object_pairs_hook=note)
    return found


fuzzed = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzzed
@given(body=BODIES)
@example(body=json.dumps({"results": [GOOD | {"longName": "\ud800"}]}))
@example(body=json.dumps({"results": [GOOD | {"regularMarketPrice": True}]}))
@example(body=json.dumps({"results": [GOOD, GOOD, GOOD | {"symbol": "AXIA3"}]}))
def test_a_quote_has_a_price_of_the_answer_or_a_reason(body: str, sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(body=body)]

    with brapi(sandbox).client() as client:
        found = client.quotes(TICKERS, WINDOW)

    assert list(found) == TICKERS
    for answer in found.values():
        if isinstance(answer, str):
            answer.encode()
            continue
        assert answer.price in numbers_of(body, "regularMarketPrice")
        assert 0 < answer.price < 10**6 + 1
        f"{answer.name} {answer.short_name}".encode()


@fuzzed
@given(body=BODIES | BODIES_WITH_BARS)
@example(body=WITH_A_BAR)
@example(body=json.dumps({"results": [GOOD]}))
def test_a_bar_has_a_price_of_the_answer_or_none(body: str, sandbox: Sandbox) -> None:
    sandbox.faults = [Fault(body=body)]
    day = date(2026, 11, 16)

    with brapi(sandbox).client() as client:
        found = client.history(TICKERS, (day, day), date(2026, 11, 17), 30)

    answers = [answer for answer in found.values() if not isinstance(answer, str)]
    bars = [bar for answer in answers for bar in answer.bars]
    assert bars or body != WITH_A_BAR
    for bar in bars:
        assert bar.close is None or bar.close in numbers_of(body, "close")


@fuzzed
@given(status=STATUSES, body=BODIES | ERRORS.map(json.dumps), left=st.sampled_from(["0", "7", "x"]))
@example(status=500, body=json.dumps({"message": "\ud800", "code": "\udfff"}), left="7")
def test_a_refusal_is_a_reason_or_a_typed_error(
    status: int, body: str, left: str, sandbox: Sandbox
) -> None:
    sandbox.faults = [Fault(status=status, body=body, headers={"x-ratelimit-remaining": left})]

    with brapi(sandbox).client() as client:
        try:
            found = client.quotes(TICKERS, WINDOW)
        except BrapiError as error:
            said = str(error)
        else:
            assert list(found) == TICKERS
            assert all(isinstance(each, str) for each in found.values())
            said = " ".join(map(str, found.values()))
    said.encode()
