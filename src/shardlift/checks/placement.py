"""Rules about where copies can be: enough nodes and zones for them, and indices that do not move like others."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.members import expected_data
from shardlift.checks.subject import Subject, blocks, put_settings, some, warns
from shardlift.model import AWARENESS, EngineKind, Finding, IndexSeen, Strategy, Version

_SHARDS_MAX = "cluster.max_shards_per_node"
_SHARDS_MAX_DEFAULT = 1000
_FIRST_SHARDS_MAX = Version(7, 0, 0)  # 6.8 only logs that a limit is passed
_FIRST_DANGLING = Version(7, 9, 0)


def copies_fit(subject: Subject) -> Iterator[Finding]:
    """With drain, each shard's copies need as many other nodes: replicas + 1 <= data nodes - 1; a spare is one more."""
    if not subject.strategy.empties:
        return
    room = len(expected_data(subject) - subject.spares) - (subject.strategy is not Strategy.SURGE)
    for index in subject.seen.indices:
        replicas = replicas_needed(index)
        if replicas + 1 > room and index.primaries:
            yield blocks(
                "copies_fit",
                index.name,
                reason=f"{replicas + 1} copies of each shard do not fit on {room} nodes while one is drained",
                evidence=f"number_of_replicas is {index.replicas}, data nodes {len(expected_data(subject))}",
                remedy=f'PUT {index.name}/_settings {{"index.number_of_replicas": {max(room - 1, 0)}}}, add a data '
                "node, or use the strategy in_place",
            )


def replicas_needed(index: IndexSeen) -> int:
    """Where the engine chooses the number of replicas, it makes do with the lower bound while a node is drained."""
    if not index.expands:
        return index.replicas
    low = index.settings["index.auto_expand_replicas"].partition("-")[0]
    return int(low) if low.isdecimal() else index.replicas


def zones_present(subject: Subject) -> Iterator[Finding]:
    """Each forced awareness value has a data node: copies meant for a missing one stay unassigned.

    A zone that a data node is about to move to counts. Where awareness is on, a data node without a value for it takes
    no copies at all, which is worth a warning.
    """
    settings = subject.seen.settings
    data = [node for node in subject.seen.nodes if node.holds_data]
    names = {node.name for node in data}
    for attribute in items(settings.effective(AWARENESS + "attributes")):
        key = f"{AWARENESS}force.{attribute}.values"
        here = {node.attributes[attribute] for node in data if attribute in node.attributes}
        if attribute == "zone":
            here |= {node.zone for node in subject.repairs}
            # A list that names a zone already to which nodes are on their way is right.
            here |= {zone for name, zone in subject.to_zones.items() if name in names}
        forced = items(settings.effective(key))
        missing = [value for value in forced if value not in here]
        if missing:
            layer = "transient" if key in settings.transient else "persistent"
            left = ",".join(value for value in forced if value in here)
            yield blocks(
                "zones_present",
                subject.cluster.name,
                reason=f"copies are reserved for a {attribute} that has no data node",
                evidence=f"{key} is {','.join(forced)}; data nodes are in {some(sorted(here)) or 'none'}",
                remedy=f"start a data node in {some(missing)}, or {put_settings(layer, key, left or None)}",
            )
        without = [node.name for node in data if attribute not in node.attributes]
        if without:
            yield warns(
                "zones_present",
                some(without),
                reason=f"shards are spread by {attribute}, and these data nodes have none, so they take no copies",
                evidence=f"{AWARENESS}attributes is {settings.effective(AWARENESS + 'attributes')}",
                remedy=f"set node.attr.{attribute} in their configuration and restart them",
            )


def items(value: str | None) -> list[str]:
    """The values of a list setting."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]


def closed_indices_replicated(subject: Subject) -> Iterator[Finding]:
    """With drain, every closed index has copies that can move.

    Only from 7.2 on, and only if closed there, has a closed index a place in the routing table. Before, its files lie
    on the disks of its former nodes and no drain moves them: a node that returns with a fresh disk has lost them.
    """
    closed = [index for index in subject.seen.indices if index.closed and index.primaries]
    if not (subject.strategy.empties or subject.unsaved) or not closed:
        return
    routed = {copy.index for copy in subject.seen.shards}
    for index in closed:
        if index.name not in routed:
            yield blocks(
                "closed_indices_replicated",
                index.name,
                reason="the index is closed and does not move with a drain: its data would be lost with the disk",
                evidence="the routing table has no copy of it",
                remedy=f"POST {index.name}/_open and wait for green, or DELETE it, or use the strategy in_place",
            )


def shard_limit_room(subject: Subject) -> Iterator[Finding]:
    """With a node away all shards stay within the limit of shards per node; above it no index can be created."""
    settings = subject.seen.settings
    nodes = len(expected_data(subject) - subject.spares) - (subject.strategy is not Strategy.SURGE)
    if nodes < 1:
        return  # data_nodes_minimum says so
    value = settings.effective(_SHARDS_MAX) or str(_SHARDS_MAX_DEFAULT)
    shards = sum(index.primaries * (index.replicas + 1) for index in subject.seen.indices if not index.closed)
    if value.startswith("-") or (value.isdecimal() and int(value) * nodes >= shards):
        return
    enforced = all(
        node.engine is EngineKind.OPENSEARCH or node.version >= _FIRST_SHARDS_MAX for node in subject.seen.nodes
    )
    told = blocks if enforced else warns
    layer = "transient" if _SHARDS_MAX in settings.transient else "persistent"
    yield told(
        "shard_limit_room",
        subject.cluster.name,
        reason="with a node away there are more shards than the cluster may have: no index could be created",
        evidence=f"{shards} shards of open indices, {_SHARDS_MAX} is {value}, {nodes} data nodes stay",
        remedy=f"{put_settings(layer, _SHARDS_MAX, -(-shards // nodes))}, or DELETE indices, or add a data node",
    )


def searchable_snapshots(subject: Subject) -> Iterator[Finding]:
    """Tells of indices that live in a snapshot repository: each move of a copy reads it from there again."""
    found = [index.name for index in subject.seen.indices if index.searchable_snapshot]
    if found:
        yield warns(
            "searchable_snapshots",
            some(found),
            reason=f"{len(found)} indices are mounted from snapshots; their copies come from the repository, not from "
            "each other",
            evidence="index.store.type is snapshot or remote_snapshot",
            remedy="POST _snapshot/<repository>/_verify must answer for every node, on the target version too",
        )


def dangling_indices(subject: Subject) -> Iterator[Finding]:
    """Tells of data on disks that the cluster does not know: a node with a fresh disk loses it for good."""
    found = subject.seen.dangling
    if found is None:
        yield warns(
            "dangling_indices",
            subject.cluster.name,
            reason="it is not known whether disks hold indices that the cluster does not know",
            evidence="Elasticsearch before 7.9 cannot tell" if _mute(subject) else "GET _dangling did not answer",
            remedy="see the nodes' logs for 'dangling'; if all indices that you expect are in GET _cat/indices, go on",
        )
    elif found:
        yield warns(
            "dangling_indices",
            some(list(found)),
            reason=f"{len(found)} indices lie on a disk and are not in the cluster; drained nodes lose them",
            evidence="GET _dangling lists them",
            remedy="POST _dangling/<uuid>?accept_data_loss=true takes one in, DELETE with the same path removes it",
        )


def _mute(subject: Subject) -> bool:
    elastic = (node for node in subject.seen.nodes if node.engine is EngineKind.ELASTICSEARCH)
    return any(node.version < _FIRST_DANGLING for node in elastic)
