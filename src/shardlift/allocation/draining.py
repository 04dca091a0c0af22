"""One node is emptied, goes away and comes back: what happens to the copies, as the engines would have it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice

from shardlift.allocation.chooser import Chooser
from shardlift.allocation.state import Copy, Place, State

# How many nodes, and on each how many copies that have just come to it, are tried to make room for one without a place.
_REPAIR_NODES_MAX = 32
_REPAIR_COPIES_MAX = 16
_PASSES_MAX = 8
# How many nodes of a tier are tried for a copy.
_TIER_MAX = 32
# Copies without a node that are tried each time a node comes back.
_UNPLACED_MAX = 500


@dataclass(slots=True)
class Drained:
    """`moved`: copies with the node each goes to. `stuck`: those that can go nowhere. `dropped`: given up by the
    engine, as the index expands over fewer nodes now. `eased`: nodes that a copy was sent on from."""

    moved: dict[Copy, Place] = field(default_factory=dict)
    stuck: list[Copy] = field(default_factory=list)
    dropped: list[Copy] = field(default_factory=list)
    eased: dict[Place, None] = field(default_factory=dict)


def drain(
    state: State,
    chooser: Chooser,
    place: Place,
    leaves: Callable[[Copy], bool] = lambda _copy: True,
    *,
    tiers: Sequence[Collection[Place]] = (),
) -> Drained:
    """Finds a place for each copy on the node that `leaves` it; the node is closed already.

    Those that may be on few nodes first, then the largest. A copy that finds none may have one after another one that
    left the same node is sent elsewhere; one such exchange is tried. `tiers`: nodes that are filled before all others,
    in this order; the least loaded of a tier that may take a copy has it.
    """
    drained = Drained()
    for copy in sorted((one for one in place.copies if leaves(one)), key=_urgency):
        if _expands_over_fewer(chooser, copy) and copy.elsewhere:
            _lose(state, copy)
            drained.dropped.append(copy)
            continue
        target = next(filter(None, (_of(tier, chooser, copy) for tier in tiers)), None) or chooser.choose(copy)
        if target is None:
            drained.stuck.append(copy)
        else:
            state.put(copy, target)
            drained.moved[copy] = target
    # A copy with a started twin may stay behind in the end, so one without goes first.
    drained.stuck.sort(key=lambda copy: copy.elsewhere)
    for _ in range(_PASSES_MAX):
        # What one exchange moves may leave room for a copy that found none before.
        left = [copy for copy in drained.stuck if not _placed(state, chooser, drained, copy)]
        if len(left) == len(drained.stuck):
            break
        drained.stuck = left
    return drained


def _of(tier: Collection[Place], chooser: Chooser, copy: Copy) -> Place | None:
    """The least loaded node of the tier that may take the copy; with many nodes, of the first few."""
    if len(tier) == 1:
        return next((place for place in tier if chooser.legal(copy, place)), None)
    ranked = nsmallest(_TIER_MAX, tier, key=lambda place: (place.load, place.number))
    return next((place for place in ranked if chooser.legal(copy, place)), None)


def _placed(state: State, chooser: Chooser, drained: Drained, copy: Copy) -> bool:
    """Whether there is a place for the copy now, by an exchange if need be."""
    target = chooser.choose(copy)
    if target is None:
        # The chooser takes it that nodes only fill up; an exchange may have left room behind.
        target = next((place for place in drained.eased if chooser.legal(copy, place)), None)
    if target is None:
        return _exchanged(state, chooser, drained, copy)
    state.put(copy, target)
    drained.moved[copy] = target
    return True


def _urgency(copy: Copy) -> tuple[bool, bool, int, str, int]:
    index = copy.group.index
    free = not (index.limit or index.kin.filters or index.kin.tiers or index.kin.mounted)
    return free, not copy.primary, -copy.size_bytes, index.name, copy.group.shard


def _expands_over_fewer(chooser: Chooser, copy: Copy) -> bool:
    """Whether the engine wants fewer copies than there are, with the node excluded (AutoExpandReplicas)."""
    bounds = copy.group.index.expands
    if bounds is None:
        return False
    low, high = bounds
    nodes = chooser.open_for(copy.group.index.kin)
    replicas = max(low, nodes - 1 if high is None else min(high, nodes - 1))
    return sum(one.place is not None for one in copy.group.copies) > replicas + 1


def _exchanged(state: State, chooser: Chooser, drained: Drained, copy: Copy) -> bool:
    """Whether the copy has a place after all, with a copy that came to it from the same node sent elsewhere."""
    source = copy.place
    assert source is not None, "it is on the node being drained"
    if state.exchanges_left <= 0:
        return False
    came: dict[Place, list[Copy]] = {}
    for other, target in drained.moved.items():
        came.setdefault(target, []).append(other)
    for target in list(came)[:_REPAIR_NODES_MAX]:
        if not chooser.room_lacks(copy, target):
            continue
        for other in came[target][:_REPAIR_COPIES_MAX]:
            if state.exchanges_left <= 0:
                return False
            state.exchanges_left -= 1
            state.put(other, source)
            if chooser.legal(copy, target):
                state.put(copy, target)
                instead = chooser.choose(other)
                if instead is not None:
                    state.put(other, instead)
                    drained.moved[copy], drained.moved[other] = target, instead
                    drained.eased[target] = None
                    return True
                state.put(copy, source)
            state.put(other, target)
    return False


def _lose(state: State, copy: Copy) -> None:
    """The copy is no more; another one of its shard serves, and it will be made again."""
    if copy.primary:
        state.promote(copy.group)
    state.put(copy, None)


def take_down(state: State, place: Place) -> tuple[int, int]:
    """The node stops with its copies on its disk. Returns how many, and how many have no started copy elsewhere."""
    place.open = place.present = False
    alone = 0
    for copy in place.copies:
        if not copy.elsewhere:
            alone += 1
        elif copy.primary:
            state.promote(copy.group)
    return len(place.copies), alone


def wipe(state: State, place: Place) -> None:
    """The node comes back with an empty disk: the copies that stayed on it are made again, if they have a twin."""
    for copy in [one for one in place.copies if one.elsewhere]:
        _lose(state, copy)
    place.id = ""  # it lived in the data path


def bring_back(state: State, chooser: Chooser, place: Place) -> list[Copy]:
    """The node is a member again, with the target release. Returns the copies that are made, on it or elsewhere.

    Rebalancing is held off, so that only copies without a node are made.
    """
    place.rank, place.release, place.open, place.present = state.target_rank, state.target, True, True
    joined, place.joining = place.joining, False
    if joined:
        state.count_zones()
    chooser.reopened(place, joined=joined)
    made = []
    for copy in list(islice(state.unplaced, _UNPLACED_MAX)):
        # A primary without a node is lost until that node is back; nothing makes it again.
        target = None if copy.primary else chooser.choose(copy)
        if target is not None:
            state.put(copy, target)
            copy.started = True
            made.append(copy)
        else:  # to the end of the line
            del state.unplaced[copy]
            state.unplaced[copy] = None
    return made
