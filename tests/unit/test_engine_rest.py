"""Which requests each method sends, on which version, and what an observation makes of partial failure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shardlift.engine import RestEngine, open_engine
from shardlift.errors import EngineError
from shardlift.model import BackupSeen, CopyState, Health, InstanceType, Node, ShardCopy
from tests.unit.engine_servers import Asked, FakeNode, Reply, listening

DATA = Path(__file__).parent.parent / "data" / "engine"
DEFAULTS = {
    "cluster.routing.allocation.disk.watermark.low": "85%",
    "cluster.routing.allocation.awareness.attributes": [],
    "cluster.name": "lab",
}
MADE_UP: dict[str, object] = {
    "GET /_snapshot/_all": {"r1": {"type": "fs", "settings": {}}},
    "GET /_snapshot/r1/s1": {"snapshots": [{"snapshot": "s1", "end_time_in_millis": 1000, "shards": {"failed": 0}}]},
    "GET /_dangling": {"_nodes": {"failed": 0}, "dangling_indices": [{"index_name": "ghost"}]},
}
REFUSED = Reply(403, {"error": {"type": "security_exception", "reason": "no"}, "status": 403})


def recorded(cluster: str, overrides: dict[str, Reply] | None = None) -> Callable[[Asked], Reply]:
    """Answers as the captured cluster did; `overrides` by the beginning of `METHOD path`."""

    files = {
        "GET /_cluster/health": "health",
        "GET /_cluster/state/master_node,nodes": "members",
        "GET /_cluster/state/nodes,routing_table": "routing",
        "GET /_cluster/state/metadata": "metadata",
        "GET /_cluster/settings": "settings",
        "GET /_nodes/stats": "stats",
        "GET /_nodes/os": "processors",
        "GET /_nodes": "nodes",
        "GET /_cat/shards": "sizes",
        "GET /_snapshot/_status": "running_snapshots",
        "GET /_snapshot/r1/": "snapshots",
        "GET /_recovery": "recoveries",
        "GET /_tasks": "tasks",
        "POST /_cluster/allocation/explain": "explain_stuck",
    }

    def answer(asked: Asked) -> Reply:
        request = f"{asked.method} {asked.path}"
        for start, reply in (overrides or {}).items():
            if request.startswith(start):
                return reply
        if "reindex" in asked.params.get("actions", ""):
            return Reply(200, {"tasks": [{"node": "x", "id": 7, "action": "indices:data/write/reindex"}]})
        if request in MADE_UP:
            return Reply(200, MADE_UP[request])
        name = next((name for start, name in files.items() if request.startswith(start)), None)
        body = json.loads((DATA / cluster / f"{name}.json").read_text("utf-8")) if name else {"acknowledged": True}
        if name == "settings" and "include_defaults" in asked.params:
            body["defaults"] = DEFAULTS
        return Reply(200, body)

    return answer


@asynccontextmanager
async def engine_on(
    cluster: str = "opensearch-2.19.4", overrides: dict[str, Reply] | None = None
) -> AsyncIterator[tuple[RestEngine, FakeNode]]:
    node = FakeNode(recorded(cluster, overrides))
    async with listening(node) as endpoints, RestEngine(endpoints, request_timeout_s=5) as engine:
        yield engine, node


@pytest.mark.parametrize("cluster", ["opensearch-2.19.4", "elasticsearch-6.8.23", "elasticsearch-7.10.2"])
async def test_an_observation_holds_everything(cluster: str) -> None:
    async with engine_on(cluster) as (engine, _node):
        seen = await engine.observe()
    assert seen.health.status is Health.YELLOW
    assert [node.name for node in seen.nodes] == ["n1", "n2"]
    assert all(node.disk_total_bytes and node.processors for node in seen.nodes)
    assert seen.elected in {"n1", "n2"}
    assert {copy.index for copy in seen.shards} >= {"books", ".dotted-x", "lonely"}
    assert all(copy.size_bytes for copy in seen.shards if copy.index == "books")
    assert {index.name for index in seen.indices} >= {"books", "shut"}
    assert seen.settings.effective("cluster.routing.allocation.exclude._name") == "zz,yy"
    assert (seen.voting is None) == cluster.startswith("elasticsearch-6")
    assert (seen.running_snapshots, seen.snapshotted) == (0, {"books", ".dotted-x"})
    assert seen.backups["books"] == BackupSeen("s1", datetime.fromtimestamp(1, UTC), 0)
    assert seen.settings.effective("cluster.routing.allocation.disk.watermark.low") == "85%"
    assert seen.settings.effective("cluster.routing.allocation.awareness.attributes") == ""
    assert "cluster.name" not in seen.settings.defaults
    assert seen.running_work == ("indices:data/write/reindex (task x:7)",)
    assert seen.dangling == (None if cluster == "elasticsearch-6.8.23" else ("ghost",))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (Reply(200, {"nodes": {"x": {"version": "1.3.20"}}}), {"n1": "1.3.20", "n2": "7.10.2"}),
        (REFUSED, {"n2": "7.10.2"}),  # a member, but of unknown version
    ],
)
async def test_an_opensearch_node_among_elasticsearch_nodes_is_asked_itself(
    own: Reply, expected: dict[str, str]
) -> None:
    """Elasticsearch 7.10.2 says 7.10.2 of an OpenSearch 1.3.20 node in its cluster (seen on real nodes)."""
    true_self = FakeNode(recorded("elasticsearch-7.10.2", {"GET /_nodes/_local": own}))
    mine = Reply(200, {"nodes": {"y": {"version": "7.10.2"}}})
    other = FakeNode(recorded("elasticsearch-7.10.2", {"GET /_nodes/_local": mine}))
    async with listening(true_self, other) as endpoints, RestEngine(endpoints) as engine:
        assert {node.name: str(node.version) for node in await engine.nodes()} == expected


async def test_what_the_rules_can_do_without_stays_unknown() -> None:
    missing = (
        "GET /_nodes/stats",
        "GET /_nodes/os",
        "GET /_cat/shards",
        "GET /_snapshot",
        "GET /_tasks",
        "GET /_dangling",
    )
    async with engine_on(overrides=dict.fromkeys(missing, REFUSED)) as (engine, _node):
        seen = await engine.observe()
    assert {(node.disk_total_bytes, node.processors, node.write_queue) for node in seen.nodes} == {(None, None, None)}
    assert {copy.size_bytes for copy in seen.shards} == {None}
    assert (seen.running_snapshots, seen.snapshotted) == (None, None)
    assert (seen.running_work, seen.dangling, seen.backups) == (None, None, {})


async def test_backups_without_details_have_no_age() -> None:
    async with engine_on(overrides={"GET /_snapshot/r1/s1": REFUSED}) as (engine, _node):
        seen = await engine.observe()
    assert seen.backups["books"] == BackupSeen("s1", None, None)
    assert seen.snapshotted == {"books", ".dotted-x"}


async def test_polled_settings_come_without_defaults() -> None:
    async with engine_on() as (engine, node):
        assert (await engine.settings()).defaults == {}
    assert "include_defaults" not in node.asked[-1].params


async def test_one_unreadable_repository_makes_backups_unknown() -> None:
    async with engine_on(overrides={"GET /_snapshot/r1/_all": REFUSED}) as (engine, _node):
        seen = await engine.observe()
    assert (seen.running_snapshots, seen.snapshotted) == (0, None)


async def test_without_repositories_nothing_is_backed_up() -> None:
    async with engine_on(overrides={"GET /_snapshot/_all": Reply(200, {})}) as (engine, _node):
        assert (await engine.observe()).snapshotted == frozenset()


@pytest.mark.parametrize(
    "essential",
    ["GET /_cluster/health", "GET /_cluster/state", "GET /_cluster/settings", "GET /_nodes/jvm"],
)
async def test_an_observation_without_the_essential_is_an_error(essential: str) -> None:
    async with engine_on(overrides={essential: REFUSED}) as (engine, _node):
        with pytest.raises(EngineError, match="403: security_exception: no"):
            await engine.observe()


async def test_waiting_is_left_to_the_engine_and_its_time_out_is_an_answer() -> None:
    late = Reply(408, json.loads((DATA / "opensearch-2.19.4" / "health.json").read_text("utf-8")))
    async with engine_on(overrides={"GET /_cluster/health": late}) as (engine, node):
        health = await engine.health(wait_settled=True, wait_status=Health.GREEN)
    assert health.timed_out
    assert node.asked[-1].params.items() >= {
        ("wait_for_no_relocating_shards", "true"),
        ("wait_for_no_initializing_shards", "true"),
        ("wait_for_events", "languid"),
        ("wait_for_status", "green"),
        ("timeout", "0ms"),
    }


@pytest.mark.parametrize(
    ("cluster", "request_sent"),
    [("elasticsearch-6.8.23", "POST /_flush/synced"), ("elasticsearch-7.10.2", "POST /_flush")],
)
async def test_flush_is_synced_where_that_helps(cluster: str, request_sent: str) -> None:
    async with engine_on(cluster, {"POST /_flush": Reply(409, {"_shards": {}})}) as (engine, node):
        await engine.flush()
    assert f"{node.asked[-1].method} {node.asked[-1].path}" == request_sent


async def test_load_limits_and_configuration_are_asked_for_on_their_own() -> None:
    told = {"a": {"name": "n1", "settings": {"indices.recovery.max_bytes_per_sec": "1mb"}}, "b": {"name": "n2"}}
    async with engine_on(overrides={"GET /_nodes/settings": Reply(200, {"nodes": told})}) as (engine, node):
        assert {one.name: one.processors for one in await engine.nodes_with_load()} == {"n1": 2, "n2": 2}
        assert len(node.asked) == 4
        assert (await engine.settings()).defaults == {}
        assert "include_defaults" not in node.asked[-1].params
        watermark = "cluster.routing.allocation.disk.watermark.low"
        assert (await engine.settings(defaults=True)).effective(watermark) == "85%"
        assert await engine.configured("indices.recovery.max_bytes_per_sec") == {"n1": "1mb", "n2": None}
        assert node.asked[-1].params["flat_settings"] == "true"


async def test_voting_is_left_alone_where_there_is_none() -> None:
    async with engine_on("elasticsearch-6.8.23") as (engine, node):
        assert await engine.exclude_from_voting("n1") is False
        await engine.clear_voting_exclusions()
    assert {asked.method for asked in node.asked} == {"GET"}


@pytest.mark.parametrize(
    ("version", "path", "named"),
    [
        ("7.5.2", "/_cluster/voting_config_exclusions/a%2Fb", None),
        ("7.10.2", "/_cluster/voting_config_exclusions", "a/b"),
        ("3.4.0", "/_cluster/voting_config_exclusions", "a/b"),
    ],
)
async def test_voting_exclusions_take_the_name_as_the_oldest_node_wants_it(
    version: str, path: str, named: str | None
) -> None:
    versions = Reply(200, {"nodes": {"x": {"version": version}, "y": {"version": "8.19.0"}}})
    async with engine_on(overrides={"GET /_nodes/_all": versions}) as (engine, node):
        assert await engine.exclude_from_voting("a/b") is True
        await engine.clear_voting_exclusions()
    excluded, cleared = node.asked[1], node.asked[-1]
    assert (excluded.method, excluded.path, excluded.params.get("node_names")) == ("POST", path, named)
    assert (cleared.method, cleared.params) == ("DELETE", {"wait_for_removal": "false"})


async def test_a_setting_goes_to_its_layer_and_null_deletes_it() -> None:
    async with engine_on() as (engine, node):
        await engine.put_setting("transient", "a.b", None)
    assert (node.asked[-1].method, node.asked[-1].body) == ("PUT", {"transient": {"a.b": None}})


@pytest.mark.parametrize(
    ("state", "node_name", "expected"),
    [(CopyState.STARTED, "n1", {"current_node": "n1"}), (CopyState.UNASSIGNED, None, {})],
)
async def test_explain_names_the_node_of_an_assigned_copy(
    state: CopyState, node_name: str | None, expected: dict[str, str]
) -> None:
    async with engine_on() as (engine, node):
        why = await engine.explain(ShardCopy("pinned", 0, True, state, node_name))
    assert node.asked[-1].body == {"index": "pinned", "shard": 0, "primary": True, **expected}
    assert (why.index, why.can_move) == ("pinned", "no")


@pytest.mark.parametrize(("cluster", "wildcards"), [("elasticsearch-6.8.23", None), ("opensearch-2.19.4", "all")])
async def test_recoveries_include_hidden_indices_where_allowed(cluster: str, wildcards: str | None) -> None:
    async with engine_on(cluster) as (engine, node):
        assert len(await engine.recoveries()) >= 2
        await engine.recoveries()
    assert node.asked[-1].params.get("expand_wildcards") == wildcards


async def test_a_nodes_own_requests_are_asked_of_itself() -> None:
    async with engine_on() as (engine, node):
        assert await engine.in_flight("n1") == 1  # the capture holds the listing itself, which a real filter leaves out
    assert node.asked[-1].params["nodes"] == "_local"


async def test_an_engine_is_opened_for_the_nodes_of_a_cluster() -> None:
    node = Node("i", "c", "n1", InstanceType.ESS, (), "a", "127.0.0.1", 1, 2, "image")
    engine = open_engine([node])
    try:
        assert await engine.answers("n1") is False
    finally:
        await engine.close()
