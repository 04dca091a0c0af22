"""The one door: everything that a person or a program can ask of Shardlift."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from shardlift.backend import Backend
from shardlift.checks.versions import hop_allowed
from shardlift.clock import Clock
from shardlift.errors import BusyError, EngineError, NotFoundError, RefusedError, UsageError
from shardlift.model import Cluster, Image, Node, Plan, Severity, Task, TaskKind, TaskStatus, TrafficHook
from shardlift.service import moves
from shardlift.service.agencies import Agencies, action_of
from shardlift.service.audit import Audit, note
from shardlift.service.checking import check_intent
from shardlift.service.clusters import ClusterMaker
from shardlift.service.control import TaskControl
from shardlift.service.following import Follower
from shardlift.service.hooks import Hooks, HookSet
from shardlift.service.keys import Keys
from shardlift.service.requests import (
    CheckReport,
    CreateCluster,
    Credentials,
    Intent,
    Key,
    MigrateRequest,
    NodeState,
    Page,
    PolicyChange,
    Project,
    ReplaceRequest,
    RestartRequest,
    UpgradeRequest,
)
from shardlift.service.routes import Keep, Routes, upgrade_intent
from shardlift.settings import Settings
from shardlift.store import Database, Details, Leases, Store
from shardlift.store.audit import AuditStore
from shardlift.store.hooks import HookStore
from shardlift.store.keys import KeyStore
from shardlift.store.vault import Vault

_UPGRADE_TYPES = ("same", "cross", "cross-engine")
_WAIT_MAX_S = 60.0
_WISHES = {
    TaskKind.UPGRADING: "go to {image}",
    TaskKind.AZ_MIGRATION: "change zones",
    TaskKind.REPLACING: "have the node replaced",
    TaskKind.REBOOTING: "have nodes restarted",
}


class Service:
    """Submit and read. Effects on running clusters happen in the runner; making and deleting clusters happens here."""

    def __init__(self, database: Database, backend: Backend, settings: Settings, clock: Clock, owner: str) -> None:
        self.settings = settings
        self.store = Store(database)
        self.details = Details(database)
        self.backend = backend
        self.clock = clock
        kept = KeyStore(database, Vault(settings.master_key_path))
        self.keys = Keys(kept, clock)
        self.agencies = Agencies(kept, clock)
        self.audit = Audit(
            AuditStore(database), clock, records_max=settings.audit_records_max, days=settings.audit_days
        )
        self.leases = Leases(database, clock, owner, settings.lease_s, project_max=settings.project_clusters_max)
        self._control = TaskControl(self.store, clock, settings.project_clusters_max, backend.image)
        self._follower = Follower(database, clock, self._with_turn)
        self._hooks = Hooks(HookStore(database, kept.vault), self.store, backend, settings)
        self.routes = Routes(self.store, backend, clock, self._submit, self._control.abort)
        self._maker = ClusterMaker(self.store, self.leases, backend, settings, clock)

    # projects and keys

    async def create_project(self, name: str) -> Credentials:
        """A new project with one access key. The secrets are returned here and can not be read again."""
        if not name or len(name) > 64 or not name.isprintable():  # noqa: PLR2004  (the column's width)
            raise UsageError(
                "a project's name has 1 to 64 printable characters", field="name", value=name, remedy="choose another"
            )
        return await self.keys.create_project(name)

    async def projects(self) -> tuple[Project, ...]:
        return tuple(Project(*row) for row in await self.store.projects())

    async def project_id(self, ref: str) -> str:
        """The id of a project given by id or name."""
        for project in await self.projects():
            if ref in {project.id, project.name}:
                return project.id
        raise NotFoundError(
            f"no project {ref!r}", field="project", value=ref, remedy="`shardlift project list` shows them"
        )

    async def key(self, ak: str, *, fresh: bool = False) -> Key | None:
        """The key that signatures with this AK are checked with."""
        return await self.keys.find(ak, fresh=fresh)

    async def token_key(self, token: str) -> Key | None:
        """The key that the token belongs to, without its secret."""
        return await self.keys.find_token(token)

    def key_used(self, ak: str) -> None:
        self.keys.used(ak)

    # images

    def images(self) -> tuple[Image, ...]:
        return self.backend.images()

    def image(self, ref: str) -> Image:
        return self.backend.image(ref)

    async def targets(self, cluster_id: str, upgrade_type: str, project_id: str | None = None) -> tuple[Image, ...]:
        """Images that the cluster can go to by this kind of upgrade, best first."""
        cluster = await self.cluster(cluster_id, project_id)
        _known_type(upgrade_type)
        return tuple(
            image
            for image in self.images()
            if image.id != cluster.image_id
            and upgrade_type_of(cluster, image) == upgrade_type
            and hop_allowed(cluster.engine, cluster.version, image.engine, image.version) is None
        )

    # clusters

    async def create_cluster(self, request: CreateCluster) -> Cluster:
        note("cluster.create", project_id=request.project_id, subject=request.name)
        made = await self._maker.create(request)
        note("cluster.create", cluster_id=made.id)
        return made

    async def clusters(self, project_id: str | None = None, *, start: int = 1, limit: int = 1000) -> Page[Cluster]:
        total, items = await self.store.clusters(project_id, start, limit)
        return Page(total, items)

    async def cluster(self, ref: str, project_id: str | None = None) -> Cluster:
        return await self.store.cluster(ref, project_id)

    async def delete_cluster(self, ref: str, project_id: str | None = None) -> None:
        cluster = await self.cluster(ref, project_id)
        note("cluster.delete", project_id=cluster.project_id, cluster_id=cluster.id, subject=cluster.name)
        await self._maker.delete(cluster)

    async def set_hook(self, ref: str, hook: TrafficHook | None, project_id: str | None = None) -> HookSet:
        """The cluster's traffic hook, None for none. Only of an idle cluster; HAProxy must know its nodes.

        Whoever may call this runs programs as the server's user, so no API does.
        """
        cluster = await self.cluster(ref, project_id)
        note("cluster.hook", project_id=cluster.project_id, cluster_id=cluster.id, subject=cluster.name)
        return await self._hooks.set(cluster, hook)

    async def spares(self, cluster: Cluster) -> tuple[Node, ...]:
        """Spare nodes that upgrades of the cluster have made and that are not gone yet."""
        return await self.details.spares(cluster.id)

    async def node_states(self, cluster: Cluster, spares: Sequence[Node] = ()) -> dict[str, NodeState]:
        """Each node's process and the version that it reports itself, by node name; those of `spares` too."""
        driver = self.backend.driver(cluster.driver)
        versions: dict[str, str] = {}
        engine = self.backend.engine(cluster)
        try:
            with suppress(EngineError):
                versions = {member.name: str(member.version) for member in await engine.nodes()}
        finally:
            await engine.close()
        states = {}
        for node in (*cluster.nodes, *spares):
            process = await driver.process(node)
            version = versions.get(node.name)
            states[node.name] = NodeState(None if process is None else process.pid, version, version is not None)
        return states

    # checks and tasks

    async def check(self, request: UpgradeRequest, project_id: str | None = None) -> CheckReport:
        """Every rule on a fresh observation, and the plan if none blocks. Changes nothing."""
        cluster = await self.cluster(request.cluster_id, project_id)
        return await check_intent(self.backend, cluster, self.image(request.image), upgrade_intent(cluster, request))

    async def upgrade(self, request: UpgradeRequest, project_id: str | None = None) -> Task:
        """Checks, and only then writes the RUNNING task with its plan. What is asked for twice at once is done once."""
        cluster = await self.cluster(request.cluster_id, project_id)
        note("upgrade", project_id=cluster.project_id, cluster_id=cluster.id)
        image = self.image(request.image)
        _check_words(cluster, image, request)
        await self.routes.require_none(cluster)
        return await self._submit(cluster, image, upgrade_intent(cluster, request), self.store.add_task)

    async def migrate(self, request: MigrateRequest, project_id: str | None = None) -> Task:
        """Begins a change of zones, as `upgrade` begins an upgrade."""
        cluster = await self._idle(request.cluster_id, project_id, "az_migrate")
        return await self._move(cluster, moves.migration(cluster, request, self.settings.zone_names))

    async def replace(self, request: ReplaceRequest, project_id: str | None = None) -> Task:
        """Begins the replacement of a node, likewise."""
        cluster = await self._idle(request.cluster_id, project_id, "replace")
        return await self._move(cluster, moves.replacement(cluster, request))

    async def restart(self, request: RestartRequest, project_id: str | None = None) -> Task:
        """Begins a restart of nodes one by one, likewise: refused where a shard would be without a started copy."""
        cluster = await self._idle(request.cluster_id, project_id, "restart")
        return await self._move(cluster, moves.restart(cluster, request))

    async def check_move(
        self, request: MigrateRequest | ReplaceRequest | RestartRequest, project_id: str | None = None
    ) -> CheckReport:
        """What `migrate`, `replace` or `restart` would say, and the plan. Changes nothing."""
        cluster = await self.cluster(request.cluster_id, project_id)
        if isinstance(request, MigrateRequest):
            intent = moves.migration(cluster, request, self.settings.zone_names)
        elif isinstance(request, ReplaceRequest):
            intent = moves.replacement(cluster, request)
        else:
            intent = moves.restart(cluster, request)
        image = self.image(moves.one_image(cluster, intent.chosen or ()))
        return await check_intent(self.backend, cluster, image, intent)

    async def _idle(self, cluster_id: str, project_id: str | None, action: str) -> Cluster:
        """The cluster. Raises BusyError when something is done to it: then its nodes are not where they will be."""
        cluster = await self.cluster(cluster_id, project_id)
        note(action, project_id=cluster.project_id, cluster_id=cluster.id)
        _not_busy(cluster)
        return cluster

    async def _move(self, cluster: Cluster, intent: Intent) -> Task:
        image = self.image(moves.one_image(cluster, intent.chosen or ()))
        return await self._submit(cluster, image, intent, self.store.add_task)

    async def _submit(self, cluster: Cluster, image: Image, intent: Intent, keep: Keep) -> Task:
        _not_busy(cluster)
        # Before anything is decided: a wrong digest or a missing archive must not come to light with a node down.
        await self.backend.driver(cluster.driver).prepare(image)
        report = await check_intent(self.backend, cluster, image, intent)
        if report.plan is None:
            wish = _WISHES[intent.kind].format(image=image.reference)
            raise RefusedError(f"cluster {cluster.name} cannot {wish} now", report.blocking, remedy=_remedies(report))
        plan = replace(report.plan, settling_max_s=self.settings.rejoin_timeout_s)
        task = self._new_task(cluster, intent, plan)
        await keep(task)
        note(str(action_of(intent.kind)), task_id=task.id)
        return await self.store.task(task.id)

    async def tasks(
        self, cluster_id: str, *, kind: TaskKind | None = None, start: int = 1, limit: int = 10
    ) -> Page[Task]:
        total, items = await self.store.tasks(cluster_id, kind, start, limit)
        return Page(total, await self._control.with_turns(items))

    async def task(self, task_id: str, project_id: str | None = None) -> Task:
        """Another project's is not found, in the words and at the cost of one that does not exist."""
        task = await self.store.task(task_id, project_id)
        return (await self._control.with_turns((task,)))[0]

    async def newest_tasks(self, clusters: Sequence[Cluster]) -> dict[str, Task]:
        """The newest task of each of these clusters that has one, by its id; their turns are not told."""
        return await self.details.newest([one.id for one in clusters]) if clusters else {}

    async def wait_task(self, task_id: str, after_revision: int, timeout_s: float) -> Task:
        """The task as soon as its revision is past `after_revision`, or as it is after `timeout_s` (60 at most)."""
        await self._follower.past(task_id, after_revision, min(timeout_s, _WAIT_MAX_S))
        return await self.task(task_id)

    async def next_of(self, task: Task, timeout_s: float) -> Task:
        """The task at its next change, or itself after `timeout_s`. Raises NotFoundError when it is gone."""
        return await self._follower.next_of(task, timeout_s)

    async def tasks_of(
        self, cluster_id: str, seen: tuple[tuple[str, int], ...] | None, timeout_s: float
    ) -> tuple[tuple[str, int], ...]:
        """(id, revision) of a cluster's newest tasks, oldest first, once they are no longer `seen`, or in time."""
        return await self._follower.tasks_of(cluster_id, seen, timeout_s)

    async def _with_turn(self, task: Task) -> Task:
        return (await self._control.with_turns((task,)))[0]

    async def pause(self, task_id: str, project_id: str | None = None) -> Task:
        await self._control.pause(await self._to_change(task_id, project_id, "pause"))
        return await self.task(task_id)

    async def resume(self, task_id: str, project_id: str | None = None) -> Task:
        await self._control.resume(await self._to_change(task_id, project_id, "resume"))
        return await self.task(task_id)

    async def approve(self, task_id: str, project_id: str | None = None) -> Task:
        await self._control.approve(await self._to_change(task_id, project_id, "approve"))
        return await self.task(task_id)

    async def set_policy(self, task_id: str, change: PolicyChange, project_id: str | None = None) -> Task:
        await self._control.set_policy(await self._to_change(task_id, project_id, "policy"), change)
        return await self.task(task_id)

    async def retry(self, task_id: str, project_id: str | None = None) -> Task:
        await self._control.retry(await self._to_change(task_id, project_id, "retry"))
        return await self.task(task_id)

    async def abort(self, task_id: str, project_id: str | None = None) -> Task:
        await self._control.abort(await self._to_change(task_id, project_id, "abort"))
        return await self.task(task_id)

    async def _to_change(self, task_id: str, project_id: str | None, action: str) -> Task:
        task = await self.task(task_id, project_id)
        note(action, project_id=task.project_id, cluster_id=task.cluster_id, task_id=task.id)
        return task

    def _new_task(self, cluster: Cluster, intent: Intent, plan: Plan) -> Task:
        return Task(
            id=str(uuid.uuid4()),
            cluster_id=cluster.id,
            project_id=cluster.project_id,
            kind=intent.kind,
            status=TaskStatus.RUNNING,
            image_id=plan.image_id,
            strategy=plan.strategy,
            plan=plan,
            agency=intent.agency,
            created_at=self.clock.now(),
            ended_at=None,
            execute_times=1,
            revision=1,
            bytes_moved=0,
            policy=intent.policy,
            at_rest=True,
        )


def _not_busy(cluster: Cluster) -> None:
    if cluster.busy_with is not None:
        raise BusyError(
            f"cluster {cluster.name} is busy: {cluster.busy_with}",
            field="cluster",
            value=cluster.id,
            remedy=f"`shardlift task list {cluster.name}` shows its task; wait for it, or abort it",
        )


def upgrade_type_of(cluster: Cluster, image: Image) -> str:
    """CSS's word for going from the cluster's version to the image's."""
    if cluster.engine is not image.engine:
        return "cross-engine"
    return "same" if cluster.version.major == image.version.major else "cross"


def _known_type(upgrade_type: str) -> None:
    if upgrade_type not in _UPGRADE_TYPES:
        raise UsageError(
            f"no upgrade type {upgrade_type!r}",
            field="upgrade_type",
            value=upgrade_type,
            remedy=f"choose one of: {', '.join(_UPGRADE_TYPES)}",
        )


def _check_words(cluster: Cluster, image: Image, request: UpgradeRequest) -> None:
    if request.batch_size < 1:
        raise UsageError(
            "at least one node is taken at a time",
            field="batch_size",
            value=request.batch_size,
            remedy="give 1 or more; it is an upper bound",
        )
    if request.upgrade_type is None:
        return
    _known_type(request.upgrade_type)
    actual = upgrade_type_of(cluster, image)
    if actual != request.upgrade_type:
        raise UsageError(
            f"going from {cluster.engine} {cluster.version} to {image.reference} is an upgrade of type {actual}",
            field="upgrade_type",
            value=request.upgrade_type,
            remedy=f"send {actual}, or choose an image listed for {request.upgrade_type}",
        )


def _remedies(report: CheckReport) -> str:
    return "; ".join(dict.fromkeys(finding.remedy for finding in report.findings if finding.severity is Severity.BLOCK))
