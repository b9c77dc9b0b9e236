"""Whether every live quote is on the topic, and whether the topic keeps the last prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from confluent_kafka import KafkaError, KafkaException

from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, Window
from market_data_pipeline.publication.client import given_properties, without_values
from market_data_pipeline.publication.kafka import Kafka
from market_data_pipeline.publication.topic import CONFIGURATION, configuration
from market_data_pipeline.runs.common import PUBLICATION, WINDOWS
from market_data_pipeline.runs.results import ERROR, WARN, some, verdict
from market_data_pipeline.runs.run_history import materializations, value_of

EVERY_QUOTE_DELIVERED = dg.AssetCheckSpec(
    "every_quote_delivered",
    asset=PUBLICATION,
    description="The broker acknowledged an event for every live quote of the window. If not: "
    "materialize `kafka_publication` alone while the window is live.",
)
# From the close before Carnival to the first window of Ash Wednesday.
LONGEST_PAUSE = timedelta(hours=115.5)
# More than one with two thousand instruments.
BYTES_OF_A_WINDOW = 2**20
# Keys of the metadata of a window.
PUBLISHED, TOPIC, OBSERVED_AT, WITHHELD = "published", "topic", "observed_at", "withheld_tickers"
_ANSWER_SECONDS = 5.0
_HOW_TO_KEEP_THEM = (
    "To keep the last price of each ticker for ever, set "
    f"{', '.join(f'{name}={value}' for name, value in CONFIGURATION.items())} on the topic."
)


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication of a window."""

    published: int
    """How many events it had."""
    observed_at: datetime
    """When the newest of its prices was observed (UTC)."""
    withheld: frozenset[str]
    """The tickers whose price was withheld."""

    def includes(self, quote: Quote) -> bool:
        """Whether the price that is stored now was among the events."""
        return quote.observed_at <= self.observed_at and quote.ticker not in self.withheld

    def metadata(self, topic: str) -> dict[str, Any]:
        """What its materialization records, for `publications` to read."""
        return {
            PUBLISHED: self.published,
            TOPIC: topic,
            OBSERVED_AT: dg.MetadataValue.timestamp(self.observed_at),
            **({WITHHELD: sorted(self.withheld)} if self.withheld else {}),
        }


def publications(
    instance: dg.DagsterInstance, windows: Sequence[Window], topic: str
) -> dict[Window, list[Publication]]:
    """The publications of each of some windows to a topic, the newest first; there may be none."""
    found = materializations(instance, PUBLICATION, windows)
    return {
        window: [_recorded(each) for each in events if value_of(each, TOPIC) == topic]
        for window, events in found.items()
    }


def every_quote_delivered(
    quotes: Mapping[Window, Sequence[Quote]],
    publications: Mapping[Window, Sequence[Publication]],
    published: int,
) -> dg.AssetCheckResult:
    """Whether every live quote of some windows is on the topic, by this run or an earlier one.

    The windows are in the order of time; `published` is how many events this run sent.
    """
    never, late, named = list[str](), list[str](), set[str]()
    for window, stored in quotes.items():
        tickers = lacking(stored, publications[window])
        if tickers and publications[window]:
            named.update(tickers)
            late.append(
                f"{window.key} was sent before all of its quotes were stored; missing on the "
                f"topic: {some(tickers)} ({_live_until(window)})"
            )
        elif tickers:
            never.append(f"{window.key} has no recorded publication ({_live_until(window)})")
    live = [each for several in quotes.values() for each in several if each.source == "live"]
    withheld = [each.ticker for each in live if not each.trusted]
    if published:
        well = f"The broker acknowledged all {published} events."
    elif live:
        well = "Every live quote was already sent."
    else:
        well = "There were no live quotes to send."
    fault = " ".join(f"{some(faults)}." for faults in (never, late) if faults)
    also = f" Withheld, as their prices have moved too far: {some(withheld)}." if withheld else ""
    return verdict(
        EVERY_QUOTE_DELIVERED,
        [*quotes],
        fault and fault + also,
        well + also,
        ERROR,
        named,
        published=published,
        withheld=withheld,
    )


def lacking(quotes: Iterable[Quote], published: Sequence[Publication]) -> list[str]:
    """The tickers whose live price, as it is stored of a window, is in none of its publications."""
    due = (quote for quote in quotes if quote.source == "live" and quote.trusted)
    return sorted(each.ticker for each in due if not any(one.includes(each) for one in published))


def not_delivered(windows: Sequence[Window], window: Window, reason: str) -> dg.AssetCheckResult:
    """What `every_quote_delivered` says when a window was not published whole."""
    fault = f"{window.key} was not published: {reason}"
    return verdict(EVERY_QUOTE_DELIVERED, windows, fault, "", ERROR)


def _live_until(window: Window) -> str:
    over = WINDOWS.live_until(window).astimezone(EXCHANGE_TIMEZONE)
    return f"it was live until {over:%H:%M}"


@dg.asset_check(
    asset=PUBLICATION,
    description="A consumer that starts later, at the earliest event, finds the last price of each "
    "ticker on the topic. If not: change the configuration of the topic; "
    "docs/operating.md has the command.",
)
def topic_keeps_prices(kafka: dg.ResourceParam[Kafka]) -> dg.AssetCheckResult:
    """What the configuration of the topic means for a consumer that starts later."""
    passed = True
    try:
        passed, text = _meaning(configuration(kafka.settings, _ANSWER_SECONDS))
    except KafkaException as exception:
        text = _why_not_known(exception.args[0])
        text = without_values(text, given_properties(kafka.settings))
    return dg.AssetCheckResult(passed=passed, severity=WARN, description=text)


def _meaning(configuration: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the prices are kept for long enough, and what to say."""
    if not configuration:
        return True, "The embedded Kafka keeps its events until `make dev` ends."
    policies = configuration.get("cleanup.policy", "delete")
    # A service may not list what it does not limit.
    kept, size = (int(configuration.get(f"retention.{unit}") or -1) for unit in ("ms", "bytes"))
    if "delete" not in policies or max(kept, size) < 0:
        return True, "The last price of each ticker stays on the topic."
    pause = LONGEST_PAUSE / timedelta(milliseconds=1)
    passed = not (0 <= kept < pause or 0 <= size < BYTES_OF_A_WINDOW)
    finds = "finds the last window" if passed else "may find no price"
    limits = [f"{kept / 3_600_000:g} h"] * (kept >= 0) + [f"{size:,} bytes"] * (size >= 0)
    return passed, (
        f"A partition keeps its events for {' or '.join(limits)}, so a consumer that starts late "
        f"{finds}: the market pauses for up to {pause / 3_600_000:g} h, and a window may take "
        f"{BYTES_OF_A_WINDOW:,} bytes. {_HOW_TO_KEEP_THEM}"
    )


def _why_not_known(error: KafkaError) -> str:
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return "There is no topic yet."
    advice = (
        "grant DESCRIBE_CONFIGS on the topic to know it"
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        else "the next run asks again"
    )
    return f"The configuration of the topic is not known ({error.str()}): {advice}."


def _recorded(record: dg.EventLogRecord) -> Publication:
    # Older versions did not record when the prices were observed, nor whose were withheld.
    seconds = value_of(record, OBSERVED_AT)
    newest = datetime.fromtimestamp(seconds, UTC) if seconds else datetime.max.replace(tzinfo=UTC)
    withheld = frozenset(value_of(record, WITHHELD) or ())
    return Publication(value_of(record, PUBLISHED), newest, withheld)
