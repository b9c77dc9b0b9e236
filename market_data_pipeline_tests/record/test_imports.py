"""What a run does not wait for."""

import subprocess
import sys


def test_the_definitions_import_no_database_of_dagsters() -> None:
    program = "import sys, market_data_pipeline.definitions; assert 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
