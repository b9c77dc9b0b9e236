"""Stand-ins for Brapi, Kafka and MongoDB on one's own machine, and the supervisor of `make dev`.

Nothing outside this package imports it, and none of it runs in production.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


class ProductionRefusedError(RuntimeError):
    """A stand-in was asked to run with MARKET_DATA_ENV=production."""


def refuse_production(stand_in: str, env: Mapping[str, str] = os.environ) -> None:
    """Lets a stand-in start anywhere but in production.

    Raises:
        ProductionRefusedError: MARKET_DATA_ENV is `production`.
    """
    if env.get("MARKET_DATA_ENV", "").lower() == "production":
        raise ProductionRefusedError(
            f"{stand_in} is for development: it does not start with MARKET_DATA_ENV=production. "
            "Point the pipeline at the real service instead."
        )
