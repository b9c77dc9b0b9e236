"""What a range of history costs without its fetch: 50 instruments in every window, by part.

    .venv/bin/python benchmarks/history.py [WINDOWS ...]

Each size runs three times, each time in a process of its own against a fresh instance, an embedded
MongoDB and an embedded Kafka. A part whose seconds for 1,000 rows grow with the number of windows
grows faster than the range.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
from brapi_sandbox.sandbox import serve

from market_data_pipeline.brapi.answers import Bar, History
from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.definitions import ASSETS, resources
from market_data_pipeline.market.clock import utc_now
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.runs import common
from market_data_pipeline.settings import Settings
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline.storage.reading import Reading
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo

SIZES = (250, 500, 1000, 2000)
ROUNDS = 3
PEAK = "peak memory, MiB"
WINDOWS = common.WINDOWS.partitions
# The package has an asset of the module's name.
QUOTES = import_module("market_data_pipeline.quotes.asset")
OBSERVE = import_module("market_data_pipeline.brapi.observe")
HISTORY = import_module("market_data_pipeline.storage.price_history")
PARTS: dict[str, list[tuple[Any, str]]] = {
    "bars to rows": [(OBSERVE, "_observe_history")],
    "decisions": [(QUOTES, "decide"), (Reading, "last_trusted")],
    "window metadata": [(dg.AssetExecutionContext, "add_asset_metadata")],
    "Parquet store": [(QuoteStore, "save")],
    "Parquet load, three times": [(QuoteStore, "load")],
    "MongoDB store": [(HISTORY.PriceHistory, "handle_output")],
    "MongoDB load, twice": [(HISTORY, "_rank_others"), (HISTORY, "_remove_replaced")],
}


def answers(keys: Sequence[str]) -> dict[str, History]:
    """What Brapi would answer: a bar of every instrument in every window."""
    bars = tuple(
        Bar(WINDOWS.start_time_for_partition_key(key), 10 + number / 100, 100 * number)
        for number, key in enumerate(keys)
    )
    tickers, now = [*load_watchlist().tickers], utc_now()
    return {
        ticker: History(ticker, f"{ticker} S.A.", ticker, bars, "30m", now, "brapi.dev")
        for ticker in tickers
    }


def timed(name: str, function: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    """The function, with the time that it takes added up under a name."""

    @wraps(function)
    def measured(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - started

    return measured


def run(
    windows: int, sandbox_url: str, mongo_uri: str, bootstrap_servers: str, folder: str
) -> dict[str, float]:
    """The seconds of every part of one run, and its peak memory above what it began with."""
    keys = WINDOWS.get_partition_keys()[-windows - 1 : -1]
    fetch = answers(keys)
    BrapiClient.history = lambda *_: fetch  # type: ignore[method-assign]
    seconds: dict[str, float] = defaultdict(float)
    for name, functions in PARTS.items():
        for owner, attribute in functions:
            setattr(owner, attribute, timed(name, getattr(owner, attribute), seconds))
    settings = Settings(
        brapi_base_url=sandbox_url,
        brapi_token="sandbox",  # noqa: S106
        brapi_plan="pro",
        mongo_uri=mongo_uri,
        mongo_db="history_benchmark",
        kafka_bootstrap_servers=bootstrap_servers,
        kafka_topic="none",
        quotes_path=f"{folder}/quotes",
    )
    definitions = dg.Definitions(
        ASSETS,
        jobs=[dg.define_asset_job("everything")],
        resources=resources(settings),
        executor=dg.in_process_executor,
    )
    tags = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    job = definitions.resolve_job_def("everything")
    with dg.DagsterInstance.local_temp(folder) as instance:
        before, started = peak_mib(), time.perf_counter()
        job.execute_in_process(instance=instance, tags=tags)
        whole = time.perf_counter() - started
    seconds["Dagster's events, and the rest"] = whole - sum(seconds.values())
    return {**seconds, "the whole": whole, PEAK: peak_mib() - before}


def peak_mib() -> float:
    """The most memory that this process has had, in MiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(windows: int, sandbox_url: str, bootstrap_servers: str) -> dict[str, float]:
    """One run in a process of its own, against an empty database."""
    with tempfile.TemporaryDirectory() as folder, embedded_mongo(Path(folder)) as mongo_uri:
        arguments = [str(windows), sandbox_url, mongo_uri, bootstrap_servers, folder]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.history", "--run", *arguments],
            capture_output=True,
            text=True,
        )
    if process.returncode:
        sys.exit(process.stderr)
    figures: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return figures


def main(sizes: Sequence[int]) -> None:
    """Prints medians: the seconds for 1,000 rows of each part, the whole, the peak memory."""
    figures: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with serve(plan="pro") as sandbox, embedded_kafka() as bootstrap_servers:
        for _ in range(ROUNDS):
            for size in sizes:
                figures[size].append(measured(size, sandbox.url, bootstrap_servers))
    sys.stdout.write(f"Seconds for 1,000 rows; medians of {ROUNDS} runs\n")
    line("windows", [f"{size:,}" for size in sizes])
    for name in figures[sizes[0]][0]:
        medians = [statistics.median(each[name] for each in figures[size]) for size in sizes]
        if name != PEAK:
            medians = [each / size * 20 for each, size in zip(medians, sizes, strict=True)]
        line(name, [f"{each:.3g}" for each in medians])


def line(name: str, values: Sequence[str]) -> None:
    """One line of the table."""
    sys.stdout.write(f"{name:<32}" + "".join(f"{value:>10}" for value in values) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        sys.stdout.write(json.dumps(run(int(sys.argv[2]), *sys.argv[3:])) + "\n")
    else:
        main([int(argument) for argument in sys.argv[1:]] or SIZES)
