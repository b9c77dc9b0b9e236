"""The version: built from this folder it is `0.1.0+source`, and `RELEASE=1` builds `0.1.0`.

A local version label cannot be uploaded to a public index, so `dagster-mongo==0.1.0+source` is
only ever satisfied by this folder, whoever registers the name.
"""

import os
from pathlib import Path

from setuptools import setup

VERSION = "0.1.0"
# A source distribution of a release stays one.
is_release = os.environ.get("RELEASE") == "1" or Path(__file__).with_name("PKG-INFO").exists()

setup(version=VERSION if is_release else f"{VERSION}+source")
