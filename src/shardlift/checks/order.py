"""Rules about who goes with whom and after whom. They judge `Subject.batches`, or the one node in question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from shardlift.checks.members import TIERS, eligible, expected_masters, tier
from shardlift.checks.subject import Subject, blocks, some, warns
from shardlift.checks.votes import masters_at_once
from shardlift.model import EngineKind, Finding, Node

_TIER_NAMES = (*TIERS, "data", "without data", "masters alone")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Nodes taken together. `away`: those out of the cluster then; those of earlier batches are back."""

    nodes: tuple[Node, ...]
    away: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(node.name for node in self.nodes)

    @property
    def healthy(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.name not in self.away)

    def __str__(self) -> str:
        return some([node.name for node in self.nodes])


def _walk(subject: Subject) -> Iterator[_Batch]:
    away = {node.name for node in subject.out}
    together = () if subject.node is None else (subject.node, *_mates(subject))
    asked = subject.batches or ((together,) if together else ())
    for nodes in asked:
        yield _Batch(nodes, frozenset(away))
        away -= {node.name for node in nodes}


def _mates(subject: Subject) -> Iterator[Node]:
    return (node for node in subject.cluster.nodes if node.name in subject.mates)


def unavailable_budget(subject: Subject) -> Iterator[Finding]:
    """No healthy node is taken while as many as may be away are away already. An unhealthy one may always be mended.

    Of a whole plan it is asked how many are out now: they are taken first, but more than may be away is no state to
    begin in.
    """
    out = [node.name for node in subject.out]
    if not subject.batches and subject.node is None and len(out) > subject.budget:
        yield _too_many(subject, subject.cluster.name, f"not members: {some(out)}")
    for batch in _walk(subject):
        others = sorted(batch.away - batch.names)
        if batch.healthy and len(others) + len(batch.nodes) > subject.budget:
            told = f"{len(batch.nodes)} taken together; not members: {some(others) or 'none'}"
            yield _too_many(subject, str(batch), told)


def _too_many(subject: Subject, whom: str, evidence: str) -> Finding:
    return blocks(
        "unavailable_budget",
        whom,
        reason=f"more nodes than may be, {subject.budget}, would be away at once",
        evidence=evidence,
        remedy="start the nodes that are away, until GET _cat/nodes lists them, and take fewer at once; then try again",
    )


def tier_order(subject: Subject) -> Iterator[Finding]:
    """Colder tiers go first, among those that can be elected and among those that cannot.

    A node that is repaired, and the elected master, which goes last of all, have a place of their own.
    """
    seen = subject.seen
    placed = {
        node.name: (eligible(node, member), tier(node, member))
        for node in subject.waiting
        if (member := seen.node(node.name)) is not None and node.name != seen.elected
    }
    left = Counter(placed.values())
    for batch in _walk(subject):
        mine = [placed[node.name] for node in batch.nodes if node.name in placed]
        left.subtract(mine)
        for can_lead, at in sorted(set(mine)):
            colder = [one for (leads, one), count in left.items() if leads is can_lead and one < at and count > 0]
            if colder:
                yield blocks(
                    "tier_order",
                    str(batch),
                    reason="nodes of a colder tier are still to come, and must go first",
                    evidence=f"these are {_TIER_NAMES[at]}, nodes of {_TIER_NAMES[min(colder)]} still wait",
                    remedy="take the nodes of the colder tier first; an order left to Shardlift does so",
                )


def one_master_at_a_time(subject: Subject) -> Iterator[Finding]:
    """At most one master-eligible node of a batch, or as many as the others can do without; and a healthy one only
    while all others are there."""
    masters = expected_masters(subject)
    most = masters_at_once(subject, masters)
    for batch in _walk(subject):
        mine = [node.name for node in batch.nodes if node.name in masters]
        missing = sorted((batch.away & masters) - batch.names)
        too_many = len(mine) > (1 if missing else most)
        if too_many or (missing and any(node.name in masters for node in batch.healthy)):
            yield blocks(
                "one_master_at_a_time",
                str(batch),
                reason="more master-eligible nodes would be away than the others can do without",
                evidence=f"taken: {some(mine)}; away already: {some(missing) or 'none'}; "
                f"of {len(masters)} at most {1 if missing else most} may be away",
                remedy="start those that are away, and take fewer master-eligible nodes at once",
            )


def last_old_master(subject: Subject) -> Iterator[Finding]:
    """The last old master-eligible node waits for all other old nodes: a newer master may refuse an older node."""
    members = subject.seen.members
    target = subject.image.engine is EngineKind.OPENSEARCH, subject.image.version
    old = {
        node.name: eligible(node, members.get(node.name))
        for node in subject.waiting
        if node.name not in members or members[node.name].release < target
    }
    masters, others = sum(old.values()), len(old) - sum(old.values())
    for batch in _walk(subject):
        mine = [old[name] for name in batch.names if name in old]
        masters, others = masters - sum(mine), others - (len(mine) - sum(mine))
        if any(mine) and not masters and others:
            yield blocks(
                "last_old_master",
                str(batch),
                reason="it is the last old master-eligible node, and old nodes that are not are still to come",
                evidence=f"{others} old nodes without mastership still wait",
                remedy="take the nodes that are not master-eligible first; an order left to Shardlift does so",
            )


def no_shared_shards(subject: Subject) -> Iterator[Finding]:
    """No two nodes of one batch hold copies of the same shard.

    A shard that has a copy on every data node is shared by all; it must keep a started copy outside.
    """
    everywhere = {index.name for index in subject.seen.indices if index.expands_to_all}
    for batch in _walk(subject):
        if len(batch.nodes) < 2:  # noqa: PLR2004  # sharing takes two
            continue
        count = Counter(copy.group for node in batch.nodes for copy in subject.seen.copies_on(node.name))
        twice = [group for group, number in count.items() if number > 1]
        shared = [group for group in twice if not (group[0] in everywhere and _served_outside(subject, batch, group))]
        if shared:
            yield blocks(
                "no_shared_shards",
                str(batch),
                reason=f"{len(shared)} shards have copies on more than one of them",
                evidence=some([f"{index}[{shard}]" for index, shard in sorted(shared)]),
                remedy="take these nodes one after the other",
            )


def _served_outside(subject: Subject, batch: _Batch, group: tuple[str, int]) -> bool:
    return any(copy.serving and copy.node not in batch.names for copy in subject.seen.groups[group])


def tier_stays(subject: Subject) -> Iterator[Finding]:
    """No batch takes all nodes of a tier. A tier of one node cannot but be away for a while, which is told."""
    members = subject.seen.members
    held: dict[str, set[str]] = {}
    for member in subject.seen.nodes:
        for role in member.roles:
            if role == "data" or role.startswith("data_"):
                held.setdefault(role, set()).add(member.name)
    for batch in _walk(subject):
        roles = {role for node in batch.healthy if node.name in members for role in members[node.name].roles}
        for role in sorted(roles & held.keys()):
            if held[role] <= batch.names:
                told = warns if len(batch.nodes) == 1 else blocks
                yield told(
                    "tier_stays",
                    str(batch),
                    reason=f"no node with the role {role} would be left meanwhile",
                    evidence=f"nodes with it: {some(sorted(held[role]))}",
                    remedy=f"add a node with the role {role}, or take these one after the other",
                )
