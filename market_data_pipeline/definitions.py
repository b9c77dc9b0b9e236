"""Wires assets, resources and automation together. Every setting is an environment variable."""

from __future__ import annotations

import logging
import os
from typing import cast, get_args

import dagster as dg
from dagster_mongo import MongoResource

from market_data_pipeline.alerts import alerts
from market_data_pipeline.asset_keys import PREFIX
from market_data_pipeline.assets import ASSETS
from market_data_pipeline.assets.accept_moves import accept_moves
from market_data_pipeline.automation import at_startup, every_window, market_data_job
from market_data_pipeline.brapi.plans import PLANS, RANGES
from market_data_pipeline.dotenv import warn_of_misspelled
from market_data_pipeline.environment import choice, flag, number, secret, share, text, whole_number
from market_data_pipeline.freshness import freshness, watch_freshness
from market_data_pipeline.kafka.event import FORMAT_NOT_CHOSEN, UpdatedAtFormat
from market_data_pipeline.quote_store import QuoteStore
from market_data_pipeline.resources import BrapiResource, KafkaResource
from market_data_pipeline.retries import retry_live_window

warn_of_misspelled()

brapi = BrapiResource(
    base_url=text("BRAPI_BASE_URL", "https://brapi.dev"),
    token=secret("BRAPI_TOKEN"),
    plan=choice("BRAPI_PLAN", "free", tuple(PLANS)),
    tickers_per_request=whole_number("BRAPI_TICKERS_PER_REQUEST", 0),
    intraday=flag("BRAPI_INTRADAY", None),
    longest_range=choice("BRAPI_LONGEST_RANGE", "", ("", *RANGES)),
    min_interval_seconds=number("BRAPI_MIN_INTERVAL_SECONDS", 0.5),
    request_timeout_seconds=number("BRAPI_TIMEOUT_SECONDS", 10),
    step_timeout_seconds=number("BRAPI_STEP_TIMEOUT_SECONDS", 240),
    min_answered_share=share("BRAPI_MIN_ANSWERED_SHARE", 0),
)

mongo = MongoResource(
    **(
        {"uri": secret("MONGO_URI")}
        if text("MONGO_URI", "")
        else {
            "host": text("MONGO_HOST", "localhost"),
            "port": whole_number("MONGO_PORT", 27017),
        }
    ),
    database=text("MONGO_DB", "market_data_db"),
)

kafka = KafkaResource(
    bootstrap_servers=text("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
    topic=text("KAFKA_TOPIC", "trading-assets-market-data-v1"),
    # Set to nothing, it turns transactions off.
    transactional_id=os.environ.get(
        "KAFKA_TRANSACTIONAL_ID", "-".join(filter(None, ["market-data-pipeline", PREFIX]))
    ).strip(),
    updated_at_format=cast(
        UpdatedAtFormat,
        text("KAFKA_UPDATED_AT_FORMAT", "")
        and choice("KAFKA_UPDATED_AT_FORMAT", "", get_args(UpdatedAtFormat)),
    ),
    timeout_seconds=number("KAFKA_TIMEOUT_SECONDS", 60),
    create_topic=flag("KAFKA_CREATE_TOPIC", True) or False,
    partitions=whole_number("KAFKA_TOPIC_PARTITIONS", 4),
    replication_factor=whole_number("KAFKA_TOPIC_REPLICATION_FACTOR", 0) or -1,
)
if text("KAFKA_BOOTSTRAP_SERVERS", "") and not kafka.updated_at_format:
    logging.getLogger(__name__).warning(FORMAT_NOT_CHOSEN)

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[freshness],
    jobs=[market_data_job, accept_moves],
    schedules=[every_window],
    sensors=[at_startup, retry_live_window, alerts, watch_freshness],
    resources={
        "brapi": brapi,
        "mongo": mongo,
        "kafka": kafka,
        "quote_store": QuoteStore(
            path=text("QUOTES_PATH", ""),
            publish_made_up_prices=flag("PUBLISH_MADE_UP_PRICES", False) or False,
        ),
    },
    # A run is one process: starting one for each step takes longer than the steps do.
    executor=dg.in_process_executor,
)
