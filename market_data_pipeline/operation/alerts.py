"""Tells a chat what is wrong and when it is resolved, in Slack's format, by ALERT_WEBHOOK_URL.

The address is a secret: it lets its holder write to the chat. It is in no log and no error.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

import dagster as dg
import requests

from market_data_pipeline.market import clock
from market_data_pipeline.market.quote import by_window
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, trading_windows
from market_data_pipeline.operation.incidents import (
    Incident,
    Rows,
    failed_runs,
    missing_windows,
    quota_running_out,
    recent_windows,
    unpublished_windows,
    withheld_prices,
)
from market_data_pipeline.runs.dagster_internals import is_of_this_location
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.quote_store import QuoteStore

URL = "ALERT_WEBHOOK_URL"
WINDOWS = trading_windows()
# A tick ends after 60 s whatever it does, and the other sensors wait for it.
SECONDS_FOR_AN_ANSWER = 20.0
LONGEST_WAIT = timedelta(hours=1)
AFTER_THE_SESSION = timedelta(hours=1)
# Slack cuts a text at 40,000 characters. What does not fit is in the message of the next tick.
MOST_IN_A_MESSAGE = 20
# What fails while a tick looks may be visible to the next one only.
OVERLAP = timedelta(minutes=1)


class AlertError(Exception):
    """The message was not accepted; the text says why, without the address."""

    def __init__(self, reason: str, wait: timedelta = timedelta(0)) -> None:
        super().__init__(reason)
        self.wait = wait
        """How long the receiver asked us to wait."""


@dataclass(frozen=True)
class Told:
    """The sensor's cursor: what the chat knows. Instants are seconds since 1970."""

    runs_since: float
    """Runs that failed before are known, or were made good."""
    wait_until: float = 0
    """The receiver asked for a pause until then."""
    open: dict[str, list[str]] = field(default_factory=dict)
    """The keys of the incidents that were told and are not over, by the kind of incident."""

    def cursor(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def _url() -> str:
    return settings().alert_webhook_url.get_secret_value()


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=60,
    default_status=(dg.DefaultSensorStatus.RUNNING if _url() else dg.DefaultSensorStatus.STOPPED),
    description=f"Tells the chat of {URL} what is wrong, once per incident, and when it is "
    "resolved; during the session and an hour after. It launches no run."
    + ("" if _url() else f" It is off because {URL} is not set."),
)
def alerts(
    context: dg.SensorEvaluationContext, quote_store: QuoteStore
) -> dg.SensorResult | dg.SkipReason:
    """One message with what is new and what is over, kept as told once it is accepted."""
    url, now = _url(), clock.utc_now()
    if not url:
        return dg.SkipReason(f"{URL} is not set: no message is sent.")
    if context.cursor is None:
        # The startup run has had no time to finish. Earlier failures are not sent.
        told = Told(runs_since=clock.record_now().timestamp())
        return dg.SensorResult(skip_reason="First check in one minute.", cursor=told.cursor())
    told = Told(**json.loads(context.cursor))
    if reason := _why_quiet(now, told):
        return dg.SkipReason(reason)
    looked_at = clock.record_now()
    found = _look(context, quote_store, now, told)
    told, said = _tell(context, url, now, told, found)
    if "runs" in found:
        standing = [each.since for each in found["runs"] if each.since]
        since = (min([looked_at, *standing]) - OVERLAP).timestamp()
        told = replace(told, runs_since=max(told.runs_since, since))
    return dg.SensorResult(skip_reason=said, cursor=told.cursor())


def send(url: str, text: str) -> None:
    """Posts a message.

    Raises:
        AlertError: it was not accepted, or no answer came in time.
    """
    # At DEBUG it logs the path, which is the secret.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    try:
        # Nothing of the answer but its status and headers is read.
        with requests.post(
            url,
            json={"text": text},
            timeout=SECONDS_FOR_AN_ANSWER,
            allow_redirects=False,
            stream=True,
        ) as answer:
            status, wait = answer.status_code, answer.headers.get("retry-after", "")
    except Exception as error:
        raise AlertError(type(error).__name__) from None
    if status >= 300:
        seconds = timedelta(seconds=int(wait[:9])) if wait.isdecimal() else timedelta(0)
        raise AlertError(f"the answer was {status}", min(seconds, LONGEST_WAIT))


def message(new: Sequence[Incident], over: Sequence[str]) -> str:
    """What the chat reads of incidents that are new, and of the keys of those that are over."""
    paragraphs = [f"*Resolved: {_escaped(key)}.*" for key in over]
    for incident in new:
        lines = [f"> {_escaped(line)}" for line in incident.text.splitlines()]
        if incident.run_id:
            lines.append(f"Run {incident.run_id} {_link(incident.run_id)}".rstrip())
        paragraphs.append("\n".join([f"*{_escaped(incident.key)}*", *lines]))
    return "\n\n".join(paragraphs)


def _why_quiet(now: datetime, told: Told) -> str | None:
    """Why nothing is told now."""
    session = WINDOWS.of_session(now.astimezone(EXCHANGE_TIMEZONE).date())
    if not session or not session[0].start <= now < session[-1].end + AFTER_THE_SESSION:
        return "B3 is closed: what is still open when the next session begins is sent then."
    if now.timestamp() < told.wait_until:
        return f"The receiver asked for a pause: {told.wait_until - now.timestamp():.0f} s left."
    return None


def _look(
    context: dg.SensorEvaluationContext, store: QuoteStore, now: datetime, told: Told
) -> dict[str, list[Incident]]:
    """What is wrong, by kind; a kind that could not be looked at is left out."""
    instance, windows = context.instance, recent_windows(now)

    @cache
    def rows() -> Rows:
        stored = store.rows_of([window.key for window in windows])
        grouped = by_window(filter(store.may_leave, stored))
        return {window: grouped[window] for window in windows}

    looks: dict[str, Callable[[], list[Incident]]] = {
        "runs": lambda: failed_runs(
            instance,
            datetime.fromtimestamp(told.runs_since, UTC),
            lambda run: is_of_this_location(context, run),
        ),
        "missing": lambda: missing_windows(instance, windows, now),
        "unpublished": lambda: unpublished_windows(instance, rows(), settings().kafka_topic, now),
        "withheld": lambda: withheld_prices(rows()),
        "quota": lambda: quota_running_out(instance, now),
    }
    found = {}
    for kind, look in looks.items():
        try:
            found[kind] = look()
        except Exception as error:
            context.log.warning(f"Incidents of the kind {kind}: {type(error).__name__}")
    return found


def _tell(
    context: dg.SensorEvaluationContext,
    url: str,
    now: datetime,
    told: Told,
    found: dict[str, list[Incident]],
) -> tuple[Told, str]:
    """What the chat knows after this look, and what the tick says."""
    known = {(kind, key) for kind, keys in told.open.items() for key in keys}
    standing = {(kind, each.key): each for kind, several in found.items() for each in several}
    new = [each for each in standing if each not in known][:MOST_IN_A_MESSAGE]
    over = sorted(each for each in known - standing.keys() if each[0] in found)[:MOST_IN_A_MESSAGE]
    if not new and not over:
        return told, f"Nothing new; open incidents: {len(known)}."
    try:
        send(url, message([standing[each] for each in new], [key for _, key in over]))
    except AlertError as error:
        said = f"Could not send {len(new) + len(over)} incident(s) to {URL}: {error}."
        context.log.warning(said)
        return replace(told, wait_until=(now + error.wait).timestamp()), said
    still = sorted(known.difference(over).union(new))
    kinds = {kind: [key for each, key in still if each == kind] for kind, _ in still}
    return replace(told, open=kinds), f"Sent: {len(new)} new, {len(over)} resolved."


def _link(run_id: str) -> str:
    base = settings().dagster_url.rstrip("/")
    return f"<{base}/runs/{run_id}|open>" if base else ""


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
