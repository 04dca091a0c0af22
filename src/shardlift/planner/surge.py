"""Which spare node stands in for which nodes, and how each spare ends. Pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from shardlift.checks import Subject
from shardlift.checks.members import expected_masters, tier
from shardlift.checks.subject import spare_prefix
from shardlift.model import AWARE_OF, Node, NodePlan, Plan

_MASTERS = frozenset({"master", "cluster_manager"})
# So many master-eligible nodes let one stop; with fewer a spare must be one, too.
_MASTERS_MIN = 3


def with_spares(plan: Plan, subject: Subject) -> Plan:
    """The plan with a spare for each run of emptied nodes whose copies may stand in for each other's.

    What leaves the first node goes to the spare, what leaves the next one to the first, fresh by then. A run is of one
    tier, and of one zone where awareness spreads copies by any attribute: a node may not hold for another zone. Nodes
    without data, and nodes that are repaired, have none.

    The last node of a run takes over the spare's folder, which moves no byte. That is as if it were restarted in place,
    so each shard needs another copy; and a spare that votes cannot be away with it. Otherwise the copies move.
    """
    nodes = {node.name: node for node in subject.cluster.nodes}
    aware = bool(subject.seen.settings.effective(AWARE_OF))
    copied = bool(subject.seen.shards) and all(len(copies) > 1 for copies in subject.seen.groups.values())
    takes_over = copied and not needs_master(subject)

    def run(node: NodePlan) -> str | None:
        return _spare_of(nodes[node.name], subject, aware=aware) if node.drained else None

    batches: list[tuple[NodePlan, ...]] = []
    for spare, found in groupby((node for batch in plan.batches for node in batch), key=run):
        members = list(found)
        for before, node in zip((None, *members), members, strict=False):
            last = spare is not None and node is members[-1]
            # A canary comes back without copies, and waits.
            over = takes_over and not node.canary
            fills = None if spare is None else spare if before is None else before.name
            changed = replace(node, spare=spare, fills=fills, takes_over=last and over)
            batches.append((replace(changed, empties_spare=last and not over),))
    return replace(plan, batches=tuple(batches))


def needs_master(subject: Subject) -> bool:
    """Whether a spare has to be master-eligible: nodes that are taken vote, and too few others do."""
    masters = expected_masters(subject) - subject.spares
    return 1 < len(masters) < _MASTERS_MIN and any(node.name in masters for node in subject.taken)


def spare_roles(first: Node, *, votes: bool) -> tuple[str, ...]:
    """Roles of a spare that stands in for `first`, in the engine's words: the same, without the vote."""
    if votes:
        return first.roles
    return tuple(role for role in first.roles if role not in _MASTERS) or ("data", "ingest")


def spare_nodes(plan: Plan, subject: Subject) -> tuple[Node, ...]:
    """The spares of the plan that take copies, for the dry run: where they will listen is not known yet."""
    nodes = {node.name: node for node in subject.cluster.nodes}
    found: dict[str, Node] = {}
    for planned in plan.nodes:
        if planned.spare is not None and planned.spare not in found and not planned.stands_in:
            first = nodes[planned.name]
            roles = spare_roles(first, votes=needs_master(subject))
            found[planned.spare] = replace(first, id="", name=planned.spare, roles=roles, address="")
    return tuple(found.values())


def _spare_of(node: Node, subject: Subject, *, aware: bool) -> str:
    """A name that is the same for a later task, which so finds the spare that an earlier one has left."""
    member = subject.seen.node(node.name)
    level = tier(node, member)
    zones = f"-{node.zone}" if aware else ""
    return f"{spare_prefix(subject.cluster)}{level}{zones}"
