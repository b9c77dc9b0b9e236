"""The history of all quotes, for audit: one document for each instrument and window."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from bson import CodecOptions
from dagster_mongo import DagsterMongoError, MongoBulkWriteError, MongoResource
from dagster_mongo.indexes import ensure_indexes
from pymongo import DeleteOne, IndexModel, InsertOne, ReplaceOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, OperationFailure

from market_data_pipeline.market.quote import Quote, as_row, by_window, from_row, merge
from market_data_pipeline.market.windows import Window
from market_data_pipeline.runs.asset_keys import HISTORY, QUOTES
from market_data_pipeline.runs.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.runs.filling import HOLDS, holds, tell_filled
from market_data_pipeline.runs.tables import column_schema
from market_data_pipeline.storage.checks import HISTORY_EQUALS_QUOTES, history_equals_quotes
from market_data_pipeline.storage.quote_store import QuoteStore

COLLECTION = "price_history"
INDEXES = [
    IndexModel([("ticker", 1), ("window_start", -1)]),
    IndexModel([("updated_at", -1)]),
    IndexModel([("window_start", 1)]),
]
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)

# What a document has that this pipeline wrote.
OURS = {"requested_ticker", "observed_at", "created_at"}
MOST_ATTEMPTS = 10

Documents = Collection[dict[str, Any]]
Write = InsertOne[dict[str, Any]] | ReplaceOne[dict[str, Any]] | DeleteOne


@dg.asset(
    key=HISTORY,
    deps=[QUOTES],
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mongodb"},
    check_specs=[HISTORY_EQUALS_QUOTES],
    metadata={"dagster/column_schema": column_schema()},
)
def mongo_price_history(
    context: dg.AssetExecutionContext,
    quote_store: dg.ResourceParam[QuoteStore],
    mongo: MongoResource,
) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Every quote as a document of the collection `price_history`.

    The stored quotes are merged with the documents of their windows by the rule of `merge`, so that
    materializing again duplicates nothing, and an audit that is already there loses nothing.
    """
    windows = windows_of(context)
    with failing_clearly():
        rows = quote_store.load([window.key for window in windows])
        with mongo.errors_in_words():
            documents = _collection(mongo)
            _prepare(documents)
            rows = _store(documents, quote_store, windows, rows, context.run.run_id)
            found = [*_find(documents, windows)]
    # Other code locations have documents of the same windows.
    tickers = {quote.ticker for quote in rows}
    grouped = by_window(quote for quote in found if quote.ticker in tickers)
    none = "`quotes` has no price for it"
    empty = {window: none for window in windows if not grouped[window]}
    ran = {
        **tell_filled(context, empty, len(windows)),
        "collection": f"{mongo.database}.{COLLECTION}",
        "rows_in_run": len(rows),
        "windows_in_run": len(windows),
    }
    for window in windows:
        count = len(grouped[window])
        described = {
            HOLDS: holds(count, "documents", none),
            "dagster/partition_row_count": count,
            "rows": count,
            "query": _query(window),
            **ran,
        }
        context.add_asset_metadata(described, partition_key=window.key)
    yield dg.MaterializeResult(
        check_results=[history_equals_quotes(windows, rows, found)],
    )


class MongoService:
    """The database, as a run finds it before it has to write."""

    def __init__(self, mongo: MongoResource) -> None:
        self._mongo = mongo

    def trouble(self) -> str:
        """Why nothing can be written now; empty if it can."""
        try:
            with self._mongo.errors_in_words():
                self._mongo.get_collection(COLLECTION).find_one({}, {"_id": 1})
        except DagsterMongoError as error:
            return f"MongoDB is not ready: {error}"
        return ""


def document_id(quote: Quote) -> str:
    """`PETR4|2026-11-23T13:00:00Z`: the ticker, and the start of the window in UTC."""
    return f"{quote.ticker}|{quote.window_start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _collection(mongo: MongoResource) -> Documents:
    """The collection; a majority confirms each write, unless the address says otherwise."""
    documents = mongo.get_collection(COLLECTION)
    concern = WriteConcern(**{"w": "majority", **documents.write_concern.document})
    return documents.with_options(codec_options=_CODEC, write_concern=concern)


def _prepare(documents: Documents) -> None:
    """Creates the indexes that are missing, whatever the names of those that are there.

    Raises:
        dg.Failure: an index of another program leaves no room for a second window of a ticker.
    """
    with suppress(OperationFailure):  # no right to see them
        for index in documents.list_indexes():
            if index.get("unique") and "window_start" not in index["key"]:
                name = index["name"]
                raise dg.Failure(
                    f"The unique index {name} of {documents.name} leaves no room for a second "
                    f'window: drop it with db.{documents.name}.dropIndex("{name}") and run again.',
                    allow_retries=False,
                )
    if refused := ensure_indexes(documents, INDEXES, None):
        dg.get_dagster_logger().warning(
            f"Indexes of {documents.name} that are not made, as the server refuses it: "
            f"{', '.join(refused)}. The prices are written all the same."
        )


def _find(documents: Documents, windows: Sequence[Window]) -> dict[Quote, datetime]:
    """The documents of some windows as quotes, with the moment of their creation."""
    starts = {window.start for window in windows}
    span = {"$gte": windows[0].start, "$lte": windows[-1].start}
    found = documents.find({"window_start": span})
    ours = (each for each in found if each.keys() >= OURS)
    return {from_row(each): each["created_at"] for each in ours if each["window_start"] in starts}


def _store(
    documents: Documents,
    store: QuoteStore,
    windows: Sequence[Window],
    rows: list[Quote],
    run_id: str,
) -> list[Quote]:
    """Merges the rows of some windows into the collection, and returns what is stored of them then.

    Another run, or an operator who accepts a price, may write at the same time, into the files and
    then into the collection. So a document is replaced only if it is still the one that was merged,
    and all is done anew if it was not, or if the files have changed.
    """
    for _ in range(MOST_ATTEMPTS):
        done = _merge_into(documents, windows, rows, run_id)
        read, rows = rows, store.load([window.key for window in windows])
        if done and rows == read:
            break
    return rows


def _merge_into(
    documents: Documents, windows: Sequence[Window], rows: Sequence[Quote], run_id: str
) -> bool:
    """Whether no document was changed by another since it was read."""
    there, now = _find(documents, windows), datetime.now(UTC)
    kept = merge(there, rows)
    by_id = {document_id(quote): quote for quote in there}
    writes: list[Write] = []
    for quote in set(kept) & set(rows):
        key = document_id(quote)
        old = by_id.get(key)
        created = there[old] if old else now
        document = {"_id": key, **as_row(quote), "created_at": created, "run_id": run_id}
        writes.append(ReplaceOne(_as_read(old), document) if old else InsertOne(document))
    for key in by_id.keys() - {document_id(quote) for quote in kept}:
        writes.append(DeleteOne(_as_read(by_id[key])))  # another symbol has replaced it
    return not writes or _write(documents, writes)


def _write(documents: Documents, writes: Sequence[Write]) -> bool:
    """Whether each of the writes has found its document as it was read, or none."""
    try:
        result = documents.bulk_write(writes, ordered=False)
    except BulkWriteError as error:
        refusal = MongoBulkWriteError(documents.name, error.details)
        if not refusal.failures or not refusal.is_of_other_writers:
            raise refusal from None
        return False
    return result.matched_count + result.inserted_count + result.deleted_count == len(writes)


def _as_read(quote: Quote) -> dict[str, Any]:
    """Finds the document of a quote, unless it has been observed or decided about anew."""
    # Documents of older versions have no decision.
    decision = {"$in": [quote.decision, None]}
    return {"_id": document_id(quote), "observed_at": quote.observed_at, "decision": decision}


def _query(window: Window) -> dg.MarkdownMetadataValue:
    """What to type into `mongosh` to see the documents of a window."""
    start = f"ISODate('{window.start:%Y-%m-%dT%H:%M:%SZ}')"
    return dg.MetadataValue.md(f"`db.{COLLECTION}.find({{window_start: {start}}})`")
