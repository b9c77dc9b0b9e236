"""What the fetch of 50 quotes takes beside the least that the rate allows.

    .venv/bin/python -m benchmarks.fetch [ROUNDS]

The floor is (requests - 1) intervals and one answer. The sandbox serves from a process of its own,
so that it takes no time of the client's.
"""

import statistics
import sys
from datetime import UTC, datetime
from time import monotonic

from benchmarks.stand_ins import INTERVAL, sandbox
from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline.settings import Settings

TOKEN = "benchmark"  # noqa: S105
ANSWERS_MS = (20, 150, 600)
TICKERS = [*load_watchlist().tickers]
WINDOW = TradingWindows().next_ending(datetime.now(UTC))


def fetch_once(address: str, plan: str) -> tuple[int, float]:
    """The requests and the seconds of one fetch."""
    settings = Settings(
        brapi_base_url=address,
        brapi_token=TOKEN,
        brapi_plan=plan,
        brapi_min_interval_seconds=INTERVAL,
    )
    started = monotonic()
    with Brapi(settings).client() as client:
        found = client.quotes(TICKERS, WINDOW)
    assert not any(isinstance(each, str) for each in found.values()), found
    return client.requests, monotonic() - started


def main() -> None:
    """Prints one line for each plan and answer time."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    sys.stdout.write("plan  answer  requests    floor   median  of floor\n")
    for plan in ("free", "pro"):
        for answer_ms in ANSWERS_MS:
            with sandbox(plan, answer_ms / 1000) as address:
                measured = [fetch_once(address, plan) for _ in range(rounds)]
            requests = measured[0][0]
            floor = (requests - 1) * INTERVAL + answer_ms / 1000
            median = statistics.median(seconds for _, seconds in measured)
            sys.stdout.write(
                f"{plan:4}  {answer_ms:3} ms  {requests:8}  {floor:6.2f} s {median:6.2f} s  "
                f"{median / floor:7.3f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
