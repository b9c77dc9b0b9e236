"""What a run costs beside its fetch: the pipeline against three empty assets, in turn.

    .venv/bin/python -m benchmarks.run_overhead [ROUNDS]

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
from typing import NamedTuple

import dagster as dg
from brapi_sandbox.sandbox import serve

from market_data_pipeline.clock import utc_now
from market_data_pipeline.windows import trading_windows
from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo

REPOSITORY = Path(__file__).parent.parent
FLOOR_SECONDS = 49 * 0.5 + 0.15


class Figures(NamedTuple):
    """Of one run: seconds in all, of the fetch, of the two steps that follow, the peak in MiB."""

    seconds: float
    memory: float
    fetch: float = 0.0
    store: float = 0.0
    publish: float = 0.0

    @property
    def rest(self) -> float:
        """Seconds without the fetch."""
        return self.seconds - self.fetch


def run(module: str, environment: dict[str, str]) -> Figures:
    """What one run takes.

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
        return Figures(seconds, usage.ru_maxrss / 1024, *parts(home))


def parts(home: str) -> tuple[float, ...]:
    """Seconds of the fetch, the store and the publication of the last run; none if it has none."""
    with dg.DagsterInstance.from_config(home) as instance:
        records = instance.fetch_materializations(dg.AssetKey("quotes"), limit=1).records
        if not records or records[0].asset_materialization is None:
            return ()
        stats = instance.get_run_step_stats(
            records[0].run_id, ["mongo_price_history", "kafka_publication"]
        )
    fetch = records[0].asset_materialization.metadata["fetch_seconds"].value
    took = {each.step_key: (each.end_time or 0) - (each.start_time or 0) for each in stats}
    return float(fetch), took["mongo_price_history"], took["kafka_publication"]  # type: ignore[arg-type]


def main() -> None:
    """Prints a table of medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    results: dict[str, list[Figures]] = {"pipeline": [], "empty": []}
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
    ratios = [
        ours.rest / empty.rest
        for ours, empty in zip(results["pipeline"], results["empty"], strict=True)
    ]
    fetch = statistics.median(each.fetch for each in results["pipeline"])
    print(f"fetch of 50 tickers: {fetch:.2f} s, {fetch / FLOOR_SECONDS:.3f} x the floor")
    for name, runs in results.items():
        rest = statistics.median(each.rest for each in runs)
        memory = statistics.median(each.memory for each in runs)
        print(f"{name:9} without the fetch: {rest:.2f} s, {memory:.0f} MiB")
    print(f"pipeline / empty, pair by pair: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
