"""The documents agree with each other and with the code."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from market_data_pipeline.definitions import defs
from market_data_pipeline.market.quote import COLUMNS
from market_data_pipeline.settings import Settings, names
from market_data_pipeline_tests.supervised import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TRANSLATIONS = [path for path in DOCUMENTS if path.name.endswith(".pt-BR.md")]
CODE = {".java", ".properties", ".py", ".mjs", ".go"}
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]+))?\)")


def heading_levels(text: str) -> list[int]:
    return [len(line.split()[0]) for line in text.splitlines() if re.match(r"#+ ", line)]


def code_blocks(text: str) -> list[str]:
    """The blocks of code without their comments."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return [re.sub(r" *(#| // ).*", "", block) for block in blocks]


def first_columns(text: str) -> list[list[str]]:
    return [
        re.findall(r"`([^`]+)`", line.split("|")[1])
        for line in text.splitlines()
        if line[:2] == "| "
    ]


def linked_files(text: str) -> set[str]:
    return {target.replace(".pt-BR", "") for target, _ in LINK.findall(text)}


@pytest.mark.parametrize("part", [heading_levels, code_blocks, first_columns, linked_files])
@pytest.mark.parametrize("path", TRANSLATIONS, ids=lambda path: path.name)
def test_a_document_is_the_same_in_both_languages(path: Path, part: Callable[[str], Any]) -> None:
    english = path.with_name(path.name.replace(".pt-BR", ""))

    assert part(path.read_text("utf-8")) == part(english.read_text("utf-8"))


def test_readme_contract_and_operating_are_translated() -> None:
    names = {path.name.partition(".")[0] for path in TRANSLATIONS}

    assert names == {"README", "contracts", "operating"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_link_is_dead(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text("utf-8")):
        if target.startswith("http"):
            continue
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert anchor in slugs, anchor


def test_the_table_of_settings_is_that_of_the_code() -> None:
    table = ["| variable | default | |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if field.annotation is bool else field.default
        extra: Any = field.json_schema_extra
        quoted = f"`{default}`" if str(default) else ""
        shown = quoted if extra["shown"] is None else extra["shown"]
        table.append(f"| `{extra.get('variable', name.upper())}` | {shown} | {field.description} |")

    assert "\n".join(table) in (ROOT / "docs" / "configuration.md").read_text("utf-8")


def test_the_example_has_every_setting() -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    found = set(re.findall(r"^#? ?([A-Z0-9_]+)=", example, re.MULTILINE))

    assert {name for name in found if not name.startswith("KAFKA_CONFIG_")} == set(names())


def test_the_table_of_the_document_is_that_of_the_code() -> None:
    contracts = (ROOT / "docs" / "contracts.md").read_text("utf-8")
    types = {"int64": "integer", "timestamp": "date"}

    for name, (kind, text) in COLUMNS.items():
        row = rf"\| `{name}` \| {types.get(kind, kind)}( or null)? \| {re.escape(text)} \|"
        assert re.search(row, contracts), name


def test_every_check_is_in_the_operators_table() -> None:
    table = (ROOT / "docs" / "operating.md").read_text("utf-8")
    names = {key.name for key in defs.resolve_asset_graph().asset_check_keys}

    assert len(names) > 7
    assert {name for name in names if f"| `{name}` |" not in table} == set()


def test_every_message_in_the_operators_tables_is_one_of_the_code() -> None:
    sources = "".join(
        path.read_text("utf-8") for path in (ROOT / "market_data_pipeline").rglob("*.py")
    )
    code = re.sub(r'"\s*f?"', "", sources).replace("`", "")
    text = (ROOT / "docs" / "operating.md").read_text("utf-8")
    tables = re.findall(r"^\| (?:the message|`reason`).*\n((?:\|.*\n)*)", text, re.MULTILINE)
    messages = [message for cells in first_columns("".join(tables)) for message in cells]

    assert len(messages) > 25
    for message in messages:
        for part in re.split(r"…|HOST:PORT|COTAHIST_|: ", message):
            assert part.strip() in code, message


@pytest.mark.parametrize("name", ["contracts.md", "contracts.pt-BR.md"])
def test_the_contract_shows_whole_files_of_the_examples_and_nothing_else(name: str) -> None:
    text = (ROOT / "docs" / name).read_text("utf-8")
    files = [path for path in (ROOT / "examples").rglob("*") if path.suffix in CODE]
    sources = {path.read_text("utf-8") for path in files if "node_modules" not in path.parts}
    shown = re.findall(r"```(?:java|properties|python|javascript|go)\n(.*?)```", text, re.DOTALL)

    assert shown
    assert set(shown) <= sources
