"""The table of docs/faults.md, and the fault of the sandbox that is behind each row."""

import json
from dataclasses import dataclass
from typing import Any

from market_data_pipeline_tests.supervised import ROOT

TABLE = ROOT / "docs" / "faults.md"
# The last one is the one that has the fault.
TICKERS = ["BBAS3", "WEGE3", "TIMS3", "ABEV3"]
VICTIM = TICKERS[-1]
PAGE = "<html><body>Not here.</body></html>"
ISSUE = {"code": "invalid_string", "path": ["tickers"], "message": "tickers deve ter letras."}


@dataclass(frozen=True)
class Row:
    """What the table promises."""

    case: str
    again: str
    costs: str
    sentence: str


def rows() -> dict[str, Row]:
    """The table, by case."""
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {case: Row(case, again, costs, says) for case, _, again, costs, says in cells}


def quote_with(**fields: Any) -> dict[str, Any]:
    return {"fields": {f"regularMarket{name}": value for name, value in fields.items()}}


def answer_with(price: float) -> dict[str, Any]:
    time = "2026-11-17T17:59:00.000Z"
    return {"results": [{"symbol": VICTIM, "regularMarketTime": time, "regularMarketPrice": price}]}


ONE_PRICE, ANOTHER = answer_with(15.4), answer_with(15.6)
FAULTS: dict[str, dict[str, Any]] = {
    "unknown": {"status": 404},
    "unknown, older answer": {"status": 417},
    "not an instrument of B3": {"ticker": "ZZZZ3"},
    "404 with a page": {"status": 404, "body": PAGE},
    "redirect": {
        "status": 301,
        "body": PAGE,
        "headers": {"Location": "https://example.com/"},
        "encoding": "gzip",
    },
    "refused parameter": {"status": 400},
    "malformed parameter": {
        "status": 400,
        "body": {"success": False, "error": {"issues": [ISSUE], "name": "ZodError"}},
    },
    "too many tickers, one asked": {"status": 400, "code": "QUOTES_PER_REQUEST_EXCEEDED"},
    "interval not on the plan": {"status": 400, "code": "INVALID_INTERVAL"},
    "range not on the plan": {"status": 400, "code": "INVALID_RANGE"},
    "no token": {"status": 401, "code": "MISSING_TOKEN"},
    "wrong token": {"status": 401, "code": "INVALID_TOKEN"},
    "refused without a code, once": {"status": 403, "numbers": [1]},
    "refused without a code": {"status": 403, "body": {"message": "Forbidden"}},
    "refused with a page": {"status": 403, "body": PAGE},
    "token refused without a code": {
        "status": 401,
        "body": {"error": True, "message": "Limite de requisições atingido"},
    },
    "every request refused without a code": {"ticker": None, "status": 403},
    "payment required, with requests left": {"status": 402},
    "not on the plan": {"status": 403, "code": "FEATURE_NOT_AVAILABLE"},
    "quota spent by one answer": {
        "status": 429,
        "headers": {"x-ratelimit-remaining": "0"},
        "numbers": [1],
        "delay": 1.0,
    },
    "too fast, once": {"status": 429, "headers": {"Retry-After": "0"}, "numbers": [1]},
    "too fast, always": {"status": 429},
    "come back later": {"status": 429, "headers": {"Retry-After": "3600"}, "delay": 1.0},
    "too fast for a proxy": {
        "status": 429,
        "body": PAGE,
        "headers": {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0"},
    },
    "come back later, compressed otherwise": {
        "status": 429,
        "encoding": "br",
        "headers": {"Retry-After": "3600"},
        "delay": 1.0,
    },
    "request time-out": {"status": 408},
    "conflict": {"status": 409},
    "too early": {"status": 425},
    "server error, once": {"status": 500, "numbers": [1]},
    "server error": {"status": 500},
    "server error with a page": {"status": 503, "body": PAGE},
    "not available for long": {"status": 503, "headers": {"Retry-After": "3600"}},
    "no answer": {"delay": 30},
    "slow drip": {"drip": 0.1},
    "cut body": {"cut": True},
    "reset": {"reset": True},
    "broken JSON": {"body": '{"results": [{"symbol": "ABEV3", "regularMark'},
    "a page for an answer": {"body": PAGE},
    "a field twice": {"body": json.dumps(ONE_PRICE)[:-3] + ', "regularMarketPrice": 15.5}]}'},
    "JSON of another shape": {"body": {"results": {}}},
    "an error with status 200": {"body": {"error": True, "message": "Tente novamente."}},
    "an error of the other form with status 200": {
        "body": {"success": False, "error": {"issues": [ISSUE]}}
    },
    "large body": {"fields": {"longName": "x" * 2**20}},
    "large body, compressed": {"fields": {"longName": "x" * (60 * 2**20)}, "encoding": "gzip"},
    "many values": {"body": '{"results": [' + "[]," * (2**20 // 3 - 10) + "[]]}"},
    "compressed otherwise": {"encoding": "gzip, gzip"},
    "compressed": {"encoding": "gzip"},
    "UTF-16": {"charset": "utf-16"},
    "no result": {"body": {"results": []}},
    "answered twice": {"body": {"results": [*ONE_PRICE["results"], *ANOTHER["results"]]}},
    "null price": quote_with(Price=None),
    "negative price": quote_with(Price=-1),
    "zero price": quote_with(Price=0),
    "textual price": quote_with(Price="35.50"),
    "price below a cent": quote_with(Price=1e-9),
    "absurd price": quote_with(Price=1e12),
    "no market time": {"without": ["regularMarketTime"]},
    "epoch": quote_with(Time=0),
    "price of another day": quote_with(Time="2026-11-16T20:35:00.000Z"),
    "time in seconds": quote_with(Time=1_794_938_000),
    "volume as a float": quote_with(Volume=1200.0),
    "no ticker": {"fields": {"symbol": "ABEV٣"}},
    "another security": {"fields": {"symbol": "ABEV4"}},
}
BATCH_FAULTS: dict[str, dict[str, Any]] = {
    "fewer results": {"drop": True},
    "other order": {"ticker": None, "reverse": True},
    "one spoils the batch": {"status": 500},
    "refused batch": {"status": 404},
}
SPENT = {"quota spent": 429, "quota spent, older answer": 402}
TESTED_ALONE = {
    *SPENT,
    "too many tickers",
    "another symbol",
    "bars of another length",
    "connection refused",
}
# Long enough for an answer on a busy machine; the others have the usual ten seconds.
TIMED_OUT = {"no answer", "slow drip"}
