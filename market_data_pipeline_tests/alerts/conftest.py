"""Receivers behind real sockets, and the sensor as the daemon looks with it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email import message_from_string
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer
from typing import Any

import dagster as dg
import pytest
from apprise.plugins.discord import NotifyDiscord

from market_data_pipeline.definitions import defs
from market_data_pipeline.operation.alerts import alerts
from market_data_pipeline.runs.results import ERROR
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.conftest import SetClock, at
from market_data_pipeline_tests.publication.helpers import quote as quote  # for `schedule`
from market_data_pipeline_tests.serving import serving

SECRET_PATH = "/services/T000/B000/path-is-a-secret?key=also-a-secret"
NOW = "2026-11-17T15:01"
"""A Tuesday in the session; the window 14:30 has just ended."""
KEY = "2026-11-17T14:30-0300"

ServeAt = Callable[..., None]


@dataclass
class Answer:
    """What the chat does with a message; it keeps it if the status says so."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    """It answers once this is set."""
    hang_up: bool = False


class Chat:
    """A webhook that answers as it is told, and keeps the messages that it took.

    Args:
        name: of the field with the text.
        longest: how many characters it takes at the most.
    """

    def __init__(self, name: str = "text", longest: int = 40_000) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        self.taken: list[str] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                chat.asked.append(self.path)
                answer = chat.answers.pop(0) if chat.answers else Answer()
                if answer.after:
                    answer.after.wait(10)
                if answer.hang_up:
                    return
                if name == "text" and set(body) != {name}:
                    answer = Answer(400)
                if len(body[name]) > longest:
                    answer = Answer(400)
                if answer.status == 200:
                    chat.taken.append(body[name])
                self.send_response(answer.status)
                for header, value in answer.headers.items():
                    self.send_header(header, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(200)  # a redirect would end here
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.address}{SECRET_PATH}"


class Mail:
    """A mail server."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        mail = self

        class Handler(StreamRequestHandler):
            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def handle(self) -> None:
                self.say("220 ready")
                for line in self.rfile:
                    command = line[:4].strip().upper()
                    if command != b"DATA":
                        self.say("221 bye" if command == b"QUIT" else "250 ok")
                        continue
                    self.say("354 go on")
                    lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                    mail.taken.append(message_from_string("".join(lines)))
                    self.say("250 taken")

        self.server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        port = self.server.server_address[1]
        self.url = f"mailto://127.0.0.1:{port}?from=pipeline@example.org&to=desk@example.org"


@pytest.fixture
def serve_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeAt]:
    """Sets the address of the receiver, and starts the server there."""
    with ExitStack() as servers:

        def serve(url: str, *receivers: TCPServer) -> None:
            for server in receivers:
                servers.enter_context(serving(server))
            monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
            settings.cache_clear()

        yield serve


@pytest.fixture
def chat(serve_at: ServeAt) -> Chat:
    """One that takes Slack's format."""
    chat = Chat()
    serve_at(chat.url, chat.server)
    return chat


@pytest.fixture
def discord(serve_at: ServeAt, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Discord's webhooks, at another address."""
    chat = Chat("content", longest=2_000)
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"{chat.address}/api/webhooks")
    serve_at("https://discord.com/api/webhooks/417429632418316298/abc-DEF", chat.server)
    return chat


@pytest.fixture
def mail(serve_at: ServeAt) -> Mail:
    mail = Mail()
    serve_at(mail.url, mail.server)
    return mail


class Watch:
    """The sensor at moments in São Paulo; it keeps the cursor."""

    def __init__(self, instance: dg.DagsterInstance, set_clock: SetClock) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self._set_clock = set_clock

    def at(self, moment: str = NOW) -> str:
        """One look at that moment; what it says."""
        self._set_clock(at(moment))
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        data = alerts.evaluate_tick(context)
        assert not data.run_requests
        self.cursor = data.cursor
        return str(data.skip_message)

    def check(self, passed: bool, said: str = "VALE3 moved.", **options: Any) -> None:
        """As if a run had evaluated a check.

        Args:
            passed: whether it passed.
            said: its sentence.
            options: `name` of the check, the `window` that it speaks of, the instruments that are
                `named`, and its `severity`.
        """
        metadata = {"window": options.get("window", KEY), "named": options.get("named", [])}
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("quotes"),
            check_name=options.get("name", "prices_plausible"),
            passed=passed,
            description=said,
            severity=options.get("severity", ERROR),
            metadata=metadata,
        )
        self.instance.report_runless_asset_event(evaluation)


@pytest.fixture
def watch(set_clock: SetClock, serve_at: ServeAt) -> Iterator[Watch]:
    """The sensor after its first look; the test says what the address is."""
    serve_at("http://127.0.0.1:1/nowhere")
    with dg.DagsterInstance.ephemeral() as instance:
        watch = Watch(instance, set_clock)
        assert (
            watch.at("2026-11-17T15:00:05")
            == "Started: failures are reported from the next minute on."
        )
        yield watch
