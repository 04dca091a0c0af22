"""The things a simulated cluster is made of. They hold state; what changes it is in the other modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from shardlift.model import CopyState, EngineKind, NodeSeen, ShardCopy, Version

Group = tuple[str, int]
"""Index and shard number: all copies of one shard share it."""

MIB = 2**20
LOAD_1M = 0.1


@dataclass(slots=True)
class Data:
    """What lies in a data path for one shard: operations up to `documents`, under the allocation id `aid`.

    `leased`: the operations that it misses were retained for it, so its files need not be sent anew.
    """

    aid: int
    documents: int
    leased: bool = True


@dataclass(slots=True, eq=False)
class SimNode:
    """A node: what its host holds, its process, and, while `up`, its membership.

    `serving`: it answers HTTP. `boot_s`: seconds from start to both. `starts` False: the process ends soon after its
    start. `filler_bytes`: what others have put on its disk. `disk` holds the data of copies it does not serve now.
    `slowness`: how many times longer it takes to boot and to send or take a copy. `load_1m`: what its machine bears, of
    two processors; None: it does not tell. `extra`: it was made when the cluster was there already, and is no more once
    it is deleted. `cold`: it has recovered nothing since it booted. `told`: as the engines tell it, with what that is
    made of.
    """

    name: str
    address: str
    zone: str
    roles: frozenset[str]
    engine: EngineKind
    version: Version
    image_id: str
    node_id: str
    ephemeral_id: str
    pid: int | None = None
    up: bool = False
    serving: bool = False
    hung: bool = False
    booted: bool = False
    starts: bool = True
    boot_s: float = 8.0
    disk_bytes: int = 100_000 * MIB
    filler_bytes: int = 20_000 * MIB
    disk: dict[Group, Data] = field(default_factory=dict)
    set_aside: dict[str, dict[Group, Data]] = field(default_factory=dict)
    backups: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    taken_over: set[str] = field(default_factory=set)
    extra: bool = False
    cold: bool = False
    log: list[str] = field(default_factory=list)
    started_at_ms: int = 0
    writes: int = 0
    slowness: float = 1.0
    load_1m: float | None = LOAD_1M
    told: tuple[tuple[object, ...], NodeSeen] | None = field(init=False, default=None)

    @property
    def release(self) -> tuple[bool, Version]:
        """OpenSearch follows Elasticsearch, though its numbers begin anew."""
        return self.engine is EngineKind.OPENSEARCH, self.version

    @property
    def holds_data(self) -> bool:
        return _hold_data(self.roles)

    @property
    def eligible(self) -> bool:
        return bool(self.roles & {"master", "cluster_manager"})

    @property
    def awake(self) -> bool:
        """Its process lives, has booted and answers: it votes, whether it is a member or looks for a cluster."""
        return self.pid is not None and self.booted and not self.hung

    @property
    def working(self) -> bool:
        """A member whose process lives and answers."""
        return self.up and self.pid is not None and not self.hung


def again(key: str) -> str:
    """Under which `hand_over` sets aside what has come since `switch` did so with that key."""
    return f"{key}.again"


@lru_cache(maxsize=64)
def _hold_data(roles: frozenset[str]) -> bool:
    return any(role == "data" or role.startswith("data_") for role in roles)


@dataclass(slots=True, eq=False)
class Copy:
    """One entry of the routing table. `target` is set while the copy is on its way there, `delayed_until_s` while it
    waits for a node that left to return. `documents` counts the operations it has, `aid` is its allocation id.

    `number`: its place in the table. `seen` and `sized`: as the engines tell it, without and with its size, as long as
    nothing has changed."""

    index: str
    shard: int
    primary: bool
    state: CopyState
    node: str | None
    aid: int = 0
    documents: int = 0
    target: str | None = None
    delayed_until_s: float = 0.0
    reason: str | None = None
    number: int = field(init=False, default=0)
    seen: ShardCopy | None = field(init=False, default=None)
    sized: ShardCopy | None = field(init=False, default=None)

    @property
    def group(self) -> Group:
        return self.index, self.shard

    @property
    def serving(self) -> bool:
        return self.state in (CopyState.STARTED, CopyState.RELOCATING)

    @property
    def label(self) -> str:
        return f"{self.index}[{self.shard}]{'p' if self.primary else 'r'}"


@dataclass(slots=True)
class Shard:
    """What the cluster knows of a shard besides its copies: operations acknowledged, and who has all of them."""

    acknowledged: int = 0
    in_sync: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index to be made: `copy_bytes` is the size of each of its shard copies."""

    name: str
    primaries: int = 1
    replicas: int = 1
    copy_bytes: int = MIB
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class SimIndex:
    """An index. `settings` are flat `index.*` keys. `leases_renewed_s`: until then the retention leases of its copies
    do not know what was loaded."""

    name: str
    primaries: int
    replicas: int
    copy_bytes: int
    created_by: EngineKind
    created_on: Version
    settings: dict[str, str]
    closed: bool = False
    leases_renewed_s: float = 0.0

    @property
    def expands(self) -> bool:
        return self.settings.get("index.auto_expand_replicas", "false") != "false"


@dataclass(slots=True, eq=False)
class Move:
    """A recovery under way: `copy` is being built on `target` from `source`, the node of its primary.

    `replay`: the target's disk has the data, and only operations that it missed are sent. `known_s`: until then, in
    seconds of the world, source or target has not heard of it.
    """

    copy: Copy
    source: str
    target: str
    total_bytes: int
    left_bytes: float
    started_at_ms: int
    replay: bool = False
    done: bool = False
    known_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Due:
    """Something that will happen, as data, so that a world can be written down: an event's name and its arguments."""

    name: str
    arguments: tuple[str | int, ...]
