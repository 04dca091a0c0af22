"""The lists of rules, and the two questions they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shardlift.checks import availability, hosts, settled
from shardlift.checks.subject import Subject
from shardlift.model import Finding

Rule = Callable[[Subject], Iterator[Finding]]

# Asked of the whole cluster before a task exists.
PLAN_RULES: tuple[Rule, ...] = (
    hosts.target_differs,
    hosts.version_hop_allowed,
    hosts.index_compatible,
    hosts.java_available,
    hosts.plugins_available,
    availability.nodes_present,
    settled.cluster_healthy,
    availability.data_nodes_minimum,
    availability.master_quorum,
    availability.last_started_copy,
    availability.copies_fit,
    hosts.disk_room,
    settled.voting_exclusions_clean,
    settled.allocation_enabled,
    settled.no_leftover_excludes,
    settled.no_running_snapshot,
    settled.indices_backed_up,
    settled.load_low,
)

# Asked of one node right before it is taken down (sub-step 1), when the plan rules that can change are asked again.
NODE_RULES: tuple[Rule, ...] = (
    availability.nodes_present,
    settled.cluster_healthy,
    availability.master_quorum,
    availability.last_started_copy,
    hosts.index_compatible,
    hosts.disk_room,
    settled.voting_exclusions_clean,
    settled.no_running_snapshot,
)


def check_plan(subject: Subject) -> tuple[Finding, ...]:
    """All findings about upgrading the whole cluster, in rule order."""
    return tuple(finding for rule in PLAN_RULES for finding in rule(subject))


def check_node(subject: Subject) -> tuple[Finding, ...]:
    """All findings about stopping `subject.node` at this moment, in rule order."""
    assert subject.node is not None, "the question is about one node"
    return tuple(finding for rule in NODE_RULES for finding in rule(subject))
