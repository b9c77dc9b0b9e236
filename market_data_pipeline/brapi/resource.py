"""Brapi as a Dagster resource, with every setting described."""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.brapi.connection import Connection
from market_data_pipeline.brapi.plans import PLANS, Plan
from market_data_pipeline.brapi.request_queue import MAX_OPEN_REQUESTS


class BrapiResource(dg.ConfigurableResource[BrapiClient]):
    """Brapi, the source of B3's quotes.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.brapi.resource import BrapiResource

        @dg.asset
        def usage(brapi: BrapiResource) -> None:
            with brapi.client() as client:
                print(client.usage_window())

        defs = dg.Definitions([usage], resources={"brapi": BrapiResource(token="…")})
        ```
    """

    base_url: str = Field(default="https://brapi.dev", description="Address of the API.")
    token: str = Field(
        default="",
        description="API token. It is checked when a run needs it, so that the run says it.",
        json_schema_extra={"dagster__is_secret": True},
        repr=False,
    )
    plan: str = Field(default="free", description=f"Plan of the token: {', '.join(PLANS)}.")
    tickers_per_request: int = Field(
        default=0, description="Tickers in one request; 0 for what the plan takes.", ge=0
    )
    intraday: bool | None = Field(
        default=None, description="Whether intraday bars may be asked; by default the plan says."
    )
    longest_range: str = Field(
        default="", description="How far back history may be asked; by default the plan says."
    )
    watchlist_file: str = Field(
        default="",
        description="CSV file of the tickers to ask for; by default the 50 instruments that come "
        "with the package.",
    )
    min_interval_seconds: float = Field(
        default=0.5,
        description="At least so many seconds between the starts of two requests.",
        ge=0,
    )
    request_timeout_seconds: float = Field(
        default=10.0, description="Seconds for one request, to the last byte.", gt=0
    )
    step_timeout_seconds: float = Field(
        default=240.0, description="Seconds within which all requests of a step end.", gt=0
    )

    def client(self) -> BrapiClient:
        """A client for one step, to be used in a `with` statement.

        Raises:
            RunError: the token or the address cannot be used; the text says what to set.
        """
        return BrapiClient(
            Connection(self.base_url, self.token, MAX_OPEN_REQUESTS),
            self.effective_plan,
            min_interval=self.min_interval_seconds,
            request_timeout=self.request_timeout_seconds,
            step_timeout=self.step_timeout_seconds,
        )

    @property
    def effective_plan(self) -> Plan:
        """The plan, with what the settings say otherwise."""
        return PLANS[self.plan].adjusted(
            tickers_per_request=self.tickers_per_request or None,
            intraday=self.intraday,
            longest_range=self.longest_range or None,
        )
