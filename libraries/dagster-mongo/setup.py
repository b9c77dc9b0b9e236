"""The version: built from this folder it is `0.1.0+source`, and `RELEASE=1` builds `0.1.0`.

A local version label cannot be uploaded to a public index, so `dagster-mongo==0.1.0+source` is
only ever satisfied by this folder, whoever registers the name.
"""

import os
import re
from pathlib import Path

from setuptools import setup

VERSION = "0.1.0"
version = VERSION if os.environ.get("RELEASE") == "1" else f"{VERSION}+source"
# A source distribution keeps the version that it was built with.
built = Path(__file__).with_name("PKG-INFO")
if built.exists():
    version = re.findall(r"^Version: (.+)$", built.read_text("utf-8"), re.MULTILINE)[0]

setup(version=version)
