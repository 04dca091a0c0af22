"""The rule about a change of zones: whether the zones that there will be have room for every copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from shardlift.checks.members import expected_data
from shardlift.checks.placement import AWARENESS, items, replicas_needed
from shardlift.checks.subject import Subject, blocks, put_settings, some, warns
from shardlift.model import Finding

_RULE = "zone_ceiling"
_KEY = f"{AWARENESS}force.zone.values"


def zone_ceiling(subject: Subject) -> Iterator[Finding]:
    """Once the nodes have changed zones, each shard's copies fit under the ceiling of copies in a zone.

    With awareness of zones a zone takes ceil(copies / zones) copies of a shard at most; the zones are those of the data
    nodes and the forced values, also those that no data node is in any more (AwarenessAllocationDecider). So a forced
    value that is left behind costs room for good.
    """
    settings = subject.seen.settings
    if not subject.to_zones or "zone" not in items(settings.effective(f"{AWARENESS}attributes")):
        return
    forced = items(settings.effective(_KEY))
    before, after = _nodes_by_zone(subject, {}), _nodes_by_zone(subject, subject.to_zones)
    emptied = [zone for zone in forced if zone in before and zone not in after]
    kept = [zone for zone in forced if zone not in emptied]
    layer = "transient" if _KEY in settings.transient else "persistent"
    whole = ",".join(dict.fromkeys((*kept, *(zone for zone in after if zone not in before))))
    shorten = (
        f"before the move {put_settings(layer, _KEY, ','.join(kept) or None)}, after it "
        f"{put_settings(layer, _KEY, whole or None)}"
    )
    short = False
    for index in subject.seen.indices:
        copies = replicas_needed(index) + 1
        room = _room(copies, after, forced)
        if not index.primaries or room >= min(copies, _room(copies, before, forced)):
            continue
        short = True
        zones = len(after.keys() | {*forced})
        helped = _room(copies, after, kept) >= copies
        yield blocks(
            _RULE,
            index.name,
            reason=f"after the move only {room} of the {copies} copies of each shard have a place",
            evidence=f"{zones} zones, counting forced ones without a node, take {-(-copies // zones)} of {copies} "
            f"copies each; data nodes will be in {some(sorted(after))}",
            remedy=shorten
            if emptied and helped
            else f'PUT {index.name}/_settings {{"index.number_of_replicas": {max(room - 1, 0)}}}, or move to a '
            "zone with nodes enough",
        )
    if emptied and not short:
        yield warns(
            _RULE,
            subject.cluster.name,
            reason=f"copies stay reserved for {some(emptied)}, where no data node will be",
            evidence=f"{_KEY} is {','.join(forced)}; data nodes will be in {some(sorted(after))}",
            remedy=shorten,
        )


def _nodes_by_zone(subject: Subject, to_zones: Mapping[str, str]) -> Counter[str]:
    """Data nodes in each zone, those that are out where they were."""
    zone = {node.name: node.zone for node in subject.cluster.nodes}
    zone |= {node.name: node.zone for node in subject.seen.nodes if node.zone}
    return Counter(to_zones.get(name, zone[name]) for name in expected_data(subject) if name in zone)


def _room(copies: int, nodes: Mapping[str, int], forced: list[str]) -> int:
    """How many copies of one shard have a place."""
    ceiling = -(-copies // max(len(nodes.keys() | {*forced}), 1))
    return sum(min(count, ceiling) for count in nodes.values())
