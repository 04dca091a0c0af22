"""Finds clusters with unfinished work, claims them one by one, and drives each to the end of its tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import structlog

from shardlift.backend import Backend
from shardlift.bench import Bench
from shardlift.clock import Clock
from shardlift.engine.protocol import Engine
from shardlift.errors import ShardliftError, UsageError
from shardlift.executor import Event, Executor
from shardlift.model import Cluster, Task, TaskStatus
from shardlift.settings import Settings
from shardlift.steps import Ledger, Traffic
from shardlift.store import Journal, Lease, Leases, Store
from shardlift.store.hooks import HookStore
from shardlift.store.vault import Vault, VaultError

_log = structlog.get_logger(__name__)
# The safety net under the wake-ups, and how long a cluster that could not be driven is left alone.
_LOOK_S = 2.0
_REST_S = 0.5
_BACK_OFF_FIRST_S = 1.0
_BACK_OFF_LAST_S = 60.0
# How often it is looked whether a node is up that must go back into its balancer. A retry of its task waits as long.
_LEFT_OUT_REST_S = 5.0


class _LeftOutError(ShardliftError):
    """Everything is done, but nodes are out of the balancer and not up, or a spare node cannot go yet."""

    code = "left_out"


class Runner:
    """Drives several clusters at once (`clusters_max`), each under its own lease.

    `rest_s`: the least time between two looks for work.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        *,
        backend: Backend,
        settings: Settings,
        clock: Clock,
        observer: Callable[[Event], None] = lambda _event: None,
        rest_s: float = _REST_S,
    ) -> None:
        self._store = store
        self._leases = leases
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._rest_s = rest_s
        self._drives: dict[str, asyncio.Task[None]] = {}
        self._not_before_s: dict[str, float] = {}
        self._back_off_s: dict[str, float] = {}
        self._left_out: dict[str, str] = {}
        self._hooks = HookStore(store.database, Vault(settings.master_key_path))

    async def run(self) -> None:
        """Until cancelled. On the way out drives stop at their next await and give their leases back."""
        mark: int | None = None
        try:
            while True:  # the loop of the process; each round waits for a change or the safety net's time
                try:
                    await self._look()
                    # Every step of every drive is a change, too: they are looked at together, not one by one.
                    await self._clock.sleep(self._rest_s)
                    mark = await self._store.database.wait_change(mark, _LOOK_S * random.uniform(0.75, 1.25))  # noqa: S311  (jitter, no secret)
                except ShardliftError as error:
                    _log.warning("the database did not answer", error=error.message)
                    await self._clock.sleep(_LOOK_S)
        finally:
            for drive in self._drives.values():
                drive.cancel()
            await asyncio.gather(*self._drives.values(), return_exceptions=True)

    async def _look(self) -> None:
        self._drives = {cluster: drive for cluster, drive in self._drives.items() if not drive.done()}
        for cluster_id in await self._leases.claimable():
            waits = self._clock.elapsed_s() < self._not_before_s.get(cluster_id, 0)
            if cluster_id in self._drives or waits or len(self._drives) >= self._settings.clusters_max:
                continue
            self._drives[cluster_id] = asyncio.create_task(self.drive(cluster_id), name=f"drive {cluster_id}")

    async def drive(self, cluster_id: str) -> None:
        """Claims the cluster, ends its unfinished tasks, puts leftover settings back, releases it."""
        try:
            lease = await self._leases.claim(cluster_id)
            if lease is None:
                return
            async with self._leases.kept(lease, self._settings.lease_renew_s):
                await self._work(lease)
            self._back_off_s.pop(cluster_id, None)
            self._left_out.pop(cluster_id, None)
        except _LeftOutError as error:
            self._not_before_s[cluster_id] = self._clock.elapsed_s() + _LEFT_OUT_REST_S
            if self._left_out.get(cluster_id) != error.message:
                self._left_out[cluster_id] = error.message
                _log.warning("nodes are left as they should not be", cluster=cluster_id, why=error.message)
        except ShardliftError as error:
            # Nothing is lost: the journal tells where to go on. Not at once, or a broken cluster would be hammered.
            pause_s = min(self._back_off_s.get(cluster_id, _BACK_OFF_FIRST_S), _BACK_OFF_LAST_S)
            self._not_before_s[cluster_id] = self._clock.elapsed_s() + pause_s
            self._back_off_s[cluster_id] = pause_s * 2
            _log.warning("cluster left for now", cluster=cluster_id, error=error.message, again_in_s=pause_s)

    async def _work(self, lease: Lease) -> None:
        cluster = await self._store.cluster(lease.cluster_id)
        journal = Journal(self._store.database, lease)
        engine = self._backend.engine(cluster)
        try:
            for task in await self._store.running_tasks(cluster.id):
                await Ledger(journal, engine, task.id).restore_others()
                bench = await self._bench(cluster, journal, engine, task)
                _log.info("task goes on", task=task.id, cluster=cluster.name, epoch=lease.epoch)
                status = await Executor(bench, task, self._told(cluster)).run()
                if status is TaskStatus.RUNNING:
                    # At rest until somebody resumes it or its window opens. What it has set stays until it ends.
                    _log.info("task rests", task=task.id, cluster=cluster.name)
                    return
                _log.info("task ended", task=task.id, cluster=cluster.name, status=str(status))
            await self._end_spares(cluster, journal, engine)
            await Ledger(journal, engine, "").restore()
            left_out = await (await self._traffic(cluster, journal, engine, "")).restore()
            if left_out:
                raise _LeftOutError("; ".join(left_out))
        finally:
            with suppress(ShardliftError):
                await engine.close()

    async def _bench(self, cluster: Cluster, journal: Journal, engine: Engine, task: Task) -> Bench:
        return Bench(
            journal=journal,
            cluster=cluster,
            image=self._backend.image(task.image_id),
            engine=engine,
            driver=self._backend.driver(cluster.driver),
            traffic=await self._traffic(cluster, journal, engine, task.id),
            settings=self._backend.settings(cluster, self._settings),
            clock=self._backend.clock(cluster, self._clock),
        )

    async def _end_spares(self, cluster: Cluster, journal: Journal, engine: Engine) -> None:
        """Spare nodes of tasks that nobody can retry any more; that of a failed one waits for its retry.

        Raises _LeftOutError when one has to stay for now.
        """
        for change in await Ledger(journal, engine, "").spares():
            task = await self._store.task(change.task_id)
            if task.status is TaskStatus.FAILED and not task.aborting:
                continue
            left = await Executor(await self._bench(cluster, journal, engine, task), task).end_spares()
            if left:
                await Ledger(journal, engine, "").restore()
                raise _LeftOutError("; ".join(left))

    async def _traffic(self, cluster: Cluster, journal: Journal, engine: Engine, task_id: str) -> Traffic:
        hook, balancer, unreadable = None, None, None
        if cluster.traffic_hook is not None:
            try:
                hook = await self._hooks.read(cluster.id)
                balancer = None if hook is None else self._backend.balancer(cluster, hook, self._settings)
            except (VaultError, UsageError) as error:
                # Not for the runner to fail at: the task is to say so where the hook is needed.
                unreadable = error.message
        return Traffic(
            cluster=cluster,
            hook=hook,
            balancer=balancer,
            journal=journal,
            engine=engine,
            clock=self._backend.clock(cluster, self._clock),
            task_id=task_id,
            unreadable=unreadable,
        )

    def _told(self, cluster: Cluster) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            self._backend.heard(cluster, event.what, event.node, event.order)
            self._observer(event)

        return tell
