"""Copies that can go nowhere: why, and what to do about it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from shardlift.allocation import Chooser, Copy, Place, State, objections
from shardlift.checks import Subject
from shardlift.checks.subject import blocks, put_settings, warns
from shardlift.model import Decision, Finding, IndexSeen
from shardlift.model.forecast import Forecast, Stuck

RULE = "drain_can_end"
_FINDINGS_MAX = 20
_SHARDS_MAX = 10
# Nodes asked about a copy: all of them for the first so many copies, then a few.
_ASKED_IN_FULL_MAX = 100
_ASKED_NODES = 32
# Where several deciders object alike, the one that is easiest to do something about is named first.
_EASIEST = (
    "enable",
    "closed_index",
    "filter",
    "shards_limit",
    "data_tier",
    "awareness",
    "disk_threshold",
    "data_role",
    "node_version",
    "replica_after_primary_active",
    "same_shard",
)


@dataclass(slots=True)
class _Entry:
    decisions: tuple[Decision, ...]
    copies: int = 0
    shards: list[int] = field(default_factory=list)


class Obstacles:
    """Collects stuck copies by index, node and decider, so that a hundred thousand of them are told in a few words."""

    def __init__(self, state: State, chooser: Chooser) -> None:
        self._state, self._chooser = state, chooser
        self._entries: dict[tuple[str, str, str, bool], _Entry] = {}
        self._known: dict[tuple[str, str, bool, bool], str] = {}
        self._asked = 0

    def add(self, copy: Copy, place: Place, *, held: bool) -> None:
        index = copy.group.index.name
        # Copies of an index that leave one node in one role are held back by the same decider, as far as it matters.
        alike = (index, place.name, held, copy.primary)
        decider = self._known.get(alike)
        if decider is None:
            said = self._ask(copy)
            decider = self._known[alike] = _chief(said)
            self._entries.setdefault((index, place.name, decider, held), _Entry(_summary(said)))
        entry = self._entries[index, place.name, decider, held]
        entry.copies += 1
        if len(entry.shards) < _SHARDS_MAX:
            entry.shards.append(copy.group.shard)

    def _ask(self, copy: Copy) -> list[tuple[Decision, ...]]:
        """Each open node's objections to the copy."""
        self._asked += 1
        places = [place for place in self._state.places.values() if place.open and place.holds_data]
        if self._asked > _ASKED_IN_FULL_MAX:
            places = places[:: max(len(places) // _ASKED_NODES, 1)]
        return [said for place in places if (said := objections(self._state, copy, place))]

    def stuck(self) -> tuple[Stuck, ...]:
        """All of them, in the order in which they were met, those that hold a drain up first."""
        found = [
            Stuck(index, node, decider, held, entry.copies, tuple(entry.shards), entry.decisions)
            for (index, node, decider, held), entry in self._entries.items()
        ]
        return tuple(sorted(found, key=lambda one: not one.held))


def _chief(said: list[tuple[Decision, ...]]) -> str:
    """The decider whose change would help most: alone in the way on most nodes, else in the way on most."""
    alone = Counter(decisions[0].decider for decisions in said if len(decisions) == 1)
    all_of = Counter(decision.decider for decisions in said for decision in decisions)

    def rank(decider: str) -> tuple[bool, int, int, int]:
        # That the shard has copies on other nodes already is only to blame when nothing else is.
        return decider != "same_shard", alone[decider], all_of[decider], -_EASIEST.index(decider)

    return max(all_of, key=rank, default="no_node")


def _summary(said: list[tuple[Decision, ...]]) -> tuple[Decision, ...]:
    """One objection of each decider, with the number of nodes that it is about."""
    by_decider: dict[str, list[Decision]] = defaultdict(list)
    for decisions in said:
        for decision in decisions:
            by_decider[decision.decider].append(decision)
    return tuple(
        Decision(decider, "NO", f"on {len(found)} of {len(said)} nodes: {found[0].explanation}", found[0].node)
        for decider, found in sorted(by_decider.items(), key=lambda item: _EASIEST.index(item[0]))
    )


def stuck_findings(subject: Subject, forecast: Forecast) -> tuple[Finding, ...]:
    """One finding for each index, node and decider; those past the first twenty in one more."""
    shown, more = forecast.stuck[:_FINDINGS_MAX], forecast.stuck[_FINDINGS_MAX:]
    findings = [_finding(subject, one) for one in shown]
    if more:
        held = any(one.held for one in more)
        findings.append(
            (blocks if held else warns)(
                RULE,
                subject.cluster.name,
                reason=f"{sum(one.copies for one in more)} more copies have no other place to go",
                evidence=f"{len(more)} more pairs of index and node, {len({one.index for one in more})} indices, "
                f"{len({one.node for one in more})} nodes",
                remedy="mend what is shown, then try again: the rest often has the same cause",
            )
        )
    if not forecast.exhaustive:
        findings.append(
            warns(
                RULE,
                subject.cluster.name,
                reason="so many copies found no place that not all nodes were tried for each",
                evidence=f"{sum(one.copies for one in forecast.stuck)} copies",
                remedy="mend what is shown, then try again",
            )
        )
    return tuple(findings)


def _finding(subject: Subject, stuck: Stuck) -> Finding:
    shards = ", ".join(map(str, stuck.shards)) + (" and more" if stuck.copies > len(stuck.shards) else "")
    if stuck.held:
        reason = f"{stuck.copies} copies can go to no other node and are started nowhere else ({stuck.decider})"
    else:
        reason = (
            f"{stuck.copies} copies can go to no other node ({stuck.decider}); each is started on another one, so the "
            "drain ends without them and they are made again"
        )
    index = next((one for one in subject.seen.indices if one.name == stuck.index), None)
    return (blocks if stuck.held else warns)(
        RULE,
        f"{stuck.index}[{shards}] on {stuck.node}",
        reason=reason,
        evidence="; ".join(f"{one.decider} {one.explanation}" for one in stuck.decisions) or "no other data node",
        remedy=remedy(subject, stuck.index, index, stuck.decider),
    )


def remedy(subject: Subject, name: str, index: IndexSeen | None, decider: str) -> str:
    """What lifts the objection of that decider, as a request where there is one."""
    made = _REMEDIES.get(decider)
    return made(subject, name, index) if made else "add a data node that may hold the copy, then try again"


def _put(index: str, key: str, value: object) -> str:
    return f"PUT {index}/_settings {json.dumps({key: value})}"


def _own(index: IndexSeen | None, prefix: str) -> list[str]:
    found = () if index is None else sorted(index.settings.items())
    return [key for key, value in found if key.startswith(prefix) and value]


def _clear(subject: Subject, key: str) -> str:
    """Removes a cluster setting where it is; one from a configuration file can only be outdone."""
    settings = subject.seen.settings
    layer = next((one for one in ("transient", "persistent") if key in settings.layer(one)), None)
    return put_settings(layer or "persistent", key, None if layer else "")


def _filter(subject: Subject, name: str, index: IndexSeen | None) -> str:
    keys = [
        key
        for kind in ("require", "include", "exclude")
        for key in _own(index, f"index.routing.allocation.{kind}.")
        if not key.startswith(f"index.routing.allocation.{kind}._tier")
    ]
    if keys:
        return " and ".join(_put(name, key, None) for key in keys) + ", or let it name more nodes"
    settings = subject.seen.settings
    kinds = tuple(f"cluster.routing.allocation.{kind}." for kind in ("require", "include", "exclude"))
    keys = sorted(
        key
        for key in {*settings.persistent, *settings.transient, *settings.defaults}
        if key.startswith(kinds) and settings.effective(key)
    )
    return " and ".join(_clear(subject, key) for key in keys) or "remove the allocation filters"


def _shards_limit(subject: Subject, name: str, index: IndexSeen | None) -> str:
    key = "index.routing.allocation.total_shards_per_node"
    data = sum(node.holds_data for node in subject.seen.nodes)
    if index is not None and index.settings.get(key):
        now = index.settings[key]
        needed = -(-index.primaries * (index.replicas + 1) // max(data - 1, 1))
        more = max(needed, int(now) + 1 if now.isdecimal() else needed)
        return f"{_put(name, key, more)}, or {_put(name, key, None)}"
    return _clear(subject, "cluster.routing.allocation.total_shards_per_node")


def _enable(subject: Subject, name: str, index: IndexSeen | None) -> str:
    key = "index.routing.allocation.enable"
    if index is not None and index.settings.get(key):
        return _put(name, key, None)
    return _clear(subject, "cluster.routing.allocation.enable")


def _data_tier(_subject: Subject, name: str, index: IndexSeen | None) -> str:
    keys = [key for kind in ("require", "include") for key in _own(index, f"index.routing.allocation.{kind}._tier")]
    clear = " and ".join(_put(name, key, None) for key in keys)
    return f"add a node to that tier, or {clear} until the upgrade is done"


def _awareness(subject: Subject, name: str, index: IndexSeen | None) -> str:
    attributes = subject.seen.settings.effective("cluster.routing.allocation.awareness.attributes")
    fewer = max((index.replicas if index else 1) - 1, 0)
    return (
        f"add a data node with another value of {attributes}, or {_put(name, 'index.number_of_replicas', fewer)} until "
        "the upgrade is done"
    )


def _same_shard(subject: Subject, name: str, index: IndexSeen | None) -> str:
    data = sum(node.holds_data for node in subject.seen.nodes)
    fewer = min(max((index.replicas if index else 1) - 1, 0), max(data - 2, 0))
    return f"add a data node, or {_put(name, 'index.number_of_replicas', fewer)} until the upgrade is done"


def _disk(_subject: Subject, _name: str, _index: IndexSeen | None) -> str:
    return (
        "free disk space on the other nodes or add a data node, until GET _cat/allocation?v shows room for the copy, "
        "or use the strategy in_place"
    )


def _node_version(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return (
        f"add a data node with the target version, or {_put(name, 'index.number_of_replicas', 0)} until the upgrade is "
        "done, or use the strategy in_place"
    )


def _closed(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return f"POST {name}/_open and wait for green, or DELETE {name}, or use the strategy in_place"


def _no_primary(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return f"bring back the node with the primary of {name}, or restore the index from a snapshot"


_REMEDIES: dict[str, Callable[[Subject, str, IndexSeen | None], str]] = {
    "enable": _enable,
    "closed_index": _closed,
    "filter": _filter,
    "shards_limit": _shards_limit,
    "data_tier": _data_tier,
    "awareness": _awareness,
    "disk_threshold": _disk,
    "node_version": _node_version,
    "replica_after_primary_active": _no_primary,
    "same_shard": _same_shard,
}
