"""What fails is told once and is not lost, whatever the receiver does; no secret is told."""

import logging
import threading

import dagster as dg
import pytest
import requests

from market_data_pipeline.definitions import watch_freshness
from market_data_pipeline.operation import alerts
from market_data_pipeline.runs.results import WARN
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.alerts.conftest import KEY, Answer, Chat, Mail, ServeAt, Watch
from market_data_pipeline_tests.conftest import LoadDefinitions, SetClock, at

NEXT, BEFORE = "2026-11-17T15:00-0300", "2026-11-17T13:30-0300"
JUST_BEFORE = "2026-11-17T14:00-0300"
"""The window before KEY, which is the newest one until ten minutes after the end of KEY."""
FAILS = f"*quotes: prices_plausible*\n> {KEY}: VALE3 moved."
RESOLVED = "*Resolved: quotes: prices_plausible.*"
NOTHING = "Nothing new; failing: none."
REFUSED = (
    "The receiver of ALERT_WEBHOOK_URL did not accept the message: it is sent again in a minute."
)


def test_a_check_that_fails_is_told_once_and_so_is_its_end_after_a_refusal(
    watch: Watch, chat: Chat
) -> None:
    assert watch.at() == NOTHING
    watch.check(False)
    assert [watch.at() for _ in range(3)] == [
        "Sent: 1 new, 0 resolved.",
        *["Nothing new; failing: quotes: prices_plausible."] * 2,
    ]
    watch.check(True)
    chat.answers = [Answer(500)]
    ends = [REFUSED, "Sent: 0 new, 1 resolved.", NOTHING]
    assert [watch.at() for _ in range(3)] == ends
    watch.check(False)
    watch.at()

    assert chat.taken == [FAILS, RESOLVED, FAILS]


@pytest.mark.parametrize(
    ("then", "moment", "told"),
    [
        ({"passed": False, "window": NEXT}, "15:31", []),
        ({"passed": True, "window": NEXT}, "15:31", [RESOLVED]),
        ({"passed": True, "window": BEFORE}, "15:31", []),
        ({"passed": False, "window": BEFORE, "named": ["PETR4"]}, "15:31", []),
        ({"passed": True, "window": JUST_BEFORE}, "15:09", []),
        ({"passed": False, "window": JUST_BEFORE, "named": ["PETR4"]}, "15:09", []),
        ({"passed": False, "named": ["VALE3"]}, "15:02", []),
        ({"passed": False, "named": ["PETR4", "VALE3"]}, "15:02", [FAILS]),
        ({"passed": False, "named": ["PETR4"]}, "15:02", [FAILS]),
        ({"passed": False, "name": "all_tickers_quoted", "severity": WARN}, "15:02", []),
    ],
    ids=str,
)
def test_what_changes_of_the_newest_window_is_told(
    watch: Watch, chat: Chat, then: dict[str, object], moment: str, told: list[str]
) -> None:
    watch.check(False, named=["VALE3"])
    watch.at()
    watch.check(**then)  # type: ignore[arg-type]
    for _ in range(2):
        watch.at(f"2026-11-17T{moment}")

    assert chat.taken == [FAILS, *told]


@pytest.mark.parametrize(
    ("closed", "opens", "last"),
    [
        ("2026-11-17T19:00", "2026-11-18T10:00", "2026-11-17T17:30-0300"),
        ("2026-11-18T09:59", "2026-11-18T10:00", "2026-11-17T17:30-0300"),
        ("2026-11-19T23:00", "2026-11-23T10:00", "2026-11-19T17:30-0300"),
        ("2026-11-20T14:00", "2026-11-23T10:00", "2026-11-19T17:30-0300"),
        ("2026-11-21T14:00", "2026-11-23T10:39", "2026-11-19T17:30-0300"),
    ],
)
@pytest.mark.parametrize("repaired", [False, True])
def test_nothing_is_told_while_b3_is_closed_and_what_still_fails_when_it_opens(
    watch: Watch, chat: Chat, closed: str, opens: str, last: str, repaired: bool
) -> None:
    watch.check(False, window=last)
    assert "are sent when the next session begins" in watch.at(closed)
    if repaired:
        watch.check(True, window=last)
    assert chat.asked == []
    watch.at(opens)

    assert len(chat.taken) == (not repaired)


def test_the_hour_after_the_session_is_told_of(watch: Watch, chat: Chat) -> None:
    watch.check(False, window="2026-11-17T17:30-0300")
    watch.at("2026-11-17T18:59")

    assert len(chat.taken) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(500),
        Answer(429, {"retry-after": "1"}),
        Answer(404),
        Answer(302, {"location": "/elsewhere"}),
        Answer(hang_up=True),
    ],
    ids=str,
)
def test_what_is_refused_is_sent_with_what_is_new_at_the_next_look_and_the_address_is_not_shown(
    watch: Watch,
    chat: Chat,
    refusal: Answer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    watch.check(False)
    chat.answers = [refusal, refusal]

    said = [watch.at()]
    watch.check(False, "No quote.", name="fresh")
    said += [watch.at()]
    assert said == [REFUSED] * 2
    assert len(chat.asked) == 2, "once a look"
    said += [watch.at(), watch.at()]

    assert chat.taken == [f"*quotes: fresh*\n> {KEY}: No quote.\n\n{FAILS}"]
    assert chat.url.endswith(chat.asked[0])
    places = [*said, *chat.taken, caplog.text, str(watch.cursor), *capfd.readouterr()]
    assert not [place for place in places if "a-secret" in place]


def test_a_slow_answer_is_waited_for_and_none_at_all_is_not(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, slow = threading.Event(), threading.Event()
    chat.answers = [Answer(500, after=stuck), Answer(after=slow)]
    watch.check(False)
    with monkeypatch.context() as impatient:
        impatient.setitem(alerts.TIMEOUTS, "rto", "0.2")
        assert watch.at() == REFUSED
    stuck.set()
    threading.Timer(0.5, slow.set).start()
    watch.at()
    watch.at()

    assert chat.taken == [FAILS]


LONG = "\n".join(f"ABCD{number} <30 & R$ 15.00 after 30.00" for number in range(300))


def test_slack_gets_what_is_too_long_in_parts_and_escaped(watch: Watch, chat: Chat) -> None:
    watch.check(False, LONG)
    watch.at()

    assert len(chat.taken) > 2
    assert max(map(len, chat.taken)) <= 4_000
    text = "\n".join(chat.taken)
    assert all(f"> ABCD{number} &lt;30 &amp; R$ 15.00" in text for number in range(1, 300))


def test_discord_gets_what_is_too_long_in_parts(watch: Watch, discord: Chat) -> None:
    watch.check(False, LONG)
    assert watch.at() == "Sent: 1 new, 0 resolved."

    text = "\n".join(discord.taken)
    assert all(f"ABCD{number} <30 & R$" in text for number in range(300))
    assert {path.split("?")[0] for path in discord.asked} == {
        "/api/webhooks/417429632418316298/abc-DEF"
    }


def test_what_was_accepted_before_a_refusal_is_not_sent_again(watch: Watch, discord: Chat) -> None:
    names = ("fresh", "prices_plausible", "quota_lasts")
    for name in names:
        watch.check(False, f"{name} " * 100, name=name)
    discord.answers = [Answer(), Answer(429), Answer(429)]

    assert watch.at() == REFUSED
    assert watch.at() == "Sent: 2 new, 0 resolved."
    assert watch.at().startswith("Nothing new")
    told = "\n".join(discord.taken)
    assert [told.count(f"*quotes: {name}*") for name in names] == [1, 1, 1]


def test_a_mail_is_plain_text_with_a_subject(watch: Watch, mail: Mail) -> None:
    watch.check(False, "VALE3 <15 & 30.\nAccept it.")
    watch.check(False, name="fresh")
    watch.at()
    watch.at()

    (taken,) = mail.taken
    assert (taken["Subject"], taken["To"]) == ("Market data", "desk@example.org")
    assert taken.get_content_type() == "text/plain"
    text = bytes(taken.get_payload(decode=True)).decode().replace("\r\n", "\n").strip()
    fresh, prices = text.split("\n\n")
    assert fresh == f"*quotes: fresh*\n> {KEY}: VALE3 moved."
    assert prices == f"*quotes: prices_plausible*\n> {KEY}: VALE3 <15 & 30.\n> Accept it."


def test_without_an_address_nothing_happens(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", " ")
    settings.cache_clear()
    watch.check(False)
    before = watch.cursor

    assert watch.at() == "ALERT_WEBHOOK_URL is not set: no message is sent."
    assert (watch.cursor, chat.asked) == (before, [])


def test_a_receiver_that_is_not_there_fails_nothing_and_is_not_shown(
    watch: Watch,
    serve_at: ServeAt,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    serve_at("http://127.0.0.1:1/no-secret-here")
    watch.check(False)

    assert watch.at() == REFUSED
    assert "no-secret-here" not in "".join([caplog.text, *capfd.readouterr()])


@pytest.mark.parametrize(
    "url",
    [
        "no-secret-here",
        "https://",
        "http://[no-secret-here",
        "http://.no-secret-here",
        "'https://hooks.slack.com/no-secret-here'",
        "slack://no-secret-here",
        "mailto://no-secret-here",
        "https://chat.example/x,https://chat.example/no-secret-here",
        "ntfy://chat.example/x, mailto://user:no-secret-here@mail.example",
    ],
)
def test_what_is_not_one_address_stops_the_start_and_is_not_shown(
    load_definitions: LoadDefinitions,
    url: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Exception, match="ALERT_WEBHOOK_URL cannot be used") as error:
        load_definitions(ALERT_WEBHOOK_URL=url)

    said = "".join([caplog.text, str(error.value), *capfd.readouterr()])
    assert "no-secret-here" not in said


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("opsgenie://0f8fad5b-d9cb-469f-a165-70867728950e/@team", "/v2/alerts"),
        ("matrixs://user:secret@matrix.example/#room", "https://matrix.example/"),
        ("https://webexapis.com/v1/webhooks/incoming/" + "a1b2" * 20, "/webhooks/incoming"),
    ],
)
def test_every_service_is_asked_to_tell_of_it(
    watch: Watch, serve_at: ServeAt, monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    requests_of = list[str]()

    def post(*arguments: object, **named: object) -> None:
        requests_of.append(str((arguments, named)))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", post)
    serve_at(url)
    watch.check(False)

    assert watch.at() == REFUSED
    assert asked in "".join(requests_of)


def test_it_runs_by_default_when_the_variable_is_set(load_definitions: LoadDefinitions) -> None:
    loaded = load_definitions(ALERT_WEBHOOK_URL="https://chat.example/x")
    sensor = loaded.defs.get_repository_def().get_sensor_def("alerts")

    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_a_window_that_is_missing_is_told_of_each_asset_and_then_what_is_there(
    watch: Watch, chat: Chat, set_clock: SetClock
) -> None:
    for moment, stored in (("15:09", []), ("15:10", ["quotes", "kafka_publication"])):
        for asset in stored:
            watch.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=KEY))
        set_clock(at(f"2026-11-17T{moment}"))
        context = dg.build_sensor_context(instance=watch.instance, cursor="")
        for event in watch_freshness.evaluate_tick(context).asset_events:
            watch.instance.report_runless_asset_event(event)
        watch.at(f"2026-11-17T{moment}")

    missing, there = chat.taken
    assert [line for line in missing.splitlines() if line.startswith("*")] == [
        f"*{asset}: fresh*" for asset in ("kafka_publication", "mongo_price_history", "quotes")
    ]
    assert "2026-11-17T14:00-0300 is missing; it ended Tue 17 Nov 14:30" in missing
    assert there == "*Resolved: kafka_publication: fresh.*\n\n*Resolved: quotes: fresh.*"
