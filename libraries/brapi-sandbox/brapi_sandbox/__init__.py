"""A local server that answers like the Brapi API, with made-up prices and faults on demand."""

from brapi_sandbox.faults import Fault
from brapi_sandbox.sandbox import Sandbox, serve
from brapi_sandbox.version import __version__

__all__ = ["Fault", "Sandbox", "__version__", "serve"]
