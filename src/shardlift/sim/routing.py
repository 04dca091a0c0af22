"""The routing table of a simulated cluster: its copies found by shard, by node and by state without looking at all.

A cluster of a thousand nodes has thousands of copies, and most events touch a few of them. Whoever goes through copies
goes through them in the order of the list, whichever index has found them: so it is as if all had been looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shardlift.model import CopyState, ShardCopy
from shardlift.sim.parts import Copy, Group, SimIndex


@dataclass(frozen=True, slots=True)
class Tally:
    """Copies on a node or on their way to it, and their bytes."""

    copies: int
    bytes: int


_EMPTY = Tally(0, 0)


class Routing:
    """Copies change their places through `put` and `promote` alone, or the indices are wrong.

    After copies were added or taken away, or their sizes have changed, everything is indexed anew.
    """

    def __init__(self, copies: Sequence[Copy]) -> None:
        self.index(copies)

    def index(self, copies: Sequence[Copy]) -> None:
        self._groups: dict[Group, list[Copy]] = {}
        self._placed: dict[str, dict[Copy, None]] = {}
        self._unassigned: dict[Copy, None] = {}
        self._counts: Counter[CopyState] = Counter()
        self._tallies: dict[str, Tally] = {}
        self._told: dict[bool, tuple[ShardCopy, ...]] = {}
        for number, copy in enumerate(copies):
            copy.number, copy.seen, copy.sized = number, None, None
            self._groups.setdefault(copy.group, []).append(copy)
            self._enter(copy)

    def put(
        self,
        copy: Copy,
        state: CopyState,
        node: str | None = None,
        target: str | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        """What the table says of the copy from now on. `reason`: why it is on no node."""
        self._leave(copy)
        copy.state, copy.node, copy.target, copy.reason = state, node, target, reason
        self._forget(copy)
        self._enter(copy)

    def promote(self, chosen: Copy, lost: Copy) -> None:
        """`chosen` is the primary of their shard from now on, and `lost` a replica."""
        chosen.primary, lost.primary = True, False
        self._forget(chosen)
        self._forget(lost)

    # looking

    def group(self, group: Group) -> list[Copy]:
        return self._groups.get(group, [])

    def on(self, name: str) -> list[Copy]:
        return _in_order(copy for copy in self._placed.get(name, ()) if copy.node == name)

    def placed(self, name: str) -> Collection[Copy]:
        """Copies that are on the node or on their way to it, in no order."""
        return self._placed.get(name, {}).keys()

    def unassigned(self) -> list[Copy]:
        return _in_order(self._unassigned)

    def count(self, state: CopyState) -> int:
        return self._counts[state]

    def tally(self, name: str, indices: Mapping[str, SimIndex]) -> Tally:
        """What `placed` counts on the node."""
        found = self._tallies.get(name)
        if found is None:
            placed = self._placed.get(name)
            found = Tally(len(placed), sum(indices[copy.index].copy_bytes for copy in placed)) if placed else _EMPTY
            self._tallies[name] = found
        return found

    def told(self, copies: Sequence[Copy], indices: Mapping[str, SimIndex], *, sizes: bool) -> tuple[ShardCopy, ...]:
        """As the engines tell the table, `copies` being those that were indexed."""
        found = self._told.get(sizes)
        if found is None:
            tell = _with_size if sizes else _without_size
            found = self._told[sizes] = tuple([tell(copy, indices) for copy in copies])
        return found

    # keeping

    def _enter(self, copy: Copy) -> None:
        self._counts[copy.state] += 1
        if copy.state is CopyState.UNASSIGNED:
            self._unassigned[copy] = None
        for name in (copy.node, copy.target):
            if name is not None:
                self._placed.setdefault(name, {})[copy] = None
                self._tallies.pop(name, None)

    def _leave(self, copy: Copy) -> None:
        self._counts[copy.state] -= 1
        self._unassigned.pop(copy, None)
        for name in (copy.node, copy.target):
            if name is not None:
                self._placed[name].pop(copy, None)
                self._tallies.pop(name, None)

    def _forget(self, copy: Copy) -> None:
        copy.seen = copy.sized = None
        self._told.clear()


def _in_order(copies: Iterable[Copy]) -> list[Copy]:
    return sorted(copies, key=lambda copy: copy.number)


def _without_size(copy: Copy, _indices: Mapping[str, SimIndex]) -> ShardCopy:
    if copy.seen is None:
        copy.seen = _shard_copy(copy, None)
    return copy.seen


def _with_size(copy: Copy, indices: Mapping[str, SimIndex]) -> ShardCopy:
    if copy.sized is None:
        copy.sized = _shard_copy(copy, indices[copy.index].copy_bytes if copy.node else None)
    return copy.sized


def _shard_copy(copy: Copy, size_bytes: int | None) -> ShardCopy:
    return ShardCopy(
        index=copy.index,
        shard=copy.shard,
        primary=copy.primary,
        state=copy.state,
        node=copy.node,
        relocating_to=copy.target,
        size_bytes=size_bytes,
        unassigned_reason=copy.reason,
    )
