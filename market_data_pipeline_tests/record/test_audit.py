"""The collection holds what the files hold, whoever writes in between and whatever fails."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.collection import Collection

from market_data_pipeline.storage.price_history import PriceHistory
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, Pipeline
from market_data_pipeline_tests.observed import checks, metadata
from market_data_pipeline_tests.record.helpers import (
    SECOND,
    VICTIM,
    Later,
    accept,
    row,
    times,
)

Meanwhile = Callable[[Callable[[], None]], None]

pytestmark = pytest.mark.usefixtures("four_instruments")


def document(pipeline: Pipeline) -> dict[str, Any]:
    """The document of the victim in the second window."""
    (found,) = pipeline.documents({"_id": f"{VICTIM}|2026-11-17T18:00:00Z"})
    return found


@pytest.fixture(params=["before it looks", "before it writes"])
def once_meanwhile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets something else happen between what a run has read and what it writes."""
    place: tuple[type, str] = (PriceHistory, "handle_output")
    if request.param == "before it writes":
        place = (Collection, "bulk_write")

    def wait(meanwhile: Callable[[], None]) -> None:
        act, waiting = getattr(*place), [meanwhile]

        def late(*arguments: Any, **options: Any) -> Any:
            if waiting:
                waiting.pop()()
            return act(*arguments, **options)

        monkeypatch.setattr(*place, late)

    return wait


def accepted(stored: Pipeline, later: Later) -> None:
    assert accept(stored, SECOND, VICTIM).success


def observed_again(stored: Pipeline, later: Later) -> None:
    later(1.5)
    stored.sandbox.faults = [times(stored, 1.3)]
    assert stored.run(SECOND).success


@pytest.mark.parametrize(
    ("there", "happens", "decision"),
    [
        (False, accepted, "accepted"),
        (False, observed_again, "clear"),
        (True, observed_again, "clear"),
    ],
    ids=["accepted", "inserted", "replaced"],
)
def test_what_is_stored_while_a_run_writes_stays(
    stored: Pipeline,
    later: Later,
    once_meanwhile: Meanwhile,
    there: bool,
    happens: Callable[[Pipeline, Later], None],
    decision: str,
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    if there:
        assert stored.run(SECOND).success
        later(1.2)
    assert stored.run(SECOND, select="quotes").success
    happened: list[str] = []

    def meanwhile() -> None:
        happened.append(decision)
        happens(stored, later)

    once_meanwhile(meanwhile)

    result = stored.run(SECOND, select="mongo_price_history")

    assert happened
    assert checks(result)["history_equals_quotes"][0]
    kept = row(stored, SECOND)
    assert document(stored)["price"] == kept.price
    assert document(stored)["decision"] == kept.decision == decision


def test_documents_of_other_programs_are_left_alone(stored: Pipeline) -> None:
    start = datetime(2026, 11, 17, 18, tzinfo=UTC)
    foreign = {"ticker": VICTIM, "requested_ticker": VICTIM, "window_start": start}
    elsewhere = {"_id": "ZZZZ3|2026-11-17T18:00:00Z", "ticker": "ZZZZ3", "window_start": start}
    elsewhere = {**stored.documents()[0], "requested_ticker": "ZZZZ3", **elsewhere}
    copied = {
        **elsewhere,
        "_id": "copy",
        **foreign,
        "observed_at": datetime(2099, 1, 1, tzinfo=UTC),
    }
    theirs = [elsewhere, copied, {"_id": "theirs", **foreign}]
    with pymongo.MongoClient[dict[str, Any]](stored.mongo_uri) as client:
        client["market_data_db"]["price_history"].insert_many(theirs)

    result = stored.run(SECOND)

    assert checks(result)["history_equals_quotes"] == (True, "All 4 quotes are in the collection.")
    assert metadata(result, "mongo_price_history")["rows"] == 4
    assert [each for each in stored.documents() if each in theirs] == theirs
    assert document(stored)["observed_at"].year == 2026


@pytest.mark.services
def test_a_date_of_another_program_that_python_cannot_hold_costs_nothing(
    pipeline: Pipeline, real_mongo: str
) -> None:
    pipeline.mongo_uri = real_mongo
    start, never = datetime(2026, 11, 17, 17, 30, tzinfo=UTC), DatetimeMS(2**60)
    with pymongo.MongoClient[dict[str, Any]](real_mongo) as client:
        documents = client["market_data_db"]["price_history"]
        documents.insert_one({"_id": "theirs", "window_start": start, "until": never})
        try:
            assert pipeline.run(LIVE_ON_TUESDAY).success
            assert documents.count_documents({}) == 5
        finally:
            client.drop_database("market_data_db")


def test_what_has_just_been_written_is_read_from_the_primary_and_survives_a_crash(
    stored: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever MONGO_URI says: a secondary may not have it yet, and the check would fail.

    A server that runs alone otherwise loses up to 100 ms of what the check has found there.
    """
    find, write = Collection.find, Collection.bulk_write
    preferences, concerns = set(), list[dict[str, Any]]()

    def noted_find(self: Any, *arguments: Any, **options: Any) -> Any:
        preferences.add(self.read_preference.mongos_mode)
        return find(self, *arguments, **options)

    def noted_write(self: Any, *arguments: Any, **options: Any) -> Any:
        concerns.append(self.write_concern.document)
        return write(self, *arguments, **options)

    monkeypatch.setattr(Collection, "find", noted_find)
    monkeypatch.setattr(Collection, "bulk_write", noted_write)
    assert stored.run(SECOND, select="quotes").success
    stored.mongo_uri += "/?readPreference=secondaryPreferred"

    assert stored.run(SECOND, select="mongo_price_history").success

    assert preferences == {"primary"}
    assert concerns == [{"j": True}]


@pytest.mark.parametrize(
    "change",
    [
        {"$unset": {"window_end": ""}},
        {"$set": {"window_end": None}},
        {"$set": {"observed_at": None}},
        {"$set": {"observed_at": "2026-11-17T18:30:05Z"}},
        {"$set": {"ticker": ["VALE3"]}},
        {"$set": {"decision": {"by": "me"}, "price": "49,01"}},
    ],
    ids=str,
)
def test_a_document_that_somebody_has_spoiled_is_replaced(
    stored: Pipeline, change: dict[str, Any]
) -> None:
    assert stored.run(SECOND).success
    before = document(stored)
    with pymongo.MongoClient[dict[str, Any]](stored.mongo_uri) as client:
        client["market_data_db"]["price_history"].update_one({"_id": before["_id"]}, change)

    result = stored.run(SECOND, select="mongo_price_history")

    assert checks(result)["history_equals_quotes"][0]
    assert {**document(stored), "run_id": before["run_id"]} == before


@pytest.mark.parametrize(
    "older",
    [{"$unset": {"rank": ""}}, {"$set": {"rank": "11|2026-11-17"}}, {"$set": {"rank": "999"}}],
)
@pytest.mark.parametrize(("seconds", "kept"), [(-30, "ours"), (30, "theirs")])
def test_a_document_of_an_older_version_takes_its_place_in_the_order(
    stored: Pipeline, older: dict[str, Any], seconds: int, kept: str
) -> None:
    """It is replaced by a newer price, and not by an older one."""
    assert stored.run(SECOND).success
    before = document(stored)
    asked = before["observed_at"] + timedelta(seconds=seconds)
    theirs = {**before, "price": 1.0, "observed_at": asked}
    with pymongo.MongoClient[dict[str, Any]](stored.mongo_uri) as client:
        documents = client["market_data_db"]["price_history"]
        documents.replace_one({"_id": before["_id"]}, theirs)
        documents.update_many({}, older)

    result = stored.run(SECOND, select="mongo_price_history")

    assert document(stored)["price"] == (before["price"] if kept == "ours" else 1.0)
    assert document(stored)["created_at"] == before["created_at"]
    assert checks(result)["history_equals_quotes"] == (
        (True, "All 4 quotes are in the collection.")
        if kept == "ours"
        else (
            False,
            "1 of 4 quotes are not in the collection as they are stored: VALE3. Materialize "
            "`mongo_price_history` again.",
        )
    )
    assert metadata(result, "mongo_price_history")["superseded"] == (kept == "theirs")
    ranks = [each["rank"] for each in stored.documents({"window_start": before["window_start"]})]
    assert all(rank.startswith("011|2026-") for rank in ranks)
