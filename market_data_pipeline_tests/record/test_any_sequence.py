"""Random sequences of runs against the real stores, beside a model of what must be known.

SEQUENCES=100 in the environment tries more of them.
"""

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
from brapi_sandbox.faults import Fault
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from market_data_pipeline.market.quote import ROWS
from market_data_pipeline.market.windows import TradingWindows, Window
from market_data_pipeline_tests.conftest import (
    LIVE_ON_TUESDAY,
    TUESDAY_15_00,
    Pipeline,
    SetClock,
    SetWatchlist,
)
from market_data_pipeline_tests.history.truth import traded_in

WINDOWS = TradingWindows()
TICKERS = ("PETR4", "BBAS3")
ANSWERS = st.sampled_from([1.0, 1.0, 1.1, 0.1, 100.0, None])


@dataclass
class Known:
    """What the model knows of one instrument in one window."""

    price: float
    live: bool
    decision: str


class Model:
    """The rules, written once more: which row stays, and what is decided about it."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Window], Known] = {}
        self.published: list[tuple[str, float]] = []

    def observe(self, ticker: str, window: Window, price: float, *, live: bool) -> None:
        there = self.rows.get((ticker, window))
        if there and there.live and not live:
            return
        decision = self.decide(ticker, window, price, there)
        if there and there.live == live and there.decision != "withheld" == decision:
            return
        self.rows[ticker, window] = Known(price, live, decision)

    def decide(self, ticker: str, window: Window, price: float, there: Known | None) -> str:
        if there and there.decision == "accepted":
            return "accepted" if 0.5 <= price / there.price <= 2 else "withheld"
        before = [
            (each, known)
            for (symbol, each), known in self.rows.items()
            if symbol == ticker and each < window and known.decision != "withheld"
        ]
        if not before:
            return "clear"
        reference = max(before, key=lambda pair: pair[0])[1].price
        return "clear" if 0.5 <= price / reference <= 2 else "withheld"

    def publish(self, window: Window) -> None:
        for (ticker, each), known in self.rows.items():
            if each == window and known.live and known.decision != "withheld":
                self.published.append((ticker, known.price))


def machine(make: Callable[[], Any], set_clock: SetClock, folder: Path) -> type:
    """The state machine over pipelines that `make` makes."""

    class Sequences(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.stack = ExitStack()
            self.pipeline: Pipeline = self.stack.enter_context(make())
            self.pipeline.folder = folder / uuid4().hex
            with pymongo.MongoClient[dict[str, Any]](self.pipeline.mongo_uri) as client:
                client["market_data_db"].drop_collection("price_history")
            self.model = Model()
            self.live = WINDOWS.from_key(LIVE_ON_TUESDAY)
            self.now = TUESDAY_15_00
            self.bases = {
                ticker: traded_in(self.pipeline.sandbox.market, ticker, self.live) or 1.0
                for ticker in TICKERS
            }

        def run(self, first: str, *rest: str, **options: Any) -> bool:
            self.now += timedelta(seconds=30)
            set_clock(self.now)
            return bool(self.pipeline.run(first, *rest, **options).success)

        @initialize(first=ANSWERS, second=ANSWERS)
        def some_windows(self, first: float | None, second: float | None) -> None:
            self.live_run((1.0, first))
            self.next_window()
            self.live_run((second, 1.0))

        @rule(answers=st.tuples(ANSWERS, ANSWERS))
        def live_run(self, answers: tuple[float | None, float | None]) -> None:
            faults, answered = [], {}
            for ticker, factor in zip(TICKERS, answers, strict=True):
                if factor is None:
                    faults.append(Fault(ticker=ticker, status=404))
                    continue
                answered[ticker] = round(self.bases[ticker] * factor, 2)
                fields = {"regularMarketPrice": answered[ticker]}
                without = ["regularMarketPreviousClose"]
                faults.append(Fault(ticker=ticker, fields=fields, without=without))
            self.pipeline.sandbox.faults = faults
            assert self.run(self.live.key) is bool(answered)
            if answered:
                for ticker, price in answered.items():
                    self.model.observe(ticker, self.live, price, live=True)
                self.model.publish(self.live)

        @rule()
        def next_window(self) -> None:
            if not WINDOWS.is_last(self.live):
                self.live = WINDOWS.next_ending(self.live.end)
                self.now = self.live.end + timedelta(seconds=5)

        @rule(back=st.integers(1, 2), length=st.integers(1, 3))
        def fill_in(self, back: int, length: int) -> None:
            windows = WINDOWS.of_session(self.live.day)
            end = windows.index(self.live) - back
            chosen = windows[max(0, end - length) : end + 1]
            self.pipeline.sandbox.faults = []
            assert self.run(chosen[0].key, chosen[-1].key)
            for window in chosen:
                for ticker in TICKERS:
                    price = traded_in(self.pipeline.sandbox.market, ticker, window)
                    if price is not None:
                        self.model.observe(ticker, window, price, live=False)

        @rule(ticker=st.sampled_from(TICKERS), back=st.integers(0, 2))
        def accept(self, ticker: str, back: int) -> None:
            windows = WINDOWS.of_session(self.live.day)
            window = windows[windows.index(self.live) - back]
            known = self.model.rows.get((ticker, window))
            may = known is not None and known.decision != "clear"
            done = self.run(
                window.key,
                config={"quotes": {"accept": [ticker]}},
            )
            assert done is may
            if known and may:
                known.decision = "accepted"
                if window == self.live:
                    self.model.publish(window)

        @rule(sink=st.sampled_from(["kafka_publication", "mongo_price_history"]))
        def sink_alone(self, sink: str) -> None:
            there = any(window == self.live for _, window in self.model.rows)
            assert self.run(self.live.key, select=sink) is there
            if sink == "kafka_publication":
                self.model.publish(self.live)

        @invariant()
        def both_stores_hold_what_the_model_knows(self) -> None:
            keys = sorted({window.key for _, window in self.model.rows})
            rows = self.pipeline.store.load(keys) if keys else []
            assert {
                (quote.ticker, Window(quote.window_start, quote.window_end)): Known(
                    quote.price, quote.source == "live", quote.decision
                )
                for quote in rows
            } == self.model.rows
            assert set(ROWS.validate_python(self.pipeline.documents())) == set(rows)

        def teardown(self) -> None:
            with self.stack:
                events = [json.loads(seen.event.value) for seen in self.pipeline.events()]
                sent = [(event["ticker"], event["price"]) for event in events]
                assert sorted(sent) == sorted(self.model.published)

    return Sequences


def test_any_sequence(
    make_pipeline: Callable[..., Any],
    set_clock: SetClock,
    watchlist: SetWatchlist,
    tmp_path: Path,
) -> None:
    watchlist(TICKERS)
    run_state_machine_as_test(
        machine(lambda: make_pipeline(plan="pro"), set_clock, tmp_path),
        settings=settings(
            max_examples=int(os.environ.get("SEQUENCES", "2")),
            stateful_step_count=16,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
