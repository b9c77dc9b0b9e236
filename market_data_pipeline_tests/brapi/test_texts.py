"""What Brapi says is shown, stored and published in one line, whatever is in it."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from brapi_sandbox.faults import Fault
from brapi_sandbox.market import Market

from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline, SetWatchlist
from market_data_pipeline_tests.observed import logs, metadata

# C0 and C1, DEL, line and paragraph separators, bidi overrides, zero width, a tag, a BOM.
UNSHOWN = "\x00\x1b\n\r\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\u200d\u00ad\U000e0041\ufeff"
FORGED = "2026-11-17 18:00:05 +0000 - dagster - ERROR - everything is lost"


@pytest.mark.usefixtures("four_instruments")
def test_no_control_character_leaves_brapi(pipeline: Pipeline) -> None:
    name = f"Banco{UNSHOWN}do Brasil{UNSHOWN}{FORGED}{UNSHOWN}"
    pipeline.sandbox.faults = [
        Fault(ticker="BBAS3", fields={"longName": name, "shortName": name}),
        Fault(ticker="VALE3", status=400, body={"error": True, "message": name, "code": name}),
        Fault(ticker="HGLG11", fields={"regularMarketPrice": {name: [name]}}),
    ]

    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    [document] = pipeline.documents({"ticker": "BBAS3"})
    [event] = [json.loads(s.event.value) for s in pipeline.events() if s.event.key == b"BBAS3"]
    failed = [row["reason"] for row in metadata(result, "quotes")["failed"]]
    assert len(failed) == 2
    texts = [document["name"], document["short_name"], event["name"], event["short_name"], *failed]
    for text in texts:
        assert {*map(unicodedata.category, text)}.isdisjoint({"Cc", "Cf", "Zl", "Zp"}), repr(text)
    assert document["name"].startswith("Banco")
    assert document["name"].endswith(FORGED)
    said = logs(pipeline, result)
    assert not [line for line in said.splitlines() if line.strip().startswith(FORGED)]
    assert not {"\x1b", "\x9b", "\u202e"} & set(said)


NO_TICKERS = {
    "PETR4": "PETR٤",
    "VALE3": "\uff36\uff21\uff2c\uff25\uff13",  # full width
    "ITUB4": "itub4",
    "BBDC4": "BBDÇ4",
    "BBAS3": "BBAS3\u200b",
    "ABEV3": "ABEV3\n",
    "B3SA3": " B3SA3",
    "WEGE3": "WEGE",
    "ITSA4": "999994",
}


def test_what_is_no_ticker_is_no_key_and_one_may_begin_with_a_digit(
    make_pipeline: Callable[..., Any], watchlist: SetWatchlist
) -> None:
    tickers = [*NO_TICKERS, "PETR3", "5GTK11"]
    watchlist(tickers)
    with make_pipeline(market=Market(tickers)) as pipeline:
        pipeline.sandbox.faults = [
            Fault(ticker=ticker, fields={"symbol": symbol}) for ticker, symbol in NO_TICKERS.items()
        ]

        result = pipeline.run(LIVE_ON_TUESDAY)

        failed = {row["ticker"]: row["reason"] for row in metadata(result, "quotes")["failed"]}
        assert failed == dict.fromkeys(NO_TICKERS, "missing from the answer")
        assert {document["ticker"] for document in pipeline.documents()} == {"PETR3", "5GTK11"}
        assert {seen.event.key for seen in pipeline.events()} == {b"PETR3", b"5GTK11"}
