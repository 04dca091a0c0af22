"""The REST engine against real nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import httpx
import pytest

from shardlift.engine import RestEngine
from shardlift.errors import EngineError
from shardlift.model import CopyState, EngineKind, Health, NodeSeen, Observation, RetainedCopy, ShardCopy, Version
from tests.engine.cluster import RealCluster, real_cluster

pytestmark = pytest.mark.engine

_DOCS = 200
_SIZES_EVERY_S = 10.0

T = TypeVar("T")


async def _load(cluster: RealCluster) -> None:
    async with httpx.AsyncClient(base_url=cluster.nodes[0].url, timeout=60) as client:

        async def send(method: str, path: str, body: dict | None = None) -> None:
            (await client.request(method, path, json=body)).raise_for_status()

        shape = {"number_of_shards": 2, "number_of_replicas": 1}
        await send("PUT", "/books", {"settings": shape})
        await send("PUT", "/.dotted", {"settings": shape})
        await send("PUT", "/shut", {"settings": shape})
        # Stays on one node: what an exclude cannot move.
        pinned = {"number_of_replicas": 0, "index.routing.allocation.require.zone": cluster.nodes[0].zone}
        await send("PUT", "/pinned", {"settings": pinned})
        await asyncio.gather(*(send("PUT", f"/books/_doc/{at}", {"n": at}) for at in range(_DOCS)))
        await send("POST", "/books/_refresh")
        await cluster.engine.health(wait_status=Health.GREEN, timeout_s=60)
        await send("POST", "/shut/_close")
    await cluster.engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=60)


async def test_opensearch_from_observation_to_handover() -> None:
    async with real_cluster("opensearch:2.19.4") as cluster:
        await _load(cluster)
        await _observes(cluster)
        await _retains(cluster)
        await _settings_go_in_and_out(cluster)
        await _explains_a_copy_that_cannot_leave(cluster)
        await _hands_mastership_over(cluster)
        await _sees_a_restart(cluster)


async def _observes(cluster: RealCluster) -> None:
    seen = await cluster.engine.observe()
    assert seen.health.status is Health.GREEN
    assert seen.health.settled
    assert [node.name for node in seen.nodes] == ["test-1", "test-2", "test-3"]
    assert seen.elected in {node.name for node in cluster.nodes}
    for node in seen.nodes:
        _complete(node, Version(2, 19, 4))
    indices = {index.name: index for index in seen.indices}
    assert {"books", ".dotted", "shut", "pinned"} <= set(indices)
    assert indices["shut"].closed
    assert indices["books"].created_on == Version(2, 19, 4)
    assert indices["books"].created_by is EngineKind.OPENSEARCH
    books = [copy for copy in seen.shards if copy.index == "books"]
    assert len(books) == 4
    # The engine measures stores every 10 s: a size may be an old one, but it is there.
    assert [copy for copy in books if copy.state is not CopyState.STARTED or copy.size_bytes is None] == []
    assert {copy.node for copy in seen.shards} <= {node.name for node in cluster.nodes}
    assert [copy.node for copy in seen.shards if copy.index == "pinned"] == ["test-1"]
    assert seen.voting is not None
    assert seen.voting.config_ids == {node.id for node in seen.nodes}
    _complete_beside_nodes(seen)


def _complete_beside_nodes(seen: Observation) -> None:
    """What rules ask besides nodes and copies; None would mean that this engine refused the call."""
    assert (seen.running_snapshots, seen.snapshotted, seen.backups) == (0, frozenset(), {})
    assert (seen.running_work, seen.dangling, seen.leaving) == ((), (), frozenset())
    assert seen.settings.effective("cluster.routing.allocation.disk.watermark.low")
    assert seen.settings.effective("cluster.max_shards_per_node") == "1000"
    assert all(node.rejected_total is not None and node.search_time_ms is not None for node in seen.nodes)
    assert all(node.write_total is not None for node in seen.nodes)


def _complete(node: NodeSeen, version: Version) -> None:
    assert (node.engine, node.version) == (EngineKind.OPENSEARCH, version)
    assert node.holds_data
    assert node.master_eligible
    assert node.zone in {"a", "b", "c"}
    assert node.java_version
    assert node.disk_total_bytes
    assert node.disk_available_bytes
    assert node.heap_used_percent is not None
    assert node.processors
    assert (node.search_queue, node.write_queue) == (0, 0)


async def _with_sizes(
    cluster: RealCluster, node: str, held: Collection[tuple[str, int]]
) -> dict[tuple[str, int], RetainedCopy]:
    """What is told of the node's copies once it has their sizes: the engine looks at its files each 10 s."""
    end_s = time.monotonic() + 2 * _SIZES_EVERY_S
    while True:
        found = {(one.index, one.shard): one for one in await cluster.engine.retained(node)}
        if all(group in found and found[group].bytes for group in held) or time.monotonic() > end_s:
            return found
        await asyncio.sleep(0.5)


async def _retains(cluster: RealCluster) -> None:
    """What the engine would have to send each copy of a node again: all or nothing, as its timer will have it."""
    for node in cluster.nodes:
        held = {
            copy.group for copy in await cluster.engine.shards() if copy.node == node.name and copy.index == "books"
        }
        found = await _with_sizes(cluster, node.name, held)
        assert held <= set(found)
        assert not {index for index, _ in found} & {"pinned"}, "it has no other copy"
        for group in held:
            assert found[group].docs > 0
            assert 0 <= found[group].behind <= found[group].docs
            assert found[group].bytes > 0
    assert await cluster.engine.retained("nobody") == ()


async def _settings_go_in_and_out(cluster: RealCluster) -> None:
    key, engine = "cluster.routing.allocation.exclude._id", cluster.engine
    node = (await engine.nodes())[0]
    await engine.put_setting("transient", key, f"{node.id},not-a-node")
    assert (await engine.settings()).transient == {key: f"{node.id},not-a-node"}
    await engine.put_setting("transient", key, None)
    assert (await engine.settings()).effective(key) is None
    with pytest.raises(EngineError, match=r"no\.such\.setting") as refused:
        await engine.put_setting("persistent", "no.such.setting", "1")
    assert refused.value.status == 400
    await engine.health(wait_settled=True, timeout_s=60)


async def _explains_a_copy_that_cannot_leave(cluster: RealCluster) -> None:
    engine = cluster.engine
    before = {recovery.key for recovery in await engine.recoveries()}
    leaving = {copy.group for copy in await engine.shards() if copy.node == "test-1" and copy.index != "pinned"}
    assert leaving
    await engine.put_setting("transient", "cluster.routing.allocation.exclude._name", "test-1")
    settled = await engine.health(wait_settled=True, timeout_s=60)
    assert not settled.timed_out
    left = [copy for copy in await engine.shards() if copy.node == "test-1"]
    assert [copy.index for copy in left] == ["pinned"]
    why = await engine.explain(left[0])
    assert why.can_move == "no"
    assert {(word.decider, word.verdict, word.node) for word in why.decisions} >= {
        ("filter", "NO", "test-1"),
        ("filter", "NO", "test-2"),
    }
    moved = [recovery for recovery in await engine.recoveries() if recovery.key not in before]
    assert {(recovery.index, recovery.shard) for recovery in moved} == leaving
    assert all(recovery.done and recovery.bytes > 0 and recovery.target != "test-1" for recovery in moved)
    await engine.put_setting("transient", "cluster.routing.allocation.exclude._name", None)
    await engine.health(wait_settled=True, timeout_s=60)


async def _hands_mastership_over(cluster: RealCluster) -> None:
    engine = cluster.engine
    before = await engine.elected()
    assert before is not None
    assert await engine.exclude_from_voting(before)
    voting = await engine.voting()
    assert voting is not None
    assert voting.excluded_names == {before}
    after = await _elected_instead_of(before, engine)
    await engine.clear_voting_exclusions()
    voting = await engine.voting()
    assert voting is not None
    assert voting.excluded_names == frozenset()
    assert await engine.elected() == after


async def _sees_a_restart(cluster: RealCluster) -> None:
    """The node that is asked first goes away: calls go on at the others, and its return shows by its ephemeral id."""
    engine, node = cluster.engine, cluster.nodes[0]
    old = next(seen for seen in await engine.nodes() if seen.name == node.name)
    await engine.flush()
    assert await engine.in_flight(node.name) == 0
    await cluster.stop(node)
    assert not await engine.answers(node.name)
    assert await engine.in_flight(node.name) is None
    assert node.name not in {seen.name for seen in await engine.nodes()}
    gone = await _unassigned(engine)
    assert {copy.unassigned_reason for copy in gone} == {"NODE_LEFT"}
    assert (await engine.explain(next(copy for copy in gone if not copy.primary))).can_move
    late = await engine.health(wait_status=Health.GREEN, timeout_s=0.2)
    assert late.timed_out
    await cluster.start(node)
    new = next(seen for seen in await engine.nodes() if seen.name == node.name)
    assert (new.id, new.ephemeral_id != old.ephemeral_id) == (old.id, True)


async def _elected_instead_of(before: str, engine: RestEngine) -> str:
    """The next master: the exclusion stands as soon as it is answered, and the old one steps down a moment later."""

    async def look() -> str | None:
        now = await engine.elected()
        return now if now != before else None

    return await _until(look)


async def _unassigned(engine: RestEngine) -> list[ShardCopy]:
    """The unassigned copies, once the master has noticed that a node left."""

    async def look() -> list[ShardCopy]:
        return [copy for copy in await engine.shards() if copy.state is CopyState.UNASSIGNED]

    return await _until(look)


async def _until(look: Callable[[], Awaitable[T | None]]) -> T:
    """What `look` finds, asked ever less often until it finds something."""
    pause_s = 0.05
    async with asyncio.timeout(60):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 1)


@pytest.mark.parametrize("reference", ["opensearch:3.4.0", "opensearch:1.3.20", "elasticsearch:7.10.2"])
async def test_a_single_node_of_each_line_can_be_observed(reference: str) -> None:
    async with real_cluster(reference, count=1) as cluster:
        engine = cluster.engine
        seen = await engine.observe()
        assert seen.nodes[0].version == cluster.image.version
        assert seen.nodes[0].engine is cluster.image.engine
        assert seen.elected == "test-1"
        assert seen.voting is not None
        _complete_beside_nodes(seen)
        await engine.flush()
        await engine.clear_voting_exclusions()
        assert await engine.recoveries() == ()
        assert await engine.retained("test-1") == ()
        assert await engine.in_flight("test-1") == 0
        assert isinstance(engine, RestEngine)
