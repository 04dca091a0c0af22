"""Copies that can go nowhere, as findings: by our model of allocation, and by the engine's own word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from shardlift.allocation import Copy, Place, State, objections
from shardlift.checks import Subject
from shardlift.checks.subject import blocks, warns
from shardlift.model import Decision, Explanation, Finding, Forecast, MoveVerdict, Stuck
from shardlift.planner.remedies import remedy

RULE = "drain_can_end"
_FINDINGS_MAX = 20
_SHARDS_MAX = 10
# Entries that are told in full, of those that hold a drain up and of the others; the rest is counted.
_ENTRIES_MAX = 100
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
    """Collects stuck copies by index, node and decider, so that a hundred thousand of them are told in a few words.

    `unlisted`: copies past the entries told in full, by whether they hold a drain up.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._entries: dict[tuple[str, str, str, bool], _Entry] = {}
        self._known: dict[tuple[str, str, bool, bool], str] = {}
        self._asked = {True: 0, False: 0}
        self.unlisted = {True: 0, False: 0}

    def add(self, copy: Copy, place: Place, *, held: bool) -> None:
        index = copy.group.index.name
        # Copies of an index that leave one node in one role are held back by the same decider, as far as it matters.
        alike = (index, place.name, held, copy.primary)
        decider = self._known.get(alike)
        if decider is None and self._asked[held] >= _ENTRIES_MAX:
            self.unlisted[held] += 1
            return
        if decider is None:
            self._asked[held] += 1
            said = self._ask(copy)
            decider = self._known[alike] = _chief(said)
            self._entries.setdefault((index, place.name, decider, held), _Entry(_summary(said)))
        entry = self._entries[index, place.name, decider, held]
        entry.copies += 1
        if len(entry.shards) < _SHARDS_MAX:
            entry.shards.append(copy.group.shard)

    def _ask(self, copy: Copy) -> list[tuple[Decision, ...]]:
        """Each open node's objections to the copy."""
        places = [place for place in self._state.places.values() if place.open and place.holds_data]
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


def held_findings(subject: Subject, obstacles: Obstacles) -> tuple[Finding, ...]:
    """One finding for each index, node and decider, the first twenty."""
    return tuple(_finding(subject, one) for one in obstacles.stuck()[:_FINDINGS_MAX])


def stuck_findings(subject: Subject, forecast: Forecast) -> tuple[Finding, ...]:
    """One finding for each index, node and decider; those past the first twenty in one more."""
    shown, more = forecast.stuck[:_FINDINGS_MAX], forecast.stuck[_FINDINGS_MAX:]
    findings = [_finding(subject, one) for one in shown]
    held = forecast.unlisted_held + sum(one.copies for one in more if one.held)
    kept = forecast.unlisted_kept + sum(one.copies for one in more if not one.held)
    if held or kept:
        findings.append(
            (blocks if held else warns)(
                RULE,
                subject.cluster.name,
                reason=f"{held + kept} more copies can go to no other node",
                evidence=f"{held} of them are started nowhere else, {kept} are",
                remedy="mend what is shown, then try again: the rest often has the same cause",
            )
        )
    if not forecast.exhaustive:
        findings.append(
            warns(
                RULE,
                subject.cluster.name,
                reason="so many copies found no place that not all nodes were tried for each",
                evidence=f"{held + kept} copies besides those shown",
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
    return (blocks if stuck.held else warns)(
        RULE,
        f"{stuck.index}[{shards}] on {stuck.node}",
        reason=reason,
        evidence="; ".join(f"{one.decider} {one.explanation}" for one in stuck.decisions) or "no other data node",
        remedy=remedy(subject, stuck.index, stuck.decider),
    )


def refused_findings(subject: Subject, verdicts: Iterable[MoveVerdict]) -> tuple[Finding, ...]:
    """What the engine itself objects to among the planned moves off the first node, one for each index and decider.

    It judges a move for the planned target only, but knows more than our model does.
    """
    refused: dict[tuple[str, str, bool], list[MoveVerdict]] = defaultdict(list)
    for one in verdicts:
        if not one.allowed:
            said = [decision.decider for decision in one.decisions if decision.verdict == "NO"]
            others = subject.seen.groups.get((one.move.index, one.move.shard), ())
            held = not any(copy.serving and copy.node != one.move.source for copy in others)
            refused[one.move.index, said[0] if said else "", held].append(one)
    findings = []
    for (index, decider, held), found in list(refused.items())[:_FINDINGS_MAX]:
        move = found[0].move
        said = [f"{one.decider}: {one.explanation}" for one in found[0].decisions if one.verdict == "NO"]
        findings.append(
            (blocks if held else warns)(
                RULE,
                f"{index}[{', '.join(str(one.move.shard) for one in found[:_SHARDS_MAX])}] on {move.source}",
                reason=f"the engine itself would not make {len(found)} of the planned moves",
                evidence=f"to {move.target}: {'; '.join(said) or 'no reason given'}",
                remedy=remedy(subject, index, decider),
            )
        )
    return tuple(findings)


def stalled_findings(subject: Subject, source: str, explained: Iterable[Explanation]) -> tuple[Finding, ...]:
    """Copies that the engine lets leave `source` for no other node, one finding for each index and decider."""
    stalled: dict[tuple[str, str], list[Explanation]] = defaultdict(list)
    for one in explained:
        said = {d.decider for d in one.decisions if d.verdict == "NO" and d.node != source}
        stalled[one.index, next((decider for decider in _EASIEST if decider in said), min(said, default=""))].append(
            one
        )
    findings = []
    for (index, decider), found in list(stalled.items())[:_FINDINGS_MAX]:
        said = {
            f"{d.node}: {d.decider}: {d.explanation}"
            for d in found[0].decisions
            if d.verdict == "NO" and d.node not in (source, None)
        }
        findings.append(
            blocks(
                RULE,
                f"{index}[{', '.join(str(one.shard) for one in found[:_SHARDS_MAX])}] on {source}",
                reason=f"the engine lets {len(found)} shard copies go to no other node",
                evidence="; ".join(sorted(said)[:_SHARDS_MAX]) or "no reason given",
                remedy=remedy(subject, index, decider),
            )
        )
    return tuple(findings)


def not_asked_finding(subject: Subject, reason: str) -> Finding:
    """The engine could not be asked about the first moves, so only our model vouches for them."""
    return warns(
        RULE,
        subject.cluster.name,
        reason="the engine could not be asked whether it would make the first moves",
        evidence=reason,
        remedy="see whether POST _cluster/reroute?dry_run=true answers, then try again",
    )
