"""B3's files of official prices (COTAHIST) for the made-up market, in the form of the real ones.

The header names SANDBOX where the real one names BOVESPA, and no ISIN begins with a country.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np

from brapi_sandbox.faults import Fault
from brapi_sandbox.market import FIRST_DAY, Market, Trades

NAME = re.compile(r"COTAHIST_(?:D(?P<day>\d{8})|A(?P<year>\d{4}))\.ZIP")
AFTER_THE_CLOSE = timedelta(hours=2)
LENGTH = 245
RECORD = (
    "01{DATA}{CODBDI}{CODNEG:<12}010{NOMRES:<12.12}{ESPECI:<10.10}   R$  {PREABE:013}{PREMAX:013}"
    "{PREMIN:013}{PREMED:013}{PREULT:013}{PREULT:013}{PREULT:013}{TOTNEG:05}{QUATOT:018}"
    "{VOLTOT:018}{PREEXE:013}0999912310000001{PREEXE:013}{CODISI:<12}{DISMES:03}"
)


def b3_file(market: Market, name: str, now: datetime, faults: Sequence[Fault]) -> bytes | None:
    """A file by its name, zipped, as it is at an instant; None if there is none (yet).

    Args:
        market: whose prices.
        name: such as `COTAHIST_D23112026.ZIP` for a session, `COTAHIST_A2026.ZIP` for a year.
        now: a session's prices are there two hours after its close.
        faults: their `fields` overwrite those of the records, such as `{"PREULT": 4010}`.
    """
    if (asked := NAME.fullmatch(name)) is None:
        return None
    numbers = [
        number
        for number, session in enumerate(market.sessions)
        if session.close + AFTER_THE_CLOSE <= now
        and (f"{session.day.year}" == asked["year"] or f"{session.day:%d%m%Y}" == asked["day"])
    ]
    if not numbers:
        return None
    records = [record for number in numbers for record in _records(market, number, faults)]
    last = market.sessions[numbers[-1]].day
    origin = f"COTAHIST.{last:%Y}SANDBOX {last:%Y%m%d}"
    count = len(records) + 2 * bool(asked["day"])
    lines = [f"00{origin}", *records, f"99{origin}{count:011}"]
    text = "".join(f"{line:<{LENGTH}}\r\n" for line in lines)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name.replace(".ZIP", ".TXT"), text.encode("latin-1"))
    return content.getvalue()


def _records(market: Market, number: int, faults: Sequence[Fault]) -> Iterator[str]:
    for ticker in sorted(market.instruments):
        trades = market.trades(ticker, number)
        if not len(trades):
            continue
        fields = _fields(market, ticker, number, trades)
        for fault in faults:
            if fault.ticker in (None, ticker):
                fields |= {name: fault.fields[name] for name in fields.keys() & fault.fields.keys()}
        yield RECORD.format(**fields)


def _fields(market: Market, ticker: str, number: int, trades: Trades) -> dict[str, str | int]:
    """The fields of a record under B3's names; prices and BRL in cents."""
    instrument, day = market.instruments[ticker], trades.session.day
    cents = np.round(trades.prices * 100).astype(np.int64)
    shares, turnover = int(trades.volumes.sum()), int((cents * trades.volumes).sum())
    kind = f"{instrument.short_name[12:]:<10}"
    before = market.sessions[number - 1].day if number else FIRST_DAY
    if market.dividends(ticker, before, day):
        kind = f"{kind[:4]}{'ER' if instrument.is_fund else 'ED'}{kind[6:]}"
    return {
        "DATA": f"{day:%Y%m%d}",
        "CODBDI": "12" if instrument.is_fund else "02",
        "CODNEG": ticker,
        "NOMRES": instrument.short_name[:12],
        "ESPECI": kind,
        "PREABE": int(cents[0]),
        "PREMAX": int(np.max(cents)),
        "PREMIN": int(np.min(cents)),
        "PREMED": turnover // shares,
        "PREULT": int(cents[-1]),
        "TOTNEG": len(trades),
        "QUATOT": shares,
        "VOLTOT": turnover,
        "PREEXE": 0,
        "CODISI": f"XX{ticker}",
        "DISMES": 100 + market.dividends(ticker, FIRST_DAY, day),
    }
