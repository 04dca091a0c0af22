"""Which node takes a copy: the least loaded one that no decider objects to, found without looking at all of them."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

from shardlift.allocation.deciders import ANYWHERE, PAIR_DECIDERS, ROOM, Decider, asked, awareness, suits
from shardlift.allocation.state import Copy, Index, Kin, Place, State

# With awareness, nodes are looked through location by location; with more of them (say, one a host) all together.
_LOCATIONS_MAX = 8
# What may be spent on looking at all nodes in vain, in looks, and how many nodes are looked at for a copy after that.
_VAIN_MAX = 1_000_000
_LOOKS_MIN = 16


_Entry = tuple[float, int, int, Place]
"""Load and number of a node, its turn when it was entered, and the node. Nodes only fill up while they are open, so the
load is a lower bound; one that has been away since has another turn."""


def _entry(place: Place) -> _Entry:
    return place.load, place.number, place.turn, place


class _Pool:
    """Nodes of one location on which copies may be as far as filters and releases go.

    `heap` is by load. `parked` are nodes with too little room for a common copy: they are asked only when all others
    have said no, and if a copy is not larger than `room`, which no parked node exceeds.
    """

    __slots__ = ("heap", "parked", "room", "sample")

    def __init__(self, places: list[Place]) -> None:
        self.heap = [_entry(place) for place in places]
        heapify(self.heap)
        self.parked: list[_Entry] = []
        self.room = 0
        self.sample = places[0]

    def park(self, entry: _Entry) -> None:
        self.parked.append(entry)
        self.room = max(self.room, _room(entry[3]))


def _room(place: Place) -> int:
    return 0 if place.most_bytes is None else place.most_bytes - place.used_bytes


_Location = tuple[str | None, ...] | None
_Ranks = tuple[int, int]


class _Reach:
    """The nodes, open or not, on which indices of some kins may be, and the pools made of them by range of releases."""

    __slots__ = ("members", "open", "pools")

    def __init__(self, members: dict[Place, None]) -> None:
        self.members = members
        self.pools: dict[_Ranks, dict[_Location, _Pool]] = {}
        self.open: int | None = None


class Chooser:
    """Chooses targets in a state, and must be told of each node that closes (`close`) and opens again (`reopened`)."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._reaches: dict[Kin, _Reach] = {}
        self._shared: dict[frozenset[int] | Kin, _Reach] = {}
        self._deciders: dict[Index, tuple[Decider, ...]] = {}
        locations = {place.location for place in state.places.values()}
        self._by_location = bool(state.attributes) and len(locations) <= _LOCATIONS_MAX
        self._vain = 0

    @property
    def exhaustive(self) -> bool:
        """Whether every copy that found no place was offered every node."""
        return self._vain < _VAIN_MAX

    def choose(self, copy: Copy) -> Place | None:
        """The least loaded node that may take the copy now, or None."""
        state, index = self._state, copy.group.index
        for decide in ANYWHERE:
            if decide(state, copy) is not None:
                return None
        deciders = self._deciders.get(index)
        if deciders is None:
            deciders = self._deciders[index] = asked(state, index, located=self._by_location)
        best: Place | None = None
        for pool in self._pools(copy).values():
            if self._by_location and awareness(state, copy, pool.sample) is not None:
                continue
            best = self._least(pool, copy, deciders, best) or best
        return best

    def _least(self, pool: _Pool, copy: Copy, deciders: tuple[Decider, ...], best: Place | None) -> Place | None:
        """The least loaded node of the pool that may take the copy, if it is less loaded than `best`."""
        state, heap, common = self._state, pool.heap, copy.size_bytes <= self._state.common_bytes
        aside: list[_Entry] = []
        looks = len(heap) if self._vain < _VAIN_MAX else _LOOKS_MIN
        found: Place | None = None
        while looks:
            place = self._top(heap)
            if place is None or (best is not None and (best.load, best.number) <= (place.load, place.number)):
                break
            for decide in deciders:
                if decide(state, copy, place) is not None:
                    break
            else:
                found = place
                break
            looks -= 1
            if common and place.most_bytes is not None and _room(place) < copy.size_bytes:
                pool.park(heappop(heap))
            else:
                aside.append(heappop(heap))
        if found is None and best is None:
            self._vain += len(aside)
            if copy.size_bytes <= pool.room:
                found = self._parked(pool, copy, deciders)
        for entry in aside:
            heappush(heap, entry)
        return found

    def _top(self, heap: list[_Entry]) -> Place | None:
        """The least loaded node, with what is out of date put right."""
        while heap:
            load, _, turn, place = heap[0]
            if not place.open or turn != place.turn or self._state.full(place):
                heappop(heap)  # entered again when it opens; until then it only fills up
            elif load != place.load:
                heapreplace(heap, _entry(place))
            else:
                return place
        return None

    def _parked(self, pool: _Pool, copy: Copy, deciders: tuple[Decider, ...]) -> Place | None:
        """The first of the nodes with little room that may take the copy."""
        if self._vain >= _VAIN_MAX:
            return None
        pool.parked = [one for one in pool.parked if one[3].open and one[2] == one[3].turn]
        for _, _, _, place in pool.parked:
            if all(decide(self._state, copy, place) is None for decide in deciders):
                return place
        self._vain += len(pool.parked)
        pool.room = max((_room(one[3]) for one in pool.parked), default=0)
        return None

    def _pools(self, copy: Copy) -> dict[_Location, _Pool]:
        """By location. The decider node_version would object to all nodes that are left out."""
        low, high = 0, self._state.target_rank
        index, primary = copy.group.index, copy.group.primary
        if primary is not None and primary.place is not None:
            low = primary.place.rank
        if index.segment and primary is copy:
            ranks = [one.place.rank for one in copy.group.copies if one is not copy and one.started and one.place]
            high = min(ranks, default=high)
        reach = self._reach(index.kin)
        found = reach.pools.get((low, high))
        if found is None:
            parts: dict[_Location, list[Place]] = {}
            for place in reach.members:
                if place.open and low <= place.rank <= high:
                    parts.setdefault(self._part(place), []).append(place)
            found = reach.pools[low, high] = {part: _Pool(places) for part, places in parts.items()}
        return found

    def _part(self, place: Place) -> _Location:
        return place.location if self._by_location else None

    def _reach(self, kin: Kin) -> _Reach:
        found = self._reaches.get(kin)
        if found is None:
            places = self._state.places.values()
            members = {one: None for one in places if one.present and suits(self._state, kin, one)}
            # Nearly always, indices with different filters may in the end be on the same nodes.
            shared = kin if kin.names_ids else frozenset(place.number for place in members)
            found = self._reaches[kin] = self._shared.setdefault(shared, _Reach(members))
        return found

    def close(self, place: Place) -> None:
        """The node takes no copies any more; it is still a member."""
        place.open = False
        for reach in self._shared.values():
            reach.open = None

    def reopened(self, place: Place, *, joined: bool) -> None:
        """Takes the node into account again, with its new release, id and load. `joined`: it was no member before."""
        place.turn += 1
        if joined:
            self._reaches.clear()
            self._shared.clear()
            return
        for kin, reach in self._reaches.items():
            if kin.names_ids:
                reach.members.pop(place, None)
                if suits(self._state, kin, place):
                    reach.members[place] = None
        for reach in self._shared.values():
            reach.open = None
            if place in reach.members:
                self._enter(reach, place)

    def _enter(self, reach: _Reach, place: Place) -> None:
        part = self._part(place)
        for (low, high), pools in reach.pools.items():
            if not low <= place.rank <= high:
                continue
            if part in pools:
                heappush(pools[part].heap, _entry(place))
            else:
                pools[part] = _Pool([place])

    def legal(self, copy: Copy, place: Place) -> bool:
        """Whether no decider objects to the copy going there."""
        return self.room_lacks(copy, place) and all(decide(self._state, copy, place) is None for decide in ROOM)

    def room_lacks(self, copy: Copy, place: Place) -> bool:
        """Whether nothing keeps the copy from going to the node but a lack of room, which another copy may leave."""
        return (
            place.open
            and place in self._reach(copy.group.index.kin).members
            and all(decide(self._state, copy) is None for decide in ANYWHERE)
            and all(decide(self._state, copy, place) is None for decide in PAIR_DECIDERS if decide not in ROOM)
        )

    def open_for(self, kin: Kin) -> int:
        """How many open nodes there are on which copies of such indices may be at all."""
        reach = self._reach(kin)
        if reach.open is None:
            reach.open = sum(place.open for place in reach.members)
        return reach.open
