"""What fetches take of memory at the most.

    python -m market_data_pipeline_tests.brapi.peaks PLAN REQUESTS ADDRESS …

Sends so many requests at the same time to each address, one after the other: for quotes on the
plan `free`, for a month of bars on `pro`. Prints the peak of the process during each, in MiB.
"""

import re
import sys
from datetime import date
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase

from market_data_pipeline.brapi import client
from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.plans import PLANS
from market_data_pipeline.market.windows import TradingWindows
from market_data_pipeline.settings import Settings

WINDOW = TradingWindows().from_key("2026-11-17T14:30-0300")
MONTH = date(2026, 10, 16), date(2026, 11, 16)


def fetch(plan: str, requests: int, address: str) -> None:
    """Asks once for everything; what fails is of no interest here."""
    letters = islice(product(ascii_uppercase, repeat=4), requests * PLANS[plan].tickers_per_request)
    tickers = ["".join(four) + "3" for four in letters]
    brapi = Brapi(
        Settings(
            brapi_base_url=address,
            brapi_token="token-of-the-peaks",
            brapi_plan=plan,
            brapi_min_interval_seconds=0,
            brapi_timeout_seconds=120,
        )
    )
    with brapi.client() as asking:
        if plan == "free":
            asking.quotes(tickers, WINDOW)
        else:
            asking.history(tickers, MONTH, WINDOW.day, 30)


if __name__ == "__main__":
    client.MAX_ATTEMPTS, client.FAILURES_OF_A_BREAKDOWN = 1, 1_000
    for each in sys.argv[3:]:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        fetch(sys.argv[1], int(sys.argv[2]), each)
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        assert peak
        sys.stdout.write(f"{int(peak[1]) // 1024}\n")
