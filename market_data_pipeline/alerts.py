"""Tells a chat of a run that has failed, in Slack's format, if ALERT_WEBHOOK_URL is set.

The address is a secret: whoever has it can write to the chat. It is in no log and no error.
"""

from __future__ import annotations

import html
import time

import dagster as dg
import requests

from market_data_pipeline import environment

URL = "ALERT_WEBHOOK_URL"
# One look of the sensor may tell of five failures, and ends after 60 s whatever it does.
SECONDS_FOR_AN_ANSWER = 5.0
ATTEMPTS = 2


class AlertError(Exception):
    """The message was not accepted; the text says why, without the address."""


@dg.run_failure_sensor(
    name="alert_on_failure",
    default_status=(
        dg.DefaultSensorStatus.RUNNING
        if environment.text(URL, "")
        else dg.DefaultSensorStatus.STOPPED
    ),
    minimum_interval_seconds=30,
    description=f"One message to {URL} for each run that fails. It runs when the variable is set.",
)
def alert_on_failure(context: dg.RunFailureSensorContext) -> None:
    """Sends one message for a failed run; one that cannot be sent is a warning in the tick's log.

    Dagster comes here once for each failure, whatever becomes of the message.
    """
    url = environment.text(URL, "")
    if not url:
        context.log.warning(f"{URL} is not set: set it, or stop this sensor.")
        return
    try:
        send(url, message(context))
    except AlertError as error:
        run_id = context.dagster_run.run_id[:8]
        context.log.warning(f"The failure of run {run_id} was not told to {URL}: {error}.")


def message(context: dg.RunFailureSensorContext) -> str:
    """What the chat reads: the run, its window and why it failed.

    A `Failure` is a sentence of this project, which holds no secret. Of any other error only the
    name is told: nobody knows what is in its text.
    """
    run = context.dagster_run
    ends = [run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    windows = context.partition_key or " to ".join(filter(None, ends))
    head = f"{run.job_name} failed" + (f" for {windows}" if windows else "")
    lines = [f"*{head}*", *(f"> {reason}" for reason in _reasons(context))]
    lines.append(f"Run {run.run_id} {_link(run.run_id)}".rstrip())
    return "\n".join(lines)


def send(url: str, text: str) -> None:
    """Posts a message; tries again once if it certainly was not accepted.

    Raises:
        AlertError: it was not accepted, or nobody knows whether it was.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # Nothing of the answer but its status is read.
            with requests.post(
                url,
                json={"text": text},
                timeout=SECONDS_FOR_AN_ANSWER,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise AlertError(type(error).__name__) from None
        if status < 300:
            return
        if attempt == ATTEMPTS or (status != 429 and status < 500):
            raise AlertError(f"the answer was {status}")
        time.sleep(1)


def _reasons(context: dg.RunFailureSensorContext) -> list[str]:
    reasons = []
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        told = failure.user_failure_data and failure.user_failure_data.description
        cause = failure.error and (failure.error.cause or failure.error)
        name = cause.cls_name if cause else "unknown error"
        reasons.append(f"{event.step_key}: {_escaped(told or f'{name}, see the log of the run')}")
    return reasons or ["No step failed: see the log of the run."]


def _link(run_id: str) -> str:
    base = environment.text("DAGSTER_URL", "").rstrip("/")
    return f"<{base}/runs/{run_id}|open>" if base else ""


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
