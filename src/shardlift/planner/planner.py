"""The plan of an upgrade, or of anything else that takes nodes one by one."""

from __future__ import annotations

from collections.abc import Iterable

from shardlift.checks import Subject, check_batches, check_plan
from shardlift.checks.members import eligible, holds_data, tier
from shardlift.model import Finding, Node, NodePlan, NodeSeen, Observation, Plan, Severity, Strategy


def order_nodes(nodes: Iterable[Node], seen: Observation) -> tuple[Node, ...]:
    """The order to take the nodes in.

    First those that are out of the cluster: to repair one makes nothing worse. Then those that cannot be elected,
    tier by tier, and only then those that can: an older node may be refused by a newer master. Within a tier zone by
    zone, so that a zone with new nodes can soon hold the replicas that no older node may have. The zone of the elected
    master comes last, and it last of all, so that mastership moves once: every other candidate is new by then.
    """
    nodes = tuple(nodes)
    masters_node = next((node for node in nodes if node.name == seen.elected), None)
    zones = list(dict.fromkeys(node.zone for node in nodes))
    if masters_node is not None:
        zones.remove(masters_node.zone)
        zones.append(masters_node.zone)

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


def plan_upgrade(subject: Subject) -> tuple[Plan | None, tuple[Finding, ...]]:
    """The plan and all findings; no plan when a finding blocks.

    Nodes that run the image already are left out. Each batch is one node: at no time is more than one away, which is
    what the rules prove safe.
    """
    findings = check_plan(subject)
    plan = draft_plan(subject)
    nodes = {node.name: node for node in subject.cluster.nodes}
    findings += check_batches(subject, ((nodes[one.name] for one in batch) for batch in plan.batches))
    if any(finding.severity is Severity.BLOCK for finding in findings):
        return None, findings
    return plan, findings


def draft_plan(subject: Subject) -> Plan:
    """The plan as it would be if no rule objected: what the dry run walks."""
    members = {member.name: member for member in subject.seen.nodes}
    ordered = order_nodes(subject.taken, subject.seen)
    # A node that is repaired is no trial: nobody would wait with a node missing.
    first = next((node.name for node in ordered if node.name in members), None) if subject.canary else None
    return Plan(
        cluster_id=subject.cluster.id,
        strategy=subject.strategy,
        image_id=subject.image.id,
        batches=tuple(
            (_node_plan(node, members.get(node.name), subject, canary=node.name == first),) for node in ordered
        ),
    )


def _node_plan(node: Node, member: NodeSeen | None, subject: Subject, *, canary: bool) -> NodePlan:
    # A node without data has nothing to drain, and its data path holds the cluster state that lets it vote.
    with_data = holds_data(node, member)
    drains = subject.strategy is Strategy.DRAIN and with_data
    fresh = drains or (subject.unsaved and with_data)
    return NodePlan(
        node_id=node.id,
        name=node.name,
        from_version="" if member is None else str(member.version),
        fresh_data=fresh,
        # A canary is emptied in any case, so that nothing is missed while it waits for somebody's word.
        drained=member is not None and (drains or (canary and with_data)),
        rescued=member is not None and subject.strategy is Strategy.AUTO and with_data and not canary,
        repair=member is None,
        canary=canary,
        to_zone=subject.to_zones.get(node.name),
    )
