"""The plan of an upgrade."""

from __future__ import annotations

from collections.abc import Iterable

from shardlift.checks import Subject, check_plan
from shardlift.model import Finding, InstanceType, Node, NodePlan, NodeSeen, Observation, Plan, Severity, Strategy

# Cold data before hot, clients after data, dedicated masters last: an older node may be refused by a newer master,
# and an index moves only to an equal or newer node (upgrade guides of both engines).
_TYPE_ORDER = {InstanceType.COLD: 0, InstanceType.ESS: 1, InstanceType.CLIENT: 2, InstanceType.MASTER: 3}


def order_nodes(nodes: Iterable[Node], seen: Observation) -> tuple[Node, ...]:
    """The order to take the nodes in.

    By type, then those that can not be elected before those that can, then as they stand; the elected master last of
    its type, so that mastership moves once: every other candidate runs the target version by then.
    """

    def rank(item: tuple[int, Node]) -> tuple[int, bool, bool, int]:
        position, node = item
        member = seen.node(node.name)
        eligible = member is not None and member.master_eligible
        return _TYPE_ORDER[node.instance_type], eligible, node.name == seen.elected, position

    return tuple(node for _, node in sorted(enumerate(nodes), key=rank))


def plan_upgrade(subject: Subject) -> tuple[Plan | None, tuple[Finding, ...]]:
    """The plan and all findings; no plan when a finding blocks.

    Nodes that run the image already are left out. Each batch is one node: at no time is more than one away, which is
    what the rules prove safe.
    """
    findings = check_plan(subject)
    if any(finding.severity is Severity.BLOCK for finding in findings):
        return None, findings
    members = {member.name: member for member in subject.seen.nodes}
    plan = Plan(
        cluster_id=subject.cluster.id,
        strategy=subject.strategy,
        image_id=subject.image.id,
        batches=tuple(
            (_node_plan(node, members, subject.strategy),) for node in order_nodes(subject.taken, subject.seen)
        ),
    )
    return plan, findings


def _node_plan(node: Node, members: dict[str, NodeSeen], strategy: Strategy) -> NodePlan:
    member = members[node.name]
    # A node without data has nothing to drain, and its data path holds the cluster state that lets it vote.
    fresh = strategy is Strategy.DRAIN and member.holds_data
    return NodePlan(node_id=node.id, name=node.name, from_version=str(member.version), fresh_data=fresh, drained=fresh)
