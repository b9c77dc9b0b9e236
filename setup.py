"""Everything about the distribution is said once, in pyproject.toml."""

from setuptools import setup

setup()
