"""The order in which nodes are taken, and which of them are taken together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from shardlift.checks import Subject, check_batches
from shardlift.checks.members import eligible, expected_data, expected_masters, tier
from shardlift.checks.votes import masters_at_once
from shardlift.model import Node, Observation, Severity

Batches = tuple[tuple[Node, ...], ...]


def order_nodes(nodes: Iterable[Node], seen: Observation) -> tuple[Node, ...]:
    """The order to take the nodes in.

    First those that are out of the cluster: to repair one makes nothing worse. Then those that cannot be elected,
    tier by tier, and only then those that can: an older node may be refused by a newer master. Within a tier zone by
    zone, so that a zone with new nodes can soon hold the replicas that no older node may have. The zone of the elected
    master comes last, and it last of all, so that mastership moves once: every other candidate is new by then.
    """
    nodes = tuple(nodes)
    masters_node = next((node for node in nodes if node.name == seen.elected), None)
    zones = _zones_in_order(nodes, masters_node)

    def rank(item: tuple[int, Node]) -> tuple[bool, bool, bool, int, int, int]:
        position, node = item
        member = seen.node(node.name)
        return (
            member is not None,
            eligible(node, member),
            node is masters_node,
            tier(node, member),
            zones.index(node.zone),
            position,
        )

    return tuple(node for _, node in sorted(enumerate(nodes), key=rank))


def make_batches(subject: Subject) -> Batches:
    """The nodes to be taken in order, as many together as is allowed and proven safe.

    Together are only nodes of one zone and tier that keep their data, of which no two have copies of one shard, up to
    `batch_size` and to half of the data nodes; of those that can be elected one, or as many as the others can do
    without. Should a rule object to such an order all the same, each node goes alone.
    """
    singles = tuple((node,) for node in order_nodes(subject.taken, subject.seen))
    limit = min(subject.batch_size, len(expected_data(subject)) // 2)
    if limit < 2 or not subject.strategy.keeps_data or subject.unsaved:  # noqa: PLR2004  (two make a batch)
        return singles
    batches = _grouped(subject, limit)
    found = check_batches(replace(subject, budget=limit), batches)
    return singles if any(finding.severity is Severity.BLOCK for finding in found) else batches


def _grouped(subject: Subject, limit: int) -> Batches:
    seen, members = subject.seen, subject.seen.members
    # A shard with a copy on every data node is on any two of them; the rule looks whether one stays outside.
    everywhere = {index.name for index in seen.indices if index.expands_to_all}
    # Those that are out are repaired before, so all are there when the first batch goes.
    masters = masters_at_once(subject, expected_masters(subject))
    batches: list[list[Node]] = []
    held: set[tuple[str, int]] = set()
    alone = True
    for node in _zone_by_zone(subject):
        mine = {copy.group for copy in seen.copies_on(node.name) if copy.index not in everywhere}
        last = batches[-1] if batches else []
        repair = node.name not in members
        fits = (
            not (alone or repair)
            and len(last) < limit
            and _alike(subject, last[0], node)
            and not mine & held
            and sum(_can_lead(subject, one) for one in (*last, node)) <= masters
        )
        if fits:
            last.append(node)
            held |= mine
        else:
            batches.append([node])
            held = mine
        # A canary is the first node that is not repaired, and goes alone; so does each node that is repaired.
        alone = repair or (subject.canary and all(one.name not in members for batch in batches[:-1] for one in batch))
    return tuple(tuple(batch) for batch in batches)


def _zone_by_zone(subject: Subject) -> list[Node]:
    """Tier by tier and in each zone by zone; in a zone first those that cannot be elected.

    The elected master comes last of all, whatever its tier, after those of its zone and tier that can be elected: so
    these can be its batch. They stay in their tier's place when a warmer tier has nodes that can be elected.
    """
    seen = subject.seen
    nodes = subject.taken
    masters_node = next((node for node in nodes if node.name == seen.elected), None)
    zones = _zones_in_order(nodes, masters_node)
    places = {node.name: _place(subject, node) for node in nodes}
    warmest = max((tier for can_lead, tier, _ in places.values() if can_lead), default=0)
    last = None if masters_node is None else places[masters_node.name]

    def rank(node: Node) -> tuple[bool, bool, bool, int, int, bool]:
        can_lead, at, zone = place = places[node.name]
        return (
            seen.node(node.name) is not None,
            node is masters_node or (place == last and at == warmest),
            node is masters_node,
            at,
            zones.index(zone),
            can_lead,
        )

    return sorted(nodes, key=rank)


def _place(subject: Subject, node: Node) -> tuple[bool, int, str]:
    """Whether it can be elected, its tier, and its zone."""
    return _can_lead(subject, node), tier(node, subject.seen.node(node.name)), node.zone


def _zones_in_order(nodes: Iterable[Node], masters_node: Node | None) -> list[str]:
    """As they come, that of the elected master last."""
    zones = list(dict.fromkeys(node.zone for node in nodes))
    if masters_node is not None:
        zones.remove(masters_node.zone)
        zones.append(masters_node.zone)
    return zones


def _alike(subject: Subject, one: Node, other: Node) -> bool:
    members = subject.seen.members
    return one.zone == other.zone and tier(one, members[one.name]) == tier(other, members[other.name])


def _can_lead(subject: Subject, node: Node) -> bool:
    return eligible(node, subject.seen.node(node.name))
