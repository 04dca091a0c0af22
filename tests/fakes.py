"""An in-memory Service with the real one's signatures, and small worlds to put into it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from shardlift.errors import BusyError, NotFoundError, UsageError
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
    StepRow,
    StepStatus,
    Strategy,
    Task,
    TaskKind,
    TaskStatus,
    Version,
)
from shardlift.service import moves
from shardlift.service.policies import changed_policy
from shardlift.service.requests import (
    CheckReport,
    Credentials,
    Intent,
    Key,
    MigrateRequest,
    NodeState,
    Page,
    PolicyChange,
    ReplaceRequest,
    RestartRequest,
    UpgradeRequest,
)
from shardlift.settings import Settings
from shardlift.store import PageState
from tests.fake_access import FakeAgencies, FakeAudit, FakeKeys

START = datetime(2023, 1, 5, 2, 23, 39, 400_000, tzinfo=UTC)


def make_image(version: str, priority: int = 16) -> Image:
    return Image(
        id=str(uuid4()),
        display_name=f"{version}_1.0.0_1105",
        description=f"OpenSearch {version}",
        engine=EngineKind.OPENSEARCH,
        version=Version.parse(version),
        sha256="0" * 64,
        size_bytes=1,
        java_min=11,
        java_max=25,
        priority=priority,
        coordinates="g:a:v:tar.gz",
    )


def make_cluster(project_id: str, image: Image, name: str = "css-test", nodes: int = 3) -> Cluster:
    cluster_id = str(uuid4())
    return Cluster(
        id=cluster_id,
        project_id=project_id,
        name=name,
        engine=image.engine,
        version=image.version,
        image_id=image.id,
        driver="local",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=START,
        updated_at=START,
        heap_mib=512,
        nodes=tuple(
            Node(
                id=str(uuid4()),
                cluster_id=cluster_id,
                name=f"{name}-ess-esn-{number}-1",
                instance_type=InstanceType.ESS,
                roles=(),
                zone="zone-a",
                address=f"127.77.0.{number}",
                http_port=9200,
                transport_port=9300,
                image_id=image.id,
            )
            for number in range(1, nodes + 1)
        ),
    )


def make_task(cluster: Cluster, image: Image, *, done: int = 0, batch_size: int = 1, **changes: object) -> Task:
    """A RUNNING task whose first `done` sub-steps (13 to a node, in plan order) are SUCCESS and the next is RUNNING."""
    nodes = [
        NodePlan(node.id, node.name, str(cluster.version), fresh_data=True, drained=True) for node in cluster.nodes
    ]
    batches = tuple(tuple(nodes[at : at + batch_size]) for at in range(0, len(nodes), batch_size))
    task_id = str(uuid4())
    task = Task(
        id=task_id,
        cluster_id=cluster.id,
        project_id=cluster.project_id,
        kind=TaskKind.UPGRADING,
        status=TaskStatus.RUNNING,
        image_id=image.id,
        strategy=Strategy.DRAIN,
        plan=Plan(cluster.id, Strategy.DRAIN, image.id, batches),
        agency="css_test_agency",
        created_at=START,
        ended_at=None,
        execute_times=1,
        revision=1,
        bytes_moved=0,
        steps=make_steps(task_id, [node.name for node in cluster.nodes], done),
    )
    return replace(task, **changes)


def make_steps(task_id: str, nodes: list[str], done: int) -> tuple[StepRow, ...]:
    """One sub-step takes a minute."""
    rows = []
    for at, (node, step) in enumerate((node, step) for node in nodes for step in SUB_STEPS):
        status = StepStatus.SUCCESS if at < done else StepStatus.RUNNING if at == done else StepStatus.WAITING
        begun = status is not StepStatus.WAITING
        rows.append(
            StepRow(
                task_id=task_id,
                node=node,
                order=step.order,
                name=step.name,
                status=status,
                desc=step.desc,
                attempts=int(begun),
                begin=START + timedelta(minutes=at) if begun else None,
                end=START + timedelta(minutes=at + 1) if status is StepStatus.SUCCESS else None,
            )
        )
    return tuple(rows)


class FakeService:
    """The one door over dictionaries. Fields may be set freely by a test; `fails` is raised by the next upgrade,
    check, retry or abort, whichever comes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backend = None
        self.known_keys: dict[str, Key] = {}
        self.tokens: dict[str, Key] = {}
        self.used: list[str] = []
        self.audit = FakeAudit()
        self.agencies = FakeAgencies()
        self.keys = FakeKeys()
        self.catalogue: dict[str, Image] = {}
        self.kept_clusters: dict[str, Cluster] = {}
        self.kept_tasks: dict[str, Task] = {}
        self.states: dict[str, NodeState] = {}
        self.requests: list[UpgradeRequest] = []
        self.moves: list[MigrateRequest | ReplaceRequest | RestartRequest] = []
        self.calls: list[str] = []
        self.fails: Exception | None = None
        self.blocking: tuple[Finding, ...] = ()
        self.changed = asyncio.Condition()
        self.details = FakeDetails(self)

    async def create_project(self, name: str) -> Credentials:
        project_id, ak, sk, token = (uuid4().hex for _ in range(4))
        self.known_keys[ak] = Key(ak, sk, project_id)
        self.tokens[token] = Key(ak, "", project_id)
        return Credentials(url="", project_id=project_id, project=name, ak=ak, sk=sk, token=token)

    async def key(self, ak: str, *, fresh: bool = False) -> Key | None:
        return self.known_keys.get(ak)

    async def token_key(self, token: str) -> Key | None:
        return self.tokens.get(token)

    def key_used(self, ak: str) -> None:
        self.used.append(ak)

    def images(self) -> tuple[Image, ...]:
        return tuple(sorted(self.catalogue.values(), key=lambda image: -image.priority))

    def image(self, ref: str) -> Image:
        for image in self.catalogue.values():
            if ref in (image.id, image.reference):
                return image
        raise NotFoundError(f"no image {ref}")

    async def targets(self, cluster_id: str, upgrade_type: str, project_id: str | None = None) -> tuple[Image, ...]:
        cluster = await self.cluster(cluster_id, project_id)
        same_line = upgrade_type == "same"
        return tuple(
            image
            for image in self.images()
            if image.version > cluster.version and (image.version.major == cluster.version.major) is same_line
        )

    async def clusters(self, project_id: str | None = None, *, start: int = 1, limit: int = 1000) -> Page[Cluster]:
        mine = [one for one in self.kept_clusters.values() if project_id in (None, one.project_id)]
        return Page(len(mine), tuple(mine[start - 1 : start - 1 + limit]))

    async def cluster(self, ref: str, project_id: str | None = None) -> Cluster:
        for one in self.kept_clusters.values():
            if ref in (one.id, one.name) and project_id in (None, one.project_id):
                return one
        raise NotFoundError(f"no cluster {ref}", field="cluster", value=ref)

    async def spares(self, cluster: Cluster) -> tuple[Node, ...]:
        return ()

    async def node_states(self, cluster: Cluster, _spares: Sequence[Node] = ()) -> dict[str, NodeState]:
        return self.states

    async def check(self, request: UpgradeRequest) -> CheckReport:
        self._fail()
        cluster, image = await self.cluster(request.cluster_id), self.image(request.image)
        task = make_task(cluster, image)
        plan = None if self.blocking else task.plan
        return CheckReport(cluster.id, image.id, request.strategy or cluster.strategy, self.blocking, plan)

    async def upgrade(self, request: UpgradeRequest, project_id: str | None = None) -> Task:
        self._fail()
        cluster, image = await self.cluster(request.cluster_id, project_id), self.image(request.image)
        if cluster.busy_with:
            raise BusyError(f"cluster {cluster.name} is busy", remedy="wait for it to end")
        self.requests.append(request)
        task = make_task(cluster, image, agency=request.agency)
        self.keep(task)
        return task

    async def migrate(self, request: MigrateRequest, project_id: str | None = None) -> Task:
        return await self._move(
            request, project_id, lambda cluster: moves.migration(cluster, request, self.settings.zone_names)
        )

    async def replace(self, request: ReplaceRequest, project_id: str | None = None) -> Task:
        return await self._move(request, project_id, lambda cluster: moves.replacement(cluster, request))

    async def restart(self, request: RestartRequest, project_id: str | None = None) -> Task:
        return await self._move(request, project_id, lambda cluster: moves.restart(cluster, request))

    async def _move(
        self,
        request: MigrateRequest | ReplaceRequest | RestartRequest,
        project_id: str | None,
        intent_of: Callable[[Cluster], Intent],
    ) -> Task:
        self._fail()
        cluster = await self.cluster(request.cluster_id, project_id)
        if cluster.busy_with:
            raise BusyError(f"cluster {cluster.name} is busy", remedy="wait for it to end")
        intent = intent_of(cluster)
        self.moves.append(request)
        task = make_task(cluster, self.image(cluster.image_id), agency=intent.agency)
        batches = tuple(batch for batch in task.plan.batches if batch[0].name in (intent.chosen or ()))
        rows = tuple(row for row in task.steps if row.node in (intent.chosen or ()))
        plan = replace(task.plan, strategy=intent.strategy, batches=batches, zones=intent.zones)
        return self.keep(replace(task, kind=intent.kind, plan=plan, steps=rows))

    async def tasks(
        self, cluster_id: str, *, kind: TaskKind | None = None, start: int = 1, limit: int = 10
    ) -> Page[Task]:
        found = [
            task for task in self.kept_tasks.values() if task.cluster_id == cluster_id and kind in (None, task.kind)
        ]
        found.reverse()
        return Page(len(found), tuple(found[start - 1 : start - 1 + limit]))

    async def newest_tasks(self, clusters: Sequence[Cluster]) -> dict[str, Task]:
        wanted = {one.id for one in clusters}
        return {task.cluster_id: task for task in self.kept_tasks.values() if task.cluster_id in wanted}

    async def task(self, task_id: str, project_id: str | None = None) -> Task:
        task = self.kept_tasks.get(task_id)
        if task is None or project_id not in (None, task.project_id):
            raise NotFoundError(f"no task {task_id}")
        return task

    async def wait_task(self, task_id: str, after_revision: int, timeout_s: float) -> Task:
        try:
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait_for(lambda: self.kept_tasks[task_id].revision > after_revision)
        except TimeoutError:
            pass
        return self.kept_tasks[task_id]

    async def retry(self, task_id: str, project_id: str | None = None) -> Task:
        self.calls.append("retry")
        self._fail()
        task = self.kept_tasks[task_id]
        if task.status not in (TaskStatus.FAILED, TaskStatus.PARTIAL_FAILED) or task.aborting:
            raise UsageError(f"task {task_id} is {task.status}, only a failed one can be retried")
        return self.keep(
            replace(
                task,
                status=TaskStatus.RUNNING,
                ended_at=None,
                execute_times=task.execute_times + 1,
                revision=task.revision + 1,
            )
        )

    async def abort(self, task_id: str, project_id: str | None = None) -> Task:
        self.calls.append("abort")
        self._fail()
        task = self.kept_tasks[task_id]
        if task.status is TaskStatus.SUCCESS:
            raise UsageError(f"task {task_id} has ended")
        return self.keep(replace(task, aborting=True, revision=task.revision + 1))

    async def pause(self, task_id: str, project_id: str | None = None) -> Task:
        return self._wish("pause", task_id, paused=True)

    async def resume(self, task_id: str, project_id: str | None = None) -> Task:
        return self._wish("resume", task_id, paused=False)

    async def approve(self, task_id: str, project_id: str | None = None) -> Task:
        return self._wish("approve", task_id, approved=True)

    async def set_policy(self, task_id: str, change: PolicyChange, project_id: str | None = None) -> Task:
        return self._wish("policy", task_id, policy=changed_policy(self.kept_tasks[task_id].policy, change))

    def _wish(self, call: str, task_id: str, **changes: object) -> Task:
        self.calls.append(call)
        self._fail()
        task = self.kept_tasks[task_id]
        return self.keep(replace(task, revision=task.revision + 1, **changes))

    def keep(self, task: Task) -> Task:
        """Puts the task there, with a revision of its own, and its cluster to work or to rest with it."""
        before = self.kept_tasks.get(task.id)
        if before is not None and before.revision >= task.revision:
            task = replace(task, revision=before.revision + 1)
        self.kept_tasks[task.id] = task
        busy = str(task.kind) if task.status is TaskStatus.RUNNING else None
        self.kept_clusters[task.cluster_id] = replace(self.kept_clusters[task.cluster_id], busy_with=busy)
        return task

    async def announce(self, task: Task) -> None:
        """Keeps a changed task and wakes those who wait for it."""
        async with self.changed:
            self.keep(task)
            self.changed.notify_all()

    def _fail(self) -> None:
        error, self.fails = self.fails, None
        if error is not None:
            raise error


class FakeDetails:
    """What the details read, over the dictionaries. Never twice the same mark."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self._mark = 0

    def mark(self) -> int:
        self._mark += 1
        return self._mark

    def page(self, project_id: str, cluster_id: str, kind: TaskKind, start: int, limit: int) -> PageState | None:
        cluster = self._service.kept_clusters[cluster_id]
        if cluster.project_id != project_id:
            return None
        found = [
            task for task in self._service.kept_tasks.values() if (task.cluster_id, task.kind) == (cluster_id, kind)
        ]
        found.reverse()
        return PageState(
            cluster.driver, len(found), tuple((task.id, task.revision) for task in found[start - 1 : start - 1 + limit])
        )

    async def tasks(self, ids: Sequence[str]) -> tuple[Task, ...]:
        return tuple(self._service.kept_tasks[one] for one in ids)
