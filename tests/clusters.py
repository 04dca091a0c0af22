"""Clusters for the dry run, and a naive judge of its moves that shares no code with the model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace

from shardlift.checks import Subject
from shardlift.model import (
    ClusterSettings,
    InstanceType,
    Move,
    Node,
    NodeSeen,
    Plan,
    ShardCopy,
    Strategy,
    Version,
)
from tests.observations import CLUSTER, NEW, copy, index, member, seen

ROUTING = "index.routing.allocation."
AWARE = {"cluster.routing.allocation.awareness.attributes": "zone"}


def many(names: list[str], zones: int) -> tuple[tuple[Node, ...], tuple[NodeSeen, ...]]:
    """Shardlift's nodes and the members, in `zones` zones in turn; disks of 1,000 bytes, a tenth used."""
    nodes = tuple(
        Node(
            id=name,
            cluster_id=CLUSTER.id,
            name=name,
            instance_type=InstanceType.ESS,
            roles=(),
            zone=f"zone-{at % zones}",
            address="127.0.0.1",
            http_port=9200,
            transport_port=9300,
            image_id=CLUSTER.image_id,
        )
        for at, name in enumerate(names)
    )
    members = tuple(
        member(node.name, address=f"10.0.0.{at}:9300", attributes={"zone": node.zone}) for at, node in enumerate(nodes)
    )
    return nodes, members


def big_subject(*, nodes: int, copies: int, kind: str, strategy: Strategy = Strategy.DRAIN) -> Subject:
    """Indices of five shards with a replica each, a primary and its replica on neighbours."""
    names = [f"node-{at:03}" for at in range(nodes)]
    known, members = many(names, 3)
    members = tuple(replace(one, disk_total_bytes=10_000, disk_available_bytes=9_000) for one in members)
    shards = tuple(
        copy(
            names[(at + number) % nodes],
            primary=number == 0,
            index=f"index-{at // 5}",
            shard=at % 5,
            size_bytes=5 + at % 11,
        )
        for at in range(copies // 2)
        for number in range(2)
    )
    settings = {"limited": {f"{ROUTING}total_shards_per_node": "2"}, "segment": {"index.replication.type": "SEGMENT"}}
    indices = tuple(
        index(name, primaries=5, settings=settings.get(kind, {})) for name in sorted({one.index for one in shards})
    )
    observed = seen(
        nodes=members,
        elected=names[-1],
        shards=shards,
        indices=indices,
        settings=ClusterSettings(persistent=AWARE if kind == "aware" else {}),
    )
    return Subject(seen=observed, cluster=replace(CLUSTER, nodes=known), image=NEW, strategy=strategy)


class Naive:
    """Judges each move when it is told of it, from the settings alone. `wrong` says which were illegal.

    Only good as long as every copy moves: a copy that stays or is dropped it does not hear of, so it stops judging at
    the first node that still holds one when the next is taken (`ended`).
    """

    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject = subject
        self.order = [node.name for node in plan.nodes]
        self.members = {node.name: node for node in subject.seen.nodes}
        self.where: dict[tuple[str, int], dict[str, ShardCopy]] = defaultdict(dict)
        for one in subject.seen.shards:
            if one.node is not None:
                self.where[one.group][one.node] = one
        self.used = {node.name: node.disk_used_bytes or 0 for node in subject.seen.nodes}
        self.count = Counter(one.node for one in subject.seen.shards)
        self.of_index = Counter((one.index, one.node) for one in subject.seen.shards)
        self.indices = {one.name: one for one in subject.seen.indices}
        self.at = 0
        self.moves = 0
        self.ended = False
        self.wrong: list[tuple[Move, str]] = []

    def move(self, move: Move) -> None:
        self.moves += 1
        while self.order[self.at] != move.source and not self.ended:
            self.ended = self.count[self.order[self.at]] > 0
            done = self.order[self.at]
            self.members[done] = replace(self.members[done], id="new", version=Version(3, 4, 0))
            self.at += 1
        if self.ended:
            return
        why = self.objection(move)
        if why:
            self.wrong.append((move, why))
        moved = self.where[move.index, move.shard].pop(move.source)
        self.where[move.index, move.shard][move.target] = moved
        for name, sign in ((move.source, -1), (move.target, 1)):
            self.used[name] += sign * (moved.size_bytes or 0)
            self.count[name] += sign
            self.of_index[move.index, name] += sign

    def objection(self, move: Move) -> str:
        """Why the move is illegal now; empty when it is legal."""
        group = self.where[move.index, move.shard]
        settings, target = self.indices[move.index].settings, self.members[move.target]
        limit, total = settings.get(f"{ROUTING}total_shards_per_node"), target.disk_total_bytes
        said = {
            "same shard": move.target in group,
            "version": self._version_forbids(move, group),
            "shards limit": limit is not None and self.of_index[move.index, move.target] >= int(limit),
            "require": settings.get(f"{ROUTING}require.zone", target.zone) != target.zone,
            "exclude": target.name in settings.get(f"{ROUTING}exclude._name", "").split(","),
            "disk": self.used[target.name] + (group[move.source].size_bytes or 0) > 0.85 * (total or 0),
            "awareness": self._zones_forbid(move, group),
        }
        return ", ".join(why for why, forbids in said.items() if forbids)

    def _version_forbids(self, move: Move, group: dict[str, ShardCopy]) -> bool:
        target = self.members[move.target]
        primary = next(name for name, one in group.items() if one.primary)
        if target.release < self.members[primary].release:
            return True
        older = any(not one.primary and self.members[name].release < target.release for name, one in group.items())
        segments = self.indices[move.index].settings.get("index.replication.type") == "SEGMENT"
        return segments and group[move.source].primary and older

    def _zones_forbid(self, move: Move, group: dict[str, ShardCopy]) -> bool:
        expands = self.indices[move.index].settings.get("index.auto_expand_replicas", "")
        if not self.subject.seen.settings.persistent.get(next(iter(AWARE))) or expands.endswith("all"):
            return False
        zones = {one.zone for one in self.members.values()}
        held = sum(self.members[name].zone == self.members[move.target].zone for name in group if name != move.source)
        return held + 1 > math.ceil((self.indices[move.index].replicas + 1) / len(zones))
