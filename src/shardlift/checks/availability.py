"""Rules about what must stay up: members, quorum, and the last started copy of each shard."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.explain import left_behind
from shardlift.checks.leftovers import foreign_excludes
from shardlift.checks.members import expected_data, expected_masters
from shardlift.checks.subject import Subject, blocks, some, warns
from shardlift.checks.votes import MINIMUM_MASTERS, lacks_voting, moved_masters, stand_in_problem
from shardlift.model import Finding, Strategy

# The CSS contract: fewer data nodes than this cannot be upgraded through it (CSS.0074).
_DATA_NODES_MIN = 3
# With two masters the voting configuration holds one, and stopping that one halts the cluster (Reconfigurator).
_MASTERS_MIN = 3


def nodes_present(subject: Subject) -> Iterator[Finding]:
    """Every node of the cluster is a member, or is about to be repaired.

    A node that is out and still to be taken is taken before all others, so it does not forbid the plan. A node that is
    out and not to be taken nobody will bring back; and no healthy node goes while another one is missing.
    """
    repaired = {node.name for node in (subject.out if subject.repairing else subject.repairs)}
    for node in subject.out:
        if subject.node is not None and node.name in {subject.node.name, *subject.mates}:
            continue
        told, then = (warns, "it is taken first") if node.name in repaired else (blocks, "nothing else brings it back")
        yield told(
            "nodes_present",
            node.name,
            reason=f"the node is not a member of the cluster; {then}",
            evidence=f"{len(subject.seen.nodes)} members seen: {some(sorted(subject.seen.members)) or 'none'}",
            remedy=f"see its log and start it, until GET {node.url} answers and GET _cat/nodes lists it; try again",
        )


def members_known(subject: Subject) -> Iterator[Finding]:
    """Every member is a node that Shardlift knows: an unknown one is not upgraded, and stays old among the new."""
    known = {node.name for node in subject.cluster.nodes} | subject.spares
    for member in subject.seen.nodes:
        if member.name not in known:
            yield warns(
                "members_known",
                member.name,
                reason="a member of the cluster is not among the nodes that are upgraded",
                evidence=f"it runs {member.engine} {member.version} at {member.address}",
                remedy="upgrade it yourself, before the master-eligible nodes; or stop it if it is not wanted",
            )


def not_leaving(subject: Subject) -> Iterator[Finding]:
    """Nobody else is taking the node away already."""
    for node in subject.taken:
        if node.name in subject.seen.leaving:
            yield blocks(
                "not_leaving",
                node.name,
                reason="somebody has announced that the node is to shut down",
                evidence="GET _nodes/shutdown lists it",
                remedy="let that operation end, then DELETE _nodes/<node id>/shutdown, and try again",
            )
    member = None if subject.node is None else subject.seen.node(subject.node.name)
    if member is None:
        return
    for exclude in foreign_excludes(subject):
        if member.name in exclude.hit:
            yield blocks(
                "not_leaving",
                member.name,
                reason="somebody else is emptying the node",
                evidence=f"{exclude.key} holds {some(exclude.words)}",
                remedy=f"wait for the operation that set it, or {exclude.removal}",
            )


def data_nodes_minimum(subject: Subject) -> Iterator[Finding]:
    """At least three data nodes, so that with one away two copies of a shard still have different homes."""
    if subject.strategy is Strategy.SURGE:
        return  # the spare is there before any node goes; where copies go is asked by copies_fit and the dry run
    names = sorted(expected_data(subject))
    if len(names) < _DATA_NODES_MIN:
        yield blocks(
            "data_nodes_minimum",
            subject.cluster.name,
            reason=f"a rolling upgrade needs at least {_DATA_NODES_MIN} data nodes",
            evidence=f"{len(names)} known: {some(names) or 'none'}",
            remedy=f"add {_DATA_NODES_MIN - len(names)} data nodes first",
        )


def master_quorum(subject: Subject) -> Iterator[Finding]:
    """Enough master-eligible nodes that one may stop: of three voters two are a majority.

    Counted over all nodes, whatever group they are in. Only asked where a node to be taken is master-eligible itself.
    """
    if subject.seen.elected is None:
        yield blocks(
            "master_quorum",
            subject.cluster.name,
            reason="no elected master is known",
            evidence="the cluster state names none",
            remedy="wait for an election; see the nodes' logs when GET _cat/master names none within a minute",
        )
    masters = expected_masters(subject)
    if masters.isdisjoint(node.name for node in subject.taken):
        return
    if subject.strategy is Strategy.SURGE and subject.node is None and len(masters) == _MASTERS_MIN - 1:
        return  # the spare of the first node that votes will be the third; asked again when it is there
    if len(masters) < _MASTERS_MIN:
        yield blocks(
            "master_quorum",
            subject.cluster.name,
            reason=f"with fewer than {_MASTERS_MIN} master-eligible nodes, stopping one can halt the cluster",
            evidence=f"master-eligible nodes: {some(sorted(masters)) or 'none'}",
            remedy=f"add {_MASTERS_MIN - len(masters)} master-eligible nodes, before upgrading",
        )
        return
    yield from _votes_left(subject, masters)
    problem = stand_in_problem(subject) if subject.node is None and moved_masters(subject) else None
    if problem is not None:
        yield warns(
            "master_quorum",
            subject.cluster.name,
            reason="no extra master joins before the masters change zones: with it each half could elect one",
            evidence=problem,
            remedy="nothing is to be done: the masters go one at a time, and those that stay are a majority",
        )


def _votes_left(subject: Subject, masters: frozenset[str]) -> Iterator[Finding]:
    """Whether those that stay when the node and its mates stop can still elect, as far as the engine says how many it
    needs. They stop at the same moment, so all of them count against the configuration in force."""
    seen = subject.seen
    member = None if subject.node is None else seen.node(subject.node.name)
    going = frozenset() if subject.node is None else subject.mates | {subject.node.name}
    config = frozenset() if seen.voting is None else seen.voting.config_ids
    votes = {node.name for node in seen.nodes if node.id in config}
    if member is not None and votes & going:
        needed = len(config) // 2 + 1
        left = len(votes - going)
        told = f"{len(config)} nodes vote, {left} voters would stay"
    elif lacks_voting(subject) and not subject.repairing:
        value = seen.settings.effective(MINIMUM_MASTERS) or ""
        needed = int(value) if value.isdecimal() else 0
        here = {node.name for node in seen.nodes if node.master_eligible}
        left = len(masters) - 1 if subject.node is None else len(here - going)
        told = f"{MINIMUM_MASTERS} is {value}, {left} master-eligible nodes would stay"
    else:
        return
    if left < needed:
        yield blocks(
            "master_quorum",
            subject.cluster.name if member is None else member.name,
            reason="those that stay could not elect a master",
            evidence=told,
            remedy="start the master-eligible nodes that are away, or add some, then try again",
        )


def last_started_copy(subject: Subject) -> Iterator[Finding]:
    """No shard may lose its last STARTED copy (invariant 1).

    In place, every copy on a node needs a started one on another node. With drain that is asked at the moment the
    node is to stop, when what is left on it must have one. An initializing copy is none: it may never get there. A plan
    may count on a replica that waits for a node to be repaired, since that is done before any other node is taken.
    """
    if not subject.keeps_copies and subject.node is None:
        return
    groups = subject.seen.groups
    counts_on_repair = subject.node is None and bool(subject.repairs)
    for node in subject.taken:
        alone = sorted(
            {
                f"{copy.index}[{copy.shard}]"
                for copy in subject.seen.copies_on(node.name)
                if not any(
                    (other.serving and other.node not in {None, node.name, *subject.mates})
                    or (counts_on_repair and left_behind(other, groups[copy.group]))
                    for other in groups[copy.group]
                )
            }
        )
        if alone:
            yield only_copies(node.name, alone)


def only_copies(node: str, alone: list[str]) -> Finding:
    """The finding of `last_started_copy` about the shards `index[number]` that are started on that node alone."""
    index = alone[0].rpartition("[")[0]
    return blocks(
        "last_started_copy",
        node,
        reason=f"{len(alone)} shards have no other started copy",
        evidence=some(alone),
        remedy=f'PUT {index}/_settings {{"index.number_of_replicas": 1}} for each of these indices and wait '
        "for green, or use the strategy drain",
    )
