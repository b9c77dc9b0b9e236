"""Kafka as a Dagster resource, with every setting described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import dagster as dg
from pydantic import Field

from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.event import UpdatedAtFormat
from market_data_pipeline.publication.properties import is_secret, variables
from market_data_pipeline.publication.publisher import Publisher


class KafkaResource(dg.ConfigurableResource[Publisher]):
    """The Kafka topic that the prices are published to.

        Example:
            ```python
            import dagster as dg
            from market_data_pipeline.publication.errors import PublicationError
    from market_data_pipeline.publication.event import Event
            from market_data_pipeline.publication.resource import KafkaResource

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

    def trouble(self) -> str:
        """Why nothing can be published now; empty if it can."""
        try:
            self.publisher().find()
        except PublicationError as error:
            return f"Kafka is not ready: {error}"
        return ""

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
