"""A service for the command line's tests: real answers of the real types, held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from shardlift.errors import BusyError, NotFoundError, RefusedError
from shardlift.model import (
    SUB_STEPS,
    Cluster,
    ClusterStatus,
    EngineKind,
    Finding,
    Image,
    InstanceType,
    Node,
    NodePlan,
    Plan,
    Route,
    Severity,
    StepRow,
    StepStatus,
    Strategy,
    Task,
    TaskKind,
    TaskStatus,
    TrafficHook,
    Version,
)
from shardlift.service.hooks import HookSet
from shardlift.service.policies import changed_policy
from shardlift.service.requests import (
    CheckReport,
    CreateCluster,
    Credentials,
    NodeState,
    Page,
    PolicyChange,
    Project,
    UpgradeRequest,
)
from shardlift.settings import Settings

NOW = datetime(2026, 1, 5, 2, 23, 39, tzinfo=UTC)
IMAGE = Image(
    id="11111111-0000-0000-0000-000000000000",
    display_name="3.4.0_1.0.0_0101",
    description="",
    engine=EngineKind.OPENSEARCH,
    version=Version(3, 4, 0),
    sha256="0" * 64,
    size_bytes=1,
    java_min=21,
    java_max=25,
    priority=1,
)
FINDING = Finding("last_started_copy", Severity.BLOCK, "logs", "no other copy", "1 of 1 STARTED", "add a replica")


def a_cluster(name: str = "books", **changes: object) -> Cluster:
    nodes = tuple(
        Node(f"n{n}", "c1", f"{name}-ess-esn-{n}-1", InstanceType.ESS, (), "zone-a", f"127.9.9.{n}", 9200, 9300, "i0")
        for n in (1, 2)
    )
    cluster = Cluster(
        id="c1",
        project_id="p1",
        name=name,
        engine=EngineKind.OPENSEARCH,
        version=Version(2, 19, 4),
        image_id="i0",
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=NOW,
        updated_at=NOW,
        heap_mib=512,
        nodes=nodes,
    )
    return replace(cluster, **changes)


def a_task(status: TaskStatus = TaskStatus.RUNNING, done: int = 0, **changes: object) -> Task:
    """A task over the nodes of `a_cluster`, with `done` sub-steps SUCCESS and the next one in the task's status."""
    cluster = a_cluster()
    plan = Plan(
        "c1", Strategy.DRAIN, IMAGE.id, tuple((NodePlan(n.id, n.name, "2.19.4", True, True),) for n in cluster.nodes)
    )
    rows = []
    for node in plan.nodes:
        for step in SUB_STEPS:
            begin = NOW + timedelta(seconds=len(rows))
            row = StepRow("t1", node.name, step.order, step.name, StepStatus.WAITING, step.desc, 1)
            if len(rows) < done:
                row = replace(row, status=StepStatus.SUCCESS, begin=begin, end=begin + timedelta(seconds=1))
            elif len(rows) == done:
                word = StepStatus.FAILED if status is TaskStatus.FAILED else StepStatus.RUNNING
                row = replace(row, status=word, begin=begin, progress={"waiting_for": "7 shards", "shards_left": 7})
            rows.append(row)
    task = Task(
        id="t1",
        cluster_id="c1",
        project_id="p1",
        kind=TaskKind.UPGRADING,
        status=status,
        image_id=IMAGE.id,
        strategy=Strategy.DRAIN,
        plan=plan,
        agency="",
        created_at=NOW,
        ended_at=None if status is TaskStatus.RUNNING else NOW + timedelta(minutes=1),
        execute_times=1,
        revision=done + 1,
        bytes_moved=4096,
        steps=tuple(rows),
        fail_message="it did not start" if status is TaskStatus.FAILED else None,
    )
    return replace(task, **changes)


class FakeRoutes:
    """No cluster is on a route."""

    async def of_cluster(self, _cluster: Cluster) -> tuple[Route, ...]:
        return ()


@dataclass
class FakeService:
    """`waits` are what `wait_task` returns, one after the other."""

    settings: Settings
    clusters_: list[Cluster] = field(default_factory=list)
    task_: Task = field(default_factory=a_task)
    waits: list[Task] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    projects_: list[Project] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    fail: Callable[[], None] = lambda: None
    routes: FakeRoutes = field(default_factory=FakeRoutes)

    async def projects(self) -> tuple[Project, ...]:
        return tuple(self.projects_)

    async def project_id(self, ref: str) -> str:
        for project in self.projects_:
            if ref in (project.id, project.name):
                return project.id
        raise NotFoundError(f"no project {ref!r}", field="project", value=ref, remedy="list them")

    async def create_project(self, name: str) -> Credentials:
        self.projects_.append(Project(f"id-{name}", name))
        return Credentials("", f"id-{name}", name, "AK", "secret-sk", "secret-token")

    def image(self, ref: str) -> Image:
        if ref not in (IMAGE.id, IMAGE.reference):
            raise NotFoundError(f"no image {ref!r}", field="image", value=ref, remedy="list them")
        return IMAGE

    async def set_hook(self, ref: str, hook: TrafficHook | None, project_id: str | None = None) -> HookSet:
        self.asked.append(hook)
        shown = None if hook is None else hook.document()
        return HookSet(
            replace(await self.cluster(ref), traffic_hook=shown), ("node-2",) if hook is None else (), tried=True
        )

    async def create_cluster(self, request: CreateCluster) -> Cluster:
        self.asked.append(request)
        self.clusters_.append(a_cluster(request.name))
        return self.clusters_[-1]

    async def clusters(self, project_id: str | None = None) -> Page[Cluster]:
        found = [c for c in self.clusters_ if project_id in (None, c.project_id)]
        return Page(len(found), tuple(found))

    async def cluster(self, ref: str, _project_id: str | None = None) -> Cluster:
        self.fail()
        for cluster in self.clusters_:
            if ref in (cluster.id, cluster.name):
                return cluster
        raise NotFoundError(f"no cluster {ref!r}", field="cluster", value=ref, remedy="`shardlift cluster list`")

    async def delete_cluster(self, ref: str, _project_id: str | None = None) -> None:
        if (await self.cluster(ref)).busy_with:
            raise BusyError("a task runs on it", remedy="wait for it")
        self.clusters_ = [c for c in self.clusters_ if c.id != ref]

    async def spares(self, cluster: Cluster) -> tuple[Node, ...]:
        return ()

    async def node_states(self, cluster: Cluster, _spares: Sequence[Node] = ()) -> dict[str, NodeState]:
        first, *others = cluster.nodes
        silent = {node.name: NodeState(None, None, False) for node in others}
        return {first.name: NodeState(4711, "2.19.4", True), **silent}

    async def check(self, request: UpgradeRequest) -> CheckReport:
        self.asked.append(request)
        return CheckReport("c1", IMAGE.id, Strategy.DRAIN, self.findings, None if self.findings else self.task_.plan)

    async def upgrade(self, request: UpgradeRequest) -> Task:
        self.asked.append(request)
        if self.findings:
            raise RefusedError("it cannot go there now", self.findings, remedy="see the findings")
        return self.task_

    async def tasks(self, _cluster_id: str, *, limit: int) -> Page[Task]:
        return Page(1, (self.task_,)[:limit])

    async def task(self, task_id: str) -> Task:
        if task_id != self.task_.id:
            raise NotFoundError(f"no task {task_id!r}", field="task", value=task_id)
        return self.task_

    async def wait_task(self, _task_id: str, _after: int, _timeout_s: float) -> Task:
        self.fail()
        return self.waits.pop(0)

    async def retry(self, task_id: str) -> Task:
        self.asked.append(("retry", task_id))
        return replace(self.task_, status=TaskStatus.RUNNING, execute_times=2)

    async def abort(self, task_id: str) -> Task:
        self.asked.append(("abort", task_id))
        return replace(self.task_, aborting=True)

    async def pause(self, task_id: str) -> Task:
        self.asked.append(("pause", task_id))
        return replace(self.task_, paused=True)

    async def resume(self, task_id: str) -> Task:
        self.asked.append(("resume", task_id))
        return self.task_

    async def approve(self, task_id: str) -> Task:
        self.asked.append(("approve", task_id))
        return replace(self.task_, approved=True)

    async def set_policy(self, task_id: str, change: PolicyChange) -> Task:
        self.asked.append(("policy", task_id, change))
        return replace(self.task_, policy=changed_policy(self.task_.policy, change))

    @asynccontextmanager
    async def opened(self, settings: Settings) -> AsyncIterator[FakeService]:
        self.settings = settings
        yield self
