"""The history of all quotes, for audit: one document for each instrument and window."""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from datetime import UTC
from typing import Any

import dagster as dg
from bson import CodecOptions, DatetimeConversion
from dagster_mongo import DagsterMongoError, MongoDocumentsIOManager, MongoResource
from dagster_mongo.keys import key_ids
from pydantic import ValidationError
from pymongo import DeleteOne, ReadPreference, UpdateOne
from pymongo.collection import Collection

from market_data_pipeline.market.quote import ROWS, Quote, as_row, by_window, merge
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    PRICE_HISTORY,
    QUOTES,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.runs.results import (
    CONTENTS,
    ERROR,
    column_schema,
    contents,
    some,
    tell_filled,
    verdict,
)
from market_data_pipeline.storage.quote_store import QuoteStore

COLLECTION = "price_history"
RANK = "rank"
KEY = ["ticker", "window_start"]
# How the I/O manager keeps the rows: a document is only replaced by one of a higher rank.
KEPT = {
    "partition_expr": "window_start",
    "mongo/collection": COLLECTION,
    "mongo/mode": "upsert",
    "mongo/key": KEY,
    "mongo/version": RANK,
    "mongo/created_at": "created_at",
    "mongo/run_id": "run_id",
    "mongo/indexes": [
        [["ticker", 1], ["window_start", -1]],
        [["updated_at", -1]],
        [["window_start", 1]],
    ],
}
# Another program's date may be out of Python's range.
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, tzinfo=UTC, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

Documents = Collection[dict[str, Any]]

HISTORY_EQUALS_QUOTES = dg.AssetCheckSpec(
    "history_equals_quotes",
    asset=PRICE_HISTORY,
    description="Every quote of the window is in the collection as it is stored. If not: "
    "materialize `mongo_price_history` again.",
)


class PriceHistory(MongoDocumentsIOManager):
    """Writes the documents; a failure is one sentence."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Stores the rows of some windows, as the metadata of the asset says."""
        with failing_clearly():
            super().handle_output(context, obj)


@dg.asset(
    key=PRICE_HISTORY,
    deps=[QUOTES],
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    io_manager_key="price_history",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mongodb"},
    check_specs=[HISTORY_EQUALS_QUOTES],
    metadata={"dagster/column_schema": column_schema(), **KEPT},
)
def mongo_price_history(
    context: dg.AssetExecutionContext,
    quote_store: dg.ResourceParam[QuoteStore],
    mongo: MongoResource,
) -> Iterator[Any]:
    """Every quote as a document of the collection `price_history`.

    A document has the rank of its row, and MongoDB refuses to replace it by one of a lower rank. So
    runs may overlap, repeat or come late.
    """
    windows = windows_of(context)
    keys = [window.key for window in windows]
    with failing_clearly(), mongo.errors_in_words():
        rows = quote_store.load(keys)
        _rank_others(_collection(mongo), windows, rows)
    _describe(context, windows, rows)
    yield dg.MaterializeResult(
        value=[{**as_row(quote), RANK: quote.rank} for quote in rows],
        metadata={CONTENTS: ""},  # of each window its own, and the first that the UI shows
    )
    with failing_clearly(), mongo.errors_in_words():
        found = _remove_replaced(_collection(mongo), windows)
        if not found.issuperset(rows):  # another run has stored newer ones meanwhile
            rows = quote_store.load(keys)
    yield _history_equals_quotes(windows, rows, found)


def connect_mongo(mongo: MongoResource) -> str:
    """Reads a document; returns why that is not possible, or an empty text."""
    try:
        with mongo.errors_in_words():
            mongo.get_collection(COLLECTION).find_one({}, {"_id": 1})
    except DagsterMongoError as error:
        return f"MongoDB is not ready: {error}"
    return ""


def _history_equals_quotes(
    windows: Sequence[Window], quotes: Sequence[Quote], found: Set[Quote]
) -> dg.AssetCheckResult:
    """Compares what is stored of some windows with what the collection holds of them."""
    differing = [quote.ticker for quote in quotes if quote not in found]
    fault = (
        f"{len(differing)} of {len(quotes)} quotes are not in the collection as they are stored: "
        f"{some(differing)}. Materialize `mongo_price_history` again."
    )
    return verdict(
        HISTORY_EQUALS_QUOTES,
        windows,
        fault if differing else "",
        f"All {len(quotes)} quotes are in the collection.",
        ERROR,
        compared=len(quotes),
        differing=len(differing),
    )


def _describe(
    context: dg.AssetExecutionContext, windows: Sequence[Window], rows: Sequence[Quote]
) -> None:
    """Says of each window what it holds; the I/O manager adds what it wrote."""
    grouped, none = by_window(rows), "`quotes` has no price for it"
    ran = tell_filled(
        context, {window: none for window in windows if not grouped[window]}, len(windows)
    )
    for window in windows:
        held = contents(len(grouped[window]), "documents", none)
        described = {**held, "query": _query(window), **ran}
        context.add_asset_metadata(described, partition_key=window.key)


def _collection(mongo: MongoResource) -> Documents:
    # A secondary may not have yet what has just been written.
    primary = ReadPreference.PRIMARY
    return mongo.get_collection(COLLECTION).with_options(_CODEC, read_preference=primary)


def _find(
    documents: Documents, windows: Sequence[Window]
) -> Iterator[tuple[dict[str, Any], Quote]]:
    """The documents of some windows that this pipeline wrote, and their quotes.

    One that lacks a field of a quote, or has an impossible value or another `_id`, is left out:
    another program has written it.
    """
    starts = {window.start for window in windows}
    span = {"$gte": windows[0].start, "$lte": windows[-1].start}
    for each in documents.find({"window_start": span}):
        with suppress(ValidationError):
            (quote,) = ROWS.validate_python([each])
            if quote.window_start in starts and key_ids([each], KEY) == [each["_id"]]:
                yield each, quote


def _rank_others(documents: Documents, windows: Sequence[Window], rows: Iterable[Quote]) -> None:
    """Corrects the ranks of the documents that rows may replace: older versions had others.

    Removes it from a document of a window of another length that is to be replaced.
    """
    stored = {(quote.ticker, quote.window_start): quote for quote in rows}
    changes = []
    for each, there in _find(documents, windows):
        row = stored.get((there.ticker, there.window_start))
        if row and row.window_end != there.window_end and merge([there], [row]) == [row]:
            change = {"$unset": {RANK: ""}}
        elif row and each.get(RANK) != there.rank:
            change = {"$set": {RANK: there.rank}}
        else:
            continue
        same = {"_id": each["_id"], "observed_at": each["observed_at"], RANK: each.get(RANK)}
        changes.append(UpdateOne(same, change))
    if changes:
        documents.bulk_write(changes, ordered=False)


def _remove_replaced(documents: Documents, windows: Sequence[Window]) -> set[Quote]:
    """Removes documents of replaced symbols; returns the quotes of the others."""
    found = {quote: each for each, quote in _find(documents, windows)}
    kept = {*merge(found)}
    replaced = [
        DeleteOne({"_id": found[quote]["_id"], RANK: found[quote].get(RANK)})
        for quote in found.keys() - kept
    ]
    if replaced:
        documents.bulk_write(replaced, ordered=False)
    return kept


def _query(window: Window) -> dg.MarkdownMetadataValue:
    """What to type into `mongosh` to see the documents of a window."""
    start = f"ISODate('{window.start:%Y-%m-%dT%H:%M:%SZ}')"
    return dg.MetadataValue.md(f"`db.{COLLECTION}.find({{window_start: {start}}})`")
