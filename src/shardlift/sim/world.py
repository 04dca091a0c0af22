"""The state of one simulated cluster and how it changes: nodes, shard copies with their documents, settings, votes.

Held to the engines' rules where the upgrade depends on them (sources in docs/simulator.md): a primary moves only to an
equal or newer node, a replica never to one older than its primary's, no two copies of a shard share a node, an
excluded node is emptied one copy at a time, `enable: primaries` keeps replicas unassigned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from shardlift.model import Cluster, CopyState, EngineKind, Version

_EXCLUDE = "cluster.routing.allocation.exclude._id"
_ENABLE = "cluster.routing.allocation.enable"


@dataclass(slots=True)
class SimNode:
    """A node: what its host holds, and, while `up`, its membership."""

    name: str
    address: str
    zone: str
    engine: EngineKind
    version: Version
    image_id: str
    node_id: str
    ephemeral_id: str
    pid: int | None = None
    up: bool = False
    starts: bool = True
    disk: dict[tuple[str, int], int] = field(default_factory=dict)
    set_aside: dict[str, dict[tuple[str, int], int]] = field(default_factory=dict)
    backups: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Copy:
    """One copy of a shard; `documents` counts those it holds. `target` is set while it is on its way there."""

    index: str
    shard: int
    primary: bool
    state: CopyState
    node: str | None
    documents: int = 0
    target: str | None = None
    pinned: bool = False

    @property
    def group(self) -> tuple[str, int]:
        return self.index, self.shard


class World:
    """One cluster. `effects` lists what was done to hosts, in order; `fault` is called around each and may raise."""

    def __init__(self, nodes: list[SimNode], copies: list[Copy]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.copies = copies
        self.persistent: dict[str, str] = {}
        self.transient: dict[str, str] = {}
        self.voting_excluded: set[str] = set()
        self.elected: str | None = nodes[0].name
        self.effects: list[tuple[str, str]] = []
        self.acknowledged: dict[tuple[str, int], int] = {copy.group: 0 for copy in copies}
        self.recoveries: list[tuple[Copy, str, str]] = []
        self.fault: Callable[[str, str, str], None] = lambda _when, _what, _where: None
        self._numbers = itertools.count(1)

    # clients

    def write(self) -> None:
        """One document to each shard that has a serving primary; acknowledged once every started copy has it."""
        for group in self.acknowledged:
            primary = self.primary(group)
            if primary is None:
                continue
            for copy in self.copies:
                if copy.group == group and copy.state in {CopyState.STARTED, CopyState.RELOCATING}:
                    copy.documents += 1
                    self._keep(copy)
            self.acknowledged[group] += 1

    def lost(self) -> dict[tuple[str, int], int]:
        """By shard, how many acknowledged documents no primary has now."""
        out = {}
        for group, count in self.acknowledged.items():
            primary = self.primary(group)
            have = 0 if primary is None else primary.documents
            if have < count:
                out[group] = count - have
        return out

    def primary(self, group: tuple[str, int]) -> Copy | None:
        for copy in self.copies:
            if copy.group == group and copy.primary and copy.node is not None:
                return copy
        return None

    # membership

    def start(self, node: SimNode) -> None:
        node.pid = next(self._numbers) + 1000
        node.ephemeral_id = f"e{next(self._numbers)}"
        if not node.starts:
            node.pid = None
            node.log.append("Unrecognized VM option 'Nonsense'")
            return
        node.up = True
        for group, documents in node.disk.items():
            self._revive(node, group, documents)
        if self.elected is None or not self.nodes[self.elected].up:
            self._elect()
        self.reroute()

    def stop(self, node: SimNode) -> None:
        node.up, node.pid = False, None
        for copy in self.copies:
            if copy.target == node.name:
                copy.target, copy.state = None, CopyState.STARTED
            if copy.node == node.name:
                copy.node, copy.state, copy.target = None, CopyState.UNASSIGNED, None
        for copy in self.copies:
            if copy.primary and copy.node is None:
                self._promote(copy)
        if self.elected == node.name:
            self._elect()
        self.reroute()

    def exclude_from_voting(self, name: str) -> None:
        self.voting_excluded.add(name)
        if self.elected == name:
            self._elect()

    def new_number(self) -> int:
        return next(self._numbers)

    # allocation

    def tick(self) -> None:
        """One relocation and all initializations come to their end."""
        for copy in self.copies:
            if copy.state is CopyState.INITIALIZING:
                self._recover(copy)
        moving = next((copy for copy in self.copies if copy.state is CopyState.RELOCATING), None)
        if moving is not None and moving.node is not None and moving.target is not None:
            self.recoveries.append((moving, moving.node, moving.target))
            self.nodes[moving.node].disk.pop(moving.group, None)
            moving.node, moving.target, moving.state = moving.target, None, CopyState.STARTED
            self._keep(moving)
        self.reroute()

    def reroute(self) -> None:
        """Starts the recoveries and relocations that the settings ask for and the rules allow."""
        for copy in self.copies:
            if copy.state is CopyState.UNASSIGNED and not copy.primary:
                self._assign(copy)
            elif copy.state is CopyState.STARTED and copy.node in self.excluded():
                target = None if copy.pinned else self._place_for(copy)
                if target is not None:
                    copy.state, copy.target = CopyState.RELOCATING, target.name

    def excluded(self) -> set[str]:
        ids = set(self.setting(_EXCLUDE).split(","))
        return {node.name for node in self.nodes.values() if node.node_id in ids}

    def setting(self, key: str) -> str:
        return self.transient.get(key, self.persistent.get(key, ""))

    def _assign(self, copy: Copy) -> None:
        if self.setting(_ENABLE) in {"primaries", "none"}:
            return
        target = self._place_for(copy)
        if target is not None and self.primary(copy.group) is not None:
            copy.node, copy.state, copy.documents = target.name, CopyState.INITIALIZING, 0

    def _place_for(self, copy: Copy) -> SimNode | None:
        taken = {name for other in self.copies if other.group == copy.group for name in (other.node, other.target)}
        primary = self.primary(copy.group)
        source = self.nodes[copy.node] if copy.node else None
        # A primary compares with where it is, a replica with where its primary is.
        least = source if copy.primary or primary is None else self.nodes[primary.node or ""]
        free = [
            node
            for node in self.nodes.values()
            if node.up
            and node.name not in taken
            and node.name not in self.excluded()
            and (least is None or _rank(node) >= _rank(least))
        ]
        return min(free, key=self._load, default=None)

    def _load(self, node: SimNode) -> int:
        return sum(node.name in {copy.node, copy.target} for copy in self.copies)

    def _recover(self, copy: Copy) -> None:
        primary = self.primary(copy.group)
        if primary is None or copy.node is None or primary.node is None:
            return
        node = self.nodes[copy.node]
        if node.disk.get(copy.group) != primary.documents:
            self.recoveries.append((copy, primary.node, copy.node))
        copy.documents, copy.state = primary.documents, CopyState.STARTED
        self._keep(copy)

    def _promote(self, lost: Copy) -> None:
        """Another started copy becomes primary; the lost one waits as a replica."""
        for copy in self.copies:
            if copy.group == lost.group and copy.node is not None and copy.state is not CopyState.INITIALIZING:
                copy.primary, lost.primary = True, False
                return

    def _revive(self, node: SimNode, group: tuple[str, int], documents: int) -> None:
        """A primary without a home comes back with the node that has its data, and with what that data holds."""
        for copy in self.copies:
            if copy.group == group and copy.primary and copy.node is None:
                copy.node, copy.state, copy.documents = node.name, CopyState.STARTED, documents
                return

    def _keep(self, copy: Copy) -> None:
        if copy.node is not None:
            self.nodes[copy.node].disk[copy.group] = copy.documents

    def _elect(self) -> None:
        able = [node.name for node in self.nodes.values() if node.up and node.name not in self.voting_excluded]
        # A majority of all, as with a voting configuration that is back to its full size.
        enough = sum(node.up for node in self.nodes.values()) * 2 > len(self.nodes)
        self.elected = able[0] if able and enough else None


def _rank(node: SimNode) -> tuple[bool, Version]:
    return node.engine is EngineKind.OPENSEARCH, node.version


def build_world(cluster: Cluster, *, indices: int = 2, shards: int = 2, replicas: int = 1) -> World:
    """A started, green cluster of that shape: `indices` times `shards` shards with `replicas` replicas each."""
    nodes = [
        SimNode(
            name=node.name,
            address=node.address,
            zone=node.zone,
            engine=cluster.engine,
            version=cluster.version,
            image_id=node.image_id,
            node_id=f"id-{at}",
            ephemeral_id=f"e-{at}",
            pid=100 + at,
            up=True,
        )
        for at, node in enumerate(cluster.nodes)
    ]
    places = itertools.cycle(range(len(nodes)))
    copies = []
    for index in range(indices):
        for shard in range(shards):
            first = next(places)
            for copy in range(replicas + 1):
                home = nodes[(first + copy) % len(nodes)]
                copies.append(Copy(f"index-{index}", shard, copy == 0, CopyState.STARTED, home.name))
                home.disk[f"index-{index}", shard] = 0
    return World(nodes, copies)
