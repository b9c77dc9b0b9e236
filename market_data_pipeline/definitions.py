"""Wires assets, resources and automation together. Every setting is an environment variable."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import dagster as dg
from dagster_mongo import MongoResource
from pydantic import SecretStr

from market_data_pipeline.b3.asset import every_evening, official_close, official_close_job
from market_data_pipeline.b3.files import B3History
from market_data_pipeline.brapi.client import Brapi
from market_data_pipeline.brapi.connection import NOT_SET
from market_data_pipeline.market.watchlist import WatchlistError, load_watchlist
from market_data_pipeline.operation.alerts import alerts, receiver
from market_data_pipeline.operation.freshness import freshness
from market_data_pipeline.operation.launching import JOB, every_window, launch_missing
from market_data_pipeline.operation.session_report import (
    every_session,
    session_report,
    session_report_job,
)
from market_data_pipeline.publication.asset import kafka_publication
from market_data_pipeline.publication.checks import topic_keeps_prices
from market_data_pipeline.publication.client import Client, variable
from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN
from market_data_pipeline.publication.kafka import Kafka
from market_data_pipeline.quotes.asset import quotes
from market_data_pipeline.quotes.checks import check_record
from market_data_pipeline.runs.common import Connect
from market_data_pipeline.settings import Settings, misspelled, settings
from market_data_pipeline.storage.price_history import (
    PriceHistory,
    connect_mongo,
    mongo_price_history,
)
from market_data_pipeline.storage.quote_store import QuoteStore

ASSETS = [quotes, mongo_price_history, kafka_publication]


def resources(given: Settings) -> dict[str, dg.ResourceDefinition]:
    """The resources that these settings describe; no run config can change them."""

    kafka = Kafka(given)  # one: what `quotes` connects, the publication uses

    def mongo(_: dg.InitResourceContext) -> Iterator[MongoResource]:
        uri = given.mongo_uri.get_secret_value() or None
        with MongoResource(
            uri=uri,
            host=None if uri else given.mongo_host,
            port=given.mongo_port,
            database=given.mongo_database,
            # Without it, a server that runs alone confirms writes that a crash may still undo.
            client_options={"journal": True},
        ) as resource:
            yield resource

    def price_history(context: dg.InitResourceContext) -> PriceHistory:
        return PriceHistory(mongo=context.resources.mongo)

    def services(context: dg.InitResourceContext) -> list[Connect]:
        return [kafka.connect, partial(connect_mongo, context.resources.mongo)]

    def quote_store(context: dg.InitResourceContext) -> QuoteStore:
        storage = context.instance.storage_directory() if context.instance else ""
        return QuoteStore(given.quotes_path or storage, given.publish_made_up_prices)

    return {
        "brapi": _fixed(lambda _: Brapi(given), given, "brapi_", "watchlist_file"),
        "mongo": _fixed(mongo, given, "mongo_"),
        "price_history": _without_config(
            dg.IOManagerDefinition(price_history, required_resource_keys={"mongo"})
        ),
        "kafka": _fixed(lambda _: kafka, given, "kafka_"),
        "services": _without_config(
            dg.ResourceDefinition(services, required_resource_keys={"mongo"})
        ),
        "b3": _fixed(lambda _: B3History(), given, "b3_"),
        "quote_store": _fixed(quote_store, given, "quotes_path", "publish_"),
        # Dagster's own would read any folder, or any variable, from run config.
        "io_manager": _without_config(dg.mem_io_manager),
    }


def _fixed(make: Callable[..., Any], given: Settings, *names: str) -> dg.ResourceDefinition:
    """A resource that takes no run config. The UI shows its settings, but no secret."""
    fields = {
        name.upper(): dg.Field(
            str, default_value=_shown(given, name), description=field.description
        )
        for name, field in Settings.model_fields.items()
        if name.startswith(names)
    }
    text = "Its settings are variables of the code location; a run cannot change them."
    return _without_config(dg.ResourceDefinition(make, config_schema=fields, description=text))


def _without_config(resource: dg.ResourceDefinition) -> dg.ResourceDefinition:
    return dg.configured(resource, config_schema={})(lambda _: {})


def _shown(given: Settings, name: str) -> str:
    value, extra = getattr(given, name), cast(Any, Settings.model_fields[name].json_schema_extra)
    if isinstance(value, SecretStr):
        return "set" if value.get_secret_value() else "not set"
    if isinstance(value, dict):
        return ", ".join(map(variable, value))
    return str(value) if given.is_set(name) or extra["shown"] is None else extra["shown"]


LOG = logging.getLogger(__name__)
for sentence in misspelled(os.environ).values():
    LOG.warning(sentence)
SETTINGS = settings()
if not SETTINGS.brapi_token.get_secret_value():
    LOG.warning(NOT_SET)
try:
    if left_out := load_watchlist(SETTINGS.watchlist_file).left_out:
        LOG.warning(left_out)
except WatchlistError as error:  # each run fails with it, until the file is there
    LOG.warning(str(error))
if SETTINGS.is_set("KAFKA_BOOTSTRAP_SERVERS") and not SETTINGS.kafka_updated_at_format:
    LOG.warning(FORMAT_NOT_CHOSEN)
Client(SETTINGS).close()  # raises if Kafka's client does not take its settings
if url := SETTINGS.alert_webhook_url.get_secret_value():
    receiver(url)  # raises if it is no address

fresh, watch_freshness = freshness([asset.key for asset in ASSETS])
market_data_job = dg.define_asset_job(
    JOB,
    # `fresh` is evaluated between the runs, by its sensor.
    selection=dg.AssetSelection.assets(*ASSETS) - dg.AssetSelection.checks(fresh),
    description="The quotes of a window, into MongoDB and to Kafka.",
)

defs = dg.Definitions(
    assets=[*ASSETS, session_report, official_close],
    asset_checks=[check_record, topic_keeps_prices, fresh],
    jobs=[market_data_job, session_report_job, official_close_job],
    schedules=[every_window, every_session, every_evening],
    sensors=[launch_missing, alerts, watch_freshness],
    resources=resources(SETTINGS),
    # A run is one process: starting one for each step takes longer than the steps do.
    executor=dg.in_process_executor,
)
