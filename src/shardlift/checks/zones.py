"""What a change of zones makes of the forced zones, and the rule that every copy has a place at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from shardlift.checks.members import expected_data
from shardlift.checks.placement import items, replicas_needed
from shardlift.checks.subject import Subject, blocks, some, warns
from shardlift.model import AWARENESS, FORCED_ZONES, ClusterSettings, Finding, ForcedZones

_RULE = "zone_ceiling"


def forced_zones(subject: Subject) -> ForcedZones | None:
    """What the change of zones makes of the forced ones; None where there is none, or they stay as they are.

    All data nodes count, also those that do not move, and those that are not known to Shardlift.
    """
    settings = subject.seen.settings
    forced = items(settings.effective(FORCED_ZONES))
    if not subject.to_zones or not forced or "zone" not in items(settings.effective(f"{AWARENESS}attributes")):
        return None
    before, after = _nodes_by_zone(subject, {}), _nodes_by_zone(subject, subject.to_zones)
    emptied = tuple(zone for zone in forced if zone in before and zone not in after)
    filled = tuple(zone for zone in sorted(after) if zone not in before and zone not in forced)
    set_by_request = FORCED_ZONES in settings.persistent or FORCED_ZONES in settings.transient
    if not emptied and not filled:
        return None
    return ForcedZones(emptied, filled, () if set_by_request else tuple(forced))


def held_settings(subject: Subject) -> ClusterSettings:
    """The settings as they will be while nodes are taken."""
    settings = subject.seen.settings
    change = forced_zones(subject)
    if change is None:
        return settings
    held = ",".join(change.during(items(settings.effective(FORCED_ZONES))))
    layer = "transient" if FORCED_ZONES in settings.transient else "persistent"
    return replace(settings, **{layer: {**settings.layer(layer), FORCED_ZONES: held}})


def zone_ceiling(subject: Subject) -> Iterator[Finding]:
    """Once the nodes have changed zones, each shard's copies fit under the ceiling of copies in a zone.

    With awareness of zones a zone takes ceil(copies / zones) copies of a shard at most; the zones are those of the data
    nodes and the forced values, also those that no data node is in (AwarenessAllocationDecider). The list is judged as
    the task leaves it behind. What it makes of the list is told.
    """
    settings = subject.seen.settings
    if not subject.to_zones or "zone" not in items(settings.effective(f"{AWARENESS}attributes")):
        return
    forced = items(settings.effective(FORCED_ZONES))
    before, after = _nodes_by_zone(subject, {}), _nodes_by_zone(subject, subject.to_zones)
    change = forced_zones(subject)
    final = forced if change is None else change.after(forced, after)
    for index in subject.seen.indices:
        copies = replicas_needed(index) + 1
        room = _room(copies, after, final)
        if not index.primaries or room >= min(copies, _room(copies, before, forced)):
            continue
        zones = len(after.keys() | {*final})
        yield blocks(
            _RULE,
            index.name,
            reason=f"after the move only {room} of the {copies} copies of each shard have a place",
            evidence=f"{zones} zones, counting forced ones without a node, take {-(-copies // zones)} of {copies} "
            f"copies each; data nodes will be in {some(sorted(after))}",
            remedy=f'PUT {index.name}/_settings {{"index.number_of_replicas": {max(room - 1, 0)}}}, or move to a '
            "zone with nodes enough",
        )
    if change is not None:
        yield warns(
            _RULE,
            subject.cluster.name,
            reason=f"the forced zones will be {','.join(change.during(forced)) or 'none'} during the move and "
            f"{','.join(final)} after it",
            evidence=f"{FORCED_ZONES} is {','.join(forced)}; data nodes will be in {some(sorted(after))}",
            remedy="nothing is to be done: it is put back as it is now when the task fails or is aborted",
        )


def _nodes_by_zone(subject: Subject, to_zones: Mapping[str, str]) -> Counter[str]:
    """Data nodes in each zone, those that are out where they were."""
    zone = {node.name: node.zone for node in subject.cluster.nodes}
    zone |= {node.name: node.zone for node in subject.seen.nodes if node.zone}
    return Counter(to_zones.get(name, zone[name]) for name in expected_data(subject) if name in zone)


def _room(copies: int, nodes: Mapping[str, int], forced: Iterable[str]) -> int:
    """How many copies of one shard have a place."""
    ceiling = -(-copies // max(len(nodes.keys() | {*forced}), 1))
    return sum(min(count, ceiling) for count in nodes.values())
