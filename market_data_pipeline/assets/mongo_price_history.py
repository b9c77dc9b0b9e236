"""The history of all quotes, for audit: one document for each ticker and window."""

from collections.abc import Sequence

import dagster as dg
import pandas as pd
from dagster_mongo import MongoResource
from pydantic import Field

from market_data_pipeline.asset_keys import HISTORY, QUOTES
from market_data_pipeline.assets.common import (
    GROUP,
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    failing_clearly,
    windows_of,
)
from market_data_pipeline.assets.metadata import column_schema
from market_data_pipeline.windows import Window

COLLECTION = "price_history"
IDS_IN_ONE_QUERY = 10_000


class HistoryConfig(dg.Config):
    """How a run treats what is in the history already."""

    overwrite_live: bool = Field(
        default=False,
        description="Let a bar of the price history replace a live quote that was observed.",
    )


@dg.asset(
    key=HISTORY,
    ins={"quotes": dg.AssetIn(QUOTES)},
    partitions_def=WINDOWS.partitions,
    backfill_policy=ONE_RUN_A_RANGE,
    io_manager_key="mongo_io_manager",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"mongodb"},
    metadata={
        "dagster/column_schema": column_schema({"_id": ("str", "Ticker and start of the window")}),
        "mongo/collection": COLLECTION,
        "mongo/mode": "upsert",
        "mongo/key": ["_id"],
        "mongo/created_at": "created_at",
        "mongo/run_id": "run_id",
        "mongo/volatile": ["observed_at"],
        "mongo/indexes": [[("ticker", 1), ("window_start", -1)], [("updated_at", -1)]],
        "mongo/write_concern": "majority",
        "partition_expr": "window_start",
    },
)
def mongo_price_history(
    context: dg.AssetExecutionContext,
    config: HistoryConfig,
    quotes: pd.DataFrame,
    mongo: MongoResource,
) -> pd.DataFrame:
    """Every quote as a document of the collection `price_history`.

    Materializing again replaces a document and never duplicates it, and touches nothing else in
    the collection. A live quote that was observed is not replaced by a bar of the price history:
    what was observed is the audit.
    """
    documents = quotes.assign(_id=document_ids(quotes))
    context.add_output_metadata({"query": _query(windows_of(context))})
    if config.overwrite_live:
        return documents
    with failing_clearly():
        observed = _observed_live(mongo, documents.loc[documents["source"] != "live", "_id"])
    context.add_output_metadata({"live_quotes_kept": len(observed)})
    return documents[~documents["_id"].isin(observed)]


def _query(windows: Sequence[Window]) -> dg.MarkdownMetadataValue:
    """What to type into `mongosh` to see the documents of the windows."""
    first, last = (
        f"ISODate('{window.start:%Y-%m-%dT%H:%M:%SZ}')" for window in (windows[0], windows[-1])
    )
    return dg.MetadataValue.md(
        f"`db.{COLLECTION}.find({{window_start: {{$gte: {first}, $lte: {last}}}}})`"
    )


def document_ids(quotes: pd.DataFrame) -> "pd.Series[str]":
    """`PETR4|2026-11-23T13:00:00Z`: the ticker, and the start of the window in UTC."""
    starts: pd.Series[str] = quotes["window_start"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return quotes["ticker"].str.cat(starts, sep="|")


def _observed_live(mongo: MongoResource, ids: "pd.Series[str]") -> set[str]:
    """Those of the documents that hold a live quote already."""
    if ids.empty:
        return set()
    collection = mongo.get_collection(COLLECTION)
    observed: set[str] = set()
    for first in range(0, len(ids), IDS_IN_ONE_QUERY):
        some = ids.iloc[first : first + IDS_IN_ONE_QUERY].tolist()
        found = collection.find({"_id": {"$in": some}, "source": "live"}, {"_id": True})
        observed.update(document["_id"] for document in found)
    return observed
