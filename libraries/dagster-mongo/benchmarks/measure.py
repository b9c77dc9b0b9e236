"""Measures the library beside plain pymongo on a server: `python benchmarks/measure.py URI`.

Each time is the median of several, and the contestants take turns; a rate is followed by its
ratio to plain pymongo's, and so is the time that the client computes. "raw" only receives the
bytes: no load on one connection can be faster. Memory is the peak of a process of its own above
what it had before it began (Linux). With another version of the library before it in PYTHONPATH,
that one is measured.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import pandas as pd
from pymongo import MongoClient, ReplaceOne
from pymongo.collection import Collection

from dagster_mongo import MongoPandasIOManager, MongoResource

DATABASE = "dagster_mongo_benchmark"
DAYS = dg.StaticPartitionsDefinition(["old", "new"])
NEW = dg.PartitionKeyRange("new", "new")


def frame(rows: int, day: str = "new", first: int = 0) -> pd.DataFrame:
    """Ten columns: text, numbers, dates with a zone, and nulls in two of them."""
    number = np.arange(first, first + rows)
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(number, unit="s")
    return pd.DataFrame(
        {
            "_id": [f"{i:08}" for i in number],
            "day": day,
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


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """As one does it by hand; pymongo takes no NaT and no NA."""
    plain = rows.astype(object).where(rows.notna(), None)
    return [{str(k): v for k, v in record.items()} for record in plain.to_dict("records")]


class Plain:
    """What one writes by hand with pymongo and pandas."""

    def __init__(self, uri: str, name: str) -> None:
        self.collection: Collection[Any] = MongoClient(uri)[DATABASE][name]

    def storing(self, rows: pd.DataFrame) -> Callable[[], object]:
        def store() -> None:
            writes = [ReplaceOne({"_id": r["_id"]}, r, upsert=True) for r in records(rows)]
            self.collection.bulk_write(writes, ordered=False)

        return store

    def loading(self) -> Callable[[], object]:
        return lambda: pd.DataFrame(list(self.collection.find()))


class Raw(Plain):
    """The floor of a load: receive the batches, and do nothing with them."""

    def loading(self) -> Callable[[], object]:
        return lambda: sum(map(len, self.collection.find_raw_batches()))


class Arrow(Plain):
    """PyMongoArrow, with a schema as it recommends; only where it is installed."""

    def loading(self) -> Callable[[], object]:
        import pyarrow as pa
        from pymongoarrow.api import Schema, find_pandas_all

        at, text = pa.timestamp("ms"), pa.string()
        schema = {"_id": text, "day": text, "name": text, "price": float, "change": float}
        schema |= {"volume": pa.int64(), "trades": pa.int64(), "live": pa.bool_()}
        known = Schema({**schema, "window_start": at, "updated_at": at})
        return lambda: find_pandas_all(self.collection, {}, schema=known)


class Library:
    """The I/O manager as a run calls it, without the time of a run."""

    manager_type: Any = MongoPandasIOManager

    def __init__(self, uri: str, name: str) -> None:
        self.manager = self.manager_type(mongo=MongoResource(uri=uri, database=DATABASE))
        self.collection = self.manager.mongo.get_collection(name)
        self.metadata: dict[str, Any] = {"mongo/collection": name, "mongo/key": ["_id"]}
        self.metadata["mongo/mode"] = "upsert"

    def _output(self, **partition: Any) -> dg.OutputContext:
        return dg.build_output_context(
            asset_key="prices", definition_metadata=self.metadata, run_id="run", **partition
        )

    def storing(self, rows: pd.DataFrame, **partition: Any) -> Callable[[], object]:
        context = self._output(**partition)
        return lambda: self.manager.handle_output(context, rows)

    def loading(self) -> Callable[[], object]:
        context = dg.build_input_context(asset_key="prices", upstream_output=self._output())
        return lambda: self.manager.load_input(context)


class PolarsLibrary(Library):
    @property
    def manager_type(self) -> Any:
        from dagster_mongo import MongoPolarsIOManager

        return MongoPolarsIOManager

    def storing(self, rows: pd.DataFrame, **partition: Any) -> Callable[[], object]:
        import polars as pl

        return super().storing(pl.from_pandas(rows), **partition)


CONTESTANTS: dict[str, Callable[[str, str], Plain | Library]] = {
    "plain": Plain,
    "raw": Raw,
    "pymongoarrow": Arrow,
    "library": Library,
    "polars": PolarsLibrary,
}
IN_EVERY_STEP = ("plain", "library")


def contestants() -> list[str]:
    """Those whose libraries are installed."""
    needs = {"pymongoarrow": "pymongoarrow", "polars": "polars"}
    return [n for n in CONTESTANTS if n not in needs or find_spec(needs[n])]


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def wall_and_cpu(act: Callable[[], object]) -> tuple[float, float]:
    """What an action takes, and how much of it this process computes; the rest is the server's."""
    before = time.process_time()
    return seconds(act), time.process_time() - before


def compare_times(uri: str, rows: int, rounds: int) -> None:
    data = frame(rows)
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {"store": {}, "load": {}, "again": {}}
    for _ in range(rounds):
        shared = uuid4().hex
        for name in contestants():
            storing = name in (*IN_EVERY_STEP, "polars")
            mongo = CONTESTANTS[name](uri, uuid4().hex if storing else shared)
            if storing or name == "raw":
                taken["store"].setdefault(name, []).append(wall_and_cpu(mongo.storing(data)))
            taken["load"].setdefault(name, []).append(wall_and_cpu(mongo.loading()))
            if storing:
                taken["again"].setdefault(name, []).append(wall_and_cpu(mongo.storing(data)))
                mongo.collection.drop()
        Plain(uri, shared).collection.drop()
    for step, times in taken.items():
        median = {
            name: [statistics.median(kind) for kind in zip(*each, strict=True)]
            for name, each in times.items()
        }
        for name, (wall, cpu) in median.items():
            if step == "load" or name != "raw":
                ratio, of_cpu = (median["plain"][i] / value for i, value in enumerate((wall, cpu)))
                print(
                    f"{step:6} {name:13} {wall:6.2f} s {rows / wall:9,.0f} rows/s {ratio:5.2f}"
                    f"   CPU of the client {cpu:5.2f} s {of_cpu:5.2f}"
                )


def peak() -> int:
    """The most KiB that this process ever had. getrusage would tell of its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def compare_memory(uri: str, rows: int) -> None:
    name = uuid4().hex
    stored = Library(uri, name)
    stored.storing(frame(rows))()
    for step in ("store", "load"):
        for contestant in IN_EVERY_STEP:
            command = [sys.executable, __file__, uri, "--rows", str(rows)]
            command += ["--spend", contestant, step, name]
            spent = subprocess.run(command, check=True, capture_output=True).stdout.decode()
            print(f"{step:6} {contestant:13} {spent.strip()} MiB at the peak")
    stored.collection.drop()


def spend(uri: str, rows: int, contestant: str, step: str, name: str) -> None:
    warm = Library(uri, "warm_up")
    warm.storing(frame(0))()  # imports what is only imported when it is needed
    warm.loading()()
    mongo = CONTESTANTS[contestant](uri, name if step == "load" else uuid4().hex)
    act = mongo.storing(frame(rows)) if step == "store" else mongo.loading()
    before = peak()
    act()
    print((peak() - before) // 1024)


def compare_partition(uri: str, rounds: int, rows: int = 50, beside: int = 1_000_000) -> None:
    full, empty = Library(uri, uuid4().hex), Library(uri, uuid4().hex)
    for start in range(0, beside, 100_000):
        full.collection.insert_many(records(frame(100_000, "old", start)), ordered=False)
    for mode in ("upsert", "replace"):
        taken: dict[str, list[float]] = {"empty": [], "full": []}
        for number in range(rounds + 1):
            data = frame(rows, "new", 10_000_000 + number * rows)
            for name, mongo in (("empty", empty), ("full", full)):
                mongo.metadata |= {"partition_expr": "day", "mongo/mode": mode}
                mongo.collection.delete_many({"day": "new"})
                partition = {"asset_partitions_def": DAYS, "asset_partition_key_range": NEW}
                taken[name].append(seconds(mongo.storing(data, **partition)))
        median = {name: statistics.median(times[1:]) for name, times in taken.items()}
        shown = {name: f"{value * 1000:.2f} ms" for name, value in median.items()}
        print(
            f"{mode} {rows} rows of a partition beside {beside:,} documents: {shown},"
            f" {median['full'] / median['empty']:.2f} x"
        )
    full.collection.drop()
    empty.collection.drop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="mongodb:// address of a server to fill and empty again")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times-only", action="store_true")
    parser.add_argument("--spend", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.spend:
        spend(arguments.uri, arguments.rows, *arguments.spend)
        return
    compare_times(arguments.uri, arguments.rows, arguments.rounds)
    if arguments.times_only:
        return
    compare_memory(arguments.uri, arguments.rows)
    compare_partition(arguments.uri, rounds=20, beside=500_000)
    MongoClient[dict[str, Any]](arguments.uri).drop_database(DATABASE)


if __name__ == "__main__":
    main()
