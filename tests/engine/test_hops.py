"""Each hop between releases of both engines on real nodes under the probing client, and the whole way on one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.load import INDICES
from shardlift.demo.server import log_tail, serving
from shardlift.demo.stage import under_load
from shardlift.model import Route, RouteStatus, Strategy, TaskStatus
from tests.engine.moving import Moving, assert_served, ess, moving, say, upgrade

pytestmark = [pytest.mark.hops, pytest.mark.timeout(1800)]

ES_68, ES_710, ES_717, ES_8 = (f"elasticsearch:{version}" for version in ("6.8.23", "7.10.2", "7.17.28", "8.19.0"))
OS_1, OS_2, OS_3 = (f"opensearch:{version}" for version in ("1.3.20", "2.19.4", "3.4.0"))
HOPS = ((ES_68, ES_710), (ES_717, ES_8), (ES_710, OS_1), (OS_1, OS_2), (OS_2, OS_3))
WAY = (ES_68, ES_710, OS_1, OS_2, OS_3)
REFUSED = 3  # the exit code of what was not begun

_LOOK_S = 10.0
_PAGE = 1000
_ROUNDS_MAX = 20
_CREATED, _CONFLICT = 201, 409


@pytest.mark.parametrize(("source", "target"), HOPS, ids=lambda reference: reference)
async def test_a_hop(source: str, target: str) -> None:
    async with moving(ess(3), zones=("zone-a",), way=(source, target), strategy=Strategy.DRAIN) as at:
        before, names = await at.settings(), {*await at.members()}
        task, _ = await upgrade(at)
        assert {*task.total} == names == {*await at.members()}
        assert task.bytes_moved > 0, "each node was emptied"
        assert await at.settings() == before
        cluster = await at.now()
        assert f"{cluster.engine}:{cluster.version}" == target


async def test_the_whole_way_from_6_8_to_3_4_on_one_cluster() -> None:
    async with (
        moving(ess(3), zones=("zone-a",), way=WAY, indices=behind_aliases) as at,
        serving(at.stage.settings.home),
    ):
        try:
            seen = await under_load(at.stage, lambda: whole_way(at), say)
        except BaseException:
            say(f"---- log of serve ----\n{log_tail(at.stage.settings.home)}")
            raise
        assert_served(seen)
        assert seen.result.status is RouteStatus.SUCCESS
        tasks = (await at.stage.service.tasks(at.stage.cluster.id)).items
        assert [task.status for task in tasks] == [TaskStatus.SUCCESS] * (len(WAY) - 1)
        images = [at.stage.service.image(task.image_id).reference for task in reversed(tasks)]
        assert images == [*WAY[1:]]
        assert await at.versions() == {"3.4.0"}
        assert (await at.rest("GET", "/_cluster/health"))["status"] == "green"
        left = await at.rest("GET", f"/{','.join(f'{name}*' for name in INDICES)}/_settings?flat_settings=true")
        assert {*left} == {f"{name}-3" for name in INDICES}, "each was made again twice, and nothing else is left"
        assert await at.settings() == {"persistent": {}, "transient": {}}


async def whole_way(at: Moving) -> Route:
    """By the command line and a server of its own, as a person goes it. The route in the end."""
    home, name = at.stage.settings.home, at.stage.cluster.name
    passing = [word for image in WAY[1:-1] for word in ("--via", image)]
    # Shown, and not begun: nobody is at the terminal to approve.
    code, shown, told = await command(home, "upgrade", name, "--to", WAY[-1], *passing)
    say(f"{shown}\n{told}")
    assert code == REFUSED
    assert "a route of 4 hops does; nothing was begun" in told
    assert all(image in shown for image in WAY), "every hop is shown"
    for hop, source, target in ((3, OS_1, OS_2), (4, OS_2, OS_3)):
        named = next(line for line in told.splitlines() if line.startswith(f"before hop {hop}, on {source}: {target}"))
        assert all(f"{index}-1" in named for index in INDICES), "what is too old is named"
    assert (await at.stage.service.tasks(at.stage.cluster.id)).total == 0
    code, shown, told = await command(home, "upgrade", name, "--to", WAY[-1], *passing, "--yes", "--strategy", "auto")
    assert code == 0, f"{shown}\n{told}"
    for generation, begun in ((1, 2), (2, 3)):
        route = await at_rest(at)
        assert (route.status, route.begun) == (RouteStatus.RUNNING, begun), route
        assert route.waiting_for is not None
        assert "index_compatible" in route.waiting_for
        for index in INDICES:
            await make_again(at, index, f"{index}-{generation}", f"{index}-{generation + 1}")
        code, shown, told = await command(home, "route", "resume", name)
        assert code == 0, f"{shown}\n{told}"
    return await at_rest(at)


async def command(home: Path, *words: str) -> tuple[int, str, str]:
    """`shardlift` with these words: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shardlift", *words),
        env={**os.environ, "SHARDLIFT_HOME": str(home), "COLUMNS": "400"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def at_rest(at: Moving) -> Route:
    """The cluster's route once it has ended, or waits for indices to be made again. Fails when a hop has."""
    service = at.stage.service
    mark: int | None = None
    while True:  # the test's own time bounds it
        route = await service.routes.newest(await at.now())
        waits = route.waiting_for or ""
        assert "has failed" not in waits, waits
        if route.status is not RouteStatus.RUNNING or ("index_compatible" in waits and route.look_at is not None):
            say(f"the route is {route.status} after {route.begun} hops; waits for: {waits or 'nothing'}")
            return route
        mark = await service.store.database.wait_change(mark, _LOOK_S)


async def behind_aliases(client: ClusterClient) -> None:
    """What clients write to and read are aliases, so that an index can be made again behind them."""
    for name in INDICES:
        shape: dict[str, Any] = {"settings": {"index": {"number_of_shards": 2, "number_of_replicas": 1}}}
        body = shape | {"aliases": {name: {"is_write_index": True}}}
        assert (await client.call(Call("PUT", f"/{name}-1", json.dumps(body).encode()))).ok
    assert (await client.call(Call("GET", "/_cluster/health?wait_for_status=green&timeout=60s"))).ok


async def make_again(at: Moving, alias: str, old: str, new: str) -> None:
    """A new index takes the writes from here on; then it gets what is in the old one, and that is deleted.

    By scroll and bulk: these distributions have no modules, and so no _reindex.
    """
    await at.rest("PUT", f"/{new}", {"settings": {"index": {"number_of_shards": 2, "number_of_replicas": 1}}})
    health = await at.rest("GET", f"/_cluster/health/{new}?wait_for_status=green&timeout=60s")
    assert not health["timed_out"], health
    both = ((old, False), (new, True))
    actions = [{"add": {"index": index, "alias": alias, "is_write_index": writes}} for index, writes in both]
    await at.rest("POST", "/_aliases", {"actions": actions})
    copied, news = 0, -1
    for _ in range(_ROUNDS_MAX):  # a write that was under way may still have come into the old one
        news = await copy_missing(at, old, new)
        copied += news
        if not news:
            break
    assert news == 0, f"{old} still gets documents"
    say(f"{alias}: {copied} documents from {old} to {new}")
    await at.rest("DELETE", f"/{old}")


async def copy_missing(at: Moving, old: str, new: str) -> int:
    """Puts each document of the old index that the new one lacks into that. How many it lacked."""
    await at.rest("POST", f"/{old}/_refresh")
    page = await at.rest("POST", f"/{old}/_search?scroll=1m", {"size": _PAGE, "sort": ["_doc"]})
    count = 0
    while page["hits"]["hits"]:  # ends with the index
        assert page["_shards"]["failed"] == 0, page["_shards"]
        count += await created(at, new, page["hits"]["hits"])
        page = await at.rest("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": page["_scroll_id"]})
    return count


async def created(at: Moving, index: str, hits: Sequence[dict[str, Any]]) -> int:
    """Those of the documents that were not there yet. What is there is newer, or the same."""
    lines = [line for hit in hits for line in ({"create": {"_id": hit["_id"]}}, hit["_source"])]
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    answer = await at.client.call(Call("POST", f"/{index}/_bulk", body, content_type="application/x-ndjson"))
    assert answer.ok, answer
    statuses = [item["create"]["status"] for item in answer.body["items"]]
    assert {*statuses} <= {_CREATED, _CONFLICT}, answer
    return statuses.count(_CREATED)
