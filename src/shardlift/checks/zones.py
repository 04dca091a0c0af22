"""What a change of zones makes of the forced zones, and the rule that every copy has a place at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from shardlift.checks.members import expected_data
from shardlift.checks.placement import items, replicas_needed
from shardlift.checks.subject import Subject, blocks, put_settings, some, warns
from shardlift.model import AWARE_OF, FORCED_ZONES, ClusterSettings, Finding, ForcedZones, IndexSeen, NodeSeen

_RULE = "zone_ceiling"


def forced_zones(subject: Subject) -> ForcedZones | None:
    """What the change of zones makes of the forced ones; None where there is none, or they stay as they are.

    All data nodes count, also those that do not move, and those that are not known to Shardlift.
    """
    settings = subject.seen.settings
    forced = items(settings.effective(FORCED_ZONES))
    if not subject.to_zones or not forced or "zone" not in items(settings.effective(AWARE_OF)):
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


def turns_aware(subject: Subject) -> bool:
    """Whether copies are kept apart by zone once the nodes are dealt over several: where they are not yet by anything,
    and all of them have a place even so. Only then, since the first node of a second zone would draw half of them."""
    return _may_turn(subject) and not_apart(_later(subject), subject.seen.indices) is None


def not_apart(nodes: Iterable[NodeSeen], indices: Iterable[IndexSeen]) -> str | None:
    """Why copies cannot be kept apart by zone on these nodes; None: they can."""
    data = [node for node in nodes if node.holds_data]
    zones = Counter(node.zone for node in data if node.zone is not None)
    if len(zones) <= 1:
        return f"data nodes are in {some(sorted(zones)) or 'no zone'} only"
    without = [node.name for node in data if node.zone is None]
    if without:
        return f"{some(without)} would take no copies, having no zone"
    for index in indices:
        copies = replicas_needed(index) + 1
        if index.primaries and _room(copies, zones, ()) < min(copies, len(data)):
            return f"{index.name} has {copies} copies of each shard, and only {_room(copies, zones, ())} would fit"
    return None


def _may_turn(subject: Subject) -> bool:
    return subject.spreads and not items(subject.seen.settings.effective(AWARE_OF))


def _later(subject: Subject) -> Iterator[NodeSeen]:
    """The members once they have moved. One that is out is brought back first, or there is no plan."""
    for node in subject.seen.nodes:
        zone = subject.to_zones.get(node.name)
        yield node if zone is None else replace(node, attributes={**node.attributes, "zone": zone})


def _awareness_told(subject: Subject) -> Finding:
    problem = not_apart(_later(subject), subject.seen.indices)
    return warns(
        _RULE,
        subject.cluster.name,
        reason=f"copies will not be kept apart by zone: {problem}"
        if problem
        else "copies will be kept apart by zone once all nodes have moved, and move once more for it",
        evidence=f"{AWARE_OF} is not set",
        remedy=f"where they are to be: mend that, and after the move {put_settings('persistent', AWARE_OF, 'zone')}"
        if problem
        else f"nothing is to be done; where they are not to be, after the move "
        f"{put_settings('persistent', AWARE_OF, None)}",
    )


def zone_ceiling(subject: Subject) -> Iterator[Finding]:
    """Once the nodes have changed zones, each shard's copies fit under the ceiling of copies in a zone.

    With awareness of zones a zone takes ceil(copies / zones) copies of a shard at most; the zones are those of the data
    nodes and the forced values, also those that no data node is in (AwarenessAllocationDecider). The list is judged as
    the task leaves it behind. What it makes of the list is told.
    """
    settings = subject.seen.settings
    if _may_turn(subject):
        yield _awareness_told(subject)
    if not subject.to_zones or "zone" not in items(settings.effective(AWARE_OF)):
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
