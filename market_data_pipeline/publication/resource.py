"""Kafka as a resource of Dagster."""

from __future__ import annotations

from dataclasses import dataclass

from market_data_pipeline.publication.errors import PublicationError
from market_data_pipeline.publication.publisher import Publisher
from market_data_pipeline.settings import Settings


@dataclass(frozen=True)
class Kafka:
    """The Kafka topic that the prices are published to, as the settings say.

    Example:
        ```python
        import dagster as dg
        from market_data_pipeline.publication.event import Event
        from market_data_pipeline.publication.resource import Kafka
        from market_data_pipeline.settings import Settings

        @dg.asset
        def greeting(kafka: dg.ResourceParam[Kafka]) -> None:
            kafka.publisher().publish([Event(key=b"PETR4", value=b"{}", headers=())])

        settings = Settings(kafka_bootstrap_servers="localhost:9092")
        defs = dg.Definitions([greeting], resources={"kafka": Kafka(settings)})
        ```
    """

    settings: Settings

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
            ConfigurationError: a property may not be set; the text says which.
        """
        given = self.settings
        properties = given.kafka_client_properties
        return Publisher(
            given.kafka_bootstrap_servers,
            given.kafka_topic,
            transactional_id=given.transactional_id,
            timeout_seconds=given.kafka_timeout_seconds,
            create_topic=given.kafka_create_topic,
            partitions=given.kafka_topic_partitions,
            replication_factor=given.kafka_topic_replication_factor,
            config={name: value.get_secret_value() for name, value in properties.items()},
        )
