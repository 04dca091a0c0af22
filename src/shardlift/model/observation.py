"""What was read from a live cluster at one moment, frozen. Rules and planner see nothing else.

None always means "not known" and is never treated as healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from shardlift.model.image import EngineKind, Version

_LEASE_SHARE = 0.05
_SMALL_BYTES = 2**20
_SMALL_DOCS = 1000


class Health(StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class CopyState(StrEnum):
    """States of a shard copy in the engine's routing table."""

    STARTED = "STARTED"
    INITIALIZING = "INITIALIZING"
    RELOCATING = "RELOCATING"
    UNASSIGNED = "UNASSIGNED"


@dataclass(frozen=True, slots=True)
class HealthSeen:
    """`GET _cluster/health`. `timed_out` is true when what was waited for did not come about in time.

    `pending_tasks` wait in the elected master's queue; `in_flight_fetch` counts questions to data nodes about the
    copies on their disks, which go before an allocation.
    """

    status: Health
    nodes: int
    data_nodes: int
    active_shards: int
    relocating: int
    initializing: int
    unassigned: int
    pending_tasks: int
    timed_out: bool
    in_flight_fetch: int = 0

    @property
    def settled(self) -> bool:
        """No copy is on its way anywhere."""
        return self.relocating == 0 and self.initializing == 0


@dataclass(frozen=True, slots=True)
class PluginSeen:
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One member of the cluster. `id` lives in the data path, `ephemeral_id` is new at each start of the process.

    `roles` are the engine's words (`data`, `ingest`, `master` or `cluster_manager`, ...). Disk sizes in bytes, load
    figures as the engine gives them, all None when unread. `*_total` and `*_time_ms` only grow while the process lives:
    queries and indexing operations done on its copies and the time they took, and requests refused by its search and
    write queues.
    """

    name: str
    id: str
    ephemeral_id: str
    address: str
    engine: EngineKind
    version: Version
    roles: frozenset[str]
    attributes: Mapping[str, str]
    plugins: tuple[PluginSeen, ...]
    java_version: str | None = None
    started_at_ms: int | None = None
    disk_total_bytes: int | None = None
    disk_available_bytes: int | None = None
    heap_used_percent: int | None = None
    cpu_percent: int | None = None
    load_1m: float | None = None
    processors: int | None = None
    search_queue: int | None = None
    write_queue: int | None = None
    search_total: int | None = None
    search_time_ms: int | None = None
    write_total: int | None = None
    write_time_ms: int | None = None
    rejected_total: int | None = None

    @property
    def release(self) -> tuple[bool, Version]:
        """Orders nodes by age of their release. OpenSearch follows Elasticsearch, though its numbers begin anew."""
        return self.engine is EngineKind.OPENSEARCH, self.version

    @property
    def holds_data(self) -> bool:
        return any(role == "data" or role.startswith("data_") for role in self.roles)

    @property
    def master_eligible(self) -> bool:
        return "master" in self.roles or "cluster_manager" in self.roles

    @property
    def zone(self) -> str | None:
        return self.attributes.get("zone")

    @property
    def disk_used_bytes(self) -> int | None:
        if self.disk_total_bytes is None or self.disk_available_bytes is None:
            return None
        return self.disk_total_bytes - self.disk_available_bytes


@dataclass(frozen=True, slots=True)
class ShardCopy:
    """One copy of one shard. `node` is None while unassigned; `size_bytes` is None where the engine did not say.

    `relocating_to` names the target node while state is RELOCATING. `unassigned_reason` is the engine's word
    (`NODE_LEFT`, `INDEX_CREATED`, ...).
    """

    index: str
    shard: int
    primary: bool
    state: CopyState
    node: str | None
    relocating_to: str | None = None
    size_bytes: int | None = None
    unassigned_reason: str | None = None

    @property
    def group(self) -> tuple[str, int]:
        """All copies of one shard share this."""
        return self.index, self.shard

    @property
    def serving(self) -> bool:
        """Holds all acknowledged writes: a relocating source serves until its target has taken over."""
        return self.state in (CopyState.STARTED, CopyState.RELOCATING)


@dataclass(frozen=True, slots=True)
class IndexSeen:
    """One index. `created_on` is the engine version that created it; `settings` are flat `index.*` keys as strings."""

    name: str
    created_on: Version | None
    created_by: EngineKind | None
    primaries: int
    replicas: int
    closed: bool
    settings: Mapping[str, str]

    @property
    def segment_replication(self) -> bool:
        """Whether replicas copy segments from their primary instead of indexing themselves."""
        return self.settings.get("index.replication.type", "").upper() == "SEGMENT"

    @property
    def expands(self) -> bool:
        """Whether the engine chooses the number of replicas (`index.auto_expand_replicas`)."""
        return self.settings.get("index.auto_expand_replicas", "false") != "false"

    @property
    def expands_to_all(self) -> bool:
        """Whether every data node is meant to hold a copy; such a copy need not move, it is complete elsewhere."""
        return self.settings.get("index.auto_expand_replicas", "false").endswith("-all")

    @property
    def searchable_snapshot(self) -> bool:
        """Whether its copies are read from a snapshot repository (Elasticsearch `snapshot`, OpenSearch
        `remote_snapshot`) and not written by anybody."""
        return self.settings.get("index.store.type", "") in {"snapshot", "remote_snapshot"}


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """`GET _cluster/settings?flat_settings=true`: each layer as flat keys to strings (lists joined by commas).

    `defaults` holds what the configuration file of the node asked and the engine itself say, for the keys that matter
    here; it is empty when it was not asked for, which only an observation does.
    """

    persistent: Mapping[str, str] = field(default_factory=dict)
    transient: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    def layer(self, name: str) -> Mapping[str, str]:
        """`persistent` or `transient`."""
        return {"persistent": self.persistent, "transient": self.transient}[name]

    def effective(self, key: str) -> str | None:
        """The value in force: transient, persistent, then the defaults."""
        return self.transient.get(key, self.persistent.get(key, self.defaults.get(key)))

    @property
    def archived(self) -> tuple[str, ...]:
        """Keys that the running version does not know; the engine refuses every settings update while there are any."""
        return tuple(sorted(key for key in {*self.persistent, *self.transient} if key.startswith("archived.")))


@dataclass(frozen=True, slots=True)
class VotingSeen:
    """The committed voting configuration and the exclusions, as node ids and names. 6.8 has none."""

    config_ids: frozenset[str]
    excluded_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class BackupSeen:
    """The newest finished snapshot, whole or partial, that holds an index.

    `ended_at` and `failed_shards` (of all its indices) are None where the repository was not asked for them: details
    are read of the newest snapshots only.
    """

    snapshot: str
    ended_at: datetime | None
    failed_shards: int | None


@dataclass(frozen=True)
class Observation:
    """Everything read once. `shards` and `indices` cover all indices, hidden, system and closed ones too.

    `running_snapshots` counts snapshots under way; `snapshotted` names the open indices that are in at least one
    successful snapshot; `backups` tells the newest snapshot of each index, as far as known; `running_work` names
    actions under way that a restart would break (reindex, update by query, force merge, shrink, ...); `dangling` names
    indices found on a disk but not in the cluster; `leaving` names members that somebody has announced to shut down
    (Elasticsearch's `_nodes/shutdown`). What could not be read is None, except `backups`, which then lacks the index.
    """

    at: datetime
    health: HealthSeen
    nodes: tuple[NodeSeen, ...]
    elected: str | None
    shards: tuple[ShardCopy, ...]
    indices: tuple[IndexSeen, ...]
    settings: ClusterSettings
    voting: VotingSeen | None
    running_snapshots: int | None
    snapshotted: frozenset[str] | None
    running_work: tuple[str, ...] | None = ()
    dangling: tuple[str, ...] | None = ()
    backups: Mapping[str, BackupSeen] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()

    # Maps built when first asked for, once for all rules: a big cluster has a hundred thousand copies.

    @cached_property
    def members(self) -> Mapping[str, NodeSeen]:
        """By name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def by_node(self) -> Mapping[str, tuple[ShardCopy, ...]]:
        """The copies on each node that has any, by its name. A relocating copy is on its source."""
        found: dict[str, list[ShardCopy]] = {}
        for copy in self.shards:
            if copy.node is not None:
                found.setdefault(copy.node, []).append(copy)
        return {name: tuple(copies) for name, copies in found.items()}

    @cached_property
    def groups(self) -> Mapping[tuple[str, int], tuple[ShardCopy, ...]]:
        """All copies of each shard, unassigned ones too, by index and shard number."""
        found: dict[tuple[str, int], list[ShardCopy]] = {}
        for copy in self.shards:
            found.setdefault(copy.group, []).append(copy)
        return {group: tuple(copies) for group, copies in found.items()}

    def node(self, name: str) -> NodeSeen | None:
        return self.members.get(name)

    def copies_on(self, name: str) -> tuple[ShardCopy, ...]:
        return self.by_node.get(name, ())


@dataclass(frozen=True, slots=True)
class Decision:
    """One decider's word on one shard copy: `verdict` is NO, THROTTLE or YES."""

    decider: str
    verdict: str
    explanation: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a copy is where it is (`_cluster/allocation/explain`).

    `can_move` is `yes`, `no`, `throttled` or `awaiting_info` for an assigned copy, and the engine's `can_allocate`
    word for an unassigned one.
    """

    index: str
    shard: int
    primary: bool
    can_move: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """A wish to move one started copy from one node to another, all by node name."""

    index: str
    shard: int
    source: str
    target: str

    @property
    def group(self) -> tuple[str, int]:
        return self.index, self.shard


@dataclass(frozen=True, slots=True)
class MoveVerdict:
    """What the engine would say to a move (`_cluster/reroute?dry_run`). `decisions` holds those that are not YES."""

    move: Move
    allowed: bool
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class RetainedCopy:
    """What the engine would have to send a copy that comes back: operations it retains for it, or all files.

    `behind`: operations that its peer recovery retention lease still retains although the copy has them. Leases are
    renewed every 30 s. `docs`: documents of the shard.
    """

    index: str
    shard: int
    docs: int
    behind: int
    bytes: int

    @property
    def rebuilt(self) -> bool:
        """Whether the copy's files would be sent anew although it kept them, were its node to leave now.

        The engines end the lease of a copy that is away when it retains more operations than a tenth of the shard's
        documents (`index.recovery.file_based_threshold`; ReplicationTracker, Elasticsearch from 7.6 on and OpenSearch),
        and without a lease copy files. Half of that here: clients write on until the node has left.
        """
        return self.behind > self.docs * _LEASE_SHARE

    @property
    def small(self) -> bool:
        """Not worth a wait: one that is written all over each half minute would always be behind.

        By bytes and documents, since the engine looks at the size of files each 10 s only; before a refresh it knows of
        no documents either.
        """
        return self.bytes < _SMALL_BYTES and (self.docs or self.behind) < _SMALL_DOCS


@dataclass(frozen=True, slots=True)
class Recovery:
    """One finished or running peer recovery, from the engine's own recovery API. `bytes` were sent over the wire."""

    index: str
    shard: int
    source: str
    target: str
    started_at_ms: int
    bytes: int
    done: bool

    @property
    def key(self) -> str:
        """Names this recovery for as long as the cluster lives."""
        return f"{self.index}/{self.shard}/{self.target}/{self.started_at_ms}"
