"""Observations for tests of rules and planner: a healthy cluster, and ways to make it less so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from shardlift.checks import Subject
from shardlift.model import (
    ClusterSettings,
    CopyState,
    EngineKind,
    Health,
    HealthSeen,
    IndexSeen,
    NodeSeen,
    Observation,
    ShardCopy,
    Strategy,
    Version,
    VotingSeen,
)
from tests.worlds import NEW, OLD, make_cluster

CLUSTER = make_cluster("p" * 32, 3, ("zone-a",))
NAMES = tuple(node.name for node in CLUSTER.nodes)


def member(name: str, version: str = "2.19.4", **more: object) -> NodeSeen:
    node = NodeSeen(
        name=name,
        id=f"id-{name}",
        ephemeral_id=f"e-{name}",
        address=f"10.{name[-3]}",
        engine=EngineKind.OPENSEARCH,
        version=Version.parse(version),
        roles=frozenset({"data", "cluster_manager"}),
        attributes={"zone": "zone-a"},
        plugins=(),
        disk_total_bytes=1000,
        disk_available_bytes=900,
        cpu_percent=5,
        load_1m=0.1,
        processors=2,
        search_queue=0,
        write_queue=0,
    )
    return replace(node, **more)  # type: ignore[arg-type]


def copy(node: str | None, *, primary: bool, index: str = "books", **more: object) -> ShardCopy:
    state = CopyState.UNASSIGNED if node is None else CopyState.STARTED
    made = ShardCopy(index=index, shard=0, primary=primary, state=state, node=node, size_bytes=10)
    return replace(made, **more)  # type: ignore[arg-type]


def index(name: str = "books", **more: object) -> IndexSeen:
    made = IndexSeen(
        name=name,
        created_on=Version(2, 19, 4),
        created_by=EngineKind.OPENSEARCH,
        primaries=1,
        replicas=1,
        closed=False,
        settings={},
    )
    return replace(made, **more)  # type: ignore[arg-type]


def seen(**more: object) -> Observation:
    healthy = Observation(
        at=datetime.now(UTC),
        health=HealthSeen(Health.GREEN, 3, 3, 2, 0, 0, 0, 0, timed_out=False),
        nodes=tuple(member(name) for name in NAMES),
        elected=NAMES[0],
        shards=(copy(NAMES[0], primary=True), copy(NAMES[1], primary=False)),
        indices=(index(),),
        settings=ClusterSettings(),
        voting=VotingSeen(frozenset(), frozenset()),
        running_snapshots=0,
        snapshotted=frozenset(),
    )
    return replace(healthy, **more)  # type: ignore[arg-type]


def subject(strategy: Strategy = Strategy.DRAIN, **more: object) -> Subject:
    """About a healthy cluster; fields of the observation may be given beside those of the subject."""
    own = {key: more.pop(key) for key in list(more) if key in Subject.__dataclass_fields__}
    base = Subject(seen=seen(**more), cluster=CLUSTER, image=NEW, strategy=strategy)
    return replace(base, **own)  # type: ignore[arg-type]


__all__ = ["CLUSTER", "NAMES", "NEW", "OLD", "copy", "index", "member", "seen", "subject"]
