"""What callers hand to the service and get back besides the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from shardlift.model import (
    Finding,
    Forecast,
    InstanceType,
    Leg,
    Plan,
    Policy,
    Severity,
    Simulation,
    Strategy,
    TaskKind,
    ZoneChange,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One project's way in. `sk` and `token` are secrets: they go to credentials.toml and nowhere else."""

    url: str
    project_id: str
    project: str
    ak: str
    sk: str
    token: str


@dataclass(frozen=True, slots=True)
class Key:
    """An access key as signatures are checked with it. After a rotation `previous_sk` counts until `previous_until`."""

    ak: str
    sk: str
    project_id: str
    previous_sk: str | None = None
    previous_until: datetime | None = None

    def sks(self, now: datetime) -> tuple[str, ...]:
        """The secrets that count at `now`, the newest first."""
        overlaps = self.previous_sk is not None and self.previous_until is not None and now < self.previous_until
        return (self.sk, self.previous_sk) if overlaps and self.previous_sk is not None else (self.sk,)


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes of one instance type to create: `count` of them, dealt to the cluster's zones in turn."""

    instance_type: InstanceType
    count: int


@dataclass(frozen=True, slots=True)
class CreateCluster:
    """A new cluster. `image` is `opensearch:2.19.4` or an image id; `zones` are dealt to the nodes in turn.

    `simulation` is for the driver `sim` alone; None takes its defaults.
    """

    project_id: str
    name: str
    image: str
    groups: tuple[NodeGroup, ...]
    zones: tuple[str, ...] = ("zone-a",)
    driver: str = "local"
    strategy: Strategy = Strategy.AUTO
    heap_mib: int | None = None
    simulation: Simulation | None = None


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """An upgrade of all nodes. `strategy` None takes the cluster's own.

    `upgrade_type` is CSS's word: `same` (same engine, same version line), `cross` (same engine, higher version),
    `cross-engine`; None does not restrict. `backup_check`: every index must be in a successful snapshot.
    `load_check`: refuse while the nodes are under load. `policy`: how the task goes from node to node.
    """

    cluster_id: str
    image: str
    strategy: Strategy | None = None
    agency: str = ""
    upgrade_type: str | None = None
    backup_check: bool = False
    load_check: bool = False
    batch_size: int = 1
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What is to change in the policy of a task that exists; None keeps what is there.

    `gates` by name, in place of all that were set; an empty mapping takes them away. `windows` likewise. `canary` can
    only be False: the canary is approved in advance.
    """

    canary: bool | None = None
    gates: Mapping[str, object] | None = None
    windows: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class MigrateRequest:
    """A change of zones of all nodes of a CSS type (`ess`, `ess-cold`, `ess-client`, `ess-master`, `all`).

    `migrate_type` `az_migrate`: from the zone `source` to the zone `target`; `multi_az_change`: evenly over all zones
    of `target` (joined by commas), as few nodes as possible moving; None: by how many zones `target` names.
    """

    cluster_id: str
    source: str
    target: str
    inst_type: str = "all"
    migrate_type: str | None = None
    agency: str = ""
    backup_check: bool = False


@dataclass(frozen=True, slots=True)
class ReplaceRequest:
    """A new host for one node, given by id or name. `migrate_data`: its copies leave it before; else the other copies
    of its shards are what it is filled from."""

    cluster_id: str
    node: str
    migrate_data: bool = True
    agency: str = ""


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """A restart one by one of the nodes that `value` names: types for `role`, ids or names for `node`, zones for `az`,
    joined by commas."""

    cluster_id: str
    by: str = "role"
    value: str = "all"


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be done with which nodes, whatever kind of request it came from.

    `chosen`: names of the nodes, None for those that do not run the image yet. `to_zones`: those of them that change
    zones. `unsaved`: they come back with an empty disk, although nothing leaves them before. `zones`: the change of
    zones as it was asked for.
    """

    kind: TaskKind
    strategy: Strategy
    chosen: frozenset[str] | None = None
    to_zones: Mapping[str, str] = field(default_factory=dict)
    unsaved: bool = False
    zones: ZoneChange | None = None
    agency: str = ""
    backup_check: bool = False
    load_check: bool = False
    batch_size: int = 1
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found; `plan` is None when something blocks. Nothing was changed.

    `forecast`: the dry run of the plan, or of what would be the plan; None when there is nothing to do.
    """

    cluster_id: str
    image_id: str
    strategy: Strategy
    findings: tuple[Finding, ...]
    plan: Plan | None
    forecast: Forecast | None = None

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.BLOCK)


@dataclass(frozen=True, slots=True)
class HopReport:
    """What is known today of one hop of a route. `download_bytes`: of its image, 0 when it is ready.

    `check` of the first hop is the whole check, with the engine's own word. That of a later one is asked as if the
    hops before were done, and has only findings that are no earlier hop's as well.
    """

    leg: Leg
    check: CheckReport
    download_bytes: int

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """What would keep the route from being approved; a later hop waits until its indices have been made again."""
        return self.check.blocking


@dataclass(frozen=True, slots=True)
class RouteReport:
    """The route that `plan_route` found, in order. Nothing was changed."""

    cluster_id: str
    hops: tuple[HopReport, ...]

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(finding for hop in self.hops for finding in hop.blocking)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`total` items exist; `items` are those asked for."""

    total: int
    items: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it is now: its process, and the version that it reports itself; None where it does not answer."""

    pid: int | None
    version: str | None
    answers: bool
