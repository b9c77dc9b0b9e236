"""A chat behind a real socket, and the sensor as the daemon looks with it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import trading_windows
from market_data_pipeline.operation.alerts import alerts
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.conftest import SetClock, at

SECRET_PATH = "/services/T000/B000/path-is-a-secret"
WINDOWS = trading_windows()
ASSETS = ("quotes", "mongo_price_history", "kafka_publication")
NOW = "2026-11-17T15:11"
"""A Tuesday in the session; the window 14:30 is due."""


@dataclass
class Answer:
    """What the chat does with a message; it keeps it if the status says so."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    """It answers once this is set."""
    hang_up: bool = False


class Chat:
    """A webhook that answers as it is told, and keeps the messages that it took."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked = 0
        self.taken: list[str] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == SECRET_PATH
                assert self.headers["content-type"] == "application/json"
                assert set(body) == {"text"}
                chat.asked += 1
                answer = chat.answers.pop(0) if chat.answers else Answer()
                if answer.after:
                    answer.after.wait(10)
                if answer.hang_up:
                    return
                if answer.status == 200:
                    chat.taken.append(body["text"])
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{SECRET_PATH}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    chat = Chat()
    monkeypatch.setenv("ALERT_WEBHOOK_URL", chat.url)
    settings.cache_clear()
    yield chat
    chat.server.shutdown()
    chat.server.server_close()


class Watch:
    """The sensor at moments in São Paulo; it keeps the cursor."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        store: QuoteStore,
        set_clock: SetClock,
    ) -> None:
        self.instance, self.store = instance, store
        self.cursor: str | None = None
        self._set_clock = set_clock

    def at(self, moment: str = NOW) -> str:
        """One look at that moment; what it says."""
        self._set_clock(at(moment))
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"quote_store": self.store}
        )
        data = alerts.evaluate_tick(context)
        assert not data.run_requests
        self.cursor = data.cursor
        return str(data.skip_message)

    def materialize(self, key: str, *assets: str) -> None:
        """As if a run had stored a window in the assets, in all three by default."""
        for asset in assets or ASSETS:
            sent = {"published": 4, "topic": settings().kafka_topic}
            published = sent if asset == "kafka_publication" else {}
            event = dg.AssetMaterialization(asset, partition=key, metadata=published)
            self.instance.report_runless_asset_event(event)

    def well(self, *keys: str) -> None:
        """As if the runs of some windows had done all that they should."""
        for key in keys:
            self.store.save([quote(key)], [key])
            self.materialize(key)

    def quota(self, left: int, until: datetime, *, limit: int = 15_000, **more: Any) -> None:
        """As if a run had recorded what is left."""
        recorded = {
            "quota_left": left,
            "quota_limit": limit,
            "quota_cost_of_a_run": 50,
            "quota_until": dg.MetadataValue.timestamp(until),
            "quota_window": "billing-cycle",
        }
        event = dg.AssetObservation("quotes", metadata=recorded | more)
        self.instance.report_runless_asset_event(event)


@pytest.fixture
def watch(chat: Chat, tmp_path: Path, set_clock: SetClock) -> Iterator[Watch]:
    """The sensor after its first look, where everything is well on Tuesday at 15:11."""
    with dg.DagsterInstance.ephemeral() as instance:
        watch = Watch(instance, QuoteStore(path=str(tmp_path / "quotes")), set_clock)
        assert watch.at("2026-11-17T15:05") == "First check in one minute."
        watch.well("2026-11-17T14:30-0300")
        yield watch


def quote(key: str, ticker: str = "PETR4", **fields: Any) -> Quote:
    """A live quote of a window."""
    window = WINDOWS.from_key(key)
    made = Quote(
        ticker=ticker,
        name=None,
        short_name=None,
        price=30.0,
        volume=None,
        updated_at=window.end,
        window_start=window.start,
        window_end=window.end,
        observed_at=window.end + timedelta(seconds=20),
        source="live",
        requested_ticker=ticker,
    )
    return replace(made, **fields)


def withheld(key: str, ticker: str = "PETR4", **fields: Any) -> Quote:
    """A live quote that has moved too far."""
    halved = {"price": 15.0, "reference_price": 30.5, "decision": "withheld"}
    return quote(key, ticker, **(halved | fields))
