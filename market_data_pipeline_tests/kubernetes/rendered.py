"""Whether Dagster's own chart makes of our values what the tests run in a cluster.

    helm pull dagster/dagster --version 1.13.27 --untar
    python -m market_data_pipeline_tests.kubernetes.rendered dagster

It says what differs, and what of it a container of the chart lacks of our security context.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from market_data_pipeline_tests.kubernetes.chart import RELEASE, manifests, values_with
from market_data_pipeline_tests.supervised import ROOT

NAMESPACE = "market-data"
# One code location, and two over it.
OVERRIDES: tuple[list[Path], ...] = ([], [ROOT / "deploy" / "watchlists" / "helm-values.yaml"])
# The tests have fewer labels, which nothing but the objects themselves read.
LABELS = {"labels", "matchLabels"}


def render(chart: str, values: list[Path]) -> list[dict[str, Any]]:
    """The objects that helm makes of a chart's folder; its schema refers to a file elsewhere."""
    command = ["helm", "template", RELEASE, chart, "--namespace", NAMESPACE]
    files = [each for path in values for each in ("--values", str(path))]
    made = subprocess.run(
        [*command, "--skip-schema-validation", *files], check=True, stdout=subprocess.PIPE
    )
    return [each for each in yaml.safe_load_all(made.stdout) if each]


def differences(wanted: Any, found: Any, place: str) -> Iterator[str]:
    """Where something found is not what is wanted; what it has beyond that does not count."""
    if isinstance(wanted, str) and isinstance(found, str) and wanted != found:
        wanted, found = yaml.safe_load(wanted), yaml.safe_load(found)
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in wanted.keys() - LABELS:
            yield from differences(wanted[key], found.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list):
        for each in wanted:
            if all(any(differences(each, other, "")) for other in found):
                yield f"{place}: no {json.dumps(each)}"
    elif wanted != found:
        yield f"{place}: {json.dumps(found)}, not {json.dumps(wanted)}"


def unprotected(found: dict[str, Any], context: dict[str, Any]) -> Iterator[str]:
    """The containers of a Deployment that have not our security context."""
    pod = found["spec"]["template"]["spec"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        if container["securityContext"] != context:
            yield f"{found['metadata']['name']}: {container['name']} has another security context"


def compare(chart: str, overrides: list[Path]) -> Iterator[str]:
    """What is otherwise in a chart than in the tests."""
    values = values_with(*(yaml.safe_load(path.read_text()) for path in overrides))
    rendered = render(chart, [ROOT / "deploy" / "helm-values.yaml", *overrides])
    found = {(each["kind"], each["metadata"]["name"]): each for each in rendered}
    for wanted in manifests(values, NAMESPACE):
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        yield from differences(wanted, found.get((kind, name)), f"{kind} {name}")
    for (kind, _), each in found.items():
        if kind == "Deployment":
            yield from unprotected(each, values["dagsterDaemon"]["securityContext"])


if __name__ == "__main__":
    told = [each for overrides in OVERRIDES for each in compare(sys.argv[1], overrides)]
    sys.exit("\n".join(told) or None)
