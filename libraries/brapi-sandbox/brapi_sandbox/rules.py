"""The rules of the API as the sandbox keeps them: plans, parameters and error bodies.

The client has rules of its own; they are apart so that a mistake in one shows in the other.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from brapi_sandbox.market import Market

RANGES = ("1d", "2d", "5d", "7d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max")
INTERVALS = ("1m", "2m", "5m", "15m", "30m", "60m", "90m", "1h", "1d", "5d", "1wk", "1mo", "3mo")
FREE_TICKERS = frozenset({"PETR4", "MGLU3", "VALE3", "ITUB4"})
HISTORY_PARAMETERS = ("range", "interval", "startDate", "endDate")
PAID_PARAMETERS = ("modules", "fundamental", "dividends")
# The new symbol, and whether the answer repeats the one that was asked for.
RENAMED = {
    "ELET3": ("AXIA3", True),
    "ELET6": ("AXIA6", False),
    "EMBR3": ("EMBJ3", True),
    "MRFG3": ("MBRF3", False),
    "RRRP3": ("BRAV3", True),
}


@dataclass(frozen=True)
class Plan:
    """What one plan allows."""

    name: str
    quota: int
    tickers_per_request: int
    refresh_minutes: int
    ranges: tuple[str, ...]
    intervals: tuple[str, ...]
    months_of_history: int


PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", 15_000, 1, 30, ("1d", "5d", "1mo", "3mo"), ("1d",), 3),
        Plan("startup", 150_000, 10, 15, (*RANGES[:8], "ytd"), INTERVALS, 12),
        Plan("pro", 500_000, 20, 5, RANGES, INTERVALS, 1_200),
    )
}


@dataclass(frozen=True)
class Span:
    """The part of the price history that a request asks for."""

    days: tuple[date, date]
    used_range: str
    interval: str


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def refusal(status: int, message: str, code: str | None = None) -> Refusal:
    """A refusal in the first of the two envelopes."""
    body = {"error": True, "message": message}
    return Refusal(status, body | {"code": code} if code else body)


def malformed(parameter: str, message: str) -> Refusal:
    """A refusal of a parameter of the wrong form, in the second envelope."""
    issue = {"code": "invalid_string", "path": [parameter], "message": message}
    return Refusal(400, {"success": False, "error": {"issues": [issue], "name": "ZodError"}})


def requested_span(
    query: Mapping[str, str], plan: Plan, today: date, market: Market
) -> Span | None:
    """What part of the history the query asks for; None when it asks for the quote alone.

    Raises:
        Refusal: a parameter is not a value, or the plan does not allow it.
    """
    if plan.name == "free" and any(name in query for name in PAID_PARAMETERS):
        message = "Este recurso não está disponível no seu plano. Faça um upgrade para acessá-lo."
        raise refusal(403, message, "FEATURE_NOT_AVAILABLE")
    if not any(name in query for name in HISTORY_PARAMETERS):
        return None
    interval = _allowed(
        query.get("interval", "1d"), plan.intervals, "intervalo", "INVALID_INTERVAL"
    )
    used_range = _allowed(query.get("range", "1d"), plan.ranges, "range", "INVALID_RANGE")
    last = _date(query, "endDate") or today
    first = _date(query, "startDate")
    if first:
        used_range = "custom"
        if first > last:
            raise malformed("startDate", "startDate deve ser anterior ou igual a endDate.")
    else:
        first = _first_day(used_range, last, market)
    if used_range != "max" and first < months_before(today, plan.months_of_history):
        raise refusal(
            400, "O período solicitado não está disponível no seu plano.", "INVALID_RANGE"
        )
    return Span((first, last), used_range, interval)


def months_before(day: date, months: int) -> date:
    """The same day so many months earlier, or that month's last."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    if year < 1:
        return date.min
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def _allowed(value: str, allowed: tuple[str, ...], name: str, code: str) -> str:
    if value not in allowed:
        message = f"O {name} '{value}' não é válido para o seu plano. Permitidos: "
        raise refusal(400, message + ", ".join(allowed) + ".", code)
    return value


def _date(query: Mapping[str, str], name: str) -> date | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if len(text) != len("YYYY-MM-DD"):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise malformed(name, f"{name} deve estar no formato YYYY-MM-DD.") from None


def _first_day(used_range: str, last: date, market: Market) -> date:
    """The first day of a range that counts back from `last`: days are sessions."""
    match used_range:
        case "ytd":
            return date(last.year, 1, 1)
        case "max":
            return date.min
        case _ if used_range.endswith("mo"):
            return months_before(last, int(used_range[:-2]))
        case _ if used_range.endswith("y"):
            return months_before(last, 12 * int(used_range[:-1]))
    days = [session.day for session in market.sessions if session.day <= last]
    count = int(used_range[:-1])
    return days[-count] if len(days) >= count else last - timedelta(days=count)
