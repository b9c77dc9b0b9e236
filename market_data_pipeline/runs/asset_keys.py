"""The keys of the three assets, and of the report on a session.

Dagster takes assets of one key for one asset, whatever code location they are in: those that share
an instance need an ASSET_KEY_PREFIX of their own each, and then share neither windows nor records.
"""

import dagster as dg

from market_data_pipeline.settings import settings

PREFIX = settings().asset_key_prefix
_path = [PREFIX] if PREFIX else []
QUOTES = dg.AssetKey([*_path, "quotes"])
HISTORY = dg.AssetKey([*_path, "mongo_price_history"])
PUBLICATION = dg.AssetKey([*_path, "kafka_publication"])
SESSION_REPORT = dg.AssetKey([*_path, "session_report"])
