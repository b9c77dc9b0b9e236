"""What Dagster hands to the assets: Brapi and Kafka, with every setting described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import dagster as dg
from pydantic import Field

from market_data_pipeline.brapi.client import BrapiClient
from market_data_pipeline.brapi.connection import Connection
from market_data_pipeline.brapi.plans import PLANS, Plan
from market_data_pipeline.brapi.request_queue import MAX_OPEN_REQUESTS
from market_data_pipeline.kafka.event import UpdatedAtFormat
from market_data_pipeline.kafka.publisher import Publisher
from market_data_pipeline.kafka.settings import is_secret, variables


class BrapiResource(dg.ConfigurableResource[BrapiClient]):
    """Brapi, the source of B3's quotes.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.resources import BrapiResource

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
    min_answered_share: float = Field(
        default=0.0,
        description="Share of the watchlist that must be answered for a run to go on (always at "
        "least one ticker).",
        ge=0,
        le=1,
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


class KafkaResource(dg.ConfigurableResource[Publisher]):
    """The Kafka topic that the prices are published to.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.kafka.event import Event
        from market_data_pipeline.resources import KafkaResource

        @dg.asset
        def greeting(kafka: KafkaResource) -> None:
            kafka.publisher().publish([Event(key=b"PETR4", value=b"{}", headers=())])

        defs = dg.Definitions(
            [greeting], resources={"kafka": KafkaResource(bootstrap_servers="localhost:9092")}
        )
        ```
    """

    bootstrap_servers: str = Field(description="Brokers, `host:port` with commas between them.")
    topic: str = Field(default="trading-assets-market-data-v1", description="Topic of the prices.")
    transactional_id: str = Field(
        default="market-data-pipeline",
        description="Identity of the publication, the same for every run of this code location and "
        "of no other. Empty turns transactions off.",
    )
    updated_at_format: Literal[UpdatedAtFormat, ""] = Field(
        default="",
        description="How `updated_at` is written: epoch (seconds) or iso8601. Empty means "
        "epoch, with a warning in every publication.",
    )
    timeout_seconds: float = Field(
        default=60.0, description="Seconds for a whole publication, whatever the brokers do.", gt=0
    )
    create_topic: bool = Field(default=True, description="Create the topic when it is missing.")
    partitions: int = Field(default=4, description="Partitions of a topic created here.", ge=1)
    replication_factor: int = Field(
        default=-1, description="Replicas of a topic created here; -1 for the broker's default."
    )

    client_properties: dict[str, str] = Field(
        default={},
        description="Further properties of librdkafka, `security.protocol` for instance. Secrets "
        "are `dg.EnvVar`s, so that the UI shows the name of the variable.",
        repr=False,
    )

    def publisher(self) -> Publisher:
        """A publisher to the topic.

        Raises:
            ConfigurationError: a setting cannot be used; the text says which.
        """
        return Publisher(
            self.bootstrap_servers,
            self.topic,
            transactional_id=self.transactional_id,
            timeout_seconds=self.timeout_seconds,
            create_topic=self.create_topic,
            partitions=self.partitions,
            replication_factor=self.replication_factor,
            config=self.client_properties,
        )


def kafka_client_properties(environ: Mapping[str, str]) -> dict[str, str]:
    """The `KAFKA_CONFIG_*` variables for `KafkaResource.client_properties`.

    `KAFKA_CONFIG_SECURITY_PROTOCOL=SASL_SSL` is `{"security.protocol": "SASL_SSL"}`; a secret such
    as `KAFKA_CONFIG_SASL_PASSWORD` is a `dg.EnvVar`.

    Raises:
        ConfigurationError: a variable would override what the publication's guarantees rest on.
    """
    return {
        name: dg.EnvVar(variable) if is_secret(name) else environ[variable]
        for name, variable in variables(environ).items()
    }
