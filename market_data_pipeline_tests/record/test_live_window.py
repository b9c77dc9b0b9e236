"""The live window: from Brapi's quote endpoint into the collection and onto the topic."""

import json
from datetime import UTC, datetime, timedelta

from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TUESDAY_15_00, Pipeline, SetClock
from market_data_pipeline_tests.observed import checks, metadata

TICKERS = [*load_watchlist().tickers]


def test_every_instrument_is_asked_for_once_and_is_in_the_history_and_on_the_topic(
    pipeline: Pipeline,
) -> None:
    result = pipeline.run(LIVE_ON_TUESDAY)

    assert result.success
    *quotes, usage = pipeline.sandbox.requests
    assert sorted(seen.path for seen in quotes) == sorted(
        f"/api/quote/{ticker}" for ticker in TICKERS
    )
    assert usage.path == "/api/v2/user/usage"
    assert all(seen.query == {} and seen.authorization for seen in pipeline.sandbox.requests)
    documents = {document["ticker"]: document for document in pipeline.documents()}
    assert sorted(documents) == sorted(TICKERS)
    petr4 = documents["PETR4"]
    assert petr4["_id"] == "PETR4|2026-11-17T17:30:00Z"
    assert petr4["window_start"] == datetime(2026, 11, 17, 17, 30, tzinfo=UTC)
    assert petr4["window_end"] == datetime(2026, 11, 17, 18, 0, tzinfo=UTC)
    assert petr4["source"] == "live"
    events = {seen.event.key.decode(): json.loads(seen.event.value) for seen in pipeline.events()}
    assert events == {
        ticker: {
            "ticker": ticker,
            "name": document["name"],
            "short_name": document["short_name"],
            "price": document["price"],
            "volume": document["volume"],
            "updated_at": int(document["updated_at"].timestamp()),
        }
        for ticker, document in documents.items()
    }
    told = metadata(result, "quotes")
    assert told["contents"] == "50 quotes"
    assert (told["quotes"], told["failures"], told["requests"]) == (50, 0, 50)
    assert told["quota_left"] == 15_000 - 46  # four instruments are free of it
    history = metadata(result, "mongo_price_history")
    assert history["rows"] == 50
    assert "2026-11-17T17:30:00Z" in history["query"]
    publication = metadata(result, "kafka_publication")
    assert (publication["published"], publication["contents"]) == (50, "50 events")
    # Of a single window that is filled there is nothing more to tell.
    assert "run" not in {*told, *history, *publication}
    assert {name: passed for name, (passed, _) in checks(result).items()} == {
        "all_tickers_quoted": True,
        "watchlist_free_of_renames": True,
        "prices_plausible": True,
        "quotes_recent": True,
        "observed_in_time": True,
        "files_readable": True,
        "quota_lasts": True,
        "history_equals_quotes": True,
        "every_quote_delivered": True,
    }


def test_a_window_again_replaces_its_documents_and_publishing_alone_asks_nothing(
    four_instruments: tuple[str, ...], pipeline: Pipeline, set_clock: SetClock
) -> None:
    first = pipeline.run(LIVE_ON_TUESDAY)
    before = pipeline.documents()
    set_clock(TUESDAY_15_00 + timedelta(seconds=30))
    second = pipeline.run(LIVE_ON_TUESDAY)
    asked = len(pipeline.sandbox.requests)

    assert pipeline.run(LIVE_ON_TUESDAY, select="kafka_publication").success

    after = pipeline.documents()
    for name in ("_id", "created_at"):
        assert [document[name] for document in after] == [document[name] for document in before]
    assert {document["run_id"] for document in before} == {first.run_id}
    assert {document["run_id"] for document in after} == {second.run_id}
    assert len(pipeline.sandbox.requests) == asked
    ids = [seen.ce_id for seen in pipeline.events()]
    assert (len(ids), len({*ids})) == (3 * 4, 4)
