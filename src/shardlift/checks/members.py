"""What a node is for, also while it is out of the cluster and cannot say so itself."""

from __future__ import annotations

from shardlift.checks.subject import Subject
from shardlift.model import InstanceType, Node, NodeSeen

# Data moves from colder to warmer nodes only by policy, so a colder tier upgraded first never holds what an older,
# warmer node must still read (upgrade guide of Elasticsearch 8: frozen, cold, warm, hot, other data, then the rest).
TIERS = ("data_frozen", "data_cold", "data_warm", "data_hot")
_OTHER_DATA, _NO_DATA, _DEDICATED_MASTER = 4, 5, 6
_MASTER_ROLES = {"master", "cluster_manager"}
_ALL_ROLES = frozenset({"data", "ingest", "cluster_manager"})


def roles(node: Node, member: NodeSeen | None) -> frozenset[str]:
    """What the node says of itself, else what it was made with; none means the engine's default of everything."""
    if member is not None:
        return member.roles
    return frozenset(node.roles) or _ALL_ROLES


def eligible(node: Node, member: NodeSeen | None) -> bool:
    """Whether the node can be elected master."""
    return bool(roles(node, member) & _MASTER_ROLES)


def holds_data(node: Node, member: NodeSeen | None) -> bool:
    return any(role == "data" or role.startswith("data_") for role in roles(node, member))


def tier(node: Node, member: NodeSeen | None) -> int:
    """The place of the node's coldest tier: 0 frozen to 3 hot, 4 other data, 5 without data, 6 masters alone."""
    found = roles(node, member)
    if node.instance_type is InstanceType.COLD:
        return TIERS.index("data_cold")
    if not holds_data(node, member):
        return _DEDICATED_MASTER if node.instance_type is InstanceType.MASTER else _NO_DATA
    return next((at for at, name in enumerate(TIERS) if name in found), _OTHER_DATA)


def expected_data(subject: Subject) -> frozenset[str]:
    """Names of the data nodes: the members, known to Shardlift or not, and those that are out but should be there."""
    here = {member.name for member in subject.seen.nodes if member.holds_data}
    return frozenset(here | {node.name for node in subject.out if holds_data(node, None)})


def expected_masters(subject: Subject) -> frozenset[str]:
    """Names of the master-eligible nodes, counted in the same way."""
    here = {member.name for member in subject.seen.nodes if member.master_eligible}
    return frozenset(here | {node.name for node in subject.out if eligible(node, None)})
