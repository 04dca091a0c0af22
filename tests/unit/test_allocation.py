"""The deciders, one by one, and what they read: filters, watermarks, limits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shardlift.allocation import State, build_state, objections
from shardlift.allocation.filters import filters_of
from shardlift.allocation.limits import most_used_bytes, whole
from shardlift.model import ClusterSettings, EngineKind, IndexSeen, NodeSeen, ShardCopy, Version, size_bytes
from tests.observations import CLUSTER, NAMES, copy, index, member, seen

A, B, C = NAMES
TARGET = (True, Version(3, 4, 0))
ROUTING = "index.routing.allocation."
CLUSTER_ROUTING = "cluster.routing.allocation."


def nodes(**changes: Mapping[str, object]) -> tuple[NodeSeen, ...]:
    """The three nodes, changed under `a`, `b`, `c`."""
    return tuple(member(name, **changes.get(letter, {})) for letter, name in zip("abc", NAMES, strict=True))


def said(
    target: str,
    *,
    indices: tuple[IndexSeen, ...] = (index(),),
    shards: tuple[ShardCopy, ...] | None = None,
    members: tuple[NodeSeen, ...] | None = None,
    persistent: Mapping[str, str] | None = None,
    replica: bool = False,
) -> dict[str, str]:
    """Deciders that object to moving the primary (on A, its replica on B), or the replica, to `target`."""
    shards = shards or (copy(A, primary=True), copy(B, primary=False))
    observed = seen(
        indices=indices,
        shards=shards,
        nodes=members or nodes(),
        settings=ClusterSettings(persistent=dict(persistent or {})),
    )
    state = build_state(observed, CLUSTER.nodes, TARGET)
    moved = next(one for one in state.groups[shards[0].group].copies if one.primary is not replica)
    return {one.decider: one.explanation for one in objections(state, moved, state.places[target])}


def own(**settings: str) -> tuple[IndexSeen, ...]:
    return (index(settings={key.replace("__", "."): value for key, value in settings.items()}),)


def test_a_free_node_takes_a_copy():
    assert said(C) == {}


def test_two_copies_of_a_shard_are_never_on_one_node():
    assert said(B).keys() == {"same_shard"}


def test_a_primary_does_not_go_to_an_older_node_and_a_replica_not_below_its_primary():
    newer = {"version": "3.4.0"}
    assert said(C, members=nodes(a=newer)).keys() == {"node_version"}
    assert said(C, members=nodes(a=newer), replica=True).keys() == {"node_version"}
    assert said(C, members=nodes(b=newer), replica=True) == {}, "older than where it is, as new as its primary's node"
    assert said(C, members=nodes(c=newer)) == {}


def test_opensearch_is_newer_than_elasticsearch():
    elder = {"engine": EngineKind.ELASTICSEARCH, "version": "7.10.2"}
    younger = {"version": "1.3.20"}
    assert said(C, members=nodes(a=elder, b=elder, c=younger)) == {}
    assert said(C, members=nodes(a=younger, b=elder, c=elder)).keys() == {"node_version"}


def test_a_segment_replicated_primary_waits_for_its_replica():
    settings = {"index.replication.type": "SEGMENT"}
    newer = {"version": "3.4.0"}
    assert "replica" in said(C, indices=(index(settings=settings),), members=nodes(c=newer))["node_version"]
    assert said(C, indices=(index(settings=settings),), members=nodes(b=newer, c=newer)) == {}
    assert said(C, indices=(index(settings=settings),), members=nodes(c=newer), replica=True) == {}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("require._name", C, True),
        ("require._name", A, False),
        ("include._name", f"{A},{C}", True),
        ("exclude._name", "lab-1-ess-esn-3-*", False),
        ("exclude._name", "lab-1-ess-esn-?-1", True),  # only a star is special
        ("exclude._id", f"id-{C}", False),
        ("exclude._id", "id-*", True),  # ids are exact
        ("require._ip", "10.*", True),
        ("require._ip", "11.*", False),
        ("require.zone", "zone-a", True),
        ("require.zone", "zone-b", False),
        ("require.box", "hot", False),
        ("include.box", "hot", False),
        ("exclude.box", "hot", True),
        ("require._host", "some-host", True),  # names of hosts are not observed: the engine is asked too
        ("exclude._name", "", True),
    ],
)
def test_filters_of_index_and_cluster(key: str, value: str, allowed: bool):
    assert said(C, indices=(index(settings={ROUTING + key: value}),)).keys() == (set() if allowed else {"filter"})
    assert said(C, persistent={CLUSTER_ROUTING + key: value}).keys() == (set() if allowed else {"filter"})


def test_exclude_is_any_require_is_all_include_is_any():
    node = member(C)
    both = {f"{ROUTING}%s._name": C, f"{ROUTING}%s.zone": "zone-b"}
    verdicts = {}
    for kind in ("exclude", "require", "include"):
        (made,) = filters_of({key % kind: value for key, value in both.items()}, "index")
        verdicts[kind] = made.objection(node)
    assert verdicts["include"] is None
    assert "matches" in verdicts["exclude"]
    assert "does not match" in verdicts["require"]


def test_awareness_counts_values_present_and_forced():
    zones = {"a": {"attributes": {"zone": "1"}}, "b": {"attributes": {"zone": "2"}}, "c": {"attributes": {"zone": "2"}}}
    aware = {f"{CLUSTER_ROUTING}awareness.attributes": "zone"}
    assert said(C, members=nodes(**zones), persistent=aware).keys() == {"awareness"}
    assert said(C, members=nodes(**zones), persistent=aware, replica=True) == {}, "the replica is in that zone already"
    single = {letter: {"attributes": {"zone": "1"}} for letter in "abc"}
    assert said(C, members=nodes(**single), persistent=aware) == {}
    forced = {**aware, f"{CLUSTER_ROUTING}awareness.force.zone.values": "1,9"}
    assert said(C, members=nodes(**single), persistent=forced).keys() == {"awareness"}
    bare = {**zones, "c": {"attributes": {}}}
    assert "does not contain" in said(C, members=nodes(**bare), persistent=aware)["awareness"]
    everywhere = own(index__auto_expand_replicas="0-all")
    assert said(C, members=nodes(**zones), persistent=aware, indices=everywhere) == {}


def test_total_shards_per_node():
    shards = (copy(A, primary=True), copy(B, primary=False), copy(C, primary=True, shard=1))
    assert said(C, shards=shards, indices=own(**{f"{ROUTING}total_shards_per_node": "1"})).keys() == {"shards_limit"}
    assert said(C, shards=shards, indices=own(**{f"{ROUTING}total_shards_per_node": "2"})) == {}
    assert said(C, shards=shards, persistent={f"{CLUSTER_ROUTING}total_shards_per_node": "1"}).keys() == {
        "shards_limit"
    }
    assert said(C, shards=shards, persistent={f"{CLUSTER_ROUTING}total_shards_per_node": "-1"}) == {}


def test_a_disk_does_not_go_above_its_low_watermark():
    assert said(C, members=nodes(c={"disk_available_bytes": 160})) == {}
    assert said(C, members=nodes(c={"disk_available_bytes": 159})).keys() == {"disk_threshold"}
    assert said(C, members=nodes(c={"disk_available_bytes": None})) == {}, "as the engine does; disk_room objects"


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 850),
        ({"watermark.low": "90%"}, 900),
        ({"watermark.low": "0.7"}, 700),
        ({"watermark.low": "200b"}, 800),
        ({"watermark.low": "85%", "watermark.low.max_headroom": "100b"}, 900),
        ({"watermark.low.max_headroom": "-1"}, 850),
        ({"threshold_enabled": "false"}, None),
    ],
)
def test_low_watermarks(settings: dict[str, str], most: int | None):
    keys = {f"{CLUSTER_ROUTING}disk.{key}": value for key, value in settings.items()}
    assert most_used_bytes(ClusterSettings(persistent=keys), 1000) == most


def test_a_default_headroom_counts_only_with_the_default_watermark():
    low = f"{CLUSTER_ROUTING}disk.watermark.low"
    defaults = {low: "85%", f"{low}.max_headroom": "100b"}
    assert most_used_bytes(ClusterSettings(defaults=defaults), 1000) == 900
    assert most_used_bytes(ClusterSettings(persistent={low: "85%"}, defaults=defaults), 1000) == 850


def test_sizes_and_limits():
    assert [size_bytes(text) for text in ("1kb", "1.5m", "2gb", "7", "-1", "much")] == [
        1024,
        1536 * 1024,
        2 * 2**30,
        7,
        None,
        None,
    ]
    assert [whole(text) for text in ("3", "-1", None, "many")] == [3, 0, 0, 0]


@pytest.mark.parametrize(("value", "primary", "replica"), [("all", 1, 1), ("primaries", 1, 0), ("none", 0, 0)])
def test_enable_gates_the_targets_of_moves(value: str, primary: int, replica: int):
    key = "routing.allocation.enable"
    for given in ({"persistent": {f"cluster.{key}": value}}, {"indices": (index(settings={f"index.{key}": value}),)}):
        assert said(C, **given).keys() == (set() if primary else {"enable"})
        assert said(C, replica=True, **given).keys() == (set() if replica else {"enable"})
    outdone = {"persistent": {f"cluster.{key}": "none"}, "indices": (index(settings={f"index.{key}": "all"}),)}
    assert said(C, **outdone) == {}


def test_a_closed_index_moves_only_when_verified():
    assert said(C, indices=(index(closed=True),)).keys() == {"closed_index"}
    assert said(C, indices=(index(closed=True, settings={"index.verified_before_close": "true"}),)) == {}


def elastic(*roles: str) -> dict[str, object]:
    return {"engine": EngineKind.ELASTICSEARCH, "version": "8.19.0", "roles": frozenset(roles)}


def test_tiers_of_elasticsearch():
    hot_warm = nodes(a=elastic("data_warm"), b=elastic("data_hot"), c=elastic("data_hot"))
    prefers = own(**{f"{ROUTING}include._tier_preference": "data_warm,data_hot"})
    assert said(C, members=hot_warm, indices=prefers).keys() == {"data_tier"}, "a warm node is there: the one drained"
    assert said(C, members=hot_warm, indices=own(**{f"{ROUTING}include._tier_preference": "data_cold,data_hot"})) == {}
    assert said(C, members=hot_warm, indices=own(**{f"{ROUTING}require._tier": "data_warm"})).keys() == {"data_tier"}
    whole_data = nodes(a=elastic("data_warm"), b=elastic("data_hot"), c=elastic("data"))
    assert said(C, members=whole_data, indices=prefers) == {}
    assert said(C, indices=prefers) == {}, "OpenSearch knows no tiers, and does not take them for attributes"


def test_only_data_nodes_hold_copies_and_mounted_snapshots_are_where_they_are_read():
    assert said(C, members=nodes(c={"roles": frozenset({"ingest"})})).keys() == {"data_role"}
    remote = own(index__store__type="remote_snapshot")
    assert said(C, indices=remote).keys() == {"data_role"}
    assert said(C, indices=remote, members=nodes(c={"roles": frozenset({"search"})})) == {}
    partial = own(index__store__type="snapshot", index__store__snapshot__partial="true")
    assert said(C, indices=partial).keys() == {"data_role"}
    assert said(C, indices=partial, members=nodes(c=elastic("data_frozen"))).keys() == {"node_version"}


def test_a_replica_needs_its_primary():
    lost = (copy(None, primary=True), copy(B, primary=False))
    assert said(C, shards=lost, replica=True).keys() == {"replica_after_primary_active"}


def test_a_copy_on_its_way_counts_where_it_goes():
    moving = copy(A, primary=True, relocating_to=C, state="RELOCATING")
    state: State = build_state(seen(shards=(moving,)), CLUSTER.nodes, TARGET)
    assert [place.name for place in state.places.values() if place.copies] == [C]
    assert state.places[C].used_bytes == 110
