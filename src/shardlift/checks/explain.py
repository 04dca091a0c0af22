"""Which unassigned copies are no cause for worry."""

from __future__ import annotations

from collections.abc import Iterable

from shardlift.model import CopyState, NodeSeen, ShardCopy, Version

_LEFT = "NODE_LEFT"


def unexplained_unassigned(nodes: Iterable[NodeSeen], shards: tuple[ShardCopy, ...]) -> tuple[ShardCopy, ...]:
    """Unassigned copies for which node versions alone are NOT the reason.

    A replica never goes to a node older than its primary's (NodeVersionAllocationDecider). So a replica whose primary
    sits on an upgraded node waits, legitimately, until another upgraded node without a copy of it exists. Everything
    else unassigned, above all a primary, needs a reason that we do not have.
    """
    waiting = [copy for copy in shards if copy.state is CopyState.UNASSIGNED]
    if not waiting:
        return ()
    members = {node.name: node for node in nodes}
    data_nodes = {name: node for name, node in members.items() if node.holds_data}
    groups = {copy.group for copy in waiting}
    holders: dict[tuple[str, int], set[str]] = {}
    primary_on: dict[tuple[str, int], str] = {}
    for copy in shards:
        if copy.node is not None and copy.group in groups:
            holders.setdefault(copy.group, set()).add(copy.node)
            if copy.primary:
                primary_on[copy.group] = copy.node
    fitting: dict[tuple[bool, Version], int] = {}  # data nodes that are not older, by release of a primary's node
    unexplained = []
    for copy in waiting:
        primary = members.get(primary_on.get(copy.group, ""))
        if copy.primary or primary is None:
            unexplained.append(copy)
            continue
        if primary.release not in fitting:
            fitting[primary.release] = sum(node.release >= primary.release for node in data_nodes.values())
        held = [data_nodes[name] for name in holders[copy.group] if name in data_nodes]
        free = len(data_nodes) - len(held)
        free_and_fitting = fitting[primary.release] - sum(node.release >= primary.release for node in held)
        if not free or free_and_fitting:
            unexplained.append(copy)
    return tuple(unexplained)


def left_behind(copy: ShardCopy, group: Iterable[ShardCopy]) -> bool:
    """Whether this unassigned copy is a replica whose node left, while its primary serves: it waits for the node."""
    return (
        not copy.primary and copy.unassigned_reason == _LEFT and any(other.primary and other.serving for other in group)
    )
