"""Routes: several upgrades one after the other, where no single one leads from what runs to what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shardlift.model.cluster import Strategy
from shardlift.model.image import EngineKind, Image, Version
from shardlift.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Leg:
    """One hop of a route that was found: from `engine` `version` to `image`.

    `rebuild` names the indices that the image does not open. They must be made again (reindexed) before this hop, on
    `engine` `version`.
    """

    engine: EngineKind
    version: Version
    image: Image
    rebuild: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """`opensearch:1.3.20`."""
        return f"{self.engine}:{self.version}"


class RouteStatus(StrEnum):
    """A route is RUNNING until its last hop has succeeded or somebody has given it up, also while it waits."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop as it is kept. `task_id` is None until it has begun."""

    image_id: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Hops that were approved together; each becomes one task, once the one before it has succeeded.

    `waiting_for`: why the next hop has not begun, or the present one has failed, and what to do; None while a task
    goes on. `look_at`: when it is asked again whether the next hop may begin.
    """

    id: str
    cluster_id: str
    project_id: str
    status: RouteStatus
    hops: tuple[Hop, ...]
    strategy: Strategy | None
    agency: str
    backup_check: bool
    load_check: bool
    policy: Policy
    created_at: datetime
    ended_at: datetime | None = None
    waiting_for: str | None = None
    look_at: datetime | None = None

    @property
    def begun(self) -> int:
        """How many hops have a task."""
        return sum(hop.task_id is not None for hop in self.hops)

    @property
    def task_id(self) -> str | None:
        """The newest task, None before the first one."""
        return self.hops[self.begun - 1].task_id if self.begun else None

    def number_of(self, task_id: str) -> int | None:
        """Which hop the task is, from 1; None for a task that is none of them."""
        return next((at for at, hop in enumerate(self.hops, 1) if hop.task_id == task_id), None)
