"""Wires assets, resources and automation together. Every setting is an environment variable."""

from __future__ import annotations

import logging
import os

import dagster as dg
from dagster_mongo import MongoResource

from market_data_pipeline.b3.asset import every_evening, official_close, official_close_job
from market_data_pipeline.b3.client import B3History
from market_data_pipeline.brapi.connection import NOT_SET
from market_data_pipeline.brapi.resource import BrapiResource
from market_data_pipeline.dotenv import warn_of_misspelled
from market_data_pipeline.market.watchlist import WatchlistError, load_watchlist
from market_data_pipeline.operation.alerts import alerts
from market_data_pipeline.operation.freshness import freshness
from market_data_pipeline.operation.launching import JOB, every_window, launch_missing
from market_data_pipeline.publication.asset import kafka_publication
from market_data_pipeline.publication.cold_start import topic_keeps_prices
from market_data_pipeline.publication.event import FORMAT_NOT_CHOSEN
from market_data_pipeline.publication.resource import KafkaResource, kafka_client_properties
from market_data_pipeline.quotes.asset import quotes
from market_data_pipeline.report.session_report import (
    every_session,
    session_report,
    session_report_asset,
)
from market_data_pipeline.settings import secret, settings
from market_data_pipeline.storage.price_history import MongoService, mongo_price_history
from market_data_pipeline.storage.quote_store import QuoteStore

warn_of_misspelled()

SETTINGS = settings()
LOG = logging.getLogger(__name__)
ASSETS = [quotes, mongo_price_history, kafka_publication]

if not SETTINGS.brapi_token.get_secret_value():
    LOG.warning(NOT_SET)
try:
    if left_out := load_watchlist(SETTINGS.watchlist_file).left_out:
        LOG.warning(left_out)
except WatchlistError as error:  # each run fails with it, until the file is there
    LOG.warning(str(error))
brapi = BrapiResource(
    base_url=SETTINGS.brapi_base_url,
    token=secret("BRAPI_TOKEN", SETTINGS.brapi_token),
    plan=SETTINGS.brapi_plan,
    tickers_per_request=SETTINGS.brapi_tickers_per_request,
    intraday=SETTINGS.brapi_intraday,
    longest_range=SETTINGS.brapi_longest_range,
    watchlist_file=SETTINGS.watchlist_file,
    min_interval_seconds=SETTINGS.brapi_min_interval_seconds,
    request_timeout_seconds=SETTINGS.brapi_timeout_seconds,
    step_timeout_seconds=SETTINGS.brapi_step_timeout_seconds,
)

mongo = MongoResource(
    uri=secret("MONGO_URI", SETTINGS.mongo_uri) or None,
    host=None if SETTINGS.mongo_uri else SETTINGS.mongo_host,
    port=SETTINGS.mongo_port,
    database=SETTINGS.mongo_db,
)

kafka = KafkaResource(
    bootstrap_servers=SETTINGS.kafka_bootstrap_servers,
    topic=SETTINGS.kafka_topic,
    transactional_id=SETTINGS.transactional_id,
    updated_at_format=SETTINGS.kafka_updated_at_format,
    timeout_seconds=SETTINGS.kafka_timeout_seconds,
    create_topic=SETTINGS.kafka_create_topic,
    partitions=SETTINGS.kafka_topic_partitions,
    replication_factor=SETTINGS.kafka_topic_replication_factor,
    client_properties=kafka_client_properties(os.environ),
)
if os.environ.get("KAFKA_BOOTSTRAP_SERVERS") and not kafka.updated_at_format:
    LOG.warning(FORMAT_NOT_CHOSEN)

fresh, watch_freshness = freshness([asset.key for asset in ASSETS])
market_data_job = dg.define_asset_job(
    JOB,
    # `fresh` looks at what is there between the runs.
    selection=dg.AssetSelection.assets(*ASSETS) - dg.AssetSelection.checks(fresh),
    description="The quotes of a window, into MongoDB and to Kafka.",
)

defs = dg.Definitions(
    assets=[*ASSETS, session_report_asset, official_close],
    asset_checks=[fresh, topic_keeps_prices],
    jobs=[market_data_job, session_report, official_close_job],
    schedules=[every_window, every_session, every_evening],
    sensors=[launch_missing, alerts, watch_freshness],
    resources={
        "b3": B3History(),
        "brapi": brapi,
        "mongo": mongo,
        "kafka": kafka,
        "services": [kafka, MongoService(mongo)],
        "quote_store": QuoteStore(
            path=SETTINGS.quotes_path,
            publish_made_up_prices=SETTINGS.publish_made_up_prices,
        ),
    },
    # A run is one process: starting one for each step takes longer than the steps do.
    executor=dg.in_process_executor,
)
