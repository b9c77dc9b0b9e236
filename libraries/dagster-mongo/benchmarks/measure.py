"""Measures the library beside plain pymongo on a server: `python benchmarks/measure.py URI`.

The contestants take turns, and each time is the median of several. The ratio is to plain pymongo's
time: above 1 is slower. "raw" only receives the bytes: no load on one connection can be faster. CPU
is what this process computes; the rest is the server's. With another version of the library first
in PYTHONPATH, that one is measured.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
from bson import Decimal128
from pymongo import MongoClient, ReplaceOne
from pymongo.collection import Collection

from dagster_mongo import MongoPandasIOManager, MongoPolarsIOManager, MongoResource

DATABASE = "dagster_mongo_benchmark"
Rows = list[dict[str, Any]]


def scalar(rows: int) -> pd.DataFrame:
    """Ten columns: text, numbers, dates with a zone, and nulls in two of them."""
    number = np.arange(rows)
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(number, unit="s")
    return pd.DataFrame(
        {
            "_id": [f"{i:08}" for i in number],
            "day": "new",
            "name": [f"a paper with a name of some length {i % 50}" for i in number],
            "price": number / 7,
            "change": np.where(number % 10 == 0, np.nan, number / 3),
            "volume": number * 1000,
            "trades": pd.Series(number, dtype="Int64").mask(number % 5 == 0),
            "live": number % 2 == 0,
            "window_start": at,
            "updated_at": at + pd.Timedelta("1ms"),
        }
    )


def decimals(rows: int) -> pd.DataFrame:
    """Two decimals beside three scalars."""
    frame = scalar(rows)[["_id", "name", "volume"]]
    cents = [Decimal(i) / 100 for i in range(rows)]
    return frame.assign(price=cents, change=[-value for value in cents])


def nested(rows: int) -> pd.DataFrame:
    """A list and a dict beside three scalars."""
    frame = scalar(rows)[["_id", "name", "volume"]]
    lists = [[f"tag {i % 7}", "b", "c"] for i in range(rows)]
    return frame.assign(tags=lists, deep=[{"n": i, "in": {"x": i / 3}} for i in range(rows)])


FRAMES = {"scalar": scalar, "decimals": decimals, "nested": nested}


def records(frame: pd.DataFrame) -> Rows:
    """As one does it by hand; pymongo takes no NaT, no NA and no Decimal."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [
        {str(k): Decimal128(v) if isinstance(v, Decimal) else v for k, v in record.items()}
        for record in plain.to_dict("records")
    ]


class Plain:
    """What one writes by hand with pymongo and pandas."""

    def __init__(self, uri: str, name: str) -> None:
        self.collection: Collection[Any] = MongoClient(uri)[DATABASE][name]

    def prepare(self) -> None:
        """What is done before the time counts."""

    def given(self, frame: pd.DataFrame) -> Any:
        """What is stored."""
        return frame

    def store(self, frame: pd.DataFrame) -> None:
        writes = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in records(frame)]
        self.collection.bulk_write(writes, ordered=False)

    def load(self) -> object:
        return pd.DataFrame(list(self.collection.find()))


class Anew(Plain):
    """Delete everything, and insert it again."""

    def store(self, frame: pd.DataFrame) -> None:
        self.collection.delete_many({})
        self.collection.insert_many(records(frame), ordered=False)

    def load(self) -> object:
        return list(self.collection.find())


class Raw(Plain):
    def load(self) -> object:
        return sum(map(len, self.collection.find_raw_batches()))


class Arrow(Plain):
    """PyMongoArrow, with a schema as it recommends; only where it is installed."""

    def load(self) -> object:
        import pyarrow as pa
        from pymongoarrow.api import Schema, find_pandas_all
        from pymongoarrow.types import Decimal128Type

        at, text, number = pa.timestamp("ms"), pa.string(), pa.int64()
        deep = pa.struct([("n", number), ("in", pa.struct([("x", pa.float64())]))])
        price = Decimal128Type() if "decimals" in self.collection.name else float
        known = {"_id": text, "day": text, "name": text, "price": price, "change": price}
        known |= {"volume": number, "trades": number, "live": pa.bool_(), "window_start": at}
        known |= {"updated_at": at, "tags": pa.list_(text), "deep": deep}
        first = self.collection.find_one() or {}
        schema = Schema({name: kind for name, kind in known.items() if name in first})
        return find_pandas_all(self.collection, {}, schema=schema)


class Library(Plain):
    """The I/O manager as a run calls it, without the time of a run."""

    kind: Any = MongoPandasIOManager

    def __init__(self, uri: str, name: str) -> None:
        self.manager = self.kind(mongo=MongoResource(uri=uri, database=DATABASE))
        self.collection = self.manager.mongo.get_collection(name)
        self.metadata = {"mongo/collection": name, "mongo/mode": "upsert", "mongo/key": ["_id"]}

    def prepare(self) -> None:
        """Make the contexts anew, which takes a tenth of a second."""
        self.output = dg.build_output_context(
            asset_key="prices", definition_metadata=self.metadata, run_id="run"
        )
        self.input = dg.build_input_context(asset_key="prices", upstream_output=self.output)

    def store(self, frame: Any) -> None:
        self.manager.handle_output(self.output, frame)

    def load(self) -> object:
        return self.manager.load_input(self.input)


class PolarsLibrary(Library):
    kind = MongoPolarsIOManager

    def given(self, frame: pd.DataFrame) -> Any:
        missing = frame.astype(object).where(frame.notna(), None)
        return pl.DataFrame(missing.to_dict("list"), strict=False)


CONTESTANTS: dict[str, type[Plain]] = {
    "plain": Plain,
    "anew": Anew,
    "pandas": Library,
    "polars": PolarsLibrary,
    "raw": Raw,
    **({"pymongoarrow": Arrow} if find_spec("pymongoarrow") else {}),
}
STORES = {"plain", "anew", "pandas", "polars"}


def measured(act: Callable[[], object]) -> tuple[float, float]:
    """The seconds of an action, and how many of them this process computes."""
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(uri: str, kind: str, rows: int, rounds: int) -> None:
    frame = FRAMES[kind](rows)
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for _ in range(rounds):
        filled = Plain(uri, f"{kind}_{uuid4().hex}")
        filled.store(frame)
        for name, make in CONTESTANTS.items():
            of_its_own = name in STORES
            it = make(uri, f"{kind}_{uuid4().hex}" if of_its_own else filled.collection.name)
            steps: dict[str, Callable[[], object]] = {"load": it.load}
            if of_its_own:
                store = partial(it.store, it.given(frame))
                steps = {"store": store, "again": store, "load": it.load}
            for step, act in steps.items():
                it.prepare()
                taken.setdefault(step, {}).setdefault(name, []).append(measured(act))
            if of_its_own:
                it.collection.drop()
        filled.collection.drop()
    for step, times in taken.items():
        median = {
            name: [statistics.median(each) for each in zip(*of_name, strict=True)]
            for name, of_name in times.items()
        }
        for name, (wall, cpu) in median.items():
            ratio = wall / median["plain"][0], cpu / median["plain"][1]
            print(
                f"{kind:8} {step:5} {name:12} {wall:7.2f} s {ratio[0]:5.2f}"
                f"   CPU {cpu:6.2f} s {ratio[1]:5.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="mongodb:// address of a server to fill and empty again")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--columns", choices=[*FRAMES], action="append")
    arguments = parser.parse_args()
    for kind in arguments.columns or FRAMES:
        compare(arguments.uri, kind, arguments.rows, arguments.rounds)
    MongoClient[dict[str, Any]](arguments.uri).drop_database(DATABASE)


if __name__ == "__main__":
    main()
