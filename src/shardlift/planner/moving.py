"""Where copies that must leave a node now are sent, one explicit move each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from shardlift.allocation import Chooser, Copy, Place, State, build_state, drain
from shardlift.checks import Subject
from shardlift.model import EngineKind, Finding, Move, Version
from shardlift.planner.obstacles import Obstacles, held_findings

Group = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Departures:
    """`moves`: in the order they should begin, with the bytes of each in `sizes_bytes`. `stuck`: of copies without a
    place, one finding for each index and decider."""

    moves: tuple[Move, ...]
    sizes_bytes: tuple[int, ...]
    stuck: tuple[Finding, ...]


def departures(
    subject: Subject,
    source: str,
    groups: Collection[Group],
    *,
    preferred: Collection[str],
    first: Collection[str] = (),
    closed: Collection[str] = (),
) -> Departures:
    """Moves of the copies of these shards off `source`, by a fresh observation.

    They go to one of the nodes `first` where one may have them, else to one of the `preferred`: nodes that have been
    taken already, so that nothing has to move twice; never to one that is `closed`. The primary of a segment-replicated
    shard goes after all replicas, since no older node may have a replica of a newer primary; among the others the
    largest go first, which is what ends soonest.
    """
    state = build_state(subject.seen, subject.cluster.nodes, _release(subject))
    place = state.places.get(source)
    if place is None:
        return Departures((), (), ())
    place.open = False
    for name in closed:
        if name in state.places:
            state.places[name].open = False
    wanted = frozenset(groups)
    chooser = Chooser(state)
    tiers = [[state.places[name] for name in names if name in state.places] for names in (first, preferred)]
    moved = drain(state, chooser, place, _leaves(wanted), tiers=[tier for tier in tiers if tier]).moved
    order = sorted(moved, key=_order)
    left = [copy for copy in place.copies if _group(copy) in wanted]
    return Departures(
        moves=tuple(Move(*_group(copy), source, moved[copy].name) for copy in order),
        sizes_bytes=tuple(copy.size_bytes for copy in order),
        stuck=_stuck(subject, state, place, left),
    )


def _leaves(wanted: frozenset[Group]) -> Callable[[Copy], bool]:
    return lambda copy: _group(copy) in wanted and copy.started


def _stuck(subject: Subject, state: State, place: Place, left: list[Copy]) -> tuple[Finding, ...]:
    obstacles = Obstacles(state)
    for copy in left:
        obstacles.add(copy, place, held=not copy.elsewhere)
    return held_findings(subject, obstacles)


def _order(copy: Copy) -> tuple[bool, int, str, int]:
    index = copy.group.index
    return index.segment and copy.primary, -copy.size_bytes, index.name, copy.group.shard


def _group(copy: Copy) -> Group:
    return copy.group.index.name, copy.group.shard


def _release(subject: Subject) -> tuple[bool, Version]:
    return subject.image.engine is EngineKind.OPENSEARCH, subject.image.version
