"""B3's official prices of each session: what is asked for, and when."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

import dagster as dg
from dagster_mongo import MongoResource

from market_data_pipeline.b3 import checks
from market_data_pipeline.b3.files import FIRST_DAY_IN_REAIS, B3Error, B3History, FileError
from market_data_pipeline.market import b3_calendar, clock
from market_data_pipeline.market.quote import Quote
from market_data_pipeline.market.watchlist import load_watchlist
from market_data_pipeline.market.windows import EXCHANGE_TIMEZONE, sessions_from
from market_data_pipeline.runs.common import (
    ONE_RUN_A_RANGE,
    OWNERS,
    WINDOWS,
    failing_clearly,
    partitions_of,
)
from market_data_pipeline.runs.results import ROW_COUNT, column_schema, some
from market_data_pipeline.runs.turn import B3, turn
from market_data_pipeline.settings import settings
from market_data_pipeline.storage.official_close import COLUMNS, OFFICIAL_CLOSE, Closes, save
from market_data_pipeline.storage.quote_store import QuoteStore

SESSIONS = sessions_from(FIRST_DAY_IN_REAIS)
# Of a year: for more sessions, the file of the year is asked for.
MOST_FILES = 40
OVERDUE, RECENT = timedelta(days=2), timedelta(days=7)


@dg.asset(
    key=OFFICIAL_CLOSE,
    partitions_def=SESSIONS,
    backfill_policy=ONE_RUN_A_RANGE,
    output_required=False,  # a session without a file is not materialized, the others are
    group_name="b3",
    owners=OWNERS,
    kinds={"parquet", "mongodb"},
    check_specs=[checks.CLOSES_MATCH, checks.CALENDAR_MATCHES],
    metadata={"dagster/column_schema": column_schema(COLUMNS)},
)
def official_close(
    context: dg.AssetExecutionContext,
    b3: dg.ResourceParam[B3History],
    mongo: MongoResource,
    quote_store: dg.ResourceParam[QuoteStore],
) -> Iterator[dg.AssetCheckResult]:
    """B3's own record of each instrument in a session, as it was traded.

    It costs no request to Brapi. B3 publishes it in the evening or the night after the session.
    """
    keys, stored, unexpected = partitions_of(context), set[str](), list[str]()
    found, troubles = defaultdict[str, list[str]](list), list[str]()
    with failing_clearly(), turn(context, B3):
        ours = {key: _last_trusted(quote_store, key) for key in keys}
        wanted = {*load_watchlist(settings().watchlist_file).tickers}.union(*ours.values())
        for sessions in _files(b3, keys, wanted, troubles):
            unexpected += [
                key for key in sessions if not b3_calendar.is_session(date.fromisoformat(key))
            ]
            for key in sorted(ours.keys() & sessions.keys()):
                save(quote_store, mongo, key, sessions[key], context.run.run_id)
                checks.compare(ours[key], sessions[key], found, f"{key} " * (len(keys) > 1))
                stored.add(key)
                described: dict[str, Any] = {ROW_COUNT: len(sessions[key])}
                context.log_event(
                    dg.AssetMaterialization(OFFICIAL_CLOSE, partition=key, metadata=described)
                )
    lacking = [key for key in keys if key not in stored]
    overdue = [key for key in lacking if key <= _last_session(clock.utc_now() - OVERDUE)]
    windows = WINDOWS.of_session(date.fromisoformat(keys[-1]))
    if stored:
        yield checks.closes_match(windows, found)
    if stored or unexpected or overdue:
        yield checks.calendar_matches(windows, unexpected, overdue)
    if lacking:
        why = some(troubles, " ") or "the session has not ended, or B3's file of the year lacks it."
        raise dg.Failure(
            f"No prices of B3 are stored for {some(lacking)}: {why}", allow_retries=False
        )


official_close_job = dg.define_asset_job(
    "official_close_job", [OFFICIAL_CLOSE], description="B3's official prices of a session."
)


@dg.schedule(
    job=official_close_job,
    cron_schedule="0 0,3,6,9,12,15,17,20-23 * * *",
    execution_timezone=EXCHANGE_TIMEZONE.key,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Launches a run for B3's file of the last session, unless it is stored: every hour "
    "from 20:00, then every three hours until the next session ends.",
)
def every_evening(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A run for the last session that has ended, or the reason for none."""
    key = _last_session(context.scheduled_execution_time)
    wanted = dg.AssetRecordsFilter(OFFICIAL_CLOSE, asset_partitions=[key])
    if context.instance.fetch_materializations(wanted, limit=1).records:
        return dg.SkipReason(f"B3's prices of {key} are stored.")
    return dg.RunRequest(partition_key=key)


def _files(
    b3: B3History, keys: Sequence[str], wanted: set[str], troubles: list[str]
) -> Iterator[dict[str, Closes]]:
    """What B3 has of some sessions, and of the closed days before the last of them."""
    now, periods, closed = clock.utc_now(), list[str](), set[str]()
    ended = [key for key in keys if key <= _last_session(now)]
    for year, several in groupby(ended, lambda key: key[:4]):
        days = [*several]
        # B3 keeps the files of single sessions for the running year only.
        periods += [year] if len(days) > MOST_FILES or year < f"{now:%Y}" else days
    if keys[-1] > _last_session(now - RECENT):
        last = date.fromisoformat(keys[-1])
        before = b3_calendar.sessions_back(last, 1)
        closed = {f"{day}" for day in b3_calendar.openings() if before < day < last}
        periods += sorted(closed)
    for period in periods:
        try:
            yield b3.sessions(period, wanted)
        except B3Error as error:
            if period in closed:
                continue  # there should be none, whatever B3 answers instead
            if not isinstance(error, FileError):
                raise
            troubles.append(str(error))


def _last_trusted(store: QuoteStore, key: str) -> dict[str, Quote]:
    """Our last trusted price of each instrument in a session, by each of its symbols."""
    windows = WINDOWS.of_session(date.fromisoformat(key))
    rows = store.reading().rows_of([window.key for window in windows])
    return {symbol: quote for quote in rows if quote.trusted for symbol in quote.symbols}


def _last_session(now: datetime) -> str:
    """The last session that has ended by an instant."""
    local = now.astimezone(EXCHANGE_TIMEZONE)
    over = timedelta(days=local.time() >= b3_calendar.CLOSING)
    return f"{b3_calendar.sessions_back(local.date() + over, 1)}"
