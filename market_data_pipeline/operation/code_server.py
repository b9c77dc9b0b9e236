"""The code server of a deployment, whose runs are forks of a process that has imported the code.

    python -m market_data_pipeline.operation.code_server --host 0.0.0.0 --port 4000 \\
        --module-name market_data_pipeline.definitions

It takes the arguments of `dagster api grpc`. Dagster starts a run as a new Python, which imports
Dagster and the code before it does anything. Here the standard library's fork server imports them
once. Each run is a process of its own all the same: one that is killed harms no other. The code and
the environment are those of the start; after a change of either, start the server anew.
"""

from market_data_pipeline.operation.run_template import PRELOADED
from market_data_pipeline.runs.dagster_internals import serve_code

if __name__ == "__main__":  # a run imports this module as well
    serve_code(PRELOADED)
