"""The lists of rules, and the questions they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from shardlift.checks import availability, disks, hosts, leftovers, order, placement, settled, zones
from shardlift.checks.subject import Subject
from shardlift.model import Finding, Node, TaskKind

Rule = Callable[[Subject], Iterator[Finding]]

# Asked of the whole cluster before a task exists.
PLAN_RULES: tuple[Rule, ...] = (
    hosts.target_differs,
    hosts.version_hop_allowed,
    hosts.index_compatible,
    hosts.java_available,
    hosts.plugins_available,
    availability.nodes_present,
    order.unavailable_budget,
    availability.members_known,
    availability.not_leaving,
    settled.cluster_healthy,
    settled.cluster_state_at_rest,
    availability.data_nodes_minimum,
    availability.master_quorum,
    availability.last_started_copy,
    placement.copies_fit,
    placement.closed_indices_replicated,
    placement.zones_present,
    zones.zone_ceiling,
    placement.shard_limit_room,
    disks.disk_room,
    disks.disk_watermarks,
    leftovers.no_archived_settings,
    leftovers.voting_exclusions_clean,
    leftovers.allocation_enabled,
    leftovers.no_leftover_excludes,
    settled.no_running_snapshot,
    settled.no_running_work,
    settled.indices_backed_up,
    settled.load_low,
    placement.dangling_indices,
    placement.searchable_snapshots,
)

# What only an upgrade asks: the others go to no other version, and their nodes come back with the same engine.
_UPGRADES_ONLY = frozenset({hosts.target_differs, hosts.version_hop_allowed})
# CSS wants three data nodes where all of them are emptied one after the other; a node alone asks where its copies go.
_THREE_NODES = frozenset({TaskKind.UPGRADING, TaskKind.AZ_MIGRATION})

# Asked of an order, batch by batch.
BATCH_RULES: tuple[Rule, ...] = (
    order.unavailable_budget,
    order.tier_order,
    order.one_master_at_a_time,
    order.last_old_master,
    order.no_shared_shards,
    order.tier_stays,
)

# Asked of one node right before it is taken down (sub-step 1), when the rules whose answer can change are asked again.
# The order is not: it was proven when it was made, and who is the elected master may have changed since.
NODE_RULES: tuple[Rule, ...] = (
    availability.nodes_present,
    order.unavailable_budget,
    availability.not_leaving,
    settled.cluster_healthy,
    settled.cluster_state_at_rest,
    availability.master_quorum,
    order.one_master_at_a_time,
    order.last_old_master,
    availability.last_started_copy,
    hosts.index_compatible,
    placement.closed_indices_replicated,
    disks.disk_room,
    disks.disk_watermarks,
    leftovers.no_archived_settings,
    leftovers.voting_exclusions_clean,
    settled.no_running_snapshot,
    settled.no_running_work,
)


def check_plan(subject: Subject) -> tuple[Finding, ...]:
    """All findings about upgrading the whole cluster, or about the chosen nodes, in rule order."""
    assert subject.node is None, "the question is about the whole cluster"
    return _ask(tuple(rule for rule in PLAN_RULES if _asked(rule, subject.kind)), subject)


def _asked(rule: Rule, kind: TaskKind) -> bool:
    if rule is availability.data_nodes_minimum:
        return kind in _THREE_NODES
    return kind is TaskKind.UPGRADING or rule not in _UPGRADES_ONLY


def check_node(subject: Subject) -> tuple[Finding, ...]:
    """All findings about stopping `subject.node` at this moment, in rule order."""
    assert subject.node is not None, "the question is about one node"
    return _ask(NODE_RULES, subject)


def check_batches(subject: Subject, batches: Iterable[Iterable[Node]]) -> tuple[Finding, ...]:
    """All findings about an order: the nodes of a batch together, the batches one after the other, in rule order.

    Nodes of `subject.taken` that are in no batch count as coming after all of them.
    """
    return _ask(BATCH_RULES, replace(subject, node=None, batches=tuple(tuple(batch) for batch in batches)))


def check_batch(subject: Subject, batch: Iterable[Node]) -> tuple[Finding, ...]:
    """All findings about taking these nodes together now, before any other."""
    return check_batches(subject, (batch,))


def _ask(rules: tuple[Rule, ...], subject: Subject) -> tuple[Finding, ...]:
    return tuple(finding for rule in rules for finding in rule(subject))
