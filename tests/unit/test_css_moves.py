"""Zones, replacement and restart through the CSS API: each answer of the table, and what may be sent twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardlift.service.requests import MigrateRequest, ReplaceRequest, RestartRequest
from tests.api_world import World, make_world


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = await make_world(tmp_path)
    nodes = tuple(replace(node, zone="az-a") for node in made.cluster.nodes)
    made.cluster = made.service.kept_clusters[made.cluster.id] = replace(made.cluster, nodes=nodes)
    return made


def asked(**changes: Any) -> dict[str, Any]:
    body = {"source_az": "az-a", "target_az": "az-c", "migrate_type": "az_migrate", "agency": "css_agency"}
    return {key: value for key, value in (body | changes).items() if value is not None}


async def test_a_change_of_zones_is_there_when_the_answer_leaves(world: World) -> None:
    answer = await world.call("POST", world.path("/inst-type/ess/azmigrate"), body=asked(indices_backup_check=False))
    assert (answer.status_code, answer.content) == (200, b"")
    assert world.service.moves == [
        MigrateRequest(world.cluster.id, "az-a", "az-c", "ess", "az_migrate", "css_agency", backup_check=False)
    ]
    details = (await world.call("GET", world.path("/upgrade/detail"), {"action_mode": "AZ_MIGRATION"})).json()
    assert details["totalSize"] == 1
    detail = details["detailList"][0]
    assert detail["status"] == "RUNNING"
    assert "imageInfo" not in detail
    assert detail["migrateParam"] == (
        '{"instType":"ess","migrateType":"az_migrate","sourceAz":"az-a","targetAz":"az-c"}'
    )
    names = ",".join(node.name for node in world.cluster.nodes)
    assert json.loads(detail["finalAzInfoMap"]) == {"az-c": names}
    assert (await world.call("GET", world.path("/upgrade/detail"))).json() == {"totalSize": 0, "detailList": []}
    shown = (await world.call("GET", world.path())).json()
    assert (shown["actions"], shown["actionProgress"]) == (["AZ_MIGRATION"], {"AZ_MIGRATION": "0%"})


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("ess", None, 400, "CSS.0006"),
        ("ess-warm", asked(), 400, "CSS.0076"),
        ("ess-cold", asked(), 400, "CSS.5140"),
        ("ess", asked(source_az="az-x"), 400, "CSS.5011"),
        ("ess", asked(target_az="az-a"), 400, "CSS.5011"),
        ("ess", asked(target_az="no zone!"), 400, "CSS.5011"),
        ("ess", asked(target_az="az-z"), 404, "CSS.5012"),
        ("ess", asked(target_az=None), 400, "CSS.0001"),
        ("ess", asked(migrate_type="walk"), 400, "CSS.0001"),
        ("ess", asked(agency="no agency!"), 400, "CSS.5130"),
        ("ess", asked(indices_backup_check="maybe"), 400, "CSS.0001"),
    ],
)
async def test_a_wrong_change_of_zones(world: World, path: str, body: Any, status: int, code: str) -> None:
    world.service.settings = world.service.settings.model_copy(update={"zones": "az-a,az-c"})
    answer = await world.call("POST", world.path(f"/inst-type/{path}/azmigrate"), body=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert world.service.moves == []


async def test_a_replacement_may_be_sent_twice(world: World) -> None:
    path = world.path(f"/instance/{world.cluster.nodes[1].id}/replace")
    for _ in range(2):
        answer = await world.call("PUT", path, {"migrateData": "false", "agency": "css_agency"})
        assert (answer.status_code, answer.content) == (200, b"")
    assert world.service.moves == [
        ReplaceRequest(world.cluster.id, world.cluster.nodes[1].id, migrate_data=False, agency="css_agency")
    ]
    other = await world.call("PUT", world.path(f"/instance/{world.cluster.nodes[2].id}/replace"))
    assert (other.status_code, other.json()["error_code"]) == (409, "CSS.0011")


@pytest.mark.parametrize(
    ("node", "query", "status", "code"),
    [
        ("0c3a4b1e-0000-4000-8000-000000000000", {}, 404, "CSS.0022"),
        ("x", {}, 404, "CSS.0022"),
        (None, {"migrateData": "perhaps"}, 400, "CSS.0001"),
        (None, {"agency": "no agency!"}, 400, "CSS.5130"),
    ],
)
async def test_a_wrong_replacement(
    world: World, node: str | None, query: dict[str, str], status: int, code: str
) -> None:
    node = node or world.cluster.nodes[0].id
    answer = await world.call("PUT", world.path(f"/instance/{node}/replace"), query)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
@pytest.mark.parametrize("word", ["restart", "rolling_restart", "rolling-restart"])
async def test_all_spellings_of_a_restart(world: World, version: str, word: str) -> None:
    path = world.path(f"/{word}").replace("/v1.0/", f"/{version}/")
    answer = await world.call("POST", path, body={"type": "role", "value": "all"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert world.service.moves == [RestartRequest(world.cluster.id, "role", "all")]
    assert (await world.call("GET", world.path())).json()["actions"] == ["REBOOTING"]
    again = await world.call("POST", path)
    assert (again.status_code, again.json()["error_code"]) == (409, "CSS.0011")


@pytest.mark.parametrize("body", [{"type": "rack"}, {"value": "warm"}, {"type": "node", "value": "x"}, {"value": ""}])
async def test_a_wrong_restart(world: World, body: dict[str, str]) -> None:
    answer = await world.call("POST", world.path("/restart"), body=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "CSS.0001")


async def test_a_restart_without_a_body_takes_all_nodes(world: World) -> None:
    assert (await world.call("POST", world.path("/restart"))).status_code == 200
    assert world.service.moves == [RestartRequest(world.cluster.id)]
