"""The sandbox over a real socket: the rules of the API, and its faults."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import requests

from brapi_sandbox import Fault, Sandbox, __version__, serve
from brapi_sandbox.market import Market
from brapi_sandbox.rules import FREE_TICKERS

NOW = datetime(2026, 11, 19, 17, 52, 5, tzinfo=UTC)
OK = 200


class Client:
    """Asks one sandbox, with a token unless told otherwise."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.session = sandbox, requests.Session()

    def __call__(self, path: str, token: str | None = "any", **query: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.sandbox.url}/api/{path}"
        return self.session.get(url, params=query, headers=headers, timeout=60)

    def refused(self, path: str, token: str | None = "any", **query: str) -> tuple[int, str | None]:
        answer = self(path, token, **query)
        body = answer.json()
        assert body["error"] is True
        assert body["message"]
        return answer.status_code, body.get("code")


@pytest.fixture(scope="module")
def served() -> Iterator[Client]:
    with serve(now=lambda: NOW) as sandbox:
        yield Client(sandbox)


@pytest.fixture
def ask(served: Client) -> Client:
    served.sandbox.plan, served.sandbox.remaining = "free", 15_000
    served.sandbox.token, served.sandbox.latency, served.sandbox.faults = None, 0, ()
    served.sandbox.requests.clear()
    return served


def test_a_quote(ask: Client) -> None:
    answer = ask("quote/GGBR4")
    body = answer.json()
    assert (answer.status_code, set(body)) == (OK, {"results", "requestedAt", "took"})
    assert (body["requestedAt"], type(body["took"])) == ("2026-11-19T17:52:05.000Z", int)
    [result] = body["results"]
    assert (result["symbol"], result["currency"]) == ("GGBR4", "BRL")
    assert result["longName"] == "Gerdau S.A."
    assert isinstance(result["regularMarketVolume"], int)
    assert "historicalDataPrice" not in result


@pytest.mark.parametrize(
    ("plan", "minute"), [("free", "17:29"), ("startup", "17:44"), ("pro", "17:49")]
)
def test_a_plan_says_how_fresh_a_quote_is(ask: Client, plan: str, minute: str) -> None:
    ask.sandbox.plan = plan
    [result] = ask("quote/GGBR4").json()["results"]
    assert result["regularMarketTime"].startswith(f"2026-11-19T{minute}")


def test_tokens(ask: Client) -> None:
    ask.sandbox.token = "right"
    assert ask.refused("quote/GGBR4", token=None) == (401, "MISSING_TOKEN")
    assert ask.refused("quote/GGBR4", token="wrong") == (401, "INVALID_TOKEN")
    assert ask.refused("v2/user/usage", token="wrong") == (401, "INVALID_TOKEN")
    assert ask("quote/GGBR4", token="right").status_code == OK
    by_query = requests.get(f"{ask.sandbox.url}/api/quote/GGBR4?token=right", timeout=5)
    assert by_query.status_code == OK
    assert [seen.authorization for seen in ask.sandbox.requests][-2:] == [True, False]
    assert ask.sandbox.requests[-1].query == {"token": "right"}


def test_the_free_tickers_know_no_limits(ask: Client) -> None:
    ask.sandbox.remaining = 0
    answer = ask("quote/PETR4,VALE3,ITUB4,MGLU3", token=None, interval="30m", range="1y")
    assert answer.status_code == OK
    assert len(answer.json()["results"]) == 4
    assert ask.refused("quote/PETR4,GGBR4", token=None) == (401, "MISSING_TOKEN")


@pytest.mark.parametrize(("plan", "batch"), [("free", 1), ("startup", 10), ("pro", 20)])
def test_batches(ask: Client, plan: str, batch: int) -> None:
    ask.sandbox.plan = plan
    tickers = [ticker for ticker in ask.sandbox.market.instruments if ticker not in FREE_TICKERS]
    answer = ask("quote/" + ",".join(tickers[:batch]))
    assert [result["symbol"] for result in answer.json()["results"]] == tickers[:batch]
    too_many = ask.refused("quote/" + ",".join(tickers[: batch + 1]))
    assert too_many == (400, "QUOTES_PER_REQUEST_EXCEEDED")


@pytest.mark.parametrize(
    ("plan", "query", "expected"),
    [
        ("free", {"interval": "30m"}, (400, "INVALID_INTERVAL")),
        ("pro", {"interval": "31m"}, (400, "INVALID_INTERVAL")),
        ("free", {"range": "6mo"}, (400, "INVALID_RANGE")),
        ("startup", {"range": "2y"}, (400, "INVALID_RANGE")),
        ("pro", {"range": "1 year"}, (400, "INVALID_RANGE")),
        ("free", {"startDate": "2026-07-01"}, (400, "INVALID_RANGE")),
        ("free", {"modules": "balanceSheetHistory"}, (403, "FEATURE_NOT_AVAILABLE")),
    ],
)
def test_what_a_plan_refuses_still_counts(
    ask: Client, plan: str, query: dict[str, str], expected: tuple[int, str]
) -> None:
    ask.sandbox.plan = plan
    assert ask.refused("quote/GGBR4", **query) == expected
    assert ask.sandbox.remaining == 14_999


@pytest.mark.parametrize(
    "query",
    [{"startDate": "19/11/2026"}, {"endDate": "2026-W47"}, {"startDate": "2026-11-20"}],
)
def test_malformed_parameters_come_in_the_other_envelope(
    ask: Client, query: dict[str, str]
) -> None:
    answer = ask("quote/GGBR4", **query)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert answer.json()["error"]["issues"]


def days_of(answer: requests.Response) -> list[str]:
    [result] = answer.json()["results"]
    return [
        str(datetime.fromtimestamp(b["date"], UTC).date()) for b in result["historicalDataPrice"]
    ]


def test_history(ask: Client) -> None:
    five = ask("quote/GGBR4", range="5d", interval="1d")
    assert days_of(five) == [f"2026-11-{day}" for day in (13, 16, 17, 18, 19)]
    [result] = five.json()["results"]
    assert (result["usedRange"], result["usedInterval"]) == ("5d", "1d")
    assert result["validIntervals"] == ["1d"]
    assert result["validRanges"] == ["1d", "5d", "1mo", "3mo"]


def test_history_between_dates(ask: Client) -> None:
    custom = ask("quote/GGBR4", startDate="2026-11-16", endDate="2026-11-17")
    assert days_of(custom) == ["2026-11-16", "2026-11-17"]
    assert custom.json()["results"][0]["usedRange"] == "custom"
    back = ask("quote/GGBR4", endDate="2026-11-13", range="5d")
    assert days_of(back) == [f"2026-11-{day:02}" for day in (9, 10, 11, 12, 13)]


@pytest.mark.parametrize(
    ("used_range", "sessions"),
    [("1d", 1), ("2d", 2), ("7d", 7), ("1mo", 23), ("1y", 248), ("ytd", 221), ("max", 2704)],
)
def test_every_range_ends_with_the_session_under_way(
    ask: Client, used_range: str, sessions: int
) -> None:
    ask.sandbox.plan = "pro"
    days = days_of(ask("quote/GGBR4", range=used_range))
    assert (len(days), days[-1]) == (sessions, "2026-11-19")


def test_the_quota(ask: Client) -> None:
    ask.sandbox.remaining = 2
    left = [
        ask(f"quote/{ticker}").headers["x-ratelimit-remaining"] for ticker in ("GGBR4", "XXXX3")
    ]
    assert left == ["1", "0"]
    spent = ask("quote/GGBR4")
    assert (spent.status_code, spent.headers["x-ratelimit-remaining"]) == (429, "0")
    assert "Retry-After" not in spent.headers
    usage = ask("v2/user/usage").json()["usage"]
    assert (usage["planName"], usage["planLimit"], usage["remainingUsage"]) == ("free", 15_000, 0)
    assert usage["usageWindow"] == {
        "type": "billing-cycle",
        "start": "2026-11-01T00:00:00.000Z",
        "end": "2026-12-01T00:00:00.000Z",
    }


def test_the_headers_have_another_name_too(ask: Client) -> None:
    ask.sandbox.quota_header = "ratelimit"
    assert ask("quote/GGBR4").headers["ratelimit-remaining"] == "14999"
    ask.sandbox.quota_header = "x-ratelimit"


def test_a_burst() -> None:
    with ThreadPoolExecutor() as pool, serve(burst=2, burst_seconds=60) as sandbox:
        sandbox.latency = 60
        for _ in range(2):
            pool.submit(Client(sandbox), "quote/GGBR4")
        while len(sandbox.requests) < 2:
            time.sleep(0.01)
        sandbox.latency = 0
        refused = Client(sandbox)("quote/GGBR4")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.headers["x-ratelimit-remaining"] == "14998"
        sandbox.plan = "pro"
        assert Client(sandbox)("quote/GGBR4").status_code == OK


def test_renamed_and_unknown_instruments(ask: Client) -> None:
    ask.sandbox.plan = "pro"
    renamed = ask("quote/ELET3,ELET6,XXXX3").json()["results"]
    assert [r["symbol"] for r in renamed] == ["AXIA3", "AXIA6"]
    assert [r.get("requestedSymbol") for r in renamed] == ["ELET3", None]
    assert ask.refused("quote/XXXX3") == (404, None)


def test_more_tickers_can_be_known() -> None:
    with serve(market=Market(["WXYZ11"])) as sandbox:
        assert Client(sandbox)("quote/WXYZ11").status_code == OK


def test_every_answer_says_once_that_it_is_made_up(ask: Client) -> None:
    ask.sandbox.faults = [Fault("WEGE3", status=503, body="<html>", headers={"server": "nginx"})]
    paths = ["quote/GGBR4", "quote/XXXX3", "quote/WEGE3", "v2/user/usage", "no/such/route"]
    answers = [ask(path) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 404, 503, 200, 404]
    for answer in answers:
        names = [name for name, _ in answer.raw.headers.items() if name.lower() == "server"]
        assert (answer.headers["Server"], len(names)) == (f"brapi-sandbox/{__version__}", 1)
        assert answer.headers["Brapi-Sandbox"] == __version__
    assert ask.refused("no/such/route") == (404, None)


def test_the_forms_of_older_answers(ask: Client) -> None:
    ask.sandbox.legacy, ask.sandbox.remaining = True, 2
    try:
        body = ask("quote/GGBR4").json()
        assert body["took"].endswith("ms")
        assert body["results"][0]["regularMarketTime"] == 1795109364
        assert isinstance(body["results"][0]["regularMarketVolume"], float)
        assert ask.refused("quote/XXXX3") == (417, None)
        assert ask.refused("quote/GGBR4") == (402, None)
    finally:
        ask.sandbox.legacy = False


def test_a_rolling_usage_window(ask: Client) -> None:
    ask.sandbox.usage_window = "rolling-30d"
    try:
        assert ask("v2/user/usage").json()["usage"]["usageWindow"] == {
            "type": "rolling-30d",
            "start": "2026-10-20T17:52:05.000Z",
            "end": "2026-11-19T17:52:05.000Z",
        }
    finally:
        ask.sandbox.usage_window = "billing-cycle"


def test_bars_can_hold_nulls(ask: Client) -> None:
    ask.sandbox.faults = [Fault("GGBR4", bars={"close": None})]
    [result] = ask("quote/GGBR4", range="5d").json()["results"]
    assert [bar["close"] for bar in result["historicalDataPrice"]] == [None] * 5
    assert "historicalDataPrice" not in ask("quote/GGBR4").json()["results"][0]


def test_latency_and_the_record_of_requests(ask: Client) -> None:
    ask.sandbox.latency = 0.2
    started = time.monotonic()
    ask("quote/GGBR4")
    ask("quote/WEGE3")
    first, second = ask.sandbox.requests
    assert started <= first.at <= second.at - 0.2
    assert (first.path, first.query, first.authorization) == ("/api/quote/GGBR4", {}, True)
    assert first.connection == second.connection


def result_of(ask: Client, fault: Fault) -> dict[str, Any]:
    ask.sandbox.faults = [fault]
    [result] = ask("quote/GGBR4").json()["results"]
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 417, 429, 500, 503])
def test_any_status(ask: Client, status: int) -> None:
    ask.sandbox.faults = [Fault(status=status, code="WHY", headers={"Retry-After": "2"})]
    assert ask.refused("quote/GGBR4") == (status, "WHY")
    assert ask("quote/GGBR4").headers["Retry-After"] == "2"


def test_a_fault_for_one_ticker_and_some_of_its_requests(ask: Client) -> None:
    ask.sandbox.faults = [Fault("GGBR4", numbers=[1, 3], status=500)]
    assert ask("quote/WEGE3").status_code == OK
    assert [ask("quote/GGBR4").status_code for _ in range(4)] == [500, OK, 500, OK]


@pytest.mark.parametrize("price", [None, 0, -1.5, "n/d", 1e12])
def test_any_price(ask: Client, price: object) -> None:
    assert (
        result_of(ask, Fault(fields={"regularMarketPrice": price}))["regularMarketPrice"] == price
    )


def test_fields_that_are_missing_or_of_another_type(ask: Client) -> None:
    assert "regularMarketTime" not in result_of(ask, Fault(without=["regularMarketTime"]))
    epoch = result_of(ask, Fault(fields={"regularMarketTime": 1795104000}))
    assert epoch["regularMarketTime"] == 1795104000
    volume = result_of(ask, Fault(fields={"regularMarketVolume": 5.5}))["regularMarketVolume"]
    assert volume == 5.5
    renamed = result_of(ask, Fault("GGBR4", fields={"symbol": "NEWW3"}))
    assert renamed["symbol"] == "NEWW3"


def test_fewer_results_and_another_order(ask: Client) -> None:
    ask.sandbox.plan = "pro"
    ask.sandbox.faults = [Fault("WEGE3", drop=True), Fault(reverse=True)]
    results = ask("quote/GGBR4,WEGE3,ABEV3").json()["results"]
    assert [result["symbol"] for result in results] == ["ABEV3", "GGBR4"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html>503</html>", "text/html; charset=utf-8"),
        ('{"results": [', "application/json; charset=utf-8"),
        ("[]", "application/json; charset=utf-8"),
    ],
)
def test_any_body(ask: Client, body: str, content_type: str) -> None:
    ask.sandbox.faults = [Fault(status=503, body=body)]
    answer = ask("quote/GGBR4")
    assert (answer.text, answer.headers["Content-Type"]) == (body, content_type)


def test_bodies_in_other_forms(ask: Client) -> None:
    ask.sandbox.faults = [Fault(encoding="gzip, gzip", charset="utf-16")]
    answer = ask("quote/GGBR4")
    assert answer.headers["Content-Encoding"] == "gzip, gzip"
    assert answer.content.decode("utf-16").startswith('{"results": [{"symbol": "GGBR4"')


def test_bars_of_another_interval(ask: Client) -> None:
    ask.sandbox.plan = "pro"
    ask.sandbox.faults = [Fault(interval="60m")]
    [result] = ask("quote/GGBR4", range="1d", interval="30m").json()["results"]
    starts = [bar["date"] for bar in result["historicalDataPrice"]]
    assert result["usedInterval"] == "60m"
    assert {later - start for start, later in pairwise(starts)} == {3600}


def raised(ask: Client, timeout: float) -> type[Exception]:
    with pytest.raises(requests.RequestException) as error:
        requests.get(f"{ask.sandbox.url}/api/quote/PETR4", timeout=timeout)
    return error.type


def test_what_happens_on_the_socket(ask: Client) -> None:
    ask.sandbox.faults = [Fault(reset=True)]
    assert raised(ask, 5) is requests.ConnectionError
    ask.sandbox.faults = [Fault(cut=True)]
    assert raised(ask, 5) is requests.exceptions.ChunkedEncodingError
    ask.sandbox.faults = [Fault(delay=60)]
    assert raised(ask, 0.2) is requests.ReadTimeout


def test_a_slow_drip_arrives_whole(ask: Client) -> None:
    ask.sandbox.faults = [Fault(drip=0.001)]
    started = time.monotonic()
    answer = ask("quote/GGBR4")
    assert answer.json()["results"]
    assert time.monotonic() - started > 0.001 * len(answer.content)


def test_faults_and_requests_from_another_process(ask: Client) -> None:
    url = f"{ask.sandbox.url}/sandbox"
    faults = [{"ticker": "GGBR4", "status": 500}]
    assert requests.post(f"{url}/faults", json=faults, timeout=5).status_code == 204
    assert ask("quote/GGBR4").status_code == 500
    assert requests.post(f"{url}/faults", json=[{"no": 1}], timeout=5).status_code == 422
    assert requests.post(f"{url}/faults", json=[], timeout=5).status_code == 204
    assert ask("quote/GGBR4").status_code == OK
    seen = requests.get(f"{url}/requests", timeout=5).json()
    assert [request["path"] for request in seen] == ["/api/quote/GGBR4"] * 2


def test_the_official_prices_are_those_of_the_daily_bars() -> None:
    evening = datetime(2026, 11, 19, 23, tzinfo=UTC)
    with serve(now=lambda: evening, plan="pro") as sandbox:
        result = Client(sandbox)("quote/GGBR4", range="1d", interval="1d").json()["results"][0]
        sandbox.faults = [Fault(ticker="VALE3", fields={"PREULT": 4110})]
        url = f"{sandbox.url}/InstDados/SerHist/COTAHIST_D19112026.ZIP"
        with zipfile.ZipFile(io.BytesIO(requests.get(url, timeout=30).content)) as archive:
            lines = archive.read("COTAHIST_D19112026.TXT").decode("latin-1").split("\r\n")

    (bar,) = result["historicalDataPrice"]
    records = {line[12:24].strip(): line for line in lines if line.startswith("01")}
    ggbr4 = records["GGBR4"]
    assert lines[0].rstrip() == "00COTAHIST.2026SANDBOX 20261119"
    assert lines[-2].rstrip() == f"99COTAHIST.2026SANDBOX 20261119{len(records) + 2:011}"
    assert {len(line) for line in lines[:-1]} == {245}
    prices = [int(ggbr4[start : start + 13]) / 100 for start in (56, 69, 82, 108)]
    assert prices == [bar[name] for name in ("open", "high", "low", "close")]
    assert int(ggbr4[152:170]) == bar["volume"]
    assert records["VALE3"][108:121] == "0000000004110"


@pytest.mark.parametrize("name", ["COTAHIST_D20112026.ZIP", "COTAHIST_D24112026.ZIP", "other.ZIP"])
def test_there_is_no_file_of_a_day_without_prices(name: str) -> None:
    with serve(now=lambda: NOW) as sandbox:
        answer = requests.get(f"{sandbox.url}/InstDados/SerHist/{name}", timeout=30)

    assert answer.status_code == 404
    assert answer.headers["Server"] == f"brapi-sandbox/{__version__}"
