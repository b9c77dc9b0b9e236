"""The errors of a request to Brapi, by what they cost.

No message contains the token: the client sends it in a header, no exception of the HTTP library is
chained to these, and the token is removed from the texts of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from market_data_pipeline import ClearError

TOKEN_REFUSED = {"MISSING_TOKEN", "INVALID_TOKEN"}
NOT_ON_THE_PLAN = {"FEATURE_NOT_AVAILABLE", "INVALID_RANGE", "INVALID_INTERVAL"}
TOO_MANY_TICKERS = "QUOTES_PER_REQUEST_EXCEEDED"
# Without a code these statuses prove nothing: a CDN may answer with them, too.
CLAIMS = {
    401: "BRAPI_TOKEN may be wrong",
    402: "the quota may be spent",
    403: "BRAPI_TOKEN or BRAPI_PLAN may be wrong",
}
# Besides 5xx.
REPEATED = {200, 408, 409, 425, 429}


class BrapiError(ClearError):
    """Brapi did not answer with what was asked for; the text says why."""

    def __init__(
        self, text: str, retry_after: float | None = None, *, too_many: bool = False
    ) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds that Brapi asks to wait, if it does."""
        self.too_many = too_many
        """Whether Brapi refused the request because there were too many."""


class TemporaryError(BrapiError):
    """The request may succeed if repeated: a time-out, a reset, a 5xx, an incomplete answer."""


class TickerError(BrapiError):
    """Only the tickers of this request fail: unknown, suspended, unusable."""


class RunError(BrapiError):
    """Every other request would fail too: the run ends, and the text says what to do."""


def is_error(body: Any) -> bool:
    """Whether a body, or a result in it, says that it is an error; the status may be 200."""
    return isinstance(body, Mapping) and bool(body.get("error") or body.get("success") is False)


def refusal(
    status: int, body: Any, tickers: int, retry_after: float | None, quota_left: int | None
) -> BrapiError | None:
    """The error in an answer, if it is one; `quota_left` is by all answers so far."""
    if status == 200 and not is_error(body):
        return None
    code, message = _code_and_message(body)
    said = " ".join(filter(None, [f"Brapi answered {status}", code, message and f"({message})"]))
    if status < 500 and not isinstance(body, Mapping):
        said += " with a page that is not from its API (is BRAPI_BASE_URL right?)"
    if code in TOKEN_REFUSED:
        return RunError(f"{said}: the token is refused. Set BRAPI_TOKEN to a valid one.")
    if code in NOT_ON_THE_PLAN:
        return RunError(
            f"{said}: the plan of this token does not include the request. Set BRAPI_PLAN to the "
            "plan you have."
        )
    if code == TOO_MANY_TICKERS and tickers > 1:
        return RunError(
            f"{said}: the plan of this token takes fewer than {tickers} tickers in one request. "
            "Set BRAPI_PLAN to the plan you have, or BRAPI_TICKERS_PER_REQUEST."
        )
    if status in (402, 429) and quota_left == 0:
        return RunError(
            f"{said}: the quota of this usage window is spent. Wait for the next one, or move to a "
            "larger plan."
        )
    if status in (404, 417) and isinstance(body, Mapping):
        return TickerError(f"unknown ticker ({status})")
    if status in CLAIMS:
        return TemporaryError(f"{said}: {CLAIMS[status]}")
    if status in REPEATED or status >= 500:
        return TemporaryError(said, retry_after, too_many=status == 429)
    return TickerError(said)


def _code_and_message(body: Any) -> tuple[str, str]:
    """The code and the message of either envelope, empty if there is none."""
    if not isinstance(body, Mapping):
        return "", ""
    parts, error = [body], body.get("error")
    parts.append(error if isinstance(error, Mapping) else {"message": error})
    if isinstance(issues := parts[1].get("issues"), list):
        parts += [each for each in issues if isinstance(each, Mapping)]
    return _first_text(parts[:2], "code", 60), _first_text(parts, "message", 200)


def _first_text(parts: list[Mapping[str, Any]], name: str, longest: int) -> str:
    texts = (part.get(name) for part in parts)
    return next((text for text in texts if text and isinstance(text, str)), "")[:longest]
