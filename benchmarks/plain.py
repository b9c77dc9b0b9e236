"""The plain pattern: ask, store, publish, sleep, and again for the next ticker; no Dagster.

python -m benchmarks.plain URL MONGO_URI BOOTSTRAP_SERVERS INTERVAL
"""

import json
import sys
import time

import requests
from confluent_kafka import Producer
from pymongo import MongoClient

from market_data_pipeline.watchlist import load_watchlist


def main(url: str, mongo_uri: str, bootstrap_servers: str, interval: str) -> None:
    """Quotes every ticker of the watchlist once."""
    collection = MongoClient(mongo_uri)["plain"]["quotes"]
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for instrument in load_watchlist():
        answer = requests.get(
            f"{url}/api/quote/{instrument.ticker}",
            headers={"Authorization": "Bearer benchmark"},
            timeout=10,
        )
        quote = answer.json()["results"][0]
        event = {
            "ticker": quote["symbol"],
            "name": quote["longName"],
            "short_name": quote["shortName"],
            "price": quote["regularMarketPrice"],
            "volume": quote["regularMarketVolume"],
            "updated_at": quote["regularMarketTime"],
        }
        collection.insert_one(dict(event))
        producer.produce("plain", json.dumps(event), quote["symbol"])
        time.sleep(float(interval))
    producer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
