"""What fetches take of memory at the most, each with 24 answers at the same time.

    python -m market_data_pipeline_tests.brapi.peaks WHAT=ADDRESS …

WHAT is `quotes` (of 24 tickers, on the free plan), `batches` (of 24 times 20) or `history` (the
same, a month of bars). Prints the peak of the process during each, in MiB.
"""

import re
import sys
from datetime import date
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase

from market_data_pipeline.brapi import client
from market_data_pipeline.brapi.request_queue import MAX_OPEN_REQUESTS
from market_data_pipeline.brapi.resource import BrapiResource
from market_data_pipeline.market.windows import TradingWindows

WINDOW = TradingWindows().from_key("2026-11-17T14:30-0300")
MONTH = date(2026, 10, 16), date(2026, 11, 16)


def fetch(what: str, address: str) -> None:
    """Asks once for everything; what fails is of no interest here."""
    plan, batch = ("free", 1) if what == "quotes" else ("pro", 20)
    names = islice(product(ascii_uppercase, repeat=4), MAX_OPEN_REQUESTS * batch)
    tickers = ["".join(letters) + "3" for letters in names]
    brapi = BrapiResource(
        base_url=address,
        token="token-of-the-peaks",
        plan=plan,
        min_interval_seconds=0,
        request_timeout_seconds=120,
    )
    with brapi.client() as asking:
        if what == "history":
            asking.history(tickers, MONTH, WINDOW.day, 30, lambda progress: None)
        else:
            asking.quotes(tickers, WINDOW, lambda progress: None)


if __name__ == "__main__":
    client.MAX_ATTEMPTS, client.FAILURES_OF_A_BREAKDOWN = 1, 1_000
    for argument in sys.argv[1:]:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        fetch(*argument.split("=", 1))
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        assert peak
        sys.stdout.write(f"{int(peak[1]) // 1024}\n")
