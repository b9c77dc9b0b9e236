"""The version of the distribution, which every answer names in its headers."""

__version__ = "0.1.0+source"
SERVER = f"brapi-sandbox/{__version__}"
