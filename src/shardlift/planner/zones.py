"""Which nodes change to which zone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from shardlift.model import InstanceType, Node


def spread(nodes: Iterable[Node], zones: Sequence[str]) -> Mapping[str, str]:
    """Name to new zone of the nodes that must move so that each type's nodes are dealt evenly over `zones`.

    As few move as can be: a node stays where its zone is wanted and not yet full. Zones that hold more nodes now may
    hold the odd one, and nodes that move go to the emptiest zone, the earlier named one first.
    """
    nodes = tuple(nodes)
    return {
        name: zone
        for instance_type in InstanceType
        for name, zone in _spread([node for node in nodes if node.instance_type is instance_type], zones).items()
    }


def _spread(nodes: Sequence[Node], zones: Sequence[str]) -> dict[str, str]:
    least, odd = divmod(len(nodes), len(zones))
    now = Counter(node.zone for node in nodes)
    fullest = sorted(zones, key=lambda zone: (-now[zone], zones.index(zone)))
    quota = {zone: least + (at < odd) for at, zone in enumerate(fullest)}
    held: Counter[str] = Counter()
    movers = []
    for node in nodes:
        if held[node.zone] < quota.get(node.zone, 0):
            held[node.zone] += 1
        else:
            movers.append(node)
    moves = {}
    for node in movers:
        zone = min((zone for zone in zones if held[zone] < quota[zone]), key=lambda one: (held[one], zones.index(one)))
        held[zone] += 1
        moves[node.name] = zone
    return moves
