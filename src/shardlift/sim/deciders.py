"""May this copy be on that node? The engines' allocation deciders, each a function, as far as an upgrade meets them.

Sources: the classes of the same names in OpenSearch (`org.opensearch.cluster.routing.allocation.decider`) and the
documents on shard allocation of both engines. Nothing here is shared with `shardlift.allocation`, on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from shardlift.model import AWARE_OF, FORCED_ZONES, CopyState, Decision
from shardlift.sim.in_force import Filters, own_filters
from shardlift.sim.parts import Copy, SimIndex, SimNode

if TYPE_CHECKING:
    from shardlift.sim.world import World

Said = tuple[str, str, str]
"""Decider, NO or THROTTLE, explanation."""


def verdicts(world: World, copy: Copy, node: SimNode) -> list[Decision]:
    """All objections to a copy of this shard on that node; none means yes. An assigned copy is asked about a move."""
    index = world.indices[copy.index]
    return [
        Decision(decider, verdict, explanation, node.name)
        for rule in _DECIDERS
        for decider, verdict, explanation in rule(world, index, copy, node)
    ]


def allowed(world: World, copy: Copy, node: SimNode) -> bool:
    """Whether `verdicts` would be empty. Asked most often of all, and mostly answered by the limit of recoveries."""
    index = world.indices[copy.index]
    return not any(True for rule in _LIKELIEST_FIRST for _ in rule(world, index, copy, node))


def immovable(world: World, copy: Copy) -> bool:
    """Whether there is an objection to the copy going anywhere, so that no node need be asked about."""
    index = world.indices[copy.index]
    return any(True for rule in _OF_COPY for _ in rule(world, index, copy))


def takes_none(world: World, node: SimNode) -> bool:
    """Whether there is an objection to any copy coming to the node."""
    return any(True for rule in _OF_NODE for _ in rule(world, node))


def unsuitable(world: World) -> Iterator[SimNode]:
    """The nodes on which `may_remain` objects to copies whatever their shard. Asked of all nodes at each reroute."""
    rules = world.in_force
    filters, high = rules.filters, rules.high_percent
    for node in world.nodes.values():
        if _used_percent(world, node, 0) > high or (filters and any(True for _ in _unfit("cluster", filters, node))):
            yield node


def may_remain(world: World, copy: Copy) -> list[Decision]:
    """Objections to the copy where it is: filters, too many in its zone, and a disk above its high watermark."""
    node = world.nodes[copy.node or ""]
    index = world.indices[copy.index]
    said = [*_filter(world, index, copy, node), *_awareness(world, index, copy, node)]
    if _used_percent(world, node, 0) > world.in_force.high_percent:
        said.append(("disk_threshold", "NO", "the node is above the high watermark"))
    return [Decision(decider, verdict, explanation, node.name) for decider, verdict, explanation in said]


def _data_role(world: World, node: SimNode) -> Iterator[Said]:
    del world
    if not node.holds_data:
        yield "data_tier", "NO", "the node holds no data"


def _same_shard(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del index
    for other in world.group(copy.group):
        if node.name in (other.node, other.target) and (other is not copy or other.node == node.name):
            yield "same_shard", "NO", f"a copy of this shard is already allocated to {node.name}"
            return


def _node_version(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    primary = world.primary(copy.group)
    if copy.primary:
        if copy.node is None:
            return
        source = world.nodes[copy.node]
        if node.release < source.release:
            yield "node_version", "NO", f"cannot relocate primary to {node.version} from a newer {source.version}"
        if index.settings.get("index.replication.type") == "SEGMENT" and node.release > source.release:
            older = [
                other
                for other in world.group(copy.group)
                if not other.primary and other.node is not None and world.nodes[other.node].release < node.release
            ]
            if older:
                yield "node_version", "NO", "a replica of this segment-replicated shard is on an older node"
    elif primary is not None and primary.node is not None and node.release < world.nodes[primary.node].release:
        newer = world.nodes[primary.node].version
        yield "node_version", "NO", f"cannot allocate replica to {node.version}: its primary is on a newer {newer}"


def _filter(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del copy
    yield from _unfit("cluster", world.in_force.filters, node)
    yield from _unfit("index", own_filters(index), node)


def _unfit(scope: str, filters: Filters, node: SimNode) -> Iterator[Said]:
    for kind, wanted in filters:
        keys = [key for key in wanted if not key.endswith("_tier_preference")]
        hits = [key for key in keys if _hit(node, key, wanted[key])]
        if kind == "exclude" and hits:
            yield "filter", "NO", f"node matches {scope} setting [{hits[0]}] filters [{wanted[hits[0]]}]"
        if kind == "include" and keys and not hits:
            yield "filter", "NO", f"node does not match {scope} setting [include] filters"
        if kind == "require" and len(hits) < len(keys):
            missed = next(key for key in keys if key not in hits)
            yield "filter", "NO", f"node does not match {scope} setting [{missed}] filters [{wanted[missed]}]"


def _hit(node: SimNode, key: str, value: str) -> bool:
    attribute = key.split(".", 1)[1]
    own = {
        "_id": node.node_id,
        "_name": node.name,
        "_ip": node.address,
        "_host": node.address,
        "zone": node.zone,
    }.get(attribute, "")
    words = [word.strip() for word in value.split(",") if word.strip()]
    if attribute == "_id":
        return own in words
    return any(fnmatchcase(own, word) for word in words)


def _awareness(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    attributes = [one for one in world.setting(AWARE_OF).split(",") if one]
    if "zone" not in attributes:
        return
    forced = {one for one in world.setting(FORCED_ZONES).split(",") if one}
    zones = forced | {one.zone for one in world.nodes.values() if one.up and one.holds_data}
    copies = index.replicas + 1
    most = math.ceil(copies / max(len(zones), 1))
    held = sum(
        world.nodes[place].zone == node.zone
        for other in world.group(copy.group)
        if other is not copy
        for place in [other.target or other.node]
        if place is not None
    )
    if held + 1 > most:
        yield (
            "awareness",
            "NO",
            f"there are [{copies}] copies of this shard and [{len(zones)}] zones, at most {most} each",
        )


def _shards_limit(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    limit = int(index.settings.get("index.routing.allocation.total_shards_per_node", "-1"))
    if limit > 0:
        held = sum(one.index == copy.index and one is not copy for one in world.placed_on(node.name))
        if held >= limit:
            yield "shards_limit", "NO", f"too many shards [{held}] of index [{copy.index}], limit: [{limit}]"
    whole = int(world.setting("cluster.routing.allocation.total_shards_per_node") or "-1")
    if 0 < whole <= len(world.placed_on(node.name)):
        yield "shards_limit", "NO", f"too many shards on the node, cluster limit: [{whole}]"


def _disk_threshold(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del copy
    low = world.in_force.low_percent
    used = _used_percent(world, node, index.copy_bytes)
    if used > low:
        yield "disk_threshold", "NO", f"the node would be {used:.1f}% full, above the low watermark of {low:g}%"


def _used_percent(world: World, node: SimNode, more_bytes: int) -> float:
    return 100 * (world.used_bytes(node) + more_bytes) / node.disk_bytes


def _enable(world: World, index: SimIndex, copy: Copy) -> Iterator[Said]:
    value = index.settings.get("index.routing.allocation.enable") or world.setting("cluster.routing.allocation.enable")
    if value == "none" or (value in {"primaries", "new_primaries"} and not copy.primary):
        yield "enable", "NO", f"allocations are restricted by [enable={value}]"


def _replica_after_primary(world: World, index: SimIndex, copy: Copy) -> Iterator[Said]:
    del index
    primary = world.primary(copy.group)
    if not copy.primary and (primary is None or not primary.serving):
        yield "replica_after_primary_active", "NO", "primary shard for this replica is not yet active"


def _snapshot(world: World, index: SimIndex, copy: Copy) -> Iterator[Said]:
    del index
    if copy.primary and copy.node is not None and copy.group in world.snapshotting:
        yield "snapshot_in_progress", "THROTTLE", "waiting for snapshotting of this shard to complete"


def _incoming(world: World, node: SimNode) -> Iterator[Said]:
    limit, _ = world.in_force.recovery_limits
    if sum(move.target == node.name for move in world.moves) >= limit:
        yield "throttling", "THROTTLE", f"reached the limit of incoming shard recoveries [{limit}]"


def _outgoing(world: World, index: SimIndex, copy: Copy) -> Iterator[Said]:
    del index
    _, limit = world.in_force.recovery_limits
    primary = world.primary(copy.group)
    if primary is not None and primary.node is not None and not (copy.primary and copy.node is None):
        busy = sum(move.source == primary.node for move in world.moves)
        if busy >= limit:
            yield "throttling", "THROTTLE", f"reached the limit of outgoing shard recoveries [{limit}]"
    if any(move.copy.group == copy.group for move in world.moves) and copy.state is CopyState.STARTED:
        yield "throttling", "THROTTLE", "another copy of this shard is being recovered"


def _cluster_filter(world: World, node: SimNode) -> Iterator[Said]:
    return _unfit("cluster", world.in_force.filters, node)


_Rule = Callable[["World", SimIndex, Copy, SimNode], Iterator[Said]]
_CopyRule = Callable[["World", SimIndex, Copy], Iterator[Said]]
_NodeRule = Callable[["World", SimNode], Iterator[Said]]


def _of_copy(rule: _CopyRule) -> _Rule:
    return lambda world, index, copy, _node: rule(world, index, copy)


def _of_node(rule: _NodeRule) -> _Rule:
    return lambda world, _index, _copy, node: rule(world, node)


_OF_COPY: tuple[_CopyRule, ...] = (_outgoing, _enable, _replica_after_primary, _snapshot)
_OF_NODE: tuple[_NodeRule, ...] = (_incoming, _data_role, _cluster_filter)
_DECIDERS: tuple[_Rule, ...] = (
    _of_node(_data_role),
    _same_shard,
    _node_version,
    _filter,
    _awareness,
    _shards_limit,
    _disk_threshold,
    _of_copy(_enable),
    _of_copy(_replica_after_primary),
    _of_copy(_snapshot),
    _of_node(_incoming),
    _of_copy(_outgoing),
)
_LIKELIEST_FIRST = tuple(reversed(_DECIDERS))
