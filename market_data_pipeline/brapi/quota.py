"""What is left of Brapi's quota: every run of `quotes` records it, the schedule reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Literal, cast

import dagster as dg

from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.runs.common import QUOTES

Kind = Literal["billing-cycle", "rolling-30d", "assumed"]
ROLLING = timedelta(days=30)
RUNS_FOR_THE_COST = 5
RECORDED = ("quota_left", "quota_limit", "quota_cost_of_a_run", "quota_until", "quota_window")


@dataclass(frozen=True)
class Quota:
    """What is left, for how long, and what a run costs, in requests.

    A `billing-cycle` renews all of `limit` at `until`. A `rolling-30d` quota gives back each day
    what was spent 30 days before. `assumed` is the calendar month, as long as Brapi has not said
    when its billing cycle ends.
    """

    left: int
    limit: int
    cost: int
    """Of one run; at least 1."""
    until: datetime
    """Aware, in UTC."""
    kind: Kind

    @property
    def runs(self) -> int:
        """How many runs are left."""
        return self.left // self.cost

    def shared(self, share: float) -> Quota:
        """The part of one of several that spend the same quota; `share` is from 0 to 1."""
        return replace(self, left=int(self.left * share), limit=int(self.limit * share))


def last_recorded(instance: dg.DagsterInstance, now: datetime) -> Quota | None:
    """What is left at `now` (aware) by the last record; None if there is none.

    The figures are whole requests of the token's quota: `BRAPI_QUOTA_SHARE` is not applied, see
    `Quota.shared`. The cost of a run is the median of the last runs, since one with many repeated
    requests is not typical. After `until` the whole quota counts as available again, until Brapi
    says more.
    """
    found = instance.fetch_observations(QUOTES, limit=RUNS_FOR_THE_COST).records
    records = [
        {name: value.value for name, value in each.asset_observation.metadata.items()}
        for each in found
        if each.asset_observation
    ]
    records = [values for values in records if all(name in values for name in RECORDED)]
    if not records:
        return None
    left, limit, _, until, kind = (records[0][name] for name in RECORDED)
    records = [values for values in records if values["quota_limit"] == limit]  # the same plan
    quota = Quota(
        left=cast(int, left),
        limit=cast(int, limit),
        cost=int(median(cast(int, values["quota_cost_of_a_run"]) for values in records)),
        until=datetime.fromtimestamp(cast(float, until), UTC),
        kind=cast(Kind, kind),
    )
    if quota.kind == "rolling-30d":
        return replace(quota, until=now + ROLLING)
    if now < quota.until:
        return quota
    return replace(quota, left=quota.limit, until=_next_month(now), kind="assumed")


def measured(client: BrapiClient, last: Quota | None, cost: int, now: datetime) -> Quota | None:
    """What is left after the requests of a run; estimated from `last` if no answer said.

    A run of the live window asks Brapi for the usage window if it is not known or over, if the
    token has moved to another plan, or if more is left than before, as with another token.

    Args:
        client: the client that asked.
        last: what was recorded before.
        cost: how many requests of the quota the live window took; 0 if it was not asked for, or
            failed.
        now: the present instant.
    """
    account = client.account
    if account.left is None:
        # No answer said: assume that every request that was sent counts.
        return last and replace(last, left=max(0, last.left - client.requests))
    limit = account.limit or (last.limit if last else account.left)
    renewed = last and account.left > last.left and last.kind != "rolling-30d"
    if last and last.limit == limit and not (cost and (renewed or last.kind == "assumed")):
        return replace(last, left=account.left, cost=cost or last.cost)
    usage = client.usage_window() if cost else None
    cost = cost or account.spent
    if usage is None or (usage.end <= now and not usage.rolling):
        return Quota(account.left, limit, cost, _next_month(now), "assumed")
    if usage.rolling:
        return Quota(account.left, limit, cost, now + ROLLING, "rolling-30d")
    return Quota(account.left, limit, cost, usage.end, "billing-cycle")


def record(quota: Quota) -> dg.AssetObservation:
    """The record of a quota: an observation of `quotes`, which a failed run records, too."""
    until = dg.MetadataValue.timestamp(quota.until)
    values: tuple[Any, ...] = (quota.left, quota.limit, quota.cost, until, quota.kind)
    return dg.AssetObservation(QUOTES, metadata=dict(zip(RECORDED, values, strict=True)))


def _next_month(now: datetime) -> datetime:
    """When the calendar month ends, in UTC."""
    year, month = divmod(now.astimezone(UTC).year * 12 + now.astimezone(UTC).month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
