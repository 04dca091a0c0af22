"""How many votes a cluster can miss at once, as the engines count them.

Elasticsearch from 7.0 on and OpenSearch have a voting configuration: an odd number of master-eligible nodes (of six
five vote), of which a majority must answer whatever is decided. When some have left the elected master shrinks it to
those that are there, but that too is decided by a majority of the old one. So nodes that stop at the same moment count
against the configuration that is in force then, and those that stop one after the other do not.
"""

from __future__ import annotations

from collections.abc import Collection

from shardlift.checks.members import eligible, expected_masters, holds_data
from shardlift.checks.subject import Subject
from shardlift.model import Version

MINIMUM_MASTERS = "discovery.zen.minimum_master_nodes"

# After a batch has left, one more may fail, and the two others of three are a majority.
_STAY_MIN = 3
_FIRST_VOTING = (False, Version(7, 0, 0))
_SHRINK = "cluster.auto_shrink_voting_configuration"
_EXCLUSIONS_MAX, _EXCLUSIONS_DEFAULT = "cluster.max_voting_config_exclusions", 10


def lacks_voting(subject: Subject) -> bool:
    """Whether a member is Elasticsearch 6, which counts by `discovery.zen.minimum_master_nodes` instead."""
    return any(node.release < _FIRST_VOTING for node in subject.seen.nodes)


def masters_at_once(subject: Subject, there: Collection[str]) -> int:
    """How many of the master-eligible nodes that are there may be taken together; one, if no more may (rule of ECK).

    Those that stay must be a majority even if each node that goes has a vote, for who will have one by then nobody
    knows. And three of them must be electable (nodes that only vote are not), so that one more may fail once the
    configuration has shrunk. Where it does not shrink, or there is none, that cannot be had.

    Bounded too by how many exclusions from voting the engine takes: when one of the nodes is the elected master, the
    hand-over needs one for each.
    """
    if lacks_voting(subject) or subject.seen.settings.effective(_SHRINK) == "false":
        return 1
    voters = len(there) - (len(there) % 2 == 0)
    electable = len({*there} - _only_vote(subject))
    exclusions = subject.seen.settings.effective(_EXCLUSIONS_MAX) or ""
    most = int(exclusions) if exclusions.isdecimal() else _EXCLUSIONS_DEFAULT
    return max(min(voters // 2, electable - _STAY_MIN, most), 1)


def moved_masters(subject: Subject) -> frozenset[str]:
    """Names of the members without data that vote and are to change zones. Each is away meanwhile, with its vote.

    One that is out of the cluster is none: it is brought back before any other is stopped, and votes no less for it.
    """
    members = subject.seen.members
    return frozenset(
        node.name
        for node in subject.waiting
        if node.name in subject.to_zones
        and (member := members.get(node.name)) is not None
        and eligible(node, member)
        and not holds_data(node, member)
    )


def stand_in_problem(subject: Subject) -> str | None:
    """Why no extra master may join while masters change zones; None: one may.

    Elasticsearch 6 elects by a number that somebody has set. With one master more that number must still be a majority,
    or two halves of the cluster could each elect a master and both take writes.
    """
    if not lacks_voting(subject):
        return None
    value = subject.seen.settings.effective(MINIMUM_MASTERS)
    least = int(value) if value is not None and value.isdecimal() else 1
    masters = len(expected_masters(subject) - subject.spares) + 1
    if 2 * least > masters:
        return None
    return f"{MINIMUM_MASTERS} is {value or 'not set'}, of {masters} master-eligible nodes {masters // 2 + 1} must vote"


def _only_vote(subject: Subject) -> frozenset[str]:
    """Names of nodes with the role `voting_only` (Elasticsearch from 7.3 on)."""
    here = {member.name for member in subject.seen.nodes if "voting_only" in member.roles}
    return frozenset(here | {node.name for node in subject.out if "voting_only" in node.roles})
