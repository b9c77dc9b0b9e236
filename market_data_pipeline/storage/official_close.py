"""B3's official prices: a Parquet file for each session, and the collection."""

import re
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dagster_mongo import MongoResource, ensure_indexes
from pymongo import IndexModel, UpdateOne
from upath import UPath

from market_data_pipeline.market.b3_calendar import sessions_back
from market_data_pipeline.market.quote import SANDBOX
from market_data_pipeline.runs.common import QUOTES
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline.storage.reading import QuoteStoreError

OFFICIAL_CLOSE = dg.AssetKey([*QUOTES.path[:-1], "official_close"])
COLLECTION = "official_close"
INDEXES = [IndexModel([("ticker", 1), ("session", 1)]), IndexModel([("session", 1)])]

COLUMNS = {
    "ticker": ("string", "B3's symbol of the day"),
    "session": ("string", "Day of the session, 2026-11-23"),
    "isin": ("string", "ISIN"),
    "name": ("string", "Short name"),
    "kind": ("string", "Kind of security, and flags of the day such as ED, EB, EG"),
    "open": ("double", "First price; prices are as traded, in BRL for one unit"),
    "high": ("double", "Highest price"),
    "low": ("double", "Lowest price"),
    "average": ("double", "Average price"),
    "close": ("double", "Last price"),
    "volume": ("int64", "Shares or units traded, after-market included"),
    "volume_brl": ("double", "BRL traded, after-market included"),
    "trades": ("int64", "Trades"),
    "quote_factor": ("int64", "Units that B3 quotes the price of"),
    "distribution": ("int64", "Number that changes with each corporate action"),
    "origin": ("string", f"Host that served the file; {SANDBOX} for made-up prices"),
}
"""Type and description of each field of a record."""

Closes = dict[str, dict[str, Any]]  # B3's records in a session, by ticker


def official_closes(store: QuoteStore, day: date) -> Closes:
    """B3's records of a session by ticker; none if they are not stored, or cannot be read."""
    schema = pa.schema([pa.field(name, kind) for name, (kind, _) in COLUMNS.items()])
    try:
        content = BytesIO(_path(store, f"{day}").read_bytes())
        rows = pq.read_table(content).select(schema.names).cast(schema).to_pylist()
    except Exception:  # PyArrow has many kinds of them
        return {}
    whole = (row for row in rows if None not in row.values())
    return {row["ticker"]: row for row in whole if row["session"] == f"{day}"}


def corporate_action(store: QuoteStore, ticker: str, day: date) -> str:
    """What B3 says of a corporate action on that day, in words; empty if nothing is stored."""
    record = official_closes(store, day).get(ticker)
    if record is None:
        return ""
    before = official_closes(store, sessions_back(day, 1)).get(ticker, record)
    signs = re.findall(r"\bE[A-Z]{1,3}\b", record["kind"])
    if record["distribution"] != before["distribution"]:
        signs.append(f"distribution {record['distribution']} after {before['distribution']}")
    return f", B3 marks {', '.join(signs)} on {day}" if signs else ""


def save(store: QuoteStore, mongo: MongoResource, key: str, closes: Closes, run_id: str) -> None:
    """Keeps B3's records of a session; a document that is there keeps its `created_at`.

    Raises:
        QuoteStoreError: the file cannot be written, or the prices are made up and may not leave.
        DagsterMongoError: the documents cannot be written.
    """
    if not closes:
        return
    frame = pd.DataFrame([*closes.values()])
    if (frame["origin"] == SANDBOX).any() and not store.publish_made_up_prices:
        raise QuoteStoreError(
            "B3_HISTORY_URL serves made-up prices: unset it, or set PUBLISH_MADE_UP_PRICES=true."
        )
    store.write({_path(store, key): frame.to_parquet()})
    with mongo.errors_in_words():
        documents = mongo.get_collection(COLLECTION)
        for refused in ensure_indexes(documents, INDEXES):
            dg.get_dagster_logger().warning(f"{COLLECTION} lacks an index: {refused}.")
        now = datetime.now(UTC)
        writes = [
            UpdateOne(
                {"_id": f"{ticker}|{key}"},
                {"$set": {**record, "run_id": run_id}, "$setOnInsert": {"created_at": now}},
                upsert=True,
            )
            for ticker, record in closes.items()
        ]
        documents.bulk_write(writes, ordered=False)


def _path(store: QuoteStore, key: str) -> UPath:
    return store.folder_of(OFFICIAL_CLOSE) / f"{key}.parquet"
