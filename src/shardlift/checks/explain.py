"""Which unassigned copies are no cause for worry while versions are mixed."""

from __future__ import annotations

from collections.abc import Iterable

from shardlift.model import CopyState, EngineKind, NodeSeen, ShardCopy


def unexplained_unassigned(nodes: Iterable[NodeSeen], shards: tuple[ShardCopy, ...]) -> tuple[ShardCopy, ...]:
    """Unassigned copies for which node versions alone are NOT the reason.

    A replica never goes to a node older than its primary's (NodeVersionAllocationDecider). So a replica whose primary
    sits on an upgraded node waits, legitimately, until another upgraded node without a copy of it exists. Everything
    else unassigned, above all a primary, needs a reason that we do not have.
    """
    members = {node.name: node for node in nodes}
    data_nodes = [node for node in members.values() if node.holds_data]
    holders: dict[tuple[str, int], set[str]] = {}
    primary_on: dict[tuple[str, int], str] = {}
    for copy in shards:
        if copy.node is not None:
            holders.setdefault(copy.group, set()).add(copy.node)
            if copy.primary:
                primary_on[copy.group] = copy.node
    unexplained = []
    for copy in shards:
        if copy.state is not CopyState.UNASSIGNED:
            continue
        primary = members.get(primary_on.get(copy.group, ""))
        if copy.primary or primary is None:
            unexplained.append(copy)
            continue
        free = [node for node in data_nodes if node.name not in holders[copy.group]]
        if not free or not all(_older(node, primary) for node in free):
            unexplained.append(copy)
    return tuple(unexplained)


def _older(node: NodeSeen, than: NodeSeen) -> bool:
    # Across engines the upgraded one is OpenSearch, whose numbers start again at 1.
    if node.engine is not than.engine:
        return node.engine is EngineKind.ELASTICSEARCH
    return node.version < than.version
