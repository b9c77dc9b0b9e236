"""Reads settings from environment variables; a blank one is as good as none.

A value that does not say what it must is a `ValueError` whose text names the variable and what to
set it to. Secrets are not read here: Dagster resolves them when a run needs them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from datetime import date
from typing import TypeVar

import dagster as dg

T = TypeVar("T")


def text(name: str, default: str) -> str:
    """A text, without the white space around it."""
    return os.environ.get(name, "").strip() or default


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """One of the words that are allowed."""
    value = text(name, default)
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: set it to one of {', '.join(allowed)}.")
    return value


def word(name: str, default: str) -> str:
    """Letters, digits and underscores."""
    return _parsed(name, default, _word, "letters, digits and underscores, such as funds")


def whole_number(name: str, default: int) -> int:
    """A whole number, not negative."""
    return _parsed(name, default, _digits, "a whole number such as 30")


def number(name: str, default: float) -> float:
    """A finite number, not negative."""
    return _parsed(name, default, _amount, "a number such as 0.5")


def share(name: str, default: float) -> float:
    """A number from 0 to 1."""
    return _parsed(name, default, _share, "a number from 0 to 1 such as 0.5")


def flag(name: str, default: bool | None) -> bool | None:
    """true or false."""
    return _parsed(name, default, _true_or_false, "true or false")


def day(name: str, default: date) -> date:
    """A date in ISO 8601."""
    return _parsed(name, default, date.fromisoformat, "a date such as 2026-01-02")


def secret(name: str) -> str:
    """A secret: Dagster shows the variable's name, never its value.

    One that is not set is empty here: a missing EnvVar would fail a launch before there is a run
    that could say so.
    """
    return dg.EnvVar(name) if text(name, "") else ""


def _parsed(name: str, default: T, parse: Callable[[str], T], expected: str) -> T:
    value = text(name, "")
    if not value:
        return default
    try:
        return parse(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}: set it to {expected}.") from None


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+", value):
        raise ValueError
    return value


def _digits(value: str) -> int:
    if not value.isdecimal():
        raise ValueError
    return int(value)


def _true_or_false(value: str) -> bool | None:
    if value.lower() not in ("true", "false"):
        raise ValueError
    return value.lower() == "true"


def _amount(value: str) -> float:
    amount = float(value)
    if not math.isfinite(amount) or amount < 0:
        raise ValueError
    return amount


def _share(value: str) -> float:
    amount = _amount(value)
    if amount > 1:
        raise ValueError
    return amount
