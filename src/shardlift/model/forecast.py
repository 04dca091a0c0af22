"""What the dry run of a whole plan says: where each node's copies go, and which can go nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shardlift.model.cluster import Strategy
from shardlift.model.observation import Decision, Move
from shardlift.model.plan import Leaving, Settling


@dataclass(frozen=True, slots=True)
class Inflow:
    """What one node takes over from a drained one."""

    node: str
    copies: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NodeForecast:
    """What happens to the copies on one node of the plan.

    `batch` counts from 1. `copies` and `size_bytes` move away before it stops; `targets` are those that take most of
    them, `other_targets` counts the rest. `kept`: copies that can go nowhere but are started on another node too.
    `held`: copies that can go nowhere and are started nowhere else. `dropped`: copies that the engine gives up while
    the node is excluded (`auto_expand_replicas`). `rebuilt`, `rebuilt_bytes`: copies made again once it is back.
    `waiting`: in place, copies that wait on its disk for its return; `alone`: those of them started nowhere else.
    """

    name: str
    batch: int
    drained: bool
    copies: int = 0
    size_bytes: int = 0
    targets: tuple[Inflow, ...] = ()
    other_targets: int = 0
    kept: int = 0
    held: int = 0
    dropped: int = 0
    rebuilt: int = 0
    rebuilt_bytes: int = 0
    waiting: int = 0
    alone: int = 0


@dataclass(frozen=True, slots=True)
class Stuck:
    """Copies of one index on one node that can go nowhere, mainly because of `decider`.

    `held`: none of them is started elsewhere, so the drain cannot end. `shards` names the first of them. `decisions`
    are the objections to the first copy, each decider's with the nodes counted in its explanation.
    """

    index: str
    node: str
    decider: str
    held: bool
    copies: int
    shards: tuple[int, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class DiskPeak:
    """The most that a node's disk holds at any time of the plan; `total_bytes` is None when its size is not known."""

    node: str
    used_bytes: int
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The dry run of a plan.

    `stuck` lists at most a hundred entries that hold a drain up, then as many others; `unlisted` copies come on top.
    `first_moves`: the moves off the first drained node, for the engine to confirm. `waiting`: copies without a node in
    the end. `exhaustive` is False when so many copies found no place that not every node was tried for each; what is
    called stuck may then still have had one. `leaving`: by name, what moves from each node before it stops; the rest of
    its copies moves off its spare once it is back. `settling`: what moves after the last node; None where nothing
    should, since no node was drained, or each has the share of another.
    """

    strategy: Strategy
    nodes: tuple[NodeForecast, ...]
    stuck: tuple[Stuck, ...]
    unlisted_held: int
    unlisted_kept: int
    peaks: tuple[DiskPeak, ...]
    first_moves: tuple[Move, ...]
    waiting: int
    exhaustive: bool
    leaving: Mapping[str, Leaving] = field(default_factory=dict)
    settling: Settling | None = None

    @property
    def copies(self) -> int:
        """Copies that are moved or made again, in all."""
        return sum(node.copies + node.rebuilt for node in self.nodes)

    @property
    def size_bytes(self) -> int:
        """What is copied between nodes, in all."""
        return sum(node.size_bytes + node.rebuilt_bytes for node in self.nodes)

    @property
    def ends(self) -> bool:
        """Whether each drain can end."""
        return not self.unlisted_held and not any(one.held for one in self.stuck)
