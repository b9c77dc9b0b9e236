"""What the benchmarks run against: a sandbox of Brapi, and embedded stand-ins for both servers."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from market_data_pipeline_dev.kafka import embedded_kafka
from market_data_pipeline_dev.mongo import embedded_mongo

REPOSITORY = Path(__file__).parent.parent
ANSWER, INTERVAL = 0.15, 0.5


@contextmanager
def sandbox(plan: str, latency: float, more: Iterable[str] = ()) -> Iterator[str]:
    """The address of a sandbox that answers after so many seconds, in a process of its own.

    It knows `more` tickers than those of its own list.
    """
    command = [sys.executable, "-m", "brapi_sandbox", "--port", "0"]
    command += ["--plan", plan, "--latency", str(latency), "--tickers", ",".join(more)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@contextmanager
def stand_ins(folder: Path, brapi: str, plan: str) -> Iterator[dict[str, str]]:
    """The settings of a pipeline that asks the sandbox at an address."""
    with embedded_kafka() as bootstrap_servers, embedded_mongo(folder) as mongo_uri:
        yield {
            "BRAPI_BASE_URL": brapi,
            "BRAPI_TOKEN": "benchmark",
            "BRAPI_PLAN": plan,
            "BRAPI_MIN_INTERVAL_SECONDS": str(INTERVAL),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_UPDATED_AT_FORMAT": "epoch",
            "MONGO_URI": mongo_uri,
            "PUBLISH_MADE_UP_PRICES": "true",
            "QUOTES_PATH": f"{folder}/quotes",
        }
