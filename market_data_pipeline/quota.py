"""What is left of Brapi's quota: a run measures it, `quotes` records it, the schedule reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import dagster as dg
import pandas as pd

from market_data_pipeline.asset_keys import QUOTES
from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.pacing import Kind, Quota

ROLLING = timedelta(days=30)
RECORDED = ("quota_left", "quota_limit", "quota_cost_of_a_run", "quota_until", "quota_window")


def last_recorded(instance: dg.DagsterInstance, now: datetime) -> Quota | None:
    """What is left at `now` by the last record of `quotes`; None if there is none.

    When the time of a quota is over, all of it is there again, until Brapi tells more.
    """
    event = instance.get_latest_materialization_event(QUOTES)
    if event is None or event.asset_materialization is None:
        return None
    values = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    try:
        left, limit, cost, until, kind = (values[name] for name in RECORDED)
    except KeyError:
        return None
    quota = Quota(
        left=cast(int, left),
        limit=cast(int, limit),
        cost=cast(int, cost),
        until=pd.Timestamp(cast(float, until), unit="s", tz="UTC").to_pydatetime(),
        kind=cast(Kind, kind),
    )
    if quota.kind == "rolling-30d":
        return replace(quota, until=now + ROLLING)
    if now < quota.until:
        return quota
    return replace(quota, left=quota.limit, until=_next_month(now), kind="assumed")


def measured(client: BrapiClient, last: Quota | None, cost: int, now: datetime) -> Quota | None:
    """What is left after the requests of a run; `last` if none of them told.

    A run of the live window asks Brapi for the usage window if it is not known or over, or if the
    token has moved to another plan.

    Args:
        client: the client that asked.
        last: what was recorded before.
        cost: how many requests of the quota the live window took; 0 if it was not asked for.
        now: the present instant.
    """
    account = client.account
    if account.left is None:
        return last
    limit = account.limit or (last.limit if last else account.left)
    if last and last.limit == limit and not (cost and last.kind == "assumed"):
        return replace(last, left=account.left, cost=cost or last.cost)
    usage = client.usage_window() if cost else None
    cost = cost or account.spent
    if usage is None or (usage.end <= now and not usage.rolling):
        return Quota(account.left, limit, cost, _next_month(now), "assumed")
    if usage.rolling:
        return Quota(account.left, limit, cost, now + ROLLING, "rolling-30d")
    return Quota(account.left, limit, cost, usage.end, "billing-cycle")


def quota_metadata(quota: Quota) -> dict[str, Any]:
    """The record of a quota, in the metadata of `quotes`."""
    until = dg.MetadataValue.timestamp(quota.until)
    values = (quota.left, quota.limit, quota.cost, until, quota.kind)
    return dict(zip(RECORDED, values, strict=True))


def _next_month(now: datetime) -> datetime:
    """When the calendar month ends, in UTC."""
    return (
        pd.Timestamp(now).tz_convert("UTC").normalize() + pd.offsets.MonthBegin()
    ).to_pydatetime()
