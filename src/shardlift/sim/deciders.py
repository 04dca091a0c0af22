"""May this copy be on that node? The engines' allocation deciders, each a function, as far as an upgrade meets them.

Sources: the classes of the same names in OpenSearch (`org.opensearch.cluster.routing.allocation.decider`) and the
documents on shard allocation of both engines. Nothing here is shared with `shardlift.allocation`, on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from shardlift.model import CopyState, Decision
from shardlift.sim.parts import Copy, SimIndex, SimNode

if TYPE_CHECKING:
    from shardlift.sim.world import World

Said = tuple[str, str, str]
"""Decider, NO or THROTTLE, explanation."""

_LOW_PERCENT, _HIGH_PERCENT = 85.0, 90.0
_FILTERS = ("require", "include", "exclude")


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


def may_remain(world: World, copy: Copy) -> list[Decision]:
    """Objections to the copy where it is: filters and a disk above its high watermark."""
    node = world.nodes[copy.node or ""]
    index = world.indices[copy.index]
    said = [*_filter(world, index, copy, node)]
    if _used_percent(world, node, 0) > _percent(world, "high", _HIGH_PERCENT):
        said.append(("disk_threshold", "NO", "the node is above the high watermark"))
    return [Decision(decider, verdict, explanation, node.name) for decider, verdict, explanation in said]


def _data_role(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del world, index, copy
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
    for scope, found in (("cluster", world.settings_under("cluster.routing.allocation.")), ("index", _own(index))):
        for kind in _FILTERS:
            wanted = {key: value for key, value in found.items() if key.startswith(f"{kind}.") and value}
            if not wanted:
                continue
            hits = [
                key for key, value in wanted.items() if not key.endswith("_tier_preference") and _hit(node, key, value)
            ]
            keys = [key for key in wanted if not key.endswith("_tier_preference")]
            if kind == "exclude" and hits:
                yield "filter", "NO", f"node matches {scope} setting [{hits[0]}] filters [{wanted[hits[0]]}]"
            if kind == "include" and keys and not hits:
                yield "filter", "NO", f"node does not match {scope} setting [include] filters"
            if kind == "require" and len(hits) < len(keys):
                missed = next(key for key in keys if key not in hits)
                yield "filter", "NO", f"node does not match {scope} setting [{missed}] filters [{wanted[missed]}]"


def _own(index: SimIndex) -> dict[str, str]:
    prefix = "index.routing.allocation."
    return {key[len(prefix) :]: value for key, value in index.settings.items() if key.startswith(prefix)}


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
    attributes = [one for one in world.setting("cluster.routing.allocation.awareness.attributes").split(",") if one]
    if "zone" not in attributes:
        return
    forced = {one for one in world.setting("cluster.routing.allocation.awareness.force.zone.values").split(",") if one}
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
    low = _percent(world, "low", _LOW_PERCENT)
    used = _used_percent(world, node, index.copy_bytes)
    if used > low:
        yield "disk_threshold", "NO", f"the node would be {used:.1f}% full, above the low watermark of {low:g}%"


def _percent(world: World, which: str, default: float) -> float:
    text = world.setting(f"cluster.routing.allocation.disk.watermark.{which}")
    return float(text.rstrip("%")) if text.endswith("%") else default


def _used_percent(world: World, node: SimNode, more_bytes: int) -> float:
    return 100 * (world.used_bytes(node) + more_bytes) / node.disk_bytes


def _enable(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del node
    value = index.settings.get("index.routing.allocation.enable") or world.setting("cluster.routing.allocation.enable")
    if value == "none" or (value in {"primaries", "new_primaries"} and not copy.primary):
        yield "enable", "NO", f"allocations are restricted by [enable={value}]"


def _replica_after_primary(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del index, node
    primary = world.primary(copy.group)
    if not copy.primary and (primary is None or not primary.serving):
        yield "replica_after_primary_active", "NO", "primary shard for this replica is not yet active"


def _snapshot(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del index, node
    if copy.primary and copy.node is not None and copy.group in world.snapshotting:
        yield "snapshot_in_progress", "THROTTLE", "waiting for snapshotting of this shard to complete"


def _throttling(world: World, index: SimIndex, copy: Copy, node: SimNode) -> Iterator[Said]:
    del index
    incoming, outgoing = world.recovery_limits()
    if sum(move.target == node.name for move in world.moves) >= incoming:
        yield "throttling", "THROTTLE", f"reached the limit of incoming shard recoveries [{incoming}]"
    primary = world.primary(copy.group)
    if primary is not None and primary.node is not None and not (copy.primary and copy.node is None):
        busy = sum(move.source == primary.node for move in world.moves)
        if busy >= outgoing:
            yield "throttling", "THROTTLE", f"reached the limit of outgoing shard recoveries [{outgoing}]"
    if any(move.copy.group == copy.group for move in world.moves) and copy.state is CopyState.STARTED:
        yield "throttling", "THROTTLE", "another copy of this shard is being recovered"


_DECIDERS: tuple[Callable[[World, SimIndex, Copy, SimNode], Iterator[Said]], ...] = (
    _data_role,
    _same_shard,
    _node_version,
    _filter,
    _awareness,
    _shards_limit,
    _disk_threshold,
    _enable,
    _replica_after_primary,
    _snapshot,
    _throttling,
)
_LIKELIEST_FIRST = tuple(reversed(_DECIDERS))
