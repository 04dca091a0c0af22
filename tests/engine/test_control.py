"""A real upgrade, paused, aborted half-way, begun again with a canary, paused and approved, under a probing client.

The server is killed with `kill -9` twice while its task is paused and twice while it is under way. One cluster goes
through all of it, because clusters take long to boot: the first task upgrades its first node and is aborted in the
second, the second task takes the two that are left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.stage import Stage, under_load, versions
from shardlift.model import Strategy
from shardlift.serve import read_credentials
from tests.engine.test_upgrade import (
    Sdk,
    Server,
    assert_served,
    effects_of,
    processes,
    say,
    server_of,
    settings_of,
    stage_of,
    upgrade_of,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

Document = dict[str, Any]

REBALANCE, ENABLE = "cluster.routing.rebalance.enable", "cluster.routing.allocation.enable"
RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"
EXCLUDE_NAME = "cluster.routing.allocation.exclude._name"
# Chosen by the operator before all this: what Shardlift changes of them it must put back, each in its own layer.
CHOSEN = {"persistent": {REBALANCE: "replicas"}, "transient": {ENABLE: "all"}}
_UNTIL_S = 120
# More than the longest time between two looks of the server for work to do.
_STILL_S = 4
_BOOT = 10
_AT_REST = "/_cluster/health?wait_for_no_relocating_shards=true&wait_for_status=green&timeout=60s"


class Native:
    """The native API of whichever server runs now; one is started when none does."""

    def __init__(self, stage: Stage, server: Server) -> None:
        self._stage, self._server = stage, server

    async def ask(self, method: str, path: str, body: object = None) -> Document:
        keys = read_credentials(self._stage.settings.credentials_path)
        url = await self._server.url()
        async with httpx.AsyncClient(base_url=url, headers={"X-Auth-Token": keys.token}, timeout=90) as client:
            answer = await client.request(method, f"/api/v1{path}", json=body)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        found: Document = answer.json()
        return found

    async def wish(self, task_id: str, what: str) -> Document:
        return await self.ask("POST", f"/tasks/{task_id}/{what}")

    async def until(self, task_id: str, good: Callable[[Document], bool]) -> Document:
        """The task as soon as it is so; told of each change by the server."""
        task = await self.ask("GET", f"/tasks/{task_id}")
        async with asyncio.timeout(_UNTIL_S):
            while not good(task):
                assert task["status"] == "RUNNING", task["fail_message"]
                task = await self.ask("GET", f"/tasks/{task_id}?wait_s=20&after_revision={task['revision']}")
        return task

    async def stands_still(self, task: Document) -> None:
        """Nothing is written to the task while the server has looked for work."""
        later = await self.ask("GET", f"/tasks/{task['task_id']}?wait_s={_STILL_S}&after_revision={task['revision']}")
        assert later == task


def row_of(task: Document, node: str, order: int) -> Document:
    return next(row for row in task["steps"] if (row["node"], row["order"]) == (node, order))


def rests(task: Document) -> bool:
    return bool(task["at_rest"])


def waits_for_approval(task: Document) -> bool:
    return not task["at_rest"] and "approval" in (task["blocked_by"] or "")


async def copies_on(stage: Stage, node: str) -> list[Document]:
    async with ClusterClient(stage.urls) as client:
        found = await client.call(Call("GET", "/_cat/shards?format=json&h=index,shard,state,node"))
    # A copy on its way is told as "from -> address id to".
    return [copy for copy in found.body if node in (copy["node"] or "").split()]


async def choose_settings(stage: Stage) -> None:
    async with ClusterClient(stage.urls) as client:
        put = await client.call(Call("PUT", "/_cluster/settings", json.dumps(CHOSEN).encode()))
    assert put.ok, put


async def at_rest(stage: Stage) -> None:
    """The engine balances again once it may; a new task would be refused while shards move."""
    async with ClusterClient(stage.urls, timeout_s=70, deadline_s=80) as client:
        health = await client.call(Call("GET", _AT_REST))
    assert health.ok, health


async def paused_and_killed(stage: Stage, server: Server, native: Native, task_id: str) -> Document:
    """The task at rest: its server is killed and started again, and still nothing moves."""
    paused = await native.until(task_id, rests)
    assert (paused["status"], paused["paused"]) == ("RUNNING", True)
    assert f"task resume {task_id}" in paused["blocked_by"]
    settings, effects, running = await settings_of(stage), effects_of(stage), await processes(stage)
    await server.stop()
    await native.stands_still(paused)
    assert (effects_of(stage), await processes(stage)) == (effects, running)
    assert await settings_of(stage) == settings
    return paused


async def paused_at_a_boundary_then_aborted(stage: Stage, server: Server) -> None:
    """Paused while its first node boots, it rests before the second. Aborted in the second, it ends half done."""
    native, sdk = Native(stage, server), Sdk(stage, server)
    await sdk.upgrade()
    task_id = (await sdk.detail()).id
    first, second, third = (await sdk.detail()).total_nodes.split(",")
    await native.until(task_id, lambda task: row_of(task, first, _BOOT)["status"] == "RUNNING")
    asked = await native.wish(task_id, "pause")
    assert (asked["paused"], asked["at_rest"]) == (True, False), "the node in work is finished first"

    paused = await paused_and_killed(stage, server, native, task_id)
    assert (paused["nodes_completed"], paused["current_nodes"]) == (1, [])
    assert row_of(paused, first, 12)["status"] == "SUCCESS"
    assert row_of(paused, second, 0)["status"] == "WAITING"
    assert (await sdk.detail()).status == "RUNNING", "CSS has no word for it"
    held = await settings_of(stage)
    # Two versions: what would deadlock stays held off.
    assert held["persistent"] == {REBALANCE: "none", RECOVERIES: "64"}
    assert held["transient"] == CHOSEN["transient"]

    before = await processes(stage)
    server.crash_at([("begun", second, 5)])
    await native.wish(task_id, "resume")
    await server.died()
    assert (await settings_of(stage))["transient"] == {ENABLE: "primaries"}, "the second node is well under way"
    # As the command line does when no server runs: the next one finds it.
    assert (await stage.service.abort(task_id)).aborting
    ended = await native.until(task_id, lambda task: task["status"] != "RUNNING")
    assert ended["status"] == "PARTIAL_FAILED"
    assert (await sdk.detail()).status == "PARTIAL_FAILED"
    told = ended["fail_message"]
    assert f"1 of 3 nodes run opensearch:3.4.0 ({first}), {second}, {third} as before" in told
    assert "settings put back" in told
    assert REBALANCE in told
    assert ENABLE in told
    assert await processes(stage) == before, "no node was touched any more"
    async with ClusterClient(stage.urls) as client:
        assert await versions(client, stage.cluster) == {first: "3.4.0", second: "2.19.4", third: "2.19.4"}


async def canary_paused_then_approved(stage: Stage, server: Server) -> str:
    """The nodes that are left, the first of them as a canary: empty until somebody approves it, whatever is killed."""
    native = Native(stage, server)
    asked = {"image": "opensearch:3.4.0", "policy": {"canary": True}}
    task = await native.ask("POST", f"/clusters/{stage.cluster.id}/upgrade", asked)
    task_id = task["task_id"]
    (canary,), (_last,) = task["batches"]
    waits = await native.until(task_id, waits_for_approval)
    assert f"task approve {task_id}" in waits["blocked_by"]
    assert row_of(waits, canary, 11)["status"] == "RUNNING"
    await is_back_and_empty(stage, canary)

    await native.wish(task_id, "pause")
    await paused_and_killed(stage, server, native, task_id)
    await is_back_and_empty(stage, canary)
    await native.wish(task_id, "resume")
    await taken_up(stage)
    await native.until(task_id, waits_for_approval)
    await server.stop()
    await is_back_and_empty(stage, canary)

    begun = await native.ask("GET", f"/tasks/{task_id}")
    assert (begun["status"], begun["approved"], begun["nodes_completed"]) == ("RUNNING", False, 0)
    assert (await native.wish(task_id, "approve"))["approved"]
    ended = await native.until(task_id, lambda task: task["status"] != "RUNNING")
    assert ended["nodes_completed"] == ended["nodes_total"] == 2, ended["fail_message"]
    return str(ended["status"])


async def is_back_and_empty(stage: Stage, canary: str) -> None:
    async with ClusterClient(stage.urls) as client:
        assert (await versions(client, stage.cluster))[canary] == "3.4.0"
    assert await copies_on(stage, canary) == []
    assert (await settings_of(stage))["persistent"][EXCLUDE_NAME] == canary


async def taken_up(stage: Stage) -> None:
    """Until a server works on the cluster again. Nothing tells that from outside, so this asks."""
    pause_s = 0.05
    async with asyncio.timeout(_UNTIL_S):
        while await stage.service.leases.claimable():
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)


async def test_paused_aborted_and_approved_with_the_server_killed_in_each_state() -> None:
    async with stage_of(Strategy.IN_PLACE) as stage, server_of(stage) as server:
        await choose_settings(stage)
        before = await settings_of(stage)
        booted = await processes(stage)
        assert before == {**CHOSEN, "voting": []}

        async def act() -> str:
            report = await stage.service.check(upgrade_of(stage))
            assert report.plan is not None, [str(one) for one in report.blocking]
            await paused_at_a_boundary_then_aborted(stage, server)
            assert await settings_of(stage) == before
            await at_rest(stage)
            return await canary_paused_then_approved(stage, server)

        seen = await under_load(stage, act, say)
        assert_served(seen)
        assert server.points_left == []
        assert server.deaths == 4
        await Sdk(stage, server).idle()
        assert await settings_of(stage) == before
        effects = effects_of(stage)
        for node in stage.cluster.nodes:
            counts = {effect: effects[node.name, effect] for effect in ("backup", "stop", "switch", "restore", "start")}
            assert set(counts.values()) == {1}, (node.name, counts)
        after = await processes(stage)
        assert all(after[name] not in {None, process} for name, process in booted.items()), "each is a new process"
