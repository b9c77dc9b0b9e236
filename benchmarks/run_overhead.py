"""What a run costs beside its fetch: the pipeline against three empty assets, in turn.

    .venv/bin/python benchmarks/run_overhead.py [ROUNDS]

Each run is a process of its own that executes the job of one window, as a run worker does. The
sandbox answers after 150 ms and the rate is 0.5 s, as in operation.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from market_data_pipeline.clock import utc_now
from market_data_pipeline.local.kafka import embedded_kafka
from market_data_pipeline.local.mongo import embedded_mongo
from market_data_pipeline.local.sandbox import serve
from market_data_pipeline.windows import trading_windows

REPOSITORY = Path(__file__).parent.parent
FLOOR_SECONDS = 49 * 0.5 + 0.15
# After the last answer a run keeps its distance from the next run's first request: a part of the
# rate, as the fetch is.
HOLD_SECONDS = 0.5 - 0.15


def run(module: str, environment: dict[str, str]) -> tuple[float, float, float]:
    """Seconds in all, seconds of the fetch, and the peak memory in MiB of one run.

    The instance is beside QUOTES_PATH and stays: the first run of an instance asks Brapi once for
    its usage window.
    """
    home = str(Path(environment["QUOTES_PATH"]).with_name(f"instance-of-{module}"))
    if not Path(home).exists():
        Path(home).mkdir(parents=True)
        Path(home, "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    window = trading_windows().last_ended(utc_now())
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", module]
    command += ["-j", "market_data_job", "--tags", json.dumps({"dagster/partition": window.key})]
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | environment | {"DAGSTER_HOME": home},
            stdout=output,
            stderr=output,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        output.seek(0)
        if status:
            sys.exit(output.read())
        return seconds, fetch_seconds(home), usage.ru_maxrss / 1024


def fetch_seconds(home: str) -> float:
    """How long the run took to fetch, by its own account; 0 for one that fetched nothing."""
    with dg.DagsterInstance.from_config(home) as instance:
        records = instance.fetch_materializations(dg.AssetKey("quotes"), limit=1).records
    if not records or records[0].asset_materialization is None:
        return 0.0
    return float(records[0].asset_materialization.metadata["fetch_seconds"].value)


def main() -> None:
    """Prints a table of medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    results: dict[str, list[tuple[float, float, float]]] = {"pipeline": [], "empty": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(latency=0.15) as sandbox,
        embedded_kafka() as bootstrap_servers,
        embedded_mongo(Path(folder)) as mongo_uri,
    ):
        environment = {
            "BRAPI_BASE_URL": sandbox.url,
            "BRAPI_TOKEN": "sandbox",
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "MONGO_URI": mongo_uri,
            "QUOTES_PATH": f"{folder}/quotes",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        run("market_data_pipeline.definitions", environment)  # not counted
        for _ in range(rounds):
            results["empty"].append(run("empty", environment))
            results["pipeline"].append(run("market_data_pipeline.definitions", environment))
    rest = {
        name: [seconds - (fetch and fetch + HOLD_SECONDS) for seconds, fetch, _ in runs]
        for name, runs in results.items()
    }
    ratios = [ours / empty for ours, empty in zip(rest["pipeline"], rest["empty"], strict=True)]
    fetch = statistics.median(fetch for _, fetch, _ in results["pipeline"])
    print(f"fetch of 50 tickers: {fetch:.2f} s, {fetch / FLOOR_SECONDS:.3f} x the floor")
    for name, runs in results.items():
        memory = statistics.median(memory for _, _, memory in runs)
        print(
            f"{name:9} without the fetch: {statistics.median(rest[name]):.2f} s, {memory:.0f} MiB"
        )
    print(f"pipeline / empty, pair by pair: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
