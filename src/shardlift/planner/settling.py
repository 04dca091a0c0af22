"""What the engine moves by itself after the last node. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shardlift.allocation import Chooser, Copy, Place, State, awareness
from shardlift.model import REBALANCE, ClusterSettings, Settling

_AT_ONCE, _AT_ONCE_DEFAULT = "cluster.routing.allocation.cluster_concurrent_rebalance", 2

# As the engines' balancers: nodes that differ by one copy are even.
_UNEVEN = 2
# Only a guess of time hangs on it, and with a thousand nodes each one costs some milliseconds.
_BALANCED_MAX = 2_000


@dataclass(frozen=True, slots=True)
class _Moved:
    """Of one move, who sends, who takes, and how much."""

    source: Place
    target: Place
    size_bytes: int


def settling(state: State, settings: ClusterSettings, *, aware: bool) -> Settling:
    """What moves once the task holds nothing any more: first copies part that share a zone, if the plan turns awareness
    of zones on (`aware`), then nodes get as many copies as others. The engines do the second when little of the first
    is left, and so many copies at a time as `cluster_concurrent_rebalance` says.

    `state`: as all nodes of the plan leave it, with what is to be known of zones still off; it is changed. `settings`:
    those that stand there again in the end.
    """
    if aware:
        state.attributes = ("zone",)
        for place in state.places.values():
            place.location = (place.attributes.get("zone"),)
        state.count_zones()
    chooser = Chooser(state)
    parted = list(_part(state, chooser)) if aware else []
    evened = list(_even_out(state, chooser)) if settings.effective(REBALANCE) != "none" else []
    count, at_once = len(parted) + len(evened), int(settings.effective(_AT_ONCE) or _AT_ONCE_DEFAULT)
    # -1 is no limit.
    rounds = math.ceil(count / at_once) if at_once > 0 else min(count, 1)
    return Settling(_busiest(parted) + _busiest(evened), rounds)


def _busiest(moves: Iterable[_Moved]) -> int:
    """Bytes that the busiest node sends or takes. A peer recovery reads from the primary, wherever the copy itself
    comes from."""
    sent: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for moved in moves:
        sent[moved.source.name] += moved.size_bytes
        taken[moved.target.name] += moved.size_bytes
    return max((*sent.values(), *taken.values()), default=0)


def _part(state: State, chooser: Chooser) -> Iterator[_Moved]:
    """Each copy that is one too many in its zone goes to the least loaded node that may have it."""
    for group in state.groups.values():
        for copy in group.copies:
            if copy.place is None or awareness(state, copy, copy.place) is None:
                continue
            target = chooser.choose(copy)
            if target is not None:
                yield _moved(state, copy, target)


def _even_out(state: State, chooser: Chooser) -> Iterator[_Moved]:
    """From the node with most copies to the one with fewest, again and again, as far as deciders let them."""
    light = [place for place in state.places.values() if place.present and place.holds_data]
    heavy = [*light]
    for _ in range(_BALANCED_MAX):
        if not light:
            return
        target = min(light, key=_count)
        copy = _spare_copy(chooser, heavy, target)
        if copy is None:
            light.remove(target)
        else:
            yield _moved(state, copy, target)


def _spare_copy(chooser: Chooser, heavy: list[Place], target: Place) -> Copy | None:
    for place in sorted(heavy, key=_count, reverse=True):
        if _count(place) - _count(target) < _UNEVEN:
            return None
        found = next((copy for copy in place.copies if chooser.legal(copy, target)), None)
        if found is not None:
            return found
    return None


def _count(place: Place) -> int:
    return len(place.copies)


def _moved(state: State, copy: Copy, target: Place) -> _Moved:
    primary = copy.group.primary
    source = (primary.place if primary is not None else None) or copy.place
    assert source is not None, "it has a place"
    state.put(copy, target)
    return _Moved(source, target, copy.size_bytes)
