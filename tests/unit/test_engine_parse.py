"""What is read from answers that real nodes gave (tests/data/engine, captured from a two-node cluster of each version).

Each cluster had: `books` (2 shards, 1 replica, documents), `.dotted-x`, `shut` (closed), `lonely` (3 replicas, so two
never find a place), `pinned` (must stay in zone z1), a snapshot of books and .dotted-x, two foreign settings.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shardlift.engine import calls, parse, parse_indices, parse_nodes
from shardlift.engine.complaint import complaint
from shardlift.engine.transport import Call
from shardlift.model import BackupSeen, CopyState, EngineKind, Health, ShardCopy, Version, VotingSeen

DATA = Path(__file__).parent.parent / "data" / "engine"
CLUSTERS = sorted(path.name for path in DATA.iterdir())
COPY = ShardCopy("books", 0, True, CopyState.STARTED, "n1")


def read(cluster: str, name: str) -> dict:
    return json.loads((DATA / cluster / f"{name}.json").read_text("utf-8"))


def kind_and_version(cluster: str) -> tuple[EngineKind, Version]:
    kind, _, version = cluster.partition("-")
    return EngineKind(kind), Version.parse(version)


def test_all_lines_were_captured() -> None:
    majors = {(kind, version.major) for kind, version in map(kind_and_version, CLUSTERS)}
    elastic, open_search = EngineKind.ELASTICSEARCH, EngineKind.OPENSEARCH
    assert majors == {(elastic, 6), (elastic, 7), (elastic, 8), (open_search, 1), (open_search, 2), (open_search, 3)}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_health(cluster: str) -> None:
    health = parse.health(read(cluster, "health"))
    assert (health.status, health.nodes, health.data_nodes, health.timed_out) == (Health.YELLOW, 2, 2, True)
    assert (health.relocating, health.initializing, health.unassigned) == (0, 0, 2)
    assert health.settled


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_members_with_load(cluster: str) -> None:
    nodes = parse_nodes.members(read(cluster, "members"), read(cluster, "nodes"))
    nodes = parse_nodes.with_processors(
        parse_nodes.with_load(nodes, read(cluster, "stats")), read(cluster, "processors")
    )
    assert [node.name for node in nodes] == ["n1", "n2"]
    for node in nodes:
        assert (node.engine, node.version) == kind_and_version(cluster)
        assert node.id != node.ephemeral_id
        assert node.zone == f"z{node.name[1]}"
        assert node.address == f"127.0.9.{node.name[1]}:9850"
        assert node.holds_data
        assert node.master_eligible
        assert node.java_version in {"17.0.15", "21.0.8"}
        assert node.started_at_ms
        assert node.disk_total_bytes
        assert node.disk_available_bytes
        assert node.heap_used_percent
        assert node.cpu_percent is not None
        assert node.load_1m
        assert (node.processors, node.search_queue, node.write_queue) == (2, 0, 0)
    assert parse_nodes.elected(read(cluster, "members")) in {"n1", "n2"}
    assert parse_nodes.versions(read(cluster, "nodes")) == {kind_and_version(cluster)[1]}


def filtered(value: object, paths: list[list[str]]) -> object:
    """What `filter_path` leaves of an answer. A path that ends at a value keeps all of it."""
    if any(not path for path in paths):
        return value
    if isinstance(value, list):
        kept = [filtered(one, paths) for one in value]
        return [one for one in kept if one not in ({}, [])]
    if not isinstance(value, dict):
        return {}
    found = {}
    for key, inner in value.items():
        below = [path[1:] for path in paths if path[0] in ("*", key)]
        left = filtered(inner, below) if below else {}
        if left not in ({}, []):
            found[key] = left
    return found


def asked(call: Call, body: dict) -> object:
    return filtered(body, [path.split(".") for path in call.params["filter_path"].split(",")])


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_is_asked_of_members_is_all_that_is_read(cluster: str) -> None:
    """A thousand nodes, each with its dozens of modules, would tell tens of megabytes at each look."""
    state, info = read(cluster, "members"), read(cluster, "nodes")
    for at, node in enumerate(info["nodes"].values()):
        node["plugins"] = [{"name": "analysis-icu", "version": "1", "description": "words"}] * at
        node["modules"] = [{"name": f"module-{at}", "description": "words"} for at in range(60)]
    less_state, less_info = asked(calls.MEMBERS, state), asked(calls.NODES, info)
    assert parse_nodes.members(less_state, less_info) == parse_nodes.members(state, info)
    assert parse_nodes.elected(less_state) == parse_nodes.elected(state)
    assert len(json.dumps(less_info)) < len(json.dumps(info)) / 5


def test_a_member_without_roles_has_none() -> None:
    info = read("opensearch-2.19.4", "nodes")
    next(iter(info["nodes"].values()))["roles"] = []
    state = read("opensearch-2.19.4", "members")
    assert parse_nodes.members(state, asked(calls.NODES, info)) == parse_nodes.members(state, info)


def test_a_member_that_gave_no_account_of_itself_is_left_out() -> None:
    info = read("opensearch-2.19.4", "nodes")
    info["nodes"] = dict(list(info["nodes"].items())[:1])
    assert len(parse_nodes.members(read("opensearch-2.19.4", "members"), info)) == 1


def test_figures_that_are_missing_or_minus_one_stay_unknown() -> None:
    nodes = parse_nodes.members(read("opensearch-2.19.4", "members"), read("opensearch-2.19.4", "nodes"))
    odd = {"process": {"cpu": {"percent": -1}}, "os": {"cpu": {}}, "thread_pool": None}
    first, second = parse_nodes.with_load(nodes, {"nodes": {nodes[0].id: odd}})
    assert (first.cpu_percent, first.load_1m, first.search_queue, first.disk_total_bytes) == (None, None, None, None)
    assert second.heap_used_percent is None


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_copies_and_sizes(cluster: str) -> None:
    routing = read(cluster, "routing")
    copies = parse_indices.copies(routing)
    ids = {name: node_id for node_id, name in parse_nodes.names(routing).items()}
    copies = parse_indices.with_sizes(copies, ids, parse_indices.sizes(read(cluster, "sizes")))
    books = [copy for copy in copies if copy.index == "books"]
    assert [(copy.shard, copy.primary) for copy in books] == [(0, True), (0, False), (1, True), (1, False)]
    assert {copy.node for copy in books} == {"n1", "n2"}
    assert all(copy.state is CopyState.STARTED and copy.size_bytes for copy in books)
    lonely = [copy for copy in copies if copy.index == "lonely"]
    assert [copy.state for copy in lonely].count(CopyState.UNASSIGNED) == 2
    for copy in lonely:
        if copy.state is CopyState.UNASSIGNED:
            assert (copy.node, copy.size_bytes, copy.unassigned_reason) == (None, None, "INDEX_CREATED")
    has_closed_copies = cluster != "elasticsearch-6.8.23"  # before 7.2 a closed index has no shards at all
    assert len([copy for copy in copies if copy.index == "shut"]) == (2 if has_closed_copies else 0)


def test_a_relocating_copy_names_its_target() -> None:
    entry = {"index": "a.b", "shard": 3, "primary": False, "state": "RELOCATING", "node": "i1", "relocating_node": "i2"}
    state = {
        "nodes": {"i1": {"name": "n1"}, "i2": {"name": "n2"}},
        "routing_table": {"indices": {"a.b": {"shards": {"3": [entry]}}}},
    }
    assert parse_indices.copies(state) == (ShardCopy("a.b", 3, False, CopyState.RELOCATING, "n1", "n2"),)


def test_a_cluster_without_indices_has_no_copies() -> None:
    assert parse_indices.copies({"nodes": {}}) == ()
    assert parse_indices.indices({}) == ()


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_indices(cluster: str) -> None:
    indices = {index.name: index for index in parse_indices.indices(read(cluster, "metadata"))}
    assert {"books", ".dotted-x", "shut", "lonely", "pinned"} <= set(indices)
    books = indices["books"]
    assert (books.primaries, books.replicas, books.closed) == (2, 1, False)
    assert indices["shut"].closed
    kind, version = kind_and_version(cluster)
    assert books.created_by is kind
    if version >= Version(8, 9, 0):
        version = Version(version.major, 0, 0)  # the id is an index format number from there on
    assert books.created_on == version
    assert indices["pinned"].settings["index.routing.allocation.require.zone"] == "z1"


@pytest.mark.parametrize(
    ("version_id", "expected"),
    [
        ("6082399", (EngineKind.ELASTICSEARCH, Version(6, 8, 23))),
        ("7100299", (EngineKind.ELASTICSEARCH, Version(7, 10, 2))),
        ("8070099", (EngineKind.ELASTICSEARCH, Version(8, 7, 0))),
        ("8536000", (EngineKind.ELASTICSEARCH, Version(8, 0, 0))),
        ("9009000", (EngineKind.ELASTICSEARCH, Version(9, 0, 0))),
        ("135248027", (EngineKind.OPENSEARCH, Version(1, 3, 2))),
        ("136408227", (EngineKind.OPENSEARCH, Version(2, 19, 4))),
        ("137257827", (EngineKind.OPENSEARCH, Version(3, 4, 0))),
        (None, None),
        ("", None),
        ("-1", None),
        ("new", None),
    ],
)
def test_created_versions(version_id: object, expected: object) -> None:
    assert parse_indices.created(version_id) == expected


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_settings_voting_and_snapshots(cluster: str) -> None:
    settings = parse.settings(read(cluster, "settings"))
    assert settings.persistent == {"cluster.routing.allocation.exclude._name": "zz,yy"}
    assert settings.transient == {"cluster.routing.allocation.node_concurrent_recoveries": "3"}
    voting = parse.voting(read(cluster, "metadata"))
    if cluster == "elasticsearch-6.8.23":
        assert voting is None
    else:
        assert voting is not None
        assert (len(voting.config_ids), voting.excluded_names) == (1, frozenset())
    indices = parse_indices.indices(read(cluster, "metadata"))
    assert parse.snapshotted([read(cluster, "snapshots")], indices) == {"books", ".dotted-x"}
    assert parse.snapshotted([], indices) == frozenset()
    assert parse.running_snapshots(read(cluster, "running_snapshots")) == 0
    assert (parse.running_snapshots({}), parse.snapshotted([{}], indices)) == (0, frozenset())


def test_voting_exclusions_are_named() -> None:
    found = {"last_committed_config": ["a"], "voting_config_exclusions": [{"node_id": "b", "node_name": "n2"}]}
    seen = parse.voting({"metadata": {"cluster_coordination": found}})
    assert seen == VotingSeen(frozenset({"a"}), frozenset({"n2"}))


def test_only_successful_snapshots_of_open_indices_count() -> None:
    indices = parse_indices.indices(read("opensearch-2.19.4", "metadata"))
    listing = {
        "snapshots": [
            {"state": "SUCCESS", "indices": ["shut", "books"]},
            {"state": "PARTIAL", "indices": ["lonely"]},
            {"state": "IN_PROGRESS", "indices": ["pinned"]},
        ]
    }
    assert parse.snapshotted([listing], indices) == {"books"}


def test_the_newest_snapshot_of_an_index_is_told_with_its_end_and_its_failures() -> None:
    indices = parse_indices.indices(read("opensearch-2.19.4", "metadata"))
    listing = {
        "snapshots": [
            {"snapshot": "b-old", "state": "SUCCESS", "indices": ["books", "lonely", "shut"]},
            {"snapshot": "a-new", "state": "PARTIAL", "indices": ["books"]},
            {"snapshot": "c-now", "state": "IN_PROGRESS", "indices": ["books", "pinned"]},
            {"snapshot": "d-other", "state": "SUCCESS", "indices": ["gone"]},
        ]
    }
    details = parse.snapshot_details(
        {
            "snapshots": [
                {"snapshot": "b-old", "end_time_in_millis": 1000, "shards": {"failed": 0}},
                {"snapshot": "a-new", "end_time_in_millis": 2000, "shards": {"failed": 3}},
            ]
        }
    )
    new = BackupSeen("a-new", datetime.fromtimestamp(2, UTC), 3)
    old = BackupSeen("b-old", datetime.fromtimestamp(1, UTC), 0)
    assert parse.backups(listing, details, indices) == {"books": new, "lonely": old}
    assert parse.backups(listing, {}, indices)["books"] == BackupSeen("a-new", None, None)
    assert parse.newest_listed(listing, indices, 1) == ("a-new",)
    assert parse.newest_listed(listing, indices, 9) == ("b-old", "a-new")
    assert (parse.newer(old, new), parse.newer(new, old), parse.newer(None, old)) == (new, new, old)
    assert parse.newer(new, BackupSeen("x", None, None)) == new


def test_settings_with_defaults_keep_those_that_matter() -> None:
    """Lists as 7 and later write them, and as 6.8 does; a filter may have dropped an empty layer."""
    defaults = {
        "cluster.routing.allocation.awareness.attributes": ["zone", "rack"],
        "cluster.routing.allocation.awareness.force.zone.values": "[]",
        "cluster.max_shards_per_node": "1000",
        "discovery.zen.minimum_master_nodes": "-1",
        "indices.query.bool.max_clause_count": "1024",
    }
    seen = parse.all_settings({"persistent": {"cluster.max_shards_per_node": "9"}, "defaults": defaults})
    assert seen.effective("cluster.routing.allocation.awareness.attributes") == "zone,rack"
    assert seen.effective("cluster.routing.allocation.awareness.force.zone.values") == ""
    assert seen.effective("cluster.max_shards_per_node") == "9"
    assert seen.effective("discovery.zen.minimum_master_nodes") == "-1"
    assert seen.effective("indices.query.bool.max_clause_count") is None
    with pytest.raises(KeyError):
        parse.all_settings({"persistent": {}, "transient": {}})


def test_work_begun_by_somebody_is_told_and_its_parts_are_not() -> None:
    whole = {"node": "n", "id": 1, "action": "indices:admin/forcemerge"}
    part = {"node": "n", "id": 2, "action": "indices:admin/forcemerge[n]", "parent_task_id": "n:1"}
    assert parse.running_work({"tasks": [part, whole]}) == ("indices:admin/forcemerge (task n:1)",)
    assert parse.running_work({}) == ()
    assert parse.running_work({"node_failures": [{"type": "failed_node_exception"}]}) is None


def test_dangling_indices_are_named_once() -> None:
    found = [{"index_name": "b"}, {"index_name": "a"}, {"index_name": "b"}]
    assert parse.dangling({"_nodes": {"failed": 0}, "dangling_indices": found}) == ("a", "b")
    assert parse.dangling({}) == ()
    assert parse.dangling({"_nodes": {"failed": 1}, "dangling_indices": []}) is None


@pytest.mark.parametrize(
    "told",
    [
        {"nodes": {"i1": {"node_id": "i1", "type": "RESTART"}, "i2": {"node_id": "i2", "type": "REMOVE"}}},
        [{"node_id": "i1"}, {"node_id": "i2"}],
    ],
)
def test_announced_shutdowns(told: object) -> None:
    assert parse.leaving({"metadata": {"node_shutdown": told}}) == {"i1", "i2"}
    assert parse.leaving({}) == frozenset()


def test_counters_that_only_grow() -> None:
    nodes = parse_nodes.members(read("opensearch-2.19.4", "members"), read("opensearch-2.19.4", "nodes"))
    stats = {
        "indices": {
            "search": {"query_total": 5, "query_time_in_millis": 50},
            "indexing": {"index_total": 6, "index_time_in_millis": 60},
        },
        "thread_pool": {"search": {"queue": 0, "rejected": 1}, "write": {"queue": 0, "rejected": 2}},
    }
    one, other = parse_nodes.with_load(nodes, {"nodes": {nodes[0].id: stats}})
    assert (one.search_total, one.search_time_ms, one.write_total, one.write_time_ms) == (5, 50, 6, 60)
    assert (one.rejected_total, other.rejected_total) == (3, None)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_explanations(cluster: str) -> None:
    stuck = parse.explanation(COPY, read(cluster, "explain_stuck"))
    assert stuck.can_move == "no"
    assert [(word.decider, word.verdict, word.node) for word in stuck.decisions] == [
        ("filter", "NO", "n1"),
        ("filter", "NO", "n2"),
    ]
    assert "exclude" in stuck.decisions[0].explanation
    unassigned = parse.explanation(COPY, read(cluster, "explain_unassigned"))
    assert unassigned.can_move == "no"
    assert {(word.decider, word.node) for word in unassigned.decisions} == {("same_shard", "n1"), ("same_shard", "n2")}
    remains = parse.explanation(COPY, read(cluster, "explain_remain"))
    assert "same_shard" in {word.decider for word in remains.decisions}


def test_a_copy_on_its_way_is_explained_by_that() -> None:
    moving = parse.explanation(COPY, {"current_state": "relocating", "explanation": "wait until it is done"})
    assert (moving.can_move, moving.decisions[0].explanation) == ("yes", "wait until it is done")
    assert parse.explanation(COPY, {"current_state": "initializing"}).can_move == "throttled"


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_recoveries(cluster: str) -> None:
    found = [recovery for recovery in parse.recoveries(read(cluster, "recoveries")) if recovery.index == "books"]
    assert len(found) == 2  # one replica of each shard; the primaries came from nowhere
    for recovery in found:
        assert {recovery.source, recovery.target} == {"n1", "n2"}
        assert recovery.done
        assert recovery.bytes > 0
        assert recovery.started_at_ms > 0


def test_only_clients_own_requests_are_in_flight() -> None:
    tasks = [{"id": 1}, {"id": 2, "parent_task_id": "x:1"}, {"id": 3}]
    assert parse.client_requests({"tasks": tasks}) == 2
    assert parse.client_requests({}) == 0
    assert parse.client_requests(read("elasticsearch-6.8.23", "tasks")) == 1


def test_the_complaint_ends_with_the_innermost_cause() -> None:
    cause = {"type": "b", "reason": "middle", "caused_by": {"type": "c", "reason": "the\n  root"}}
    info = {"error": {"type": "a", "reason": "outer", "caused_by": cause}}
    assert complaint(info, "x") == "a: outer, caused by c: the root"
    assert complaint({"error": "plain"}, "x") == "plain"
    assert complaint("<html>", "<html>") == "<html>"
    assert len(complaint({"error": "e" * 9000}, "")) == 500
