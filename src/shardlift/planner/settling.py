"""What the engine moves by itself after the last node of a change of zones that turns awareness of zones on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shardlift.allocation import Chooser, Copy, Place, State, awareness

# As the engines' balancers: nodes that differ by one copy are even.
_UNEVEN = 2
# Only a guess of time hangs on it, and with a thousand nodes each one costs some milliseconds.
_BALANCED_MAX = 2_000


def settling_bytes(state: State) -> int:
    """Bytes that the busiest node sends or takes: first while copies part that share a zone, then while nodes get as
    many copies as others. The engines do the second when little of the first is left (`cluster_concurrent_rebalance`).

    `state`: as all nodes of the plan leave it, with awareness of zones off; it is changed.
    """
    state.attributes = ("zone",)
    for place in state.places.values():
        place.location = (place.attributes.get("zone"),)
    state.count_zones()
    chooser = Chooser(state)
    return _busiest(_part(state, chooser)) + _busiest(_even_out(state, chooser))


def _busiest(moves: Iterator[tuple[Copy, Place]]) -> int:
    """A peer recovery reads from the primary, wherever the copy itself comes from."""
    sent: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for copy, source in moves:
        assert copy.place is not None, "it has just moved there"
        sent[source.name] += copy.size_bytes
        taken[copy.place.name] += copy.size_bytes
    return max((*sent.values(), *taken.values()), default=0)


def _part(state: State, chooser: Chooser) -> Iterator[tuple[Copy, Place]]:
    """Each copy that is one too many in its zone goes to the least loaded node that may have it."""
    for group in state.groups.values():
        for copy in group.copies:
            if copy.place is None or awareness(state, copy, copy.place) is None:
                continue
            target = chooser.choose(copy)
            if target is not None:
                yield _moved(state, copy, target)


def _even_out(state: State, chooser: Chooser) -> Iterator[tuple[Copy, Place]]:
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


def _moved(state: State, copy: Copy, target: Place) -> tuple[Copy, Place]:
    primary = copy.group.primary
    source = (primary.place if primary is not None else None) or copy.place
    assert source is not None, "it has a place"
    state.put(copy, target)
    return copy, source
