"""One trial: the cluster of a seed, its upgrade, its faults, and a person who mends what is broken and tries again."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from shardlift.chaos.cluster import IMAGES, OLD, PROJECT, TARGET, model_cluster, simulated
from shardlift.chaos.doors import TrialDoor
from shardlift.chaos.faults import strike_all
from shardlift.chaos.process import Process, task_factory
from shardlift.chaos.scenario import Scenario
from shardlift.chaos.time import VirtualClock, run_virtual
from shardlift.chaos.watch import Watch
from shardlift.errors import RefusedError, ShardliftError
from shardlift.model import Policy, Task, TaskStatus
from shardlift.service import Service
from shardlift.service.requests import MigrateRequest, UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import OpenDoor, SimBackend, World
from shardlift.store.database import connect, migrate
from shardlift.store.inline import InlineConnection
from shardlift.store.tables import cluster

_LONGEST_S = 2 * 3600.0
_LOOK_S = 10.0
_MEND_S = 20.0
_RETRIES_MAX = 8
_RESTART_S = (0.2, 15.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial ended. `transcript` tells it from the first event to the last."""

    seed: int
    outcome: str
    violations: tuple[str, ...]
    virtual_s: float
    kills: int
    retries: int
    transcript: tuple[str, ...]


class _Open:
    """The gate of the person's own database connections: nobody kills them."""

    def before(self) -> None:
        return None

    def committed(self) -> None:
        return None


class Trial:
    """Runs one scenario in the folder `home`, which it may fill and leave."""

    def __init__(self, scenario: Scenario, home: Path, template: Path) -> None:
        self.scenario = scenario
        self.dice = random.Random(scenario.seed ^ 0x5EED)  # noqa: S311  (repeatable on purpose)
        self.path = home / f"trial-{scenario.seed}.db"
        shutil.copyfile(template, self.path)
        self.clock = VirtualClock()
        self.cluster = model_cluster(scenario, self.clock.now)
        self.world: World = simulated(scenario, self.cluster, self.clock)
        self.watch = Watch(self.world, self.clock, self.path, str((OLD if scenario.move else TARGET).version))
        self.watch.expected = {(layer, key): value for layer, key, value in scenario.settings}
        self.world.on_event = self.watch.after_event
        self.settings = Settings(
            home=home,
            lease_s=24,
            lease_renew_s=6,
            drain_timeout_s=3600,
            rejoin_timeout_s=300,
            recovery_raise_max=scenario.raise_max,
        )
        self.processes: list[Process] = []
        self.doors: list[TrialDoor] = []
        self.kills = 0
        self.over = asyncio.Event()
        self.watch.on_violation = self.over.set

    # control planes

    def spawn(self, *, reap: bool) -> Process:
        """One more control plane. `reap`: it has taken the home's lock, so all before it are dead."""
        number = len(self.processes)
        kills = self.scenario.kills
        process = Process(
            f"serve:{number}",
            self.path,
            self._backend,
            settings=self.settings,
            clock=self.clock,
            kill_at=kills[self.kills] if reap and self.kills < len(kills) else None,
        )
        self.processes.append(process)
        process.start(reap="serve:" if reap else None)
        return process

    def _backend(self, process: Process) -> SimBackend:
        door = TrialDoor(process, self.watch, self.dice, self.scenario.rest)
        self.doors.append(door)
        return SimBackend(self.world, IMAGES, door)

    async def supervise(self) -> None:
        """Starts the next control plane after each death, as a service manager would."""
        process = self.spawn(reap=True)
        while True:  # ends with the trial
            await process.dead.wait()
            self.kills += 1
            self.watch.note(f"KILLED {process.name} at its point {process.points}: {process.last_point}")
            await self.clock.sleep(self.dice.uniform(*_RESTART_S))
            process = self.spawn(reap=True)
            self.watch.note(f"started {process.name}")

    # the person

    async def run(self) -> Verdict:
        asyncio.get_running_loop().set_task_factory(task_factory)
        database = connect(self.path, lambda: InlineConnection(self.path, _Open()))
        service = Service(database, SimBackend(self.world, IMAGES, OpenDoor()), self.settings, self.clock, "person")
        await service.store.add_project(PROJECT, "trial", self.clock.now())
        await service.store.add_cluster(self.cluster)
        background: list[asyncio.Task[None]] = []
        retries = 0
        try:
            task = await self._submit(service)
            if task is None:
                return self._verdict("refused", 0)
            background = [
                asyncio.create_task(one)
                for one in (self.supervise(), strike_all(self, self.scenario.faults), self._wishes(service, task))
            ]
            task, retries = await self._to_the_end(service, task)
            await self._settled(service)
            self.watch.judge(task, settled=True)
            return self._verdict(str(task.status), retries)
        except Exception as error:  # noqa: BLE001  (a trial that breaks is a finding, not a crash of the run)
            self.watch.violated(f"{type(error).__name__}: {error}")
            return self._verdict("broken", retries)
        finally:
            for one in background:
                one.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            for process in self.processes:
                await process.closed()
            await database.close()
            for path in self.path.parent.glob(f"{self.path.name}*"):
                path.unlink()

    async def _submit(self, service: Service) -> Task | None:
        """The upgrade, or the change of zones; None when the rules refuse it."""
        try:
            task = await self._asked(service)
        except RefusedError as error:
            self.watch.note(f"refused: {'; '.join(str(finding) for finding in error.findings)}")
            return None
        self.watch.batches = tuple(
            frozenset(name for node in batch for name in (node.name, node.spare if node.takes_over else None) if name)
            for batch in task.plan.batches
        )
        self.watch.stood_in_for = frozenset(node.name for node in task.plan.nodes if node.stands_in)
        return task

    async def _asked(self, service: Service) -> Task:
        scenario, move = self.scenario, self.scenario.move
        if move is not None:
            return await service.migrate(
                MigrateRequest(self.cluster.id, "zone-a", move.target, move.inst_type, move.migrate_type)
            )
        return await service.upgrade(
            UpgradeRequest(
                cluster_id=self.cluster.id,
                image=TARGET.id,
                strategy=scenario.strategy,
                batch_size=scenario.batch_size,
                policy=Policy(canary=scenario.canary),
            )
        )

    async def _to_the_end(self, service: Service, task: Task) -> tuple[Task, int]:
        retries, latest, mark = 0, "", -1
        while self.clock.elapsed_s() < _LONGEST_S and not self.watch.violations:
            if (now := service.store.database.mark()) != mark:  # the same data is the same task
                task, mark = await service.task(task.id), now
            latest = self._progress(task, latest)
            if task.status is TaskStatus.FAILED and not task.aborting:
                retries += 1
                self.watch.note(f"FAILED: {task.fail_message}")
                await self._mended(service)
                if retries > _RETRIES_MAX:
                    self.watch.note("given up")
                    await service.abort(task.id)
                else:
                    with suppress(RefusedError):  # somebody has aborted it meanwhile
                        await service.retry(task.id)
            elif task.status is not TaskStatus.RUNNING:
                break
            elif task.paused:
                await self.clock.sleep(self.dice.uniform(5, 60))
                with suppress(RefusedError):  # it was at its last node, and has ended
                    await service.resume(task.id)
                    self.watch.note("a person resumes it")
            else:
                await self._approve(service, task)
                await self._pause(_LOOK_S)
        return task, retries

    async def _approve(self, service: Service, task: Task) -> None:
        if (task.blocked_by or "").startswith("approval") and not task.approved:
            if task.execute_times == 1:  # a failed one may have been started by hand meanwhile
                self._canary_is_empty(task)
            await self.clock.sleep(self.dice.uniform(0, 30))
            with suppress(RefusedError):  # it has ended meanwhile
                await service.approve(task.id)
                self.watch.note("a person approves the canary")

    def _canary_is_empty(self, task: Task) -> None:
        canary = next(node.name for node in task.plan.nodes if node.canary)
        held = self.world.copies_on(canary)
        if held:
            self.watch.violated(f"the canary {canary} waits for approval and holds {len(held)} shard copies")

    async def _mended(self, service: Service) -> None:
        """What the remedies ask of a person: nodes are started, disks are freed, shards come to rest."""
        await self.clock.sleep(_MEND_S)
        self.world.mend()
        self.watch.note("a person mends: nodes start again, disks are freed")
        task_cluster = await service.cluster(self.cluster.id)
        for node in task_cluster.nodes:
            mine = self.world.nodes[node.name]
            if mine.pid is None:
                self.world.start(mine)
        await self.clock.sleep(_MEND_S)

    async def _settled(self, service: Service) -> None:
        """Waits until what the dead have left behind is put back: the runner owes that also after the end."""
        for _ in range(200):
            if not await service.leases.claimable() and await self._nobody_acts(service):
                return
            await self._pause(_LOOK_S)

    async def _nobody_acts(self, service: Service) -> bool:
        """Whether the lease was given back: work that goes on after the end of the task may take a while."""
        async with service.store.database.read() as connection:
            return bool((await connection.execute(select(cluster.c.lease_until))).scalar_one() == 0)

    async def _pause(self, seconds: float) -> None:
        """Lets time pass; a violation ends it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def _wishes(self, service: Service, task: Task) -> None:
        """Pause and abort at their times."""
        scenario = self.scenario
        wishes: list[tuple[float, str, Callable[[str], Awaitable[Task]]]] = []
        if scenario.pause_at_s is not None:
            wishes.append((scenario.pause_at_s, "pause", service.pause))
        if scenario.abort_at_s is not None:
            wishes.append((scenario.abort_at_s, "abort", service.abort))
        for at_s, name, wish in sorted(wishes, key=lambda one: one[0]):
            await self.clock.sleep(max(at_s - self.clock.elapsed_s(), 0))
            try:
                await wish(task.id)
                self.watch.note(f"a person asks to {name}")
            except ShardliftError as error:
                self.watch.note(f"{name} is refused: {error.message}")

    def _progress(self, task: Task, latest: str) -> str:
        row = next((row for row in task.steps if str(row.status) == "RUNNING"), None)
        now = f"{row.node} {row.order} {row.name}" if row else task.waiting_for or ""
        if now and now != latest:
            self.watch.note(f"-- {now}")
        return now or latest

    def _verdict(self, outcome: str, retries: int) -> Verdict:
        return Verdict(
            seed=self.scenario.seed,
            outcome=outcome,
            violations=tuple(self.watch.violations),
            virtual_s=self.clock.elapsed_s(),
            kills=self.kills,
            retries=retries,
            transcript=(str(self.scenario), *self.watch.lines),
        )


def run_trial(scenario: Scenario, home: Path, template: Path) -> Verdict:
    """One scenario from beginning to end, in virtual time. `template`: an empty database with the schema in it."""

    random.seed(scenario.seed)  # the runner's jitter comes from there

    async def inside() -> Verdict:
        return await Trial(scenario, home, template).run()

    return run_virtual(inside())


def make_template(home: Path) -> Path:
    """An empty database that trials copy instead of running the migrations each."""
    path = home / "template.db"
    migrate(path)
    return path


__all__ = ["Trial", "Verdict", "make_template", "run_trial"]
