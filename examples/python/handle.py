"""What is done with a quote: put your own code here. It raises if it could not be done."""

import os
from pathlib import Path

from quote import Quote

FILE = Path(os.environ.get("PRICES_FILE", "prices.tsv"))


def handle(quote: Quote) -> None:
    with FILE.open("a", encoding="utf-8") as file:
        print(quote.ticker, quote.price, quote.updated_at, quote.short_name, sep="\t", file=file)
