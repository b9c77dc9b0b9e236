"""Measures the library beside plain pymongo on a server: `python benchmarks/measure.py URI`.

Each time is the median of several, and the contestants take turns. Memory is the peak of a
process of its own above what it had before it began (Linux).
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
    def __init__(self, uri: str, name: str) -> None:
        self.collection: Collection[Any] = MongoClient(uri)[DATABASE][name]

    def store(self, rows: pd.DataFrame) -> None:
        writes = [ReplaceOne({"_id": r["_id"]}, r, upsert=True) for r in records(rows)]
        self.collection.bulk_write(writes, ordered=False)

    def load(self) -> pd.DataFrame:
        return pd.DataFrame(list(self.collection.find()))


class Library:
    """The I/O manager as a run calls it, without the time of a run."""

    def __init__(self, uri: str, name: str) -> None:
        self.manager = MongoPandasIOManager(mongo=MongoResource(uri=uri, database=DATABASE))
        self.collection = self.manager.mongo.get_collection(name)
        self.metadata: dict[str, Any] = {"mongo/collection": name, "mongo/key": ["_id"]}
        self.metadata["mongo/mode"] = "upsert"

    def store(self, rows: pd.DataFrame, **partition: Any) -> None:
        context = dg.build_output_context(
            asset_key="prices", definition_metadata=self.metadata, run_id="run", **partition
        )
        self.manager.handle_output(context, rows)

    def load(self) -> pd.DataFrame:
        upstream = dg.build_output_context(
            asset_key="prices", definition_metadata=self.metadata, run_id="run"
        )
        context = dg.build_input_context(asset_key="prices", upstream_output=upstream)
        return self.manager.load_input(context)


CONTESTANTS: dict[str, Callable[[str, str], Plain | Library]] = {
    "plain": Plain,
    "library": Library,
}


def seconds(act: Callable[..., object], *inputs: Any, **settings: Any) -> float:
    started = time.perf_counter()
    act(*inputs, **settings)
    return time.perf_counter() - started


def compare_times(uri: str, rows: int, rounds: int) -> None:
    data = frame(rows)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, contestant in CONTESTANTS.items():
            mongo = contestant(uri, uuid4().hex)
            mongo.collection.find_one()
            taken.setdefault(f"store {name}", []).append(seconds(mongo.store, data))
            taken.setdefault(f"load {name}", []).append(seconds(mongo.load))
            taken.setdefault(f"again {name}", []).append(seconds(mongo.store, data))
            mongo.collection.drop()
    median = {name: statistics.median(times) for name, times in taken.items()}
    for step in ("store", "load", "again"):
        plain, library = median[f"{step} plain"], median[f"{step} library"]
        print(
            f"{step}: plain {rows / plain:,.0f} rows/s, library {rows / library:,.0f} rows/s,"
            f" {plain / library:.2f} of its rate"
        )
    one = Plain(uri, uuid4().hex).collection
    loop = 10 * seconds(lambda: [one.insert_one(r) for r in records(data.iloc[: rows // 10])])
    one.drop()
    times = loop / median["store library"]
    print(f"insert_one in a loop: {rows / loop:,.0f} rows/s, library {times:.1f} times that")


def peak() -> int:
    """The most KiB that this process ever had. getrusage would tell of its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def compare_memory(uri: str, rows: int) -> None:
    name = uuid4().hex
    stored = Library(uri, name)
    stored.store(frame(rows))
    for step in ("store", "load"):
        spent = {}
        for contestant in CONTESTANTS:
            command = [sys.executable, __file__, uri, "--rows", str(rows)]
            command += ["--spend", contestant, step, name]
            spent[contestant] = float(
                subprocess.run(command, check=True, capture_output=True).stdout
            )
        ratio = spent["library"] / spent["plain"]
        print(f"{step}, peak memory in MiB: {spent}, {ratio:.2f} x")
    stored.collection.drop()


def spend(uri: str, rows: int, contestant: str, step: str, name: str) -> None:
    Library(uri, "warm_up").store(frame(0))  # imports what is only imported when it is needed
    mongo = CONTESTANTS[contestant](uri, name if step == "load" else uuid4().hex)
    data = frame(rows) if step == "store" else frame(0)
    before = peak()
    if step == "store":
        mongo.store(data)
    else:
        mongo.load()
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
                taken[name].append(seconds(mongo.store, data, **partition))
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
    parser.add_argument("--spend", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.spend:
        spend(arguments.uri, arguments.rows, *arguments.spend)
        return
    compare_times(arguments.uri, arguments.rows, arguments.rounds)
    compare_memory(arguments.uri, arguments.rows)
    compare_partition(arguments.uri, rounds=40)
    MongoClient[dict[str, Any]](arguments.uri).drop_database(DATABASE)


if __name__ == "__main__":
    main()
