"""The three assets, whose checks are theirs."""

from market_data_pipeline.assets.kafka_publication import kafka_publication
from market_data_pipeline.assets.mongo_price_history import mongo_price_history
from market_data_pipeline.assets.quotes import quotes

ASSETS = [quotes, mongo_price_history, kafka_publication]

__all__ = ["ASSETS"]
