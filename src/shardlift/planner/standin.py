"""The extra master that votes while masters without data change zones: it joins first and goes last. Pure."""

from __future__ import annotations

from dataclasses import replace

from shardlift.checks import Subject
from shardlift.checks.members import roles
from shardlift.checks.subject import spare_prefix
from shardlift.checks.votes import moved_masters, stand_in_problem
from shardlift.model import Node, NodePlan, NodeSeen, Plan

_MASTERS = ("cluster_manager", "master")


def with_stand_in(plan: Plan, subject: Subject) -> Plan:
    """The plan with an extra master for all masters that change zones, each of which then goes alone.

    Of three masters one that is away leaves two, and the next failure ends all writes; with one more, three vote all
    the time. It is where the first of them goes to, which brings a vote to that zone before one leaves the old. None
    where the engine would not bear one more (`stand_in_problem`).
    """
    moved = moved_masters(subject)
    order = [node.name for node in plan.nodes if node.name in moved]
    if not order or stand_in_problem(subject) is not None:
        return plan
    # The same for any later task, which so finds what an earlier one has left. Tiers, in names of others, are numbers.
    name = f"{spare_prefix(subject.cluster)}master"
    zone = subject.to_zones[order[0]]

    def stood_in_for(node: NodePlan) -> NodePlan:
        first, last = node.name == order[0], node.name == order[-1]
        return replace(node, spare=name, spare_zone=zone, fills=name if first else None, empties_spare=last)

    batches: list[tuple[NodePlan, ...]] = []
    for batch in plan.batches:
        others = tuple(node for node in batch if node.name not in moved)
        batches += [others] if others else []
        batches += [(stood_in_for(node),) for node in batch if node.name in moved]
    return replace(plan, batches=tuple(batches))


def stand_in_roles(node: Node, member: NodeSeen | None) -> tuple[str, ...]:
    """The vote alone, in the word that the engine has for it on a node that votes already."""
    known = roles(node, member)
    return tuple(role for role in _MASTERS if role in known)[:1]
