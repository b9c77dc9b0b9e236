"""A made-up market in which history agrees with the live prices, because both are one function.

Every trade follows from the ticker and the minute alone: no state, no file, the same on every
machine. Only the hours are real, those of B3.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd

SAO_PAULO = ZoneInfo("America/Sao_Paulo")
NEW_YORK = ZoneInfo("America/New_York")
FIRST_DAY = date(2016, 1, 4)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# How far a price wanders from its base, and in how many minutes: from a year down to a minute.
WAVES = (
    (525_600, 0.20),
    (131_400, 0.10),
    (28_800, 0.05),
    (7_200, 0.025),
    (1_440, 0.012),
    (180, 0.005),
    (30, 0.0025),
    (5, 0.001),
    (1, 0.0004),
)
SUFFIXES = {"3": "ON", "4": "PN", "5": "PNA", "6": "PNB", "11": "UNT"}


@dataclass(frozen=True)
class Instrument:
    """One instrument of the made-up market: its names, its usual price and how much is traded."""

    ticker: str
    short_name: str
    long_name: str
    price: float
    """In BRL, what its price moves around."""
    trades_per_minute: float
    daily_volume: int
    """In shares."""

    @property
    def is_fund(self) -> bool:
        """Funds have no earnings."""
        return "Fundo" in self.long_name


@dataclass(frozen=True)
class Session:
    """One day of trading, `[open, close)`, in UTC."""

    day: date
    open: datetime
    close: datetime


@dataclass(frozen=True)
class Trades:
    """The trades of one instrument in one session, at most one a minute, as parallel arrays.

    `seconds` are Unix seconds, `prices` BRL, `volumes` shares.
    """

    session: Session
    seconds: Ints
    prices: Floats
    volumes: Ints

    def before(self, instant: datetime) -> Trades:
        """Those made before `instant`."""
        count = int(np.searchsorted(self.seconds, math.ceil(instant.timestamp())))
        return Trades(self.session, self.seconds[:count], self.prices[:count], self.volumes[:count])

    def __len__(self) -> int:
        return len(self.seconds)


class Market:
    """The instruments that come with the sandbox, and `more` tickers with made-up names."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self.instruments = {each.ticker: each for each in _known_instruments()}
        for ticker in more:
            self.instruments.setdefault(ticker, _made_up(ticker))
        self.sessions = b3_sessions()
        self.trades: Callable[[str, int], Trades] = lru_cache(1024)(self._trades)

    def sessions_before(self, instant: datetime) -> int:
        """How many sessions have opened before `instant`."""
        return bisect_left(self.sessions, instant, key=lambda session: session.open)

    def last_trades(self, ticker: str, instant: datetime) -> list[Trades]:
        """The last two sessions that have a trade before `instant`: that one and the one before."""
        found: list[Trades] = []
        for number in reversed(range(self.sessions_before(instant))):
            trades = self.trades(ticker, number).before(instant)
            if len(trades):
                found.append(trades)
            if len(found) == 2:
                break
        return found

    def worth(self, ticker: str, minutes: Ints) -> Floats:
        """What the instrument is worth, in BRL, in each minute (since 1970), traded or not."""
        instrument = self.instruments[ticker]
        calm = 0.4 if instrument.is_fund else 1.0
        drift = sum(size * _wave(_seed(ticker), minutes, period) for period, size in WAVES)
        return np.round(instrument.price * np.exp(calm * np.asarray(drift)), 2)

    def _trades(self, ticker: str, number: int) -> Trades:
        session, instrument, seed = self.sessions[number], self.instruments[ticker], _seed(ticker)
        first, last = (int(t.timestamp()) // 60 for t in (session.open, session.close))
        minutes = np.arange(first, last, dtype=np.int64)
        chance = 1 - math.exp(-instrument.trades_per_minute)
        minutes = minutes[_random(seed + 1, minutes) < chance]
        seconds = minutes * 60 + (_random(seed + 2, minutes) * 60).astype(np.int64)
        lot = 1 if instrument.is_fund else 100
        mean = instrument.daily_volume / (last - first) / chance / lot
        volumes = lot * (1 + (2 * mean * _random(seed + 3, minutes)).astype(np.int64))
        return Trades(session, seconds, self.worth(ticker, minutes), volumes)

    def dividends(self, ticker: str, after: date, until: date) -> int:
        """How often it went ex-dividend in `(after, until]`: on the 15th of some months."""
        months = 1 if self.instruments[ticker].is_fund else 3
        return _payments(ticker, months, until) - _payments(ticker, months, after)


@cache
def b3_sessions() -> list[Session]:
    """The sessions of B3, from 2016 to about a year from now."""
    calendar = exchange_calendars.get_calendar("BVMF", start=pd.Timestamp(FIRST_DAY))
    return [
        Session(day.date(), opening.to_pydatetime().astimezone(UTC), _close(day.date()))
        for day, opening in calendar.schedule["open"].items()
    ]


def _close(day: date) -> datetime:
    """Shares stop an hour earlier while New York is on daylight saving time."""
    summer = datetime.combine(day, time(12), NEW_YORK).dst() != timedelta(0)
    return datetime.combine(day, time(17) if summer else time(17, 55), SAO_PAULO).astimezone(UTC)


def _known_instruments() -> Iterable[Instrument]:
    text = resources.files(__package__).joinpath("instruments.csv").read_text("utf-8")
    for row in csv.DictReader(text.splitlines()):
        numbers: dict[str, Any] = {
            "price": float(row["price"]),
            "trades_per_minute": float(row["trades_per_minute"]),
            "daily_volume": int(row["daily_volume"]),
        }
        yield Instrument(row["ticker"], row["short_name"], row["long_name"], **numbers)


def _made_up(ticker: str) -> Instrument:
    issuer, number = ticker[:4], re.sub(r"^.{4}", "", ticker)
    kind = SUFFIXES.get(number, "CI")
    price = 5 + _seed(ticker) % 9_500 / 100
    return Instrument(ticker, f"{issuer:<12}{kind}", f"{issuer.title()} S.A.", price, 10, 2_000_000)


def _payments(ticker: str, months: int, day: date) -> int:
    elapsed = day.year * 12 + day.month - (day.day < 15)
    return (elapsed + _seed(ticker) % months) // months


@cache
def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _random(seed: int, numbers: Ints) -> Floats:
    """One number in [0, 1) for each, by the finalizer of SplitMix64."""
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _wave(seed: int, minutes: Ints, period: int) -> Floats:
    """A smooth random curve in [-1, 1] with a turn about every `period` minutes."""
    cells, rest = np.divmod(minutes, period)
    share = rest / period
    left, right = _random(seed + period, cells), _random(seed + period, cells + 1)
    return 2 * (left + (right - left) * share * share * (3 - 2 * share)) - 1
