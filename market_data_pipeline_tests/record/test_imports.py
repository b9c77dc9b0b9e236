"""What a run does not wait for."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from market_data_pipeline.storage.quote_store import QuoteStore
from market_data_pipeline_tests.publication.helpers import a_quote
from market_data_pipeline.market.windows import Window
quotes = [a_quote("PETR4", price=0.1 + 1 / 3), a_quote("VALE3", name=None, volume=None)]
key = Window(quotes[0].window_start, quotes[0].window_end).key
store = QuoteStore(path=sys.argv[1])
store.save(quotes, [key, "2026-11-23T11:00-0300"])
assert store.stored(key) == quotes
assert store.stored("2026-11-23T11:00-0300") == []
assert "pandas" not in sys.modules
"""


def test_storing_and_loading_quotes_imports_no_pandas(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True)


def test_the_definitions_import_no_database_of_dagsters() -> None:
    program = "import sys, market_data_pipeline.definitions; assert 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
