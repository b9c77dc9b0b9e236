"""What can go wrong between a request and its answer, sorted by what helps.

No message holds a token: the client sends it in a header, and no exception of the HTTP library is
chained to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from market_data_pipeline.market.errors import ClearError


class BrapiError(ClearError):
    """Brapi did not answer with what was asked for; the text says why."""


class TemporaryError(BrapiError):
    """Worth another try: a time-out, a reset, a 5xx, an answer cut short, too many at once.

    Args:
        retry_after: seconds that Brapi asks to wait, if it does.
        too_many: whether Brapi works, and there were too many requests at once.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, too_many: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.too_many = too_many


class TickerError(BrapiError):
    """Costs the tickers of this request and nothing else: unknown, suspended, unusable."""


class BatchTooLargeError(BrapiError):
    """The plan takes fewer tickers in one request; smaller batches go through."""


class RunError(BrapiError):
    """Every other request would fail too: the run ends, and the text says what to do."""


class OutageError(RunError):
    """Brapi is down or out of reach: another try some minutes later may go through."""


class PlanError(RunError):
    """The plan does not allow what was asked, or what was to be asked and therefore was not."""


def refusal(
    status: int, body: Any, retry_after: float | None, quota_left: int | None
) -> BrapiError:
    """The error that an answer other than 200 stands for.

    Args:
        status: the HTTP status.
        body: the parsed JSON body, None where it is none.
        retry_after: seconds, from the header of that name.
        quota_left: from the header `x-ratelimit-remaining`.
    """
    code, message = _code_and_message(body)
    said = " ".join(filter(None, [f"Brapi answered {status}", code, message and f"({message})"]))
    if status < 500 and not isinstance(body, Mapping):
        said += " with a page that is not from its API (is BRAPI_BASE_URL right?)"
    if status == 401:
        return RunError(f"{said}: the token is refused. Set BRAPI_TOKEN to a valid one.")
    if status == 402 or (status == 429 and quota_left == 0):
        return RunError(
            f"{said}: the quota of this usage window is spent. Wait for the next one, or move to a "
            "larger plan."
        )
    if status == 403 or code in ("INVALID_RANGE", "INVALID_INTERVAL"):
        return PlanError(
            f"{said}: the plan of this token does not include what was asked. Set BRAPI_PLAN to "
            "the plan you have."
        )
    if code == "QUOTES_PER_REQUEST_EXCEEDED":
        return BatchTooLargeError(said)
    if status in (404, 417) and isinstance(body, Mapping):
        return TickerError(f"unknown ticker ({status})")
    if status == 429 or status >= 500:
        return TemporaryError(said, retry_after, too_many=status == 429)
    return TickerError(said)


def _code_and_message(body: Any) -> tuple[str, str]:
    """The code and the message of either envelope, empty where there is none."""
    if not isinstance(body, Mapping):
        return "", ""
    error = body.get("error")
    issues = error.get("issues") if isinstance(error, Mapping) else None
    if isinstance(issues, list):
        texts = [issue.get("message") for issue in issues if isinstance(issue, Mapping)]
        return "", _shown("; ".join(text for text in texts if isinstance(text, str)), 200)
    return _shown(body.get("code"), 60), _shown(body.get("message"), 200)


def _shown(value: Any, longest: int) -> str:
    """A text as it can be logged: half a surrogate pair cannot."""
    return value.encode("utf-8", "replace").decode()[:longest] if isinstance(value, str) else ""
