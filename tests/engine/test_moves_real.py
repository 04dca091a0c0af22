"""Changes of zones, replacement, dedicated masters and batches on real nodes, each under the probing client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shardlift.demo.client import Call
from shardlift.model import InstanceType, Node, Strategy, Task, TaskKind
from shardlift.service.requests import NodeGroup
from tests.engine.moving import AWARENESS, Moving, ess, moving, say, upgrade

pytestmark = [pytest.mark.moves, pytest.mark.timeout(900)]

A, B, C, D = "zone-a", "zone-b", "zone-c", "zone-d"
AWARE: dict[str, object] = {f"{AWARENESS}.attributes": "zone"}
FORCED = f"{AWARENESS}.force.zone.values"


async def same_nodes(at: Moving, *, processes: dict[str, str], gone: set[str]) -> None:
    """Ids, names and addresses stay; the processes of `gone` are new ones, the others ran all the while."""
    identity = [(node.id, node.name, node.address, node.http_port) for node in at.stage.cluster.nodes]
    assert [(node.id, node.name, node.address, node.http_port) for node in (await at.now()).nodes] == identity
    now = {name: one["ephemeral_id"] for name, one in (await at.members()).items()}
    assert {name for name in now if now[name] != processes[name]} == gone


async def processes_of(at: Moving) -> dict[str, str]:
    return {name: one["ephemeral_id"] for name, one in (await at.members()).items()}


async def change_of_zones(
    at: Moving, migrate_type: str, source: str, target: str, inst_type: str = "ess"
) -> tuple[Task, dict[str, Any]]:
    """Asked by the CSS API and done under load. The task, and what the API told of it in the end."""
    body = {
        "source_az": source,
        "target_az": target,
        "migrate_type": migrate_type,
        "agency": "css_agency",
        "indices_backup_check": False,
    }

    async def act() -> Task:
        await at.css("POST", f"/inst-type/{inst_type}/azmigrate", body)
        begun = await at.detail("AZ_MIGRATION")
        assert begun["status"] == "RUNNING"
        return await at.drive()

    task = await at.under_load(act)
    told = await at.detail("AZ_MIGRATION")
    assert (task.kind, told["status"]) == (TaskKind.AZ_MIGRATION, "SUCCESS")
    asked = {"instType": inst_type, "migrateType": migrate_type, "sourceAz": source, "targetAz": target}
    assert json.loads(told["migrateParam"]) == asked
    return task, told


def names_in(nodes: Sequence[Node], zone: str) -> set[str]:
    return {node.name for node in nodes if node.zone == zone}


async def final_is_true(at: Moving, told: dict[str, Any]) -> None:
    """`finalAzInfoMap` says what each node says of itself, and so does the cluster's row."""
    final = {zone: {*names.split(",")} for zone, names in json.loads(told["finalAzInfoMap"]).items()}
    engine: dict[str, set[str]] = {}
    for name, one in (await at.members()).items():
        engine.setdefault(one["zone"], set()).add(name)
    rows = (await at.now()).nodes
    assert final == engine == {zone: names_in(rows, zone) for zone in engine}


async def test_one_zone_moves_while_copies_are_kept_apart_by_zone() -> None:
    async with moving(ess(3), zones=(A, B, C), settings={**AWARE, FORCED: f"{A},{B},{C}"}) as at:
        before, processes = await at.settings(), await processes_of(at)
        movers = names_in(at.stage.cluster.nodes, C)
        task, told = await change_of_zones(at, "az_migrate", C, D)
        assert {*task.total} == movers
        assert task.bytes_moved > 0
        await final_is_true(at, told)
        await same_nodes(at, processes=processes, gone=movers)
        assert {*(await at.members()).keys()} == {node.name for node in at.stage.cluster.nodes}
        assert {one["zone"] for one in (await at.members()).values()} == {A, B, D}
        spread = await at.zones_of_copies()
        assert all(len(set(zones)) == len(zones) == 2 for zones in spread.values()), spread
        assert any(D in zones for zones in spread.values()), "the moved node has copies again"
        after = {**before, "persistent": {**before["persistent"], FORCED: f"{A},{B},{D}"}}
        assert await at.settings() == after, "the forced zones are the new ones, and nothing else is left"


@pytest.mark.parametrize("aware", [True, False], ids=["aware", "unaware"])
async def test_one_zone_becomes_three(aware: bool) -> None:
    """Where copies were not kept apart by zone they are in the end."""
    async with moving(ess(3), zones=(A,), settings=AWARE if aware else {}) as at:
        before, processes = await at.settings(), await processes_of(at)
        task, told = await change_of_zones(at, "multi_az_change", A, f"{A},{B},{C}")
        assert len(task.total) == 2, "one node stays: as few as can be move"
        await final_is_true(at, told)
        await same_nodes(at, processes=processes, gone={*task.total})
        assert Counter(one["zone"] for one in (await at.members()).values()) == {A: 1, B: 1, C: 1}
        spread = await at.zones_of_copies()
        assert all(len(set(zones)) == len(zones) == 2 for zones in spread.values()), spread
        assert await at.settings() == {**before, "persistent": {**before["persistent"], **AWARE}}


async def _killed(at: Moving, node: Node) -> None:
    """`kill -9`, and its disk is gone. Returns when the cluster has noticed and has made new copies where it can."""
    process = await at.stage.service.backend.driver("local").process(node)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    gone = "/_cluster/health?wait_for_nodes=2&timeout=60s"
    assert not (await at.rest("GET", gone))["timed_out"]
    await asyncio.to_thread(shutil.rmtree, at.folder(node) / "data")


@pytest.mark.parametrize("migrate_data", [True, False])
async def test_a_killed_node_without_its_disk_is_replaced(migrate_data: bool) -> None:
    async with moving(ess(3), zones=(A, B, C), settings=AWARE) as at:
        before, processes, elected = await at.settings(), await processes_of(at), await at.elected()
        lost = next(node for node in at.stage.cluster.nodes if node.name != elected)

        async def act() -> Task:
            await _killed(at, lost)
            query = "" if migrate_data else "?migrateData=false"
            await at.css("PUT", f"/instance/{lost.id}/replace{query}")
            assert (await at.detail("REPLACING"))["status"] == "RUNNING"
            return await at.drive()

        task = await at.under_load(act)
        assert (task.kind, task.total) == (TaskKind.REPLACING, (lost.name,))
        assert (await at.detail("REPLACING"))["status"] == "SUCCESS"
        await same_nodes(at, processes=processes, gone={lost.name})
        health = await at.rest("GET", "/_cluster/health?wait_for_status=green&timeout=60s")
        assert (health["status"], health["number_of_nodes"]) == ("green", 3)
        assert await at.settings() == before


_STARTED = re.compile(r"^\[(\S+?)\s*\].*\] started", re.MULTILINE)


def boots(log: Path) -> list[datetime]:
    """When the node says of itself that it has started, oldest first."""
    stamp = "%Y-%m-%dT%H:%M:%S,%f"
    return [datetime.strptime(found, stamp) for found in _STARTED.findall(log.read_text())]  # noqa: DTZ007


def cluster_log(at: Moving, node: Node) -> Path:
    return at.folder(node) / "logs" / f"{node.cluster_id}.log"


def span(task: Task, node: str) -> tuple[datetime, datetime]:
    """From the node's stop to when it was a member again, by the journal."""
    rows = {row.order: row for row in task.steps if row.node == node}
    stop, rejoin = rows[STOP].begin, rows[REJOIN].end
    assert stop is not None
    assert rejoin is not None
    return stop, rejoin


STOP, REJOIN = 6, 11


async def test_dedicated_masters_come_after_data_and_the_elected_one_last() -> None:
    groups = (ess(3), NodeGroup(InstanceType.MASTER, 3))
    async with moving(*groups, zones=(A, B, C), settings=AWARE, strategy=Strategy.IN_PLACE) as at:
        before, processes, elected = await at.settings(), await processes_of(at), await at.elected()
        kinds = {node.name: node.instance_type for node in at.stage.cluster.nodes}
        assert kinds[elected] is InstanceType.MASTER
        task, _ = await upgrade(at)
        assert [kinds[name] for name in task.total] == [InstanceType.ESS] * 3 + [InstanceType.MASTER] * 3
        assert task.total[-1] == elected
        done = [node for node, order, what in at.events if (order, what) == (12, "journaled")]
        assert done == [*task.total], "what was planned is what was done"
        logs = {node.name: boots(cluster_log(at, node)) for node in at.stage.cluster.nodes}
        say(f"boots by the nodes' own logs: {logs}")
        assert all(len(times) == 2 for times in logs.values()), "each was started once at first and once by the task"
        second = {name: times[1] for name, times in logs.items()}
        assert sorted(second, key=second.__getitem__) == [*task.total], "so the nodes' own logs have it"
        await same_nodes(at, processes=processes, gone={*kinds})
        assert await at.elected() != elected, "mastership has moved once, to a new node"
        assert await at.settings() == before


@dataclass(frozen=True)
class Votes:
    """One look at the elected master's state: master-eligible members, and whose votes count, by name; the id of one
    that is no member."""

    members: frozenset[str]
    voters: frozenset[str]
    excluded: frozenset[str]


async def votes(at: Moving, masters: frozenset[str]) -> Votes | None:
    """None where nobody answered, as in the moment of an election."""
    path = "/_cluster/state/nodes,metadata?filter_path=nodes.*.name,metadata.cluster_coordination"
    outcome = await at.client.call(Call("GET", path))
    if not outcome.ok:
        return None
    names = {key: one["name"] for key, one in outcome.body["nodes"].items()}
    told = outcome.body["metadata"]["cluster_coordination"]
    return Votes(
        members=frozenset(name for name in names.values() if name in masters or "-spare-" in name),
        voters=frozenset(names.get(one, one) for one in told["last_committed_config"]),
        excluded=frozenset(one["node_name"] for one in told.get("voting_config_exclusions", ())),
    )


async def sampled(at: Moving, masters: frozenset[str], seen: list[Votes], over: asyncio.Event) -> None:
    """Looks about ten times a second, until it is over."""
    while not over.is_set():
        look = await votes(at, masters)
        if look is not None:
            seen.append(look)
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.1)


async def test_masters_move_to_three_zones_and_one_more_votes_meanwhile() -> None:
    """Data nodes stay in one zone, so nothing is made of awareness."""
    async with moving(ess(3), NodeGroup(InstanceType.MASTER, 3), zones=(A,)) as at:
        before, processes = await at.settings(), await processes_of(at)
        masters = frozenset(n.name for n in at.stage.cluster.nodes if n.instance_type is InstanceType.MASTER)
        seen: list[Votes] = []
        over = asyncio.Event()
        sampling = asyncio.create_task(sampled(at, masters, seen, over))
        try:
            task, told = await change_of_zones(at, "multi_az_change", A, f"{A},{B},{C}", "ess-master")
        finally:
            over.set()
            await sampling
        moved = {*task.total}
        extra = task.plan.nodes[0].spare
        say(f"{len(seen)} looks; {Counter((len(one.members), len(one.voters & one.members)) for one in seen)}")
        assert extra is not None
        assert (len(moved), moved < masters) == (2, True), "one stays: as few as can be move"
        assert len(seen) > 100
        assert {len(one.members) for one in seen} == {3, 4}, "at no moment fewer than three are there"
        assert all(2 * len(one.voters & one.members) > len(one.voters) for one in seen)
        for name in moved:
            away = [one for one in seen if name not in one.members]
            assert away, f"{name} was away"
            assert all(extra in one.members for one in away)
            assert any(len(one.voters & one.members) == 3 for one in away), f"three vote while {name} is away"
        assert seen[-1].members == masters
        end = await votes(at, masters)
        assert end == Votes(masters, masters, frozenset())
        assert await at.stage.service.spares(at.stage.cluster) == ()
        assert not (at.stage.settings.nodes_path / at.stage.cluster.id / extra).exists()
        assert Counter(n.zone for n in (await at.now()).nodes if n.name in masters) == {A: 1, B: 1, C: 1}
        final = {zone: {*names.split(",")} for zone, names in json.loads(told["finalAzInfoMap"]).items()}
        zones = {name: one["zone"] for name, one in (await at.members()).items()}
        assert final == {zone: {name for name in masters if zones[name] == zone} for zone in (A, B, C)}
        await same_nodes(at, processes=processes, gone=moved)
        assert await at.settings() == before


@pytest.mark.parametrize(
    ("masters", "sizes", "voters"), [(3, [2, 2, 2, 1, 1, 1], 3), (0, [2, 2, 2], 5)], ids=["masters", "plain"]
)
async def test_six_nodes_in_three_zones_are_taken_zone_by_zone(masters: int, sizes: list[int], voters: int) -> None:
    """Of three dedicated masters no two go together; of six plain nodes, which all can be elected, two may."""
    groups = (ess(6), *([NodeGroup(InstanceType.MASTER, masters)] if masters else []))
    async with moving(*groups, zones=(A, B, C), settings=AWARE, strategy=Strategy.IN_PLACE) as at:
        before, processes, elected = await at.settings(), await processes_of(at), await at.elected()
        zone = {node.name: node.zone for node in at.stage.cluster.nodes}
        task, told = await upgrade(at, batch_size=2)
        batches = [tuple(node.name for node in batch) for batch in task.plan.batches]
        say(f"batches {batches}; told {[one['currentBatchNodes'] for one in told]}")
        pairs = [batch for batch in batches if len(batch) == 2]
        data = {node.name for node in at.stage.cluster.nodes if node.instance_type is InstanceType.ESS}
        assert [len(batch) for batch in batches] == sizes, "three boots of data nodes in sequence, not six"
        assert {name for batch in pairs for name in batch} == data
        assert all(len({zone[name] for name in batch}) == 1 for batch in batches)
        assert {one["batchSize"] for one in told} == {2}
        shown = {one["currentBatchNodes"] for one in told}
        assert {",".join(batch) for batch in pairs} <= shown
        for one, other in pairs:
            (begun, ended), (begun_too, ended_too) = span(task, one), span(task, other)
            assert max(begun, begun_too) < min(ended, ended_too), "both were away at once"
        ends = [(min(span(task, name)[0] for name in one), max(span(task, name)[1] for name in one)) for one in batches]
        assert all(ended <= begun for (_, ended), (begun, _) in pairwise(ends)), "one after the other"
        await same_nodes(at, processes=processes, gone={*zone})
        assert await at.settings() == before
        assert task.total[-1] == elected
        assert await at.elected() not in batches[-1], "mastership has left the last batch, and not for its other node"
        voting = (await at.rest("GET", "/_cluster/state/metadata"))["metadata"]["cluster_coordination"]
        assert (len(voting["last_committed_config"]), voting["voting_config_exclusions"]) == (voters, [])
