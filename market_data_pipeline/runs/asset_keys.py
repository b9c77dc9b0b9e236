"""The keys of the assets of a window, and of the report on a session.

Dagster treats assets with the same key as one asset, even in different code locations. Code
locations that share an instance therefore need an ASSET_KEY_PREFIX each.
"""

import dagster as dg

from market_data_pipeline.settings import settings

PREFIX = settings().asset_key_prefix
_path = [PREFIX] if PREFIX else []
QUOTES = dg.AssetKey([*_path, "quotes"])
HISTORY = dg.AssetKey([*_path, "mongo_price_history"])
PUBLICATION = dg.AssetKey([*_path, "kafka_publication"])
SESSION_REPORT = dg.AssetKey([*_path, "session_report"])
