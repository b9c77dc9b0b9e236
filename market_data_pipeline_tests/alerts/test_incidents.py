"""When a window, a publication, a price and the quota are incidents, and when they are over."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from market_data_pipeline.operation import incidents
from market_data_pipeline.settings import settings
from market_data_pipeline_tests.alerts.conftest import Chat, Watch, quote, withheld
from market_data_pipeline_tests.conftest import at

THURSDAYS_LAST = "2026-11-19T17:30-0300"  # Friday the 20th is a holiday
KEY, NEXT, AFTER_NEXT = (f"2026-11-17T{time}-0300" for time in ("14:30", "15:00", "15:30"))
DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)
RESOLVED = "Resolved: {}."
MISSING = "a window is missing in {}"
UNPUBLISHED = "the last live window was not published whole"
QUOTA = "the quota of Brapi will not last"


def heads(chat: Chat) -> list[str]:
    """The first line of each incident that was told, and each end."""
    lines = [line for text in chat.taken for line in text.splitlines()]
    return [line.strip("*") for line in lines if line.startswith("*")]


# A window that is due and not there


def test_a_window_is_missed_ten_minutes_after_its_end(watch: Watch, chat: Chat) -> None:
    watch.at("2026-11-17T15:39")
    assert chat.taken == []

    watch.at("2026-11-17T15:40")
    watch.at("2026-11-17T16:10")
    watch.well(AFTER_NEXT)
    watch.at("2026-11-17T16:11")

    missing = MISSING.format("quotes")
    assert heads(chat) == [missing, RESOLVED.format(missing)]
    assert f"{NEXT} ended Tue 17 Nov 15:30 in São Paulo and is missing" in chat.taken[0]
    assert "materialize all assets for it." in chat.taken[0]


def test_a_later_window_makes_up_for_one_that_is_missing(watch: Watch, chat: Chat) -> None:
    watch.well(AFTER_NEXT)
    watch.at("2026-11-17T16:05")

    assert chat.taken == []


def test_the_collection_is_due_what_quotes_has(watch: Watch, chat: Chat) -> None:
    watch.materialize(NEXT, "quotes")
    watch.at("2026-11-17T15:39")
    assert chat.taken == []

    watch.at("2026-11-17T15:41")
    watch.at("2026-11-17T16:11")
    watch.materialize(NEXT, "mongo_price_history")
    watch.at("2026-11-17T16:12")

    history, quotes = (MISSING.format(each) for each in ("mongo_price_history", "quotes"))
    assert heads(chat) == [history, quotes, RESOLVED.format(history)]
    assert "materialize `mongo_price_history` for it." in chat.taken[0]


@pytest.mark.parametrize(
    "moment", ["2026-11-20T14:00", "2026-11-23T10:39", "2026-11-19T18:59"], ids=str
)
def test_nothing_is_due_while_b3_is_closed(watch: Watch, chat: Chat, moment: str) -> None:
    watch.well(THURSDAYS_LAST)
    watch.at(moment)

    assert chat.taken == []


def test_what_is_missing_over_a_holiday_is_one_incident(watch: Watch, chat: Chat) -> None:
    for moment in ("2026-11-19T18:30", "2026-11-20T12:00", "2026-11-23T10:05", "2026-11-23T10:50"):
        watch.at(moment)

    assert heads(chat) == [MISSING.format("quotes")]


def test_a_window_that_pacing_left_out_is_not_missed(watch: Watch, chat: Chat) -> None:
    watch.quota(46, DECEMBER)
    watch.at("2026-11-17T15:41")

    assert MISSING.format("quotes") not in heads(chat)


def test_pacing_ends_no_incident(watch: Watch, chat: Chat) -> None:
    """The last window of the session was due; of the next session only the last one is."""
    watch.quota(50 * 6, DECEMBER)
    watch.at("2026-11-17T18:15")
    watch.at("2026-11-18T12:00")

    assert heads(chat)[0] == MISSING.format("quotes")
    assert RESOLVED.format(MISSING.format("quotes")) not in heads(chat)


# A live window that was not published whole


def test_a_live_window_that_was_never_sent(watch: Watch, chat: Chat) -> None:
    watch.store.save([quote(NEXT)], [NEXT])
    watch.materialize(NEXT, "quotes", "mongo_price_history")
    watch.at("2026-11-17T15:39")
    assert chat.taken == []

    watch.at("2026-11-17T15:41")
    watch.at("2026-11-17T16:02")
    watch.materialize(NEXT, "kafka_publication")
    watch.at("2026-11-17T16:03")

    assert heads(chat) == [UNPUBLISHED, RESOLVED.format(UNPUBLISHED)]
    assert f"{NEXT} is stored and not on the topic" in chat.taken[0]
    assert "live until Tue 17 Nov 16:00" in chat.taken[0]


def test_the_next_window_that_is_sent_ends_it(watch: Watch, chat: Chat) -> None:
    watch.store.save([quote(NEXT)], [NEXT])
    watch.materialize(NEXT, "quotes", "mongo_price_history")
    watch.at("2026-11-17T15:41")
    watch.store.save([quote(AFTER_NEXT)], [AFTER_NEXT])
    watch.materialize(AFTER_NEXT, "quotes", "mongo_price_history")
    watch.at("2026-11-17T16:01")
    assert heads(chat) == [UNPUBLISHED], "the next one may be on its way"

    watch.materialize(AFTER_NEXT, "kafka_publication")
    watch.at("2026-11-17T16:02")

    assert heads(chat) == [UNPUBLISHED, RESOLVED.format(UNPUBLISHED)]


def test_prices_that_were_stored_after_the_publication(watch: Watch, chat: Chat) -> None:
    watch.store.save([quote(NEXT)], [NEXT])
    watch.materialize(NEXT, "quotes", "mongo_price_history")
    newer = at("2026-11-17T15:35")
    watch.store.save([quote(NEXT, "VALE3", observed_at=newer)], [NEXT])
    sent = {"published": 4, "topic": settings().kafka_topic}
    observed = {"observed_at": dg.MetadataValue.timestamp(newer - timedelta(minutes=4))}
    watch.instance.report_runless_asset_event(
        dg.AssetMaterialization("kafka_publication", partition=NEXT, metadata=sent | observed)
    )
    watch.at("2026-11-17T15:41")
    assert chat.taken == [], "a run may be about to send it"

    watch.at("2026-11-17T15:46")

    (text,) = chat.taken
    assert text.startswith(f"*{UNPUBLISHED}*\n> {NEXT} is on the topic without VALE3, whose")


def test_bars_are_not_due_on_the_topic(watch: Watch, chat: Chat) -> None:
    watch.store.save([quote(NEXT, source="intraday")], [NEXT])
    watch.materialize(NEXT, "quotes", "mongo_price_history")
    watch.at("2026-11-17T15:41")

    assert chat.taken == []


# A price that is withheld


def test_a_withheld_price_and_how_to_accept_it(watch: Watch, chat: Chat) -> None:
    watch.well(NEXT)
    split = withheld(NEXT, "VALE3", price=15.0, reference_price=30.0, previous_close=15.1)
    watch.store.save([split], [NEXT])
    watch.at("2026-11-17T15:31")

    publication, price = chat.taken[0].split("\n\n")
    assert publication == (
        f"*{UNPUBLISHED}*\n> {NEXT} is on the topic without VALE3: the prices are withheld. "
        "Accept those that are right."
    )
    head, text = price.splitlines()
    assert head == "*the price of VALE3 is withheld*"
    assert text.startswith("> VALE3 15.00 after 30.00, looks like a 1:2 split: previous close")
    assert f"launch `kafka_publication` for {NEXT} with the run config" in text
    assert '`{"ops": {"kafka_publication": {"config": {"accept_moves": ["VALE3"]}}}}`' in text


def test_it_is_one_incident_until_it_is_accepted(watch: Watch, chat: Chat) -> None:
    price = "the price of PETR4 is withheld"
    for key, moment in ((NEXT, "15:31"), (AFTER_NEXT, "16:01")):
        watch.well(key)
        watch.store.save([withheld(key, observed_at=DECEMBER)], [key])
        watch.at(f"2026-11-17T{moment}")
    assert heads(chat) == [UNPUBLISHED, price]

    watch.store.save(
        [withheld(AFTER_NEXT, observed_at=DECEMBER, decision="accepted")], [AFTER_NEXT]
    )
    watch.at("2026-11-17T16:02")

    assert heads(chat)[2:] == [RESOLVED.format(UNPUBLISHED), RESOLVED.format(price)]


def test_a_window_without_the_instrument_ends_nothing(watch: Watch, chat: Chat) -> None:
    watch.well(NEXT)
    watch.store.save([withheld(NEXT, "VALE3")], [NEXT])
    watch.at("2026-11-17T15:31")
    watch.well(AFTER_NEXT)
    watch.at("2026-11-17T16:01")

    assert RESOLVED.format("the price of VALE3 is withheld") not in heads(chat)


def test_a_price_that_is_back_by_itself_is_over(watch: Watch, chat: Chat) -> None:
    watch.well(NEXT)
    watch.store.save([withheld(NEXT, "VALE3")], [NEXT])
    watch.at("2026-11-17T15:31")
    watch.well(AFTER_NEXT)
    watch.store.save([quote(AFTER_NEXT, "VALE3")], [AFTER_NEXT])
    watch.at("2026-11-17T16:01")

    assert RESOLVED.format("the price of VALE3 is withheld") in heads(chat)


# The quota


def test_a_quota_that_will_not_last(watch: Watch, chat: Chat) -> None:
    """134 windows end before December."""
    watch.quota(1_000, DECEMBER)
    watch.at()
    watch.quota(950, DECEMBER)
    watch.at()

    assert heads(chat) == [QUOTA]
    assert (
        "1,000 requests until Tue 01 Dec 00:00 are 20 runs of 50, and 134 windows"
        in (chat.taken[0])
    )
    assert "nothing would be left at Wed 18 Nov 17:30; 114 windows are skipped" in chat.taken[0]


def test_it_is_over_when_the_quota_is_given_back(watch: Watch, chat: Chat) -> None:
    watch.quota(1_000, DECEMBER)
    watch.at()
    watch.quota(50_000, DECEMBER)
    watch.at()

    assert heads(chat) == [QUOTA, RESOLVED.format(QUOTA)]


@pytest.mark.parametrize(
    ("left", "told"), [(134 * 50, False), (102 * 50, False), (101 * 50, True), (49, True)]
)
def test_a_shortage_of_two_sessions_is_what_pacing_is_for(
    watch: Watch, chat: Chat, left: int, told: bool
) -> None:
    watch.quota(left, DECEMBER)
    watch.at()

    assert heads(chat) == [QUOTA] * told


def test_a_day_before_its_end_a_spent_quota_is_told_too(watch: Watch, chat: Chat) -> None:
    watch.quota(40, datetime(2026, 11, 17, 23, tzinfo=UTC))
    watch.at()

    assert heads(chat) == [QUOTA]


@pytest.mark.parametrize(("limit", "told"), [(500_000, False), (5_000, True)])
def test_of_a_quota_that_rolls_the_whole_is_counted(
    watch: Watch, chat: Chat, limit: int, told: bool
) -> None:
    watch.quota(200, DECEMBER, limit=limit, quota_window="rolling-30d")
    watch.at()

    assert heads(chat) == [QUOTA] * told


def test_only_the_share_of_this_deployment_is_counted(
    watch: Watch, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "QUOTA_SHARE", 0.5)
    watch.quota(134 * 50, DECEMBER)
    watch.at()

    assert heads(chat) == [QUOTA]
