"""The contract's files against each other and against what is on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from market_data_pipeline.publication.event import UpdatedAtFormat, quote_event
from market_data_pipeline_tests.publication.helpers import a_kafka, a_quote, read

CONTRACT = files("market_data_pipeline.publication") / "contract"


def a_file(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CONTRACT / name).read_text(encoding="utf-8"))
    return loaded


def value_schema() -> Draft202012Validator:
    schema = a_file("quote.schema.json")
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def the_message() -> dict[str, Any]:
    message: dict[str, Any] = a_file("asyncapi.json")["components"]["messages"]["quote"]
    return message


def headers_schema() -> Draft202012Validator:
    return Draft202012Validator(a_file("asyncapi.json")["components"]["schemas"]["headers"])


@pytest.mark.parametrize("updated_at_format", ["epoch", "iso8601"])
def test_what_is_on_the_wire_keeps_the_contract(
    mock_kafka: str, topic: str, updated_at_format: UpdatedAtFormat
) -> None:
    quotes = [
        a_quote("PETR4"),
        a_quote("BRCR11", volume=None, bar_volume=1200, name=None, source="intraday"),
        a_quote("VALE3", origin="brapi-sandbox"),
    ]
    events = [quote_event(quote, updated_at_format=updated_at_format) for quote in quotes]
    a_kafka(mock_kafka, topic).publish(events)
    seen = read(mock_kafka, topic)
    assert len(seen) == 3
    for one in seen:
        value_schema().validate(json.loads(one.event.value))
        headers = {name: value.decode() for name, value in one.event.headers}
        schema = headers_schema().schema
        assert isinstance(schema, Mapping)
        headers_schema().validate(headers)
        assert list(headers) == list(schema["properties"])


@pytest.mark.parametrize(
    "change",
    [
        {"price": None},
        {"price": "35.50"},
        {"volume": 1.5},
        {"updated_at": 1795440598.5},
        {"updated_at": "2026-11-23T13:29:58Z"},
        {"ticker": ""},
        {"change": 0.1},
    ],
)
def test_the_schema_refuses_what_is_never_sent(change: dict[str, object]) -> None:
    value = json.loads(quote_event(a_quote()).value)
    with pytest.raises(ValidationError):
        value_schema().validate({**value, **change})


def test_the_examples_are_what_is_sent() -> None:
    epoch, iso8601 = the_message()["examples"]
    event = quote_event(a_quote())
    assert epoch["payload"] == json.loads(event.value)
    assert epoch["headers"] == {name: value.decode() for name, value in event.headers}
    event = quote_event(a_quote(), updated_at_format="iso8601")
    assert iso8601["payload"] == json.loads(event.value)


def test_references_resolve() -> None:
    document = a_file("asyncapi.json")
    references = list(_references(document))
    assert len(references) == 5
    for reference in references:
        name, _, pointer = reference.partition("#")
        node: Any = a_file(name) if name else document
        for step in pointer.strip("/").split("/") if pointer else []:
            node = node[step]
        assert node


def test_the_document_is_asyncapi_3() -> None:
    document = a_file("asyncapi.json")
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    assert {operation["action"] for operation in document["operations"].values()} == {"send"}
    assert document["channels"]["quotes"]["address"] == "trading-assets-market-data-v1"


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)
