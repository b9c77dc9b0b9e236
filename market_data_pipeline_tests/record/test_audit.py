"""The collection holds what the files hold, whoever writes in between and whatever fails."""

import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest

from market_data_pipeline_tests.conftest import Pipeline
from market_data_pipeline_tests.observed import checks
from market_data_pipeline_tests.record.helpers import (
    SECOND,
    VICTIM,
    accept,
    row,
    times,
)

HISTORY = importlib.import_module("market_data_pipeline.storage.price_history")
Later = Callable[[float], None]

pytestmark = pytest.mark.usefixtures("four_instruments")


def document(pipeline: Pipeline) -> dict[str, Any]:
    """The document of the victim in the second window."""
    (found,) = pipeline.documents({"_id": f"{VICTIM}|2026-11-17T18:00:00Z"})
    return found


def once_after_the_documents_are_read(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]
) -> None:
    """Lets something else happen between what a run reads and what it writes."""
    find, waiting = HISTORY._find, [meanwhile]

    def found(*arguments: Any) -> Any:
        there = find(*arguments)
        if waiting:
            waiting.pop()()
        return there

    monkeypatch.setattr(HISTORY, "_find", found)


def test_a_price_that_is_accepted_while_a_run_writes_is_accepted(
    stored: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.sandbox.faults = [times(stored, 0.1)]
    assert stored.run(SECOND, select="quotes").success

    def meanwhile() -> None:
        assert accept(stored, SECOND, VICTIM).success

    once_after_the_documents_are_read(monkeypatch, meanwhile)

    result = stored.run(SECOND, select="mongo_price_history")

    assert checks(result)["history_equals_quotes"][0]
    assert document(stored)["decision"] == row(stored, SECOND).decision == "accepted"


@pytest.mark.parametrize("first", ["quotes", "*"], ids=["inserted", "replaced"])
def test_a_newer_price_that_is_stored_while_a_run_writes_stays(
    stored: Pipeline, later: Later, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    assert stored.run(SECOND, select=first).success

    def meanwhile() -> None:
        later(1.5)
        stored.sandbox.faults = [times(stored, 1.3)]
        assert stored.run(SECOND).success

    once_after_the_documents_are_read(monkeypatch, meanwhile)

    result = stored.run(SECOND, select="mongo_price_history")

    assert checks(result)["history_equals_quotes"][0]
    assert document(stored)["price"] == row(stored, SECOND).price


def test_a_document_of_another_program_is_left_alone(stored: Pipeline) -> None:
    foreign = {
        "_id": "theirs",
        "ticker": VICTIM,
        "requested_ticker": VICTIM,
        "window_start": datetime(2026, 11, 17, 18, tzinfo=UTC),
    }
    with pymongo.MongoClient[dict[str, Any]](stored.mongo_uri) as client:
        client["market_data_db"]["price_history"].insert_one(foreign)

    assert stored.run(SECOND).success

    assert foreign in stored.documents()
