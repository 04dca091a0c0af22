"""The plan of an upgrade, or of anything else that takes nodes one by one."""

from __future__ import annotations

from dataclasses import replace

from shardlift.checks import Subject, check_batches, check_plan, forced_zones, turns_aware
from shardlift.checks.members import holds_data
from shardlift.model import Finding, Node, NodePlan, NodeSeen, Plan, Severity, Strategy
from shardlift.planner.batches import make_batches
from shardlift.planner.standin import with_stand_in
from shardlift.planner.surge import with_spares


def plan_upgrade(subject: Subject) -> tuple[Plan | None, tuple[Finding, ...]]:
    """The plan and all findings; no plan when a finding blocks.

    Nodes that run the image already are left out. Unless the subject allows larger batches, each is one node: at no
    time is more than one away, which is what the rules prove safe.
    """
    findings = check_plan(subject)
    plan = draft_plan(subject)
    nodes = {node.name: node for node in subject.cluster.nodes}
    batches = tuple(tuple(nodes[one.name] for one in batch) for batch in plan.batches)
    findings += check_batches(replace(subject, budget=max(map(len, batches), default=1)), batches)
    if any(finding.severity is Severity.BLOCK for finding in findings):
        return None, findings
    return plan, findings


def draft_plan(subject: Subject) -> Plan:
    """The plan as it would be if no rule objected: what the dry run walks."""
    members = {member.name: member for member in subject.seen.nodes}
    batches = make_batches(subject)
    # A node that is repaired is no trial: nobody would wait with a node missing.
    ordered = (node.name for batch in batches for node in batch)
    first = next((name for name in ordered if name in members), None) if subject.canary else None
    plan = Plan(
        cluster_id=subject.cluster.id,
        strategy=subject.strategy,
        image_id=subject.image.id,
        batches=tuple(
            tuple(_node_plan(node, members.get(node.name), subject, canary=node.name == first) for node in batch)
            for batch in batches
        ),
        forced=forced_zones(subject),
        aware=turns_aware(subject),
    )
    return with_stand_in(with_spares(plan, subject) if subject.strategy is Strategy.SURGE else plan, subject)


def _node_plan(node: Node, member: NodeSeen | None, subject: Subject, *, canary: bool) -> NodePlan:
    # A node without data has nothing to drain, and its data path holds the cluster state that lets it vote.
    with_data = holds_data(node, member)
    drains = subject.strategy.empties and with_data
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
