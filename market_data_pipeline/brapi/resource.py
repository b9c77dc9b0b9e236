"""Brapi as a resource of Dagster."""

from __future__ import annotations

from dataclasses import dataclass

from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.brapi.connection import Connection
from market_data_pipeline.brapi.plans import PLANS, Plan
from market_data_pipeline.brapi.request_queue import MAX_OPEN_REQUESTS
from market_data_pipeline.settings import Settings


@dataclass(frozen=True)
class Brapi:
    """Brapi, the source of B3's quotes, as the settings say.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.brapi.resource import Brapi
        from market_data_pipeline.settings import Settings

        @dg.asset
        def usage(brapi: dg.ResourceParam[Brapi]) -> None:
            with brapi.client() as client:
                print(client.usage_window())

        defs = dg.Definitions([usage], resources={"brapi": Brapi(Settings(brapi_token="…"))})
        ```
    """

    settings: Settings

    def client(self) -> BrapiClient:
        """A client for one step, to be used in a `with` statement.

        Raises:
            RunError: the token cannot be used; the text says what to set.
        """
        given = self.settings
        token = given.brapi_token.get_secret_value()
        return BrapiClient(
            Connection(given.brapi_base_url, token, MAX_OPEN_REQUESTS),
            self.plan,
            min_interval=given.brapi_min_interval_seconds,
            request_timeout=given.brapi_timeout_seconds,
            step_timeout=given.brapi_step_timeout_seconds,
        )

    @property
    def plan(self) -> Plan:
        """The plan, with the settings that override it."""
        return PLANS[self.settings.brapi_plan].adjusted(
            tickers_per_request=self.settings.brapi_tickers_per_request or None,
            intraday=self.settings.brapi_intraday,
            longest_range=self.settings.brapi_longest_range or None,
        )
