"""Real nodes whose task fails when one is half changed, which a person then starts by hand, without Shardlift.

By hand means what a person has: the engine's own program in the node's folder, run as the engines' user. The retry must
take the node again: look, hand over, stop it, and go on with its change.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardlift.demo.client import Call
from shardlift.driver import jvm
from shardlift.driver.users import node_user
from shardlift.images import Catalogue, ImageStore
from shardlift.model import Image, Node, StepStatus, Strategy, Task, TaskStatus
from shardlift.service.requests import UpgradeRequest
from tests.engine import plugin
from tests.engine.moving import OLD, Moving, ess, moving, say

pytestmark = [pytest.mark.moves, pytest.mark.timeout(900)]

WAY = (OLD, "opensearch:3.4.0")
HANDOVER, SHUTDOWN, REPLACEMENT, PLUGINS = 2, 6, 7, 9
JOINS_WITHIN_S, LOOK_S = 240.0, 0.5


@dataclass
class ByHand:
    """Starts nodes as a person does. `started`: the processes, by node."""

    at: Moving
    started: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, node: Node, image: Image) -> None:
        """Runs the engine's program, which is of this image, and returns when the node has joined and has copies."""
        folder = self.at.folder(node)
        user = node_user(self.at.stage.settings.node_user)
        java = jvm.choose(image, jvm.find(self.at.stage.settings))
        tmp = folder / "run" / "tmp"
        words = tmp / "by-hand.log"
        own = {"user": user.uid, "group": user.gid, "extra_groups": []} if user.drops else {}
        with words.open("wb") as sink:
            self.started[node.name] = await asyncio.create_subprocess_exec(
                str(folder / "engine" / "bin" / "opensearch"),
                env={
                    "PATH": os.environ["PATH"],
                    "OPENSEARCH_JAVA_HOME": str(jvm.reachable(java, user, self.at.stage.settings.home / "jvms").home),
                    "OPENSEARCH_PATH_CONF": str(folder / "config"),
                    "OPENSEARCH_TMPDIR": str(tmp),
                },
                cwd=tmp,
                stdout=sink,
                stderr=sink,
                **own,
            )
        end_s = time.monotonic() + JOINS_WITHIN_S
        while node.name not in await self.at.members():
            assert self.started[node.name].returncode is None, words.read_text()
            assert time.monotonic() < end_s, f"{node.name} did not join"
            await asyncio.sleep(LOOK_S)
        # After a minute copies are rebuilt elsewhere; then it gets some by balancing.
        mine: list[str] = []
        while not mine:
            assert time.monotonic() < end_s, f"{node.name} got no copies"
            await asyncio.sleep(LOOK_S)
            calm = "/_cluster/health?wait_for_status=green&wait_for_no_relocating_shards=true&timeout=20s"
            if not (await self.at.client.call(Call("GET", calm))).ok:
                continue
            rows = await self.at.rest("GET", "/_cat/shards?format=json&h=index,shard,prirep,state,node")
            held = [row for row in rows if row["node"] == node.name and row["state"] == "STARTED"]
            mine = [f"{row['index']}[{row['shard']}]{row['prirep']}" for row in held]
        say(f"{node.name} runs by hand as process {self.started[node.name].pid} with {', '.join(mine)}")


@asynccontextmanager
async def by_hand(at: Moving) -> AsyncIterator[ByHand]:
    """What a person has started ends with the test."""
    person = ByHand(at)
    try:
        yield person
    finally:
        for process in person.started.values():
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def made_master(at: Moving, node: Node) -> None:
    """Has the node elected: the others may not vote for a moment."""
    others = ",".join(one.name for one in at.stage.cluster.nodes if one.name != node.name)
    await at.rest("POST", f"/_cluster/voting_config_exclusions?node_names={others}")
    await at.rest("DELETE", "/_cluster/voting_config_exclusions?wait_for_removal=false")
    assert await at.elected() == node.name


async def failed_at(at: Moving, order: int) -> Node:
    """Upgrades in place until a node fails there, half changed. Returns that node, which is down."""
    await at.stage.service.upgrade(UpgradeRequest(at.stage.cluster.id, at.stage.target.id, strategy=Strategy.IN_PLACE))
    failed = await at.drive(status=TaskStatus.FAILED)
    node = at.stage.cluster.node(failed.plan.nodes[0].name)
    rows = failed.steps_of(node.name)
    say(f"failed: {rows[order].desc}")
    assert [row.status for row in rows[: order + 1]] == [StepStatus.SUCCESS] * order + [StepStatus.FAILED]
    assert node.name not in await at.members()
    return node


async def retried(at: Moving) -> Task:
    await at.stage.service.retry((await at.task()).id)
    return await at.drive()


def effects(at: Moving, node: Node) -> list[str]:
    """What was done on the node's host, as its own log has it, without the cluster's making."""
    lines = [json.loads(line) for line in (at.folder(node) / "host.log").read_text().splitlines()]
    return [line["effect"] for line in lines[2:]]


async def taken_again(at: Moving, task: Task, node: Node, order: int, hand: ByHand) -> None:
    """It was looked at, stopped and changed as any node that stands; nothing is left of the first time."""
    rows = task.steps_of(node.name)
    twice = {*range(SHUTDOWN + 1), order}
    assert [row.attempts for row in rows] == [2 if at_order in twice else 1 for at_order in range(13)]
    assert "All rules hold" in rows[1].desc
    assert rows[SHUTDOWN].desc.startswith("The engine process ended "), rows[SHUTDOWN].desc
    assert rows[SHUTDOWN].evidence["killed"] is False
    assert await hand.started[node.name].wait() == 128 + signal.SIGTERM, "how a JVM ends that was asked to"
    assert effects(at, node).count("stop") == 2
    assert effects(at, node)[-1] == "start"
    assert await at.versions() == {str(at.stage.target.version)}
    assert {*await at.members()} == {one.name for one in at.stage.cluster.nodes}
    health = await at.rest("GET", "/_cluster/health?wait_for_status=green&timeout=60s")
    assert health["status"] == "green"


async def test_started_with_its_old_engine_elected_and_with_a_new_setting() -> None:
    """A folder that somebody left where the engine's link is made keeps the engine from being switched. The node is
    started as it was, gets a setting, is elected, and the folder is removed."""
    async with moving(ess(3), zones=("zone-a",), way=WAY) as at, by_hand(at) as hand:
        before = await at.settings()
        report = await at.stage.service.check(UpgradeRequest(at.stage.cluster.id, at.stage.target.id))
        assert report.plan is not None
        in_the_way = at.folder(at.stage.cluster.node(report.plan.nodes[0].name)) / "engine.tmp"
        in_the_way.mkdir()
        node: list[Node] = []

        async def act() -> Task:
            node.append(await failed_at(at, REPLACEMENT))
            _add(at.folder(node[0]) / "config" / "opensearch.yml", "node.attr.rack: r7\n")
            await hand.start(node[0], Catalogue(at.stage.settings.images_path).find(OLD))
            assert (await at.members())[node[0].name]["attributes"]["rack"] == "r7"
            assert await at.versions() == {"2.19.4"}
            await made_master(at, node[0])
            in_the_way.rmdir()
            return await retried(at)

        task = await at.under_load(act)
        await taken_again(at, task, node[0], REPLACEMENT, hand)
        assert task.steps_of(node[0].name)[HANDOVER].desc.startswith("The node was the elected master"), (
            "and handed over"
        )
        assert (await at.members())[node[0].name]["attributes"].get("rack") == "r7", "what its owner wrote stays"
        assert await at.settings() == before


async def test_started_with_its_new_engine() -> None:
    """A plugin that was put into the old engine's folder while it ran is missing from the new one. The node is started
    with the new engine, whose folder it links to by then, and the plugin is installed there."""
    async with moving(ess(3), zones=("zone-a",), way=WAY) as at, by_hand(at) as hand:
        before = await at.settings()
        images = ImageStore(at.stage.settings.images_path)
        plugin.install(images.engine_path(at.stage.cluster.image_id), name="tiny", version="2.19.4")
        node: list[Node] = []

        async def act() -> Task:
            node.append(await failed_at(at, PLUGINS))
            await hand.start(node[0], at.stage.target)
            assert await at.versions() == {"2.19.4", "3.4.0"}
            plugin.install(images.engine_path(at.stage.target.id), name="tiny", version="3.4.0")
            return await retried(at)

        task = await at.under_load(act)
        await taken_again(at, task, node[0], PLUGINS, hand)
        plugins = await at.rest("GET", "/_cat/plugins?format=json&h=name,component,version")
        assert {(row["component"], row["version"]) for row in plugins} == {("tiny", "3.4.0")}
        assert await at.settings() == before


def _add(path: Path, line: str) -> None:
    with path.open("a") as sink:
        sink.write(line)
