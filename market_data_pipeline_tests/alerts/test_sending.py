"""An incident is told once and is not lost, whatever the receiver does; no secret is told."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType

import dagster as dg
import pytest

from market_data_pipeline.operation import alerts
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.alerts.conftest import SECRET_PATH, Answer, Chat, Watch, withheld

KEY = "2026-11-17T14:30-0300"
NEXT = "2026-11-17T15:00-0300"
WITHHELD = "*the price of PETR4 is withheld*"
RESOLVED = "*Resolved: the price of PETR4 is withheld.*"


@pytest.fixture
def wrong(watch: Watch) -> Watch:
    """A price is withheld, which is two incidents: the price, and the window without it."""
    watch.store.save([withheld(KEY)], [KEY])
    return watch


def told(chat: Chat) -> list[int]:
    """How many messages say that the price is withheld, and that it is not any more."""
    return [sum(head in text for text in chat.taken) for head in (WITHHELD, RESOLVED)]


def accept(watch: Watch) -> None:
    watch.store.save([withheld(KEY, decision="accepted")], [KEY])


def test_an_incident_is_told_once_and_its_end_too(wrong: Watch, chat: Chat) -> None:
    for minute in range(11, 16):
        wrong.at(f"2026-11-17T15:{minute}")
    assert told(chat) == [1, 0]

    accept(wrong)
    for minute in range(16, 20):
        wrong.at(f"2026-11-17T15:{minute}")

    assert told(chat) == [1, 1]
    assert chat.asked == 2


def test_where_all_is_well_nothing_is_told(watch: Watch, chat: Chat) -> None:
    assert watch.at() == "Nothing new; open incidents: 0."
    assert chat.asked == 0


def test_an_incident_that_comes_back_is_told_again(wrong: Watch, chat: Chat) -> None:
    wrong.at()
    accept(wrong)
    wrong.at()
    wrong.well(NEXT)
    wrong.store.save([withheld(NEXT, observed_at=datetime(2026, 11, 17, 19, tzinfo=UTC))], [NEXT])
    wrong.at("2026-11-17T15:41")

    assert told(chat) == [2, 1]


REFUSALS = [
    Answer(500),
    Answer(503),
    Answer(429),
    Answer(429, {"retry-after": "Tue, 17 Nov 2026 18:12:00 GMT"}),
    Answer(404),
    Answer(302, {"location": "http://127.0.0.1:1/elsewhere"}),
    Answer(hang_up=True),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_what_is_refused_is_told_at_the_next_look(
    wrong: Watch, chat: Chat, refusal: Answer
) -> None:
    chat.answers = [refusal, refusal]

    said = wrong.at("2026-11-17T15:11")
    wrong.at("2026-11-17T15:12")
    assert chat.taken == []
    assert chat.asked == 2, "once a look"
    assert "Could not send 2 incident(s) to ALERT_WEBHOOK_URL" in said
    wrong.at("2026-11-17T15:13")
    wrong.at("2026-11-17T15:14")

    assert told(chat) == [1, 0]
    assert chat.asked == 3


def test_an_end_that_is_refused_is_told_at_the_next_look(wrong: Watch, chat: Chat) -> None:
    wrong.at()
    accept(wrong)
    chat.answers = [Answer(500)]
    for _ in range(4):
        wrong.at()

    assert told(chat) == [1, 1]


def test_the_receiver_is_left_alone_for_as_long_as_it_asks(wrong: Watch, chat: Chat) -> None:
    chat.answers = [Answer(429, {"retry-after": "150"})]
    wrong.at("2026-11-17T15:11")

    assert wrong.at("2026-11-17T15:12") == "The receiver asked for a pause: 90 s left."
    assert wrong.at("2026-11-17T15:13") == "The receiver asked for a pause: 30 s left."
    assert chat.asked == 1
    wrong.at("2026-11-17T15:14")

    assert told(chat) == [1, 0]


def test_a_wait_of_days_is_cut_to_an_hour(wrong: Watch, chat: Chat) -> None:
    chat.answers = [Answer(503, {"retry-after": "9" * 40})]
    wrong.at("2026-11-17T15:11")

    assert wrong.at("2026-11-17T15:12") == "The receiver asked for a pause: 3540 s left."


def test_a_slow_answer_is_waited_for(wrong: Watch, chat: Chat) -> None:
    answered = threading.Event()
    chat.answers = [Answer(after=answered)]
    threading.Timer(0.5, answered.set).start()

    wrong.at("2026-11-17T15:11")
    wrong.at("2026-11-17T15:12")

    assert told(chat) == [1, 0]
    assert chat.asked == 1


def test_what_is_not_answered_in_time_is_told_at_the_next_look(
    wrong: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    chat.answers = [Answer(500, after=stuck)]
    with monkeypatch.context() as patience:
        patience.setattr(alerts, "SECONDS_FOR_AN_ANSWER", 0.2)
        assert wrong.at("2026-11-17T15:11").endswith("to ALERT_WEBHOOK_URL: ReadTimeout.")
    stuck.set()
    wrong.at("2026-11-17T15:12")
    wrong.at("2026-11-17T15:13")

    assert told(chat) == [1, 0]


def test_what_happens_while_the_receiver_is_away_is_told_together(wrong: Watch, chat: Chat) -> None:
    chat.answers = [Answer(500), Answer(500)]
    wrong.at("2026-11-17T15:11")
    wrong.store.save([withheld(KEY, "VALE3")], [KEY])
    wrong.at("2026-11-17T15:12")
    wrong.at("2026-11-17T15:13")

    (text,) = chat.taken
    assert "the price of PETR4" in text
    assert "the price of VALE3" in text


def test_a_message_has_room_for_twenty_incidents(watch: Watch, chat: Chat) -> None:
    tickers = [f"ABCD{number}" for number in range(45)]
    watch.store.save([withheld(KEY, ticker) for ticker in tickers], [KEY])
    for minute in range(11, 16):
        watch.at(f"2026-11-17T15:{minute}")

    heads = [[line for line in text.splitlines() if line[0:1] == "*"] for text in chat.taken]
    assert [len(each) for each in heads] == [20, 20, 6]
    assert all(len(text) < 40_000 for text in chat.taken)
    assert all(sum(f"of {each} is" in text for text in chat.taken) == 1 for each in tickers)


@pytest.mark.parametrize(
    ("closed", "opens"),
    [
        ("2026-11-17T19:00", "2026-11-18T10:00"),
        ("2026-11-18T09:59", "2026-11-18T10:00"),
        ("2026-11-19T23:00", "2026-11-23T10:00"),
        ("2026-11-20T14:00", "2026-11-23T10:00"),
        ("2026-11-21T14:00", "2026-11-23T10:00"),
    ],
    ids=["evening", "morning", "night before a holiday", "holiday", "Saturday"],
)
def test_nothing_is_told_while_b3_is_closed(
    watch: Watch, chat: Chat, closed: str, opens: str
) -> None:
    last = {"2026-11-18T10:00": "2026-11-17T17:30-0300"}.get(opens, "2026-11-19T17:30-0300")
    watch.well(last)
    watch.store.save([withheld(last)], [last])

    assert "is sent then" in watch.at(closed)
    assert chat.asked == 0
    watch.at(opens)
    assert told(chat) == [1, 0]


def test_what_is_over_before_the_session_begins_is_not_told(watch: Watch, chat: Chat) -> None:
    last = "2026-11-17T17:30-0300"
    watch.well(last)
    watch.store.save([withheld(last)], [last])
    watch.at("2026-11-17T21:00")
    watch.store.save([withheld(last, decision="accepted")], [last])

    assert watch.at("2026-11-18T10:00") == "Nothing new; open incidents: 0."
    assert chat.asked == 0


def test_the_hour_after_the_session_is_told_of(watch: Watch, chat: Chat) -> None:
    watch.at("2026-11-17T18:11")

    assert "2026-11-17T17:30-0300 ended Tue 17 Nov 18:00" in chat.taken[0]


def test_without_an_address_nothing_happens(
    wrong: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", " ")
    settings.cache_clear()
    before = wrong.cursor

    assert wrong.at() == "ALERT_WEBHOOK_URL is not set: no message is sent."
    assert (wrong.cursor, chat.asked) == (before, 0)


def test_the_address_is_nowhere(
    wrong: Watch,
    chat: Chat,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    chat.answers = [Answer(500), Answer(hang_up=True)]
    said = [wrong.at() for _ in range(3)]

    assert len(chat.taken) == 1
    places = [*said, *chat.taken, caplog.text, str(wrong.cursor), *capfd.readouterr()]
    assert not [place for place in places if SECRET_PATH in place or "path-is-a" in place]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/no-secret-here",
        "no-secret-here",
        "http://[no-secret-here",
        "http://.no-secret-here",
    ],
)
def test_an_address_that_leads_nowhere_fails_nothing_and_is_not_shown(
    wrong: Watch,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    url: str,
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
    settings.cache_clear()
    said = wrong.at()

    assert "Could not send 2 incident(s) to ALERT_WEBHOOK_URL" in said
    assert "no-secret-here" not in "".join([said, caplog.text, *capfd.readouterr()])


def test_a_kind_that_cannot_be_looked_at_holds_no_other_back(
    wrong: Watch,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def breaks(*args: object) -> None:
        raise RuntimeError("password=word-77aa")

    wrong.at()
    with monkeypatch.context() as broken:
        broken.setattr(alerts, "withheld_prices", breaks)
        accept(wrong)
        wrong.at()
        assert told(chat) == [1, 0], "nobody knows whether it is over"
        assert "Resolved: the last live window" in chat.taken[-1]
    wrong.at()

    assert told(chat) == [1, 1]
    assert "word-77aa" not in "".join(capfd.readouterr())


def test_the_rows_are_looked_for_where_the_runs_store_them(wrong: Watch, chat: Chat) -> None:
    """In the storage folder of the instance, where no path is set."""
    there = QuoteStore(path=wrong.instance.storage_directory())
    there.save([withheld(KEY, "VALE3")], [KEY])
    wrong.store = QuoteStore()
    wrong.at()

    assert "*the price of VALE3 is withheld*" in chat.taken[0]


def test_what_is_told_is_kept_as_json(wrong: Watch, chat: Chat) -> None:
    wrong.at()

    assert json.loads(str(wrong.cursor))["open"] == {
        "unpublished": ["the last live window was not published whole"],
        "withheld": ["the price of PETR4 is withheld"],
    }


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, dg.DefaultSensorStatus.STOPPED),
        ({"ALERT_WEBHOOK_URL": "https://chat.example/x"}, dg.DefaultSensorStatus.RUNNING),
    ],
)
def test_it_runs_by_default_when_the_variable_is_set(
    load_definitions: Callable[..., ModuleType],
    settings: dict[str, str],
    status: dg.DefaultSensorStatus,
) -> None:
    sensor = load_definitions(**settings).defs.get_repository_def().get_sensor_def("alerts")

    assert sensor.default_status is status
    assert ("off because" in sensor.description) == (not settings)
