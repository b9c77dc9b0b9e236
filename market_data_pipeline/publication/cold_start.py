"""Whether a consumer that starts later finds the last prices on the topic."""

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg
from confluent_kafka import KafkaError, KafkaException

from market_data_pipeline.publication.errors import ConfigurationError
from market_data_pipeline.publication.properties import without_values
from market_data_pipeline.publication.resource import Kafka
from market_data_pipeline.publication.topic import CONFIGURATION, configuration
from market_data_pipeline.runs.checks import WARN
from market_data_pipeline.runs.common import PUBLICATION

# From the close before Carnival to the first window of Ash Wednesday.
LONGEST_PAUSE = timedelta(hours=115.5)
_ANSWER_SECONDS = 5.0
_HOW_TO_KEEP_THEM = (
    "To keep the last price of each ticker for ever, set "
    f"{', '.join(f'{name}={value}' for name, value in CONFIGURATION.items())} on the topic."
)


@dg.asset_check(
    asset=PUBLICATION,
    description="A consumer that starts later, at the earliest event, finds the last price of each "
    "ticker on the topic. If not: change the configuration of the topic; "
    "docs/operating.md has the command.",
)
def topic_keeps_prices(kafka: dg.ResourceParam[Kafka]) -> dg.AssetCheckResult:
    """What the configuration of the topic means for a consumer's cold start."""
    connection: dict[str, str] = {}
    try:
        connection = kafka.publisher().connection()
        found = configuration(kafka.settings.kafka_topic, connection, _ANSWER_SECONDS)
    except (ConfigurationError, KafkaException) as error:
        return _result(True, without_values(_not_known(error), connection))
    return _meaning(found)


def _meaning(found: Mapping[str, str]) -> dg.AssetCheckResult:
    if not found:
        return _result(True, "The embedded Kafka keeps its events until `make dev` ends.")
    policies = {policy.strip() for policy in found["cleanup.policy"].split(",")}
    retention = int(found["retention.ms"])
    if "delete" not in policies or retention < 0:
        return _result(True, "The last price of each ticker stays on the topic.")
    kept = timedelta(milliseconds=retention)
    hours, pause = (each.total_seconds() / 3600 for each in (kept, LONGEST_PAUSE))
    deleted = f"Events are deleted after {hours:g} h"
    if kept < LONGEST_PAUSE:
        return _result(
            False,
            f"{deleted}, but the market pauses for up to {pause:g} h: a consumer that starts late "
            f"in such a pause finds no price. {_HOW_TO_KEEP_THEM}",
        )
    return _result(
        True,
        f"{deleted}. The market pauses for up to {pause:g} h, so a consumer finds the last window "
        f"unless nothing was published for so long. {_HOW_TO_KEEP_THEM}",
    )


def _not_known(error: Exception) -> str:
    """Why the configuration is not known; the publication does not depend on it."""
    cause = error.args[0]
    if not isinstance(cause, KafkaError):
        return f"The configuration of the topic is not known: {cause}"
    if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return "There is no topic yet."
    advice = (
        "grant DESCRIBE_CONFIGS on the topic to know it"
        if cause.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        else "the next run asks again"
    )
    return f"The configuration of the topic is not known ({cause.str()}): {advice}."


def _result(passed: bool, description: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=WARN, description=description)
