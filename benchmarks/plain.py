"""The plain pattern: ask, store, publish, sleep, and again for the next ticker; no Dagster.

    python benchmarks/plain.py URL MONGO_URI BOOTSTRAP_SERVERS INTERVAL TICKER...

It imports nothing of this project: its memory is its own.
"""

import json
import sys
import time

import requests
from confluent_kafka import Producer
from pymongo import MongoClient


def main(url: str, mongo_uri: str, bootstrap_servers: str, interval: str, *tickers: str) -> None:
    """Quotes every ticker once."""
    collection = MongoClient(mongo_uri)["plain"]["quotes"]
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for ticker in tickers:
        answer = requests.get(
            f"{url}/api/quote/{ticker}",
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
