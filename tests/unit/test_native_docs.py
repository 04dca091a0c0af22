"""The documentation page: it works without a network, and describes every parameter and field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlift.api.docs import as_openapi_30
from tests.api_world import BASE, World, make_world


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


@pytest.fixture
async def document(world: World) -> dict[str, Any]:
    return (await world.send("GET", f"{BASE}/openapi.json", {})).json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


async def test_the_page_loads_nothing_from_elsewhere(world: World) -> None:
    page = await world.send("GET", f"{BASE}/docs", {})
    assert page.status_code == 200
    assert not re.search(r"https?://", page.text)
    loaded = [*re.findall(r'(?:href|src)="([^"]+)"', page.text), "/openapi.json"]
    assert len(loaded) == 4
    for path in loaded:
        assert (await world.send("GET", BASE + path, {})).status_code == 200, path


async def test_every_call_parameter_and_field_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation.get("description"), name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{name} {parameter['name']}"
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"


async def test_every_call_says_how_to_sign_in_and_what_can_go_wrong(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert {"AK/SK signature", "token"} == {key for way in operation["security"] for key in way}, name
        assert "401" in operation["responses"], name
        assert "422" not in operation["responses"], name


async def test_the_document_is_one_that_the_page_can_read(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.0.")
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    known = document["components"]["schemas"]

    def check(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                check(item)
        if isinstance(node, dict):
            assert node.get("type") != "null"
            assert not {"const", "examples", "$defs"} & set(node)
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/components/schemas/") in known
            for item in node.values():
                check(item)

    check(document)


async def test_calls_that_the_guide_names_are_there(document: dict[str, Any]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    named = set(re.findall(r"/api/v1(?:/[\w${}.-]+)*", text)) - {"/api/v1"}
    assert len(named) > 8
    known = {re.sub(r"\{\w+\}", "*", path) for path in document["paths"]}
    for path in named:
        assert re.sub(r"\$\w+|\{\w+\}", "*", path) in known, path


def test_3_1_in_the_words_of_3_0() -> None:
    null = {"type": "null"}
    assert as_openapi_30({"anyOf": [{"type": "string"}, null]}) == {"type": "string", "nullable": True}
    assert as_openapi_30({"anyOf": [{"$ref": "#/x"}, null]}) == {"allOf": [{"$ref": "#/x"}], "nullable": True}
    assert as_openapi_30({"anyOf": [{"type": "string"}, {"type": "integer"}, null]}) == {
        "anyOf": [{"type": "string"}, {"type": "integer"}],
        "nullable": True,
    }
    assert as_openapi_30({"exclusiveMinimum": 1, "maximum": 9}) == {
        "minimum": 1,
        "exclusiveMinimum": True,
        "maximum": 9,
    }
    assert as_openapi_30({"const": "a", "examples": ["a", "b"]}) == {"enum": ["a"], "example": "a"}
