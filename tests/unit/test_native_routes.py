"""Routes in the native API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardlift.model import InstanceType, Simulation
from shardlift.service.requests import CreateCluster, Credentials, NodeGroup
from tests.doors import Door, open_door


async def town(door: Door) -> tuple[Credentials, str]:
    mine = await door.service.create_project("mine")
    groups = (NodeGroup(InstanceType.ESS, 3),)
    asked = CreateCluster(
        mine.project_id,
        "books",
        "elasticsearch:6.8.23",
        groups,
        ("a", "b", "c"),
        driver="sim",
        simulation=Simulation(data_bytes=2**20, indices=1, speed=10_000),
    )
    await door.service.create_cluster(asked)
    return mine, "/api/v1/clusters/books/route"


@pytest.mark.parametrize("via", [[], ["elasticsearch:7.10.2"]])
async def test_a_route_from_check_to_end(fast_home: Path, via: list[str]) -> None:
    async with open_door(fast_home) as door:
        mine, path = await town(door)

        async def call(method: str, rest: str = "", body: bytes = b"", status: int = 200) -> Any:
            answer = await door.call(mine, method, path + rest, body=body)
            assert answer.status_code == status, answer.text
            return answer.json()

        assert (await call("GET", status=404))["error"] == "not_found"
        named = f'"via": ["{via[0]}"],' if via else ""
        wish = f'{{{named} "image": "opensearch:2.19.4", "strategy": "in_place"}}'.encode()
        report = await call("POST", "/checks", wish)
        way = [*(via or ["opensearch:1.3.20"]), "opensearch:2.19.4"]
        assert [hop["to"] for hop in report["hops"]] == way
        assert [hop["rebuild_first"] for hop in report["hops"]] == [[], ["index-1"]]
        assert report["ok"] is True
        assert (await call("GET", status=404))["error"] == "not_found", "nothing was begun"

        begun = await call("POST", "", wish, 202)
        assert [(hop["to"], hop["status"]) for hop in begun["hops"]] == [(way[0], "RUNNING"), (way[1], "WAITING")]
        assert await call("GET") == begun
        assert (await call("POST", "", wish, 409))["error"] == "busy"
        assert (await call("POST", "/resume"))["status"] == "RUNNING"
        ended = await call("POST", "/abort")
        assert (ended["status"], ended["ended_at"] is None) == ("ABORTED", False)
        assert (await call("POST", "/abort", status=412))["error"] == "refused"
        records = (await door.service.audit.list()).items
        assert {"route.begin", "route.resume", "route.abort"} <= {one.action for one in records}


async def test_what_cannot_be_is_refused_by_name(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        mine, path = await town(door)
        for body, status, word in (
            (b'{"image": "elasticsearch:6.8.23"}', 412, "no route leads"),
            (b'{"image": "opensearch:9.9.9"}', 404, "no image"),
            (b'{"image": "opensearch:3.4.0", "via": ["nonsense"]}', 404, "no image"),
            (b'{"image": "opensearch:3.4.0", "via": "opensearch:1.3.20"}', 400, "via"),
            (b"{}", 400, "image"),
        ):
            answer = await door.call(mine, "POST", f"{path}/checks", body=body)
            assert answer.status_code == status, answer.text
            assert word in answer.text
