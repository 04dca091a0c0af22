"""Which node takes a copy: the least loaded one that no decider objects to, found without looking at all of them."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from shardlift.allocation.deciders import ANYWHERE, PAIR_DECIDERS, ROOM, Decider, asked, awareness, suits
from shardlift.allocation.state import Copy, Index, Kin, Place, State

# With awareness, nodes are looked through location by location; with more of them (say, one a host) all together.
_LOCATIONS_MAX = 8
# What may be spent on looking at all nodes in vain, in looks, and how many nodes are looked at for a copy after that.
_VAIN_MAX = 1_000_000
_LOOKS_MIN = 64


class _Entry(NamedTuple):
    """How loaded a node was when it was entered: nodes only fill up while they are open, so it is a lower bound."""

    load: float
    number: int
    place: Place


class _Pool:
    """Nodes of one location on which indices of one kin may be, none older than some release; a heap by load."""

    __slots__ = ("heap", "sample")

    def __init__(self, places: list[Place]) -> None:
        self.heap = [_Entry(place.load, place.number, place) for place in places]
        heapify(self.heap)
        self.sample = places[0]


_Location = tuple[str | None, ...] | None


class Chooser:
    """Chooses targets in a state, and must be told of each node that opens again (`reopened`)."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pools: dict[tuple[Kin, int], dict[_Location, _Pool]] = {}
        self._members: dict[Kin, dict[Place, None]] = {}
        self._deciders: dict[Index, tuple[Decider, ...]] = {}
        locations = {place.location for place in state.places.values()}
        self._by_location = bool(state.attributes) and len(locations) <= _LOCATIONS_MAX
        self._vain = 0
        self._open: dict[Kin, int] = {}

    @property
    def exhaustive(self) -> bool:
        """Whether every copy that found no place was offered every node."""
        return self._vain < _VAIN_MAX

    def legal(self, copy: Copy, place: Place) -> bool:
        """Whether no decider objects to the copy going there."""
        index = copy.group.index
        return (
            place.open
            and place in self.members(index.kin)
            and all(decide(self._state, copy) is None for decide in ANYWHERE)
            and all(decide(self._state, copy, place) is None for decide in PAIR_DECIDERS)
        )

    def members(self, kin: Kin) -> dict[Place, None]:
        """Nodes on which indices of that kin may be, open or not."""
        found = self._members.get(kin)
        if found is None:
            places = self._state.places.values()
            found = self._members[kin] = {one: None for one in places if one.present and suits(self._state, kin, one)}
        return found

    def choose(self, copy: Copy) -> Place | None:
        """The least loaded node that may take the copy now, or None."""
        state, index = self._state, copy.group.index
        for decide in ANYWHERE:
            if decide(state, copy) is not None:
                return None
        deciders = self._deciders.get(index)
        if deciders is None:
            deciders = self._deciders[index] = asked(state, index, located=self._by_location)
        holder = copy.group.primary.place if copy.group.primary is not None else None
        best: Place | None = None
        for pool in self._pools_of(index.kin, 0 if holder is None else holder.rank).values():
            if self._by_location and awareness(state, copy, pool.sample) is not None:
                continue
            found = self._least(pool, copy, deciders, best)
            best = found or best
        return best

    def _least(self, pool: _Pool, copy: Copy, deciders: tuple[Decider, ...], best: Place | None) -> Place | None:
        """The least loaded node of the pool that may take the copy, if it is less loaded than `best`."""
        state, heap = self._state, pool.heap
        aside: list[_Entry] = []
        looks = len(heap) if self._vain < _VAIN_MAX else _LOOKS_MIN
        found: Place | None = None
        while heap:
            entry = heap[0]
            place = entry.place
            if not place.open:
                heappop(heap)  # entered again when it opens
                continue
            if entry.load != place.load:
                heapreplace(heap, _Entry(place.load, place.number, place))
                continue
            if best is not None and (best.load, best.number) <= (place.load, place.number):
                break
            for decide in deciders:
                if decide(state, copy, place) is not None:
                    break
            else:
                found = place
                break
            aside.append(heappop(heap))
            if len(aside) >= looks:
                break
        if found is None and best is None:
            self._vain += len(aside)
        for entry in aside:
            heappush(heap, entry)
        return found

    def _pools_of(self, kin: Kin, rank: int) -> dict[_Location, _Pool]:
        found = self._pools.get((kin, rank))
        if found is None:
            parts: dict[_Location, list[Place]] = {}
            for place in self.members(kin):
                if place.open and place.rank >= rank:
                    parts.setdefault(self._part(place), []).append(place)
            found = self._pools[kin, rank] = {part: _Pool(places) for part, places in parts.items()}
        return found

    def _part(self, place: Place) -> _Location:
        return place.location if self._by_location else None

    def reopened(self, place: Place) -> None:
        """Takes the node into account again, with its new release, id and load."""
        self._open.clear()
        for kin, members in self._members.items():
            if kin.names_ids or place not in members:
                members.pop(place, None)
                if place.present and suits(self._state, kin, place):
                    members[place] = None
        for (kin, rank), pools in self._pools.items():
            if place.rank >= rank and place in self._members[kin]:
                part = self._part(place)
                if part in pools:
                    heappush(pools[part].heap, _Entry(place.load, place.number, place))
                else:
                    pools[part] = _Pool([place])

    def close(self, place: Place) -> None:
        """The node takes no copies any more; it is still a member."""
        place.open = False
        self._open.clear()

    def room_lacks(self, copy: Copy, place: Place) -> bool:
        """Whether only a lack of room there, which another copy may leave, keeps the copy from going to the node."""
        self._vain += 1
        return (
            place.open
            and place in self.members(copy.group.index.kin)
            and all(decide(self._state, copy) is None for decide in ANYWHERE)
            and all(decide(self._state, copy, place) is None for decide in PAIR_DECIDERS if decide not in ROOM)
        )

    def open_for(self, kin: Kin) -> int:
        """How many open nodes there are on which copies of such indices may be at all."""
        found = self._open.get(kin)
        if found is None:
            found = self._open[kin] = sum(place.open for place in self.members(kin))
        return found
