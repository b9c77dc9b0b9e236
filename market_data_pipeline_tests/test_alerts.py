"""A failed run is told once, in Slack's format, without secrets, over a real socket."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from brapi_sandbox.faults import Fault

from market_data_pipeline.alerts import alert_on_failure
from market_data_pipeline_tests.conftest import LIVE_ON_TUESDAY, TOKEN, Pipeline
from market_data_pipeline_tests.test_definitions import in_a_process

SECRET_PATH = "/services/T000/B000/path-is-a-secret"


class Chat:
    """A webhook that keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = chat.statuses.pop(0) if chat.statuses else 200
                assert self.path == SECRET_PATH
                assert self.headers["content-type"] == "application/json"
                chat.messages.append(json.loads(body))
                self.send_response(status)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
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
    yield chat
    chat.server.shutdown()
    chat.server.server_close()


class Sensor:
    """The sensor as the daemon looks with it: it keeps the cursor."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self.look()  # the first look only notes where the log ends

    def look(self) -> list[Any]:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = alert_on_failure.evaluate_tick(context)
        self.cursor = data.cursor
        return list(data.dagster_run_reactions)


@pytest.fixture
def sensor(pipeline: Pipeline) -> Sensor:
    return Sensor(pipeline.instance)


def failed_run(pipeline: Pipeline) -> str:
    pipeline.brapi = {"token": "wrong-token"}
    result = pipeline.run(LIVE_ON_TUESDAY)
    assert not result.success
    return result.run_id


def test_a_failed_run_is_told_once(pipeline: Pipeline, chat: Chat, sensor: Sensor) -> None:
    run_id = failed_run(pipeline)

    for _ in range(3):
        sensor.look()

    (sent,) = chat.messages
    assert set(sent) == {"text"}
    head, reason, last = sent["text"].splitlines()
    assert head == f"*everything failed for {LIVE_ON_TUESDAY}*"
    assert reason.startswith("> quotes: Brapi answered 401 INVALID_TOKEN")
    assert reason.endswith("Set BRAPI_TOKEN to a valid one.")
    assert last == f"Run {run_id}"


def test_no_secret_is_told(pipeline: Pipeline, chat: Chat, sensor: Sensor) -> None:
    failed_run(pipeline)
    sensor.look()

    for secret in ("wrong-token", TOKEN, SECRET_PATH):
        assert secret not in json.dumps(chat.messages)


def test_of_an_error_that_is_not_ours_only_the_name_is_told(
    pipeline: Pipeline, chat: Chat, sensor: Sensor
) -> None:
    @dg.op
    def breaks() -> None:
        raise RuntimeError("password=word-77aa")

    dg.GraphDefinition("odd", node_defs=[breaks]).to_job().execute_in_process(
        instance=pipeline.instance, raise_on_error=False
    )
    sensor.look()

    assert "> breaks: RuntimeError, see the log of the run" in chat.messages[0]["text"]
    assert "word-77aa" not in chat.messages[0]["text"]


def test_a_run_that_succeeds_is_not_told(pipeline: Pipeline, chat: Chat, sensor: Sensor) -> None:
    pipeline.sandbox.faults = [Fault(ticker="VALE3", status=404)]
    assert pipeline.run(LIVE_ON_TUESDAY).success
    sensor.look()

    assert chat.messages == []


def test_the_link_leads_to_the_run(
    pipeline: Pipeline, chat: Chat, sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.example/")
    run_id = failed_run(pipeline)
    sensor.look()

    assert chat.messages[0]["text"].endswith(f"<https://dagster.example/runs/{run_id}|open>")


@pytest.mark.parametrize(
    ("statuses", "posts"), [([503], 2), ([503, 503], 2), ([404], 1), ([302], 1)]
)
def test_a_chat_that_refuses_is_not_asked_for_ever(
    pipeline: Pipeline, chat: Chat, sensor: Sensor, statuses: list[int], posts: int
) -> None:
    chat.statuses = statuses
    failed_run(pipeline)

    reactions = [*sensor.look(), *sensor.look()]

    assert len(chat.messages) == posts
    assert [reaction.error for reaction in reactions] == [None]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/no-secret-here", "no address", ""])
def test_a_chat_that_cannot_be_reached_fails_nothing_and_shows_no_address(
    pipeline: Pipeline,
    sensor: Sensor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
    failed_run(pipeline)
    capsys.readouterr()

    (reaction,) = sensor.look()

    assert reaction.error is None
    said = "".join(capsys.readouterr())
    assert "ALERT_WEBHOOK_URL" in said
    assert "no-secret-here" not in said


def test_it_runs_by_default_when_the_variable_is_set() -> None:
    show = "(s,) = [s for s in d.defs.get_repository_def().sensor_defs if 'alert' in s.name];"
    show += "print(s.default_status.value)"

    assert in_a_process(show).stdout == "STOPPED\n"
    assert in_a_process(show, ALERT_WEBHOOK_URL="https://chat.example/x").stdout == "RUNNING\n"
