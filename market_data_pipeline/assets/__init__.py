"""The three assets and their checks."""

from market_data_pipeline.assets.checks import history_equals_quotes
from market_data_pipeline.assets.kafka_publication import kafka_publication
from market_data_pipeline.assets.mongo_price_history import mongo_price_history
from market_data_pipeline.assets.quotes import quotes

ASSETS = [quotes, mongo_price_history, kafka_publication]
CHECKS = [history_equals_quotes]

__all__ = ["ASSETS", "CHECKS"]
