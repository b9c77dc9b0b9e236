"""The command `brapi-sandbox`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from brapi_sandbox.market import Market
from brapi_sandbox.rules import PLANS
from brapi_sandbox.sandbox import Sandbox, listen, make_server
from brapi_sandbox.version import SERVER

Number = TypeVar("Number", int, float)


def main() -> int:
    """Serves a sandbox until SIGTERM or SIGINT ends it (0), or says why it cannot (1)."""
    options = _parser().parse_args()
    tickers = [ticker.strip().upper() for ticker in options.tickers.split(",")]
    sandbox = Sandbox(
        plan=options.plan,
        token=options.token,
        remaining=options.remaining,
        usage_window=options.usage_window,
        latency=options.latency,
        legacy=options.legacy,
        market=Market(filter(None, tickers)),
    )
    try:
        listener = listen(sandbox, options.port)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        sys.stderr.write(f"Port {options.port} cannot be used ({reason}): choose another --port.\n")
        return 1
    # The server shuts down in good order on both signals, and then raises the one that came.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with listener, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"brapi-sandbox, made-up prices: {sandbox.url}\n")
        sys.stdout.flush()
        make_server(sandbox).run([listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brapi-sandbox",
        description="The Brapi API on this machine, with made-up prices and faults on demand.",
    )
    add = parser.add_argument
    add("--port", type=_within(int, 0, 65535), default=8790, help="0 for a free one (8790)")
    add("--plan", choices=PLANS, default="free", help="what the token may do (free)")
    add("--token", help="the one token that is accepted (any)")
    add("--remaining", type=_within(int, 0), help="requests left of the quota (the plan's)")
    add(
        "--usage-window",
        choices=["billing-cycle", "rolling-30d"],
        default="billing-cycle",
        help="what the quota is counted over (billing-cycle)",
    )
    add("--latency", type=_within(float, 0), default=0.0, help="seconds to every answer (0)")
    add("--tickers", default="", help="more tickers to know, with commas between")
    add("--legacy", action="store_true", help="answer in the older forms of the API")
    add("--version", action="version", version=SERVER)
    return parser


def _within(
    kind: Callable[[str], Number], least: int, most: float = float("inf")
) -> Callable[[str], Number]:
    def number(text: str) -> Number:
        value = kind(text)
        if not least <= value <= most:
            raise ValueError
        return value

    number.__name__ = "number"  # in argparse's message
    return number


if __name__ == "__main__":
    sys.exit(main())
