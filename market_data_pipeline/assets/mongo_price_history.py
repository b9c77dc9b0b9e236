"""The history of all quotes, for audit: one document for each instrument and window."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from bson import CodecOptions
from dagster_mongo import MongoResource
from pymongo import IndexModel, ReplaceOne, WriteConcern
from pymongo.collection import Collection

from market_data_pipeline.asset_keys import HISTORY, QUOTES
from market_data_pipeline.assets.checks import (
    HISTORY_EQUALS_QUOTES,
    history_equals_quotes,
    showing_the_newest,
)
from market_data_pipeline.assets.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.assets.filling import HOLDS, holds, tell_filled
from market_data_pipeline.assets.metadata import column_schema
from market_data_pipeline.quote import Quote, as_row, by_window, from_row, merge
from market_data_pipeline.quote_store import QuoteStore
from market_data_pipeline.windows import Window

COLLECTION = "price_history"
INDEXES = [
    IndexModel([("ticker", 1), ("window_start", -1)]),
    IndexModel([("updated_at", -1)]),
    IndexModel([("window_start", 1)]),
]
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)

Documents = Collection[dict[str, Any]]


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
    context: dg.AssetExecutionContext, quote_store: QuoteStore, mongo: MongoResource
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
            documents.create_indexes(INDEXES)
            there = _find(documents, windows)
            kept = merge(there, rows)
            _write(documents, set(kept) & set(rows), there, context.run.run_id)
            _delete(documents, {*map(document_id, there)} - {*map(document_id, kept)})
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
    with showing_the_newest(context.instance, windows[-1], [HISTORY_EQUALS_QUOTES]):
        yield dg.MaterializeResult(
            check_results=[history_equals_quotes(windows, rows, found)],
        )


def document_id(quote: Quote) -> str:
    """`PETR4|2026-11-23T13:00:00Z`: the ticker, and the start of the window in UTC."""
    return f"{quote.ticker}|{quote.window_start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def record_acceptance(mongo: MongoResource, rows: Iterable[Quote]) -> None:
    """Marks the documents of accepted prices as accepted; it creates no document.

    Raises:
        DagsterMongoError: the collection cannot be written to.
    """
    with mongo.errors_in_words():
        documents = _collection(mongo)
        for quote in rows:
            if quote.decision == "accepted":
                same = {"_id": document_id(quote), "observed_at": quote.observed_at}
                documents.update_one(same, {"$set": {"decision": "accepted"}})


def _collection(mongo: MongoResource) -> Documents:
    return mongo.get_collection(COLLECTION).with_options(
        codec_options=_CODEC, write_concern=WriteConcern("majority")
    )


def _find(documents: Documents, windows: Sequence[Window]) -> dict[Quote, datetime]:
    """The documents of some windows as quotes, with the moment of their creation."""
    starts = {window.start for window in windows}
    span = {"$gte": windows[0].start, "$lte": windows[-1].start}
    found = documents.find({"window_start": span})
    ours = (each for each in found if "requested_ticker" in each)
    return {from_row(each): each["created_at"] for each in ours if each["window_start"] in starts}


def _write(
    documents: Documents, quotes: Iterable[Quote], there: Mapping[Quote, datetime], run_id: str
) -> None:
    now = datetime.now(UTC)
    created = {document_id(quote): instant for quote, instant in there.items()}
    writes = []
    for quote in quotes:
        key = document_id(quote)
        document = {"_id": key, **as_row(quote), "created_at": created.get(key, now)}
        writes.append(ReplaceOne({"_id": key}, {**document, "run_id": run_id}, upsert=True))
    if writes:
        documents.bulk_write(writes, ordered=False)


def _delete(documents: Documents, ids: Iterable[str]) -> None:
    """Removes what another row of the same instrument and window has replaced."""
    if superseded := sorted(ids):
        documents.delete_many({"_id": {"$in": superseded}})


def _query(window: Window) -> dg.MarkdownMetadataValue:
    """What to type into `mongosh` to see the documents of a window."""
    start = f"ISODate('{window.start:%Y-%m-%dT%H:%M:%SZ}')"
    return dg.MetadataValue.md(f"`db.{COLLECTION}.find({{window_start: {start}}})`")
