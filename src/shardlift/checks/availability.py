"""Rules about what must stay up: members, quorum, and the last started copy of each shard."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.subject import Subject, blocks
from shardlift.model import Finding, Strategy

# The CSS contract: fewer data nodes than this cannot be upgraded through it (CSS.0074).
_DATA_NODES_MIN = 3
# With two masters the voting configuration holds one, and stopping that one halts the cluster (Reconfigurator).
_MASTERS_MIN = 3
_NAMED_MAX = 5


def nodes_present(subject: Subject) -> Iterator[Finding]:
    """Every node of the cluster is a member. A second one down while one is being replaced can lose data or quorum."""
    for node in subject.cluster.nodes:
        if subject.seen.node(node.name) is None:
            yield blocks(
                "nodes_present",
                node.name,
                reason="the node is not a member of the cluster",
                evidence=f"members seen: {', '.join(sorted(n.name for n in subject.seen.nodes)) or 'none'}",
                remedy=f"start it, or see its log, then try again; it should answer at {node.url}",
            )


def data_nodes_minimum(subject: Subject) -> Iterator[Finding]:
    """At least three data nodes, so that with one away two copies of a shard still have different homes."""
    names = [node.name for node in subject.seen.nodes if node.holds_data]
    if len(names) < _DATA_NODES_MIN:
        yield blocks(
            "data_nodes_minimum",
            subject.cluster.name,
            reason=f"a rolling upgrade needs at least {_DATA_NODES_MIN} data nodes",
            evidence=f"{len(names)} seen: {', '.join(names) or 'none'}",
            remedy="add data nodes first",
        )


def master_quorum(subject: Subject) -> Iterator[Finding]:
    """Enough master-eligible members that one may stop: of three voters two are a majority.

    Only asked where a node to be taken is master-eligible itself, and the rest must be healthy members.
    """
    eligible = [node for node in subject.seen.nodes if node.master_eligible]
    affected = {node.name for node in subject.taken} & {node.name for node in eligible}
    if affected and len(eligible) < _MASTERS_MIN:
        yield blocks(
            "master_quorum",
            subject.cluster.name,
            reason=f"with fewer than {_MASTERS_MIN} master-eligible nodes, stopping one can halt the cluster",
            evidence=f"master-eligible members: {', '.join(node.name for node in eligible) or 'none'}",
            remedy="add master-eligible nodes, three in all, before upgrading",
        )
    if subject.seen.elected is None:
        yield blocks(
            "master_quorum",
            subject.cluster.name,
            reason="no elected master is known",
            evidence="the cluster state names none",
            remedy="wait for an election; see the nodes' logs when there is none within a minute",
        )


def last_started_copy(subject: Subject) -> Iterator[Finding]:
    """No shard may lose its last STARTED copy (invariant 1).

    In place, every copy on a node needs a started one on another node. With drain that is asked at the moment the
    node is to stop, when what is left on it must have one.
    """
    if subject.strategy is Strategy.DRAIN and subject.node is None:
        return
    serving: dict[tuple[str, int], set[str]] = {}
    for copy in subject.seen.shards:
        if copy.serving and copy.node is not None:
            serving.setdefault(copy.group, set()).add(copy.node)
    for node in subject.taken:
        held = subject.seen.copies_on(node.name)
        alone = sorted({f"{c.index}[{c.shard}]" for c in held if not serving.get(c.group, set()) - {node.name}})
        if alone:
            yield blocks(
                "last_started_copy",
                node.name,
                reason=f"{len(alone)} shards have no other started copy",
                evidence=_some(alone),
                remedy="raise number_of_replicas of these indices to 1 and wait for green, or use the strategy drain",
            )


def copies_fit(subject: Subject) -> Iterator[Finding]:
    """With drain, each shard's copies need as many other nodes: replicas + 1 <= data nodes - 1."""
    if subject.strategy is not Strategy.DRAIN:
        return
    room = sum(node.holds_data for node in subject.seen.nodes) - 1
    for index in subject.seen.indices:
        # 0-all keeps a copy on every node; such a copy is complete elsewhere, so it need not move.
        everywhere = index.settings.get("index.auto_expand_replicas", "false").endswith("-all")
        if index.replicas + 1 > room and not everywhere and index.primaries:
            yield blocks(
                "copies_fit",
                index.name,
                reason=f"{index.replicas + 1} copies of each shard do not fit on {room} nodes while one is drained",
                evidence=f"number_of_replicas is {index.replicas}, data nodes {room + 1}",
                remedy=f"lower number_of_replicas to {max(room - 1, 0)}, add a data node, or use the strategy in_place",
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
