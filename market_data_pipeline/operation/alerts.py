"""Tells a chat which checks fail and which runs failed, by ALERT_WEBHOOK_URL.

The address is a secret: it lets its holder write to the chat. It is in no log and no error.
"""

from __future__ import annotations

import html
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import apprise
import dagster as dg

from market_data_pipeline.market import clock
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, start_of
from market_data_pipeline.operation.freshness import GRACE
from market_data_pipeline.runs.common import WINDOWS, has_windows
from market_data_pipeline.runs.dagster_internals import evaluations, is_of_this_location
from market_data_pipeline.runs.results import ERROR, NAMED, WINDOW
from market_data_pipeline.runs.run_history import ends_of, partitions_in_words
from market_data_pipeline.settings import SettingError, settings

URL, SLACK = "ALERT_WEBHOOK_URL", "hooks.slack.com"
AFTER_THE_SESSION = timedelta(hours=1)
# A run that fails during a tick may be visible only to the next one.
OVERLAP = timedelta(minutes=1)
LONGEST_REASON = 1_000  # characters
MOST_RUNS = 1_000  # more than fail from one look to the next
# Seconds to connect and to answer: a sensor's tick ends after a minute, whatever it does.
TIMEOUTS = {"cto": "10", "rto": "20"}
SECONDS_TO_SEND = 45
TITLE = "Market data"  # of a mail, for instance
BETWEEN = "\n\n"  # paragraphs
# Characters: what Slack advises, and the least that those take who take its format.
LONGEST_MESSAGE = 4_000
SEVERAL = re.compile(r"[\s,;]\w+://")
# Slack's format, which others take too: Apprise's names of the fields, and ours; blank for none.
SLACK_FORMAT = {":message": "text", ":title": "", ":version": "", ":type": "", ":attachments": ""}

# By the name of a check: what it says, and the instruments that it names.
Failing = dict[str, tuple[str, list[str]]]


@dataclass(frozen=True)
class Cursor:
    """What the chat knows."""

    since: float
    """Runs that failed before are known; seconds since 1970."""
    checks: dict[str, list[str]] = field(default_factory=dict)
    """The failing checks that were sent, with the instruments that they named."""
    runs: list[str] = field(default_factory=list)
    """The failures of runs that were sent, the last few."""


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=60,
    default_status=(
        dg.DefaultSensorStatus.RUNNING
        if settings().alert_webhook_url.get_secret_value()
        else dg.DefaultSensorStatus.STOPPED
    ),
    description=f"Tells the chat of {URL} which checks fail, once each, and when they pass again, "
    "and which runs failed; during the session and an hour after. It launches no run.",
)
def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Sends one message with what is new and what is over; remembers it once it is accepted."""
    url, now = settings().alert_webhook_url.get_secret_value(), clock.utc_now()
    if not url:
        return dg.SkipReason(f"{URL} is not set: no message is sent.")
    if not context.cursor:
        # The first run has had no time to finish. Earlier failures are not sent.
        first = Cursor(clock.record_now().timestamp())
        return dg.SensorResult(
            skip_reason="Started: failures are reported from the next minute on.",
            cursor=_written(first),
        )
    known = Cursor(**json.loads(context.cursor))
    session = WINDOWS.of_session(now.astimezone(EXCHANGE_TIMEZONE).date())
    if not session or not session[0].start <= now < session[-1].end + AFTER_THE_SESSION:
        return dg.SkipReason("B3 is closed: open failures are sent when the next session begins.")
    looked_at = clock.record_now()
    failing, passing = _checks(context, session[0].start)
    over = [name for name in known.checks if name in passing]
    new = {name: text for name, (text, named) in failing.items() if _is_new(known, name, named)}
    runs = dict(_failed_runs(context, known))
    news = {name: f"*Resolved: {name}.*" for name in over}
    news |= {name: _paragraph(name, text) for name, text in (new | runs).items()}
    sent = set(islice(news, send(url, [*news.values()])))
    # The clock may have been ahead at an earlier look.
    since = min(looked_at.timestamp(), max(known.since, (looked_at - OVERLAP).timestamp()))
    resolved = sent.intersection(over)
    checks = {name: named for name, named in known.checks.items() if name not in resolved}
    checks |= {name: each[1] for name, each in failing.items() if name not in new or name in sent}
    known = Cursor(
        since=since if len(sent) == len(news) else known.since,
        checks=checks,
        runs=[*known.runs, *(name for name in runs if name in sent)][-MOST_RUNS:],
    )
    if not news:
        said = f"Nothing new; failing: {', '.join(known.checks) or 'none'}."
    elif len(sent) < len(news):
        said = f"The receiver of {URL} did not accept the message: it is sent again in a minute."
        context.log.warning(said)
    else:
        said = f"Sent: {len(new) + len(runs)} new, {len(over)} resolved."
    return dg.SensorResult(skip_reason=said, cursor=_written(known))


def receiver(url: str) -> tuple[apprise.NotifyBase, bool]:
    """The receiver at an address, and whether it takes Slack's format.

    Args:
        url: an address of Apprise (`mailto://`, `discord://`, …), or the webhook of a service that
            Apprise knows; any other takes Slack's format.

    Raises:
        SettingError: it is none of them, or there are several.
    """
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log the address
    asset = apprise.AppriseAsset(http_redirects=False)  # it would lose the message on its way
    with suppress(ValueError):  # no address at all
        formats = [True] if urlsplit(url).hostname == SLACK else [False, True]
        for slacks in formats if not SEVERAL.search(url) else ():
            address = _in_slacks_format(url) if slacks else url
            if service := apprise.Apprise.instantiate(address, asset=asset):
                service.overflow_mode = apprise.OverflowMode.SPLIT
                return service, slacks
    raise SettingError(f"{URL} cannot be used: set it to one webhook or one Apprise address.")


def send(url: str, paragraphs: Sequence[str]) -> int:
    """Sends paragraphs, as many to a message as fit; returns how many were accepted.

    One that is too long for a message is split. None is sent after one that was refused. Takes and
    raises what `receiver` does.
    """
    service, slacks_format = receiver(url)
    if slacks_format:
        service.body_maxlen = LONGEST_MESSAGE
        paragraphs = [*map(_in_slacks_markup, paragraphs)]
    sender = apprise.Apprise([service], asset=service.asset)
    until, sent = time.monotonic() + SECONDS_TO_SEND, 0
    for message in _messages(paragraphs, service.body_maxlen - len(TITLE) - len(BETWEEN)):
        left = until - time.monotonic()
        if left < 1 or not sender.notify(
            BETWEEN.join(message),
            title=TITLE,
            # Some services open no incident for a mere information.
            notify_type=apprise.NotifyType.WARNING,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=left,
        ):
            break
        sent += len(message)
    return sent


def _messages(paragraphs: Iterable[str], longest: int) -> Iterator[list[str]]:
    """The paragraphs of each message; one that is longer than `longest` has its own."""
    message: list[str] = []
    for each in paragraphs:
        if message and len(BETWEEN.join([*message, each])) > longest:
            yield message
            message = []
        message.append(each)
    if message:
        yield message


def _paragraph(name: str, text: str) -> str:
    return "\n".join([f"*{name}*", *(f"> {line}" for line in text.splitlines())])


def _in_slacks_markup(text: str) -> str:
    """The text with what Slack would take for a link or a mention escaped; quotes stay quotes."""
    return re.sub("^&gt; ", "> ", html.escape(text, quote=False), flags=re.MULTILINE)


def _in_slacks_format(url: str) -> str:
    """The address, in Apprise's words, of a webhook that takes Slack's format."""
    parts = urlsplit(url)
    own = {f"-{name}": value for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    query = urlencode({**SLACK_FORMAT, **TIMEOUTS, **own}, quote_via=quote)
    return parts._replace(scheme=parts.scheme.replace("http", "json"), query=query).geturl()


def _is_new(known: Cursor, name: str, named: list[str]) -> bool:
    return name not in known.checks or not set(named) <= set(known.checks[name])


def _checks(context: dg.SensorEvaluationContext, opening: datetime) -> tuple[Failing, set[str]]:
    """The checks that fail for the newest window, with what they say and name; those that pass.

    Of an asset whose partitions are sessions, the newest window is that of the session before the
    `opening`.
    """
    assert context.repository_def
    failing, passing = Failing(), set()
    for key in sorted(context.repository_def.asset_graph.asset_check_keys):
        of_windows = has_windows(context.repository_def, key.asset_key)
        newest = WINDOWS.last_ended(clock.utc_now() - GRACE if of_windows else opening)
        found = {  # of each window the last one; an earlier window may be checked again
            start_of(str(each.metadata[WINDOW].value)): each
            for each in reversed([*evaluations(context.instance, key)])
            if WINDOW in each.metadata
        }
        start = max(found, default=None)
        if start is None or (newest and start < newest.start):
            continue
        evaluation, name = found[start], f"{key.asset_key.to_user_string()}: {key.name}"
        if evaluation.passed:
            passing.add(name)
        elif evaluation.severity is ERROR:
            named = evaluation.metadata.get(NAMED, dg.MetadataValue.json([]))
            tickers = list(map(str, named.value)) if isinstance(named.value, list) else []
            window = evaluation.metadata[WINDOW].value
            failing[name] = f"{window}: {evaluation.description}", tickers
    return failing, passing


def _failed_runs(context: dg.SensorEvaluationContext, known: Cursor) -> Iterator[tuple[str, str]]:
    """What has failed since the last look, each step of a window once."""
    since = datetime.fromtimestamp(known.since, UTC)
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    for record in context.instance.get_run_records(wanted, ascending=True):
        run = record.dagster_run
        if not is_of_this_location(context, run):
            continue
        of = partitions_in_words(run) or f" in run {run.run_id[:8]}"
        reasons = _why_it_failed(context.instance, run.run_id)
        none = {run.job_name: "No step failed: see the log of the run."}
        for step, reason in (reasons or none).items():
            key = f"{step} failed{of}"
            if key not in known.runs and not _is_made_good(context, step, record):
                yield key, f"{reason}\n{_link(run.run_id)}"


def _is_made_good(context: dg.SensorEvaluationContext, step: str, record: dg.RunRecord) -> bool:
    """Whether the session that a step failed for has been materialized since.

    B3's file usually comes later than it is first asked for.
    """
    assert context.repository_def
    assets = context.repository_def.asset_graph.materializable_asset_keys
    asset = next((each for each in assets if each.to_python_identifier() == step), None)
    partitions = ends_of(record.dagster_run)
    if asset is None or len(partitions) != 1 or has_windows(context.repository_def, asset):
        return False
    wanted = dg.AssetRecordsFilter(asset, partitions, after_timestamp=record.end_time)
    return bool(context.instance.fetch_materializations(wanted, limit=1).records)


def _why_it_failed(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """The reason of each step that failed.

    A `Failure` is a sentence of this project, which contains no secret. Of any other error only the
    name is sent: its text may contain one.
    """
    reasons = {}
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for event in (record.event_log_entry.dagster_event for record in records):
        if event is None:
            continue
        failure = event.step_failure_data
        sentence = failure.user_failure_data and failure.user_failure_data.description
        cause = failure.error and (failure.error.cause or failure.error)
        name = cause.cls_name if cause else "unknown error"
        reason = " ".join((sentence or f"{name}, see the log of the run").split())
        reasons[event.step_key or ""] = reason[:LONGEST_REASON]
    return reasons


def _written(cursor: Cursor) -> str:
    return json.dumps(asdict(cursor))


def _link(run_id: str) -> str:
    base = settings().dagster_url.rstrip("/")
    return f"{base}/runs/{run_id}" if base else f"Run {run_id}"
