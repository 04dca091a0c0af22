"""Simulated clusters behind a served API and a runner, for clients that know nothing of tests.

A thread of its own runs all of it, a thousand times as fast as real time; the clients block in the test's thread.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from openstack.connection import Connection
from otcextensions import sdk
from structlog.testing import capture_logs

from shardlift.api import create_app
from shardlift.api.signing import sign
from shardlift.backend import Backend
from shardlift.clock import Clock, SystemClock
from shardlift.emulator import temporary_home
from shardlift.model import SUB_STEPS, Cluster, Node, Task, TaskStatus
from shardlift.runner import Runner
from shardlift.service import Service, open_service
from shardlift.service.requests import Credentials
from shardlift.settings import Settings
from shardlift.sim import MIB, FastClock, IndexSpec, SimBackend, World, build_world, sim_image
from shardlift.sim.driver import SimDriver
from shardlift.sim.engine import SimEngine
from tests.served import served_here
from tests.worlds import make_cluster

T = TypeVar("T")

OLD, SAME, NEW = sim_image("2.19.4"), sim_image("2.19.5"), sim_image("3.4.0")
ZONES = ("zone-a", "zone-b", "zone-c")
_SPEED = 1000
_PATIENCE_S = 60.0
_ASK_AGAIN_S = 0.05
# Virtual seconds: a busy machine lets a fast clock run far ahead of what the code manages, so no bound may come near.
_AMPLE_S = 1e7
_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d")


class _Doors:
    """Calls wait where a test holds them: `holds` has the event that lets them go, by call and node."""

    def __init__(self) -> None:
        self.holds: dict[tuple[str, str], asyncio.Event] = {}

    async def before(self, call: str, where: str, *, effect: bool) -> None:
        del effect
        if (call, where) in self.holds:
            await self.holds[call, where].wait()

    async def after(self, call: str, where: str, *, effect: bool) -> None:
        """What is done is done."""


class _Fleet(Backend):
    """A backend of several simulated clusters, each in a world of its own."""

    def __init__(self) -> None:
        self.doors = _Doors()
        self.worlds: dict[str, World] = {}

    def engine(self, cluster: Cluster) -> SimEngine:
        return SimEngine(self.worlds[cluster.id], self.doors)

    def driver(self, _name: str) -> _FleetDriver:
        return _FleetDriver(self)

    def images(self) -> tuple:
        return (NEW, SAME, OLD)

    def image(self, ref: str):
        return SimBackend(next(iter(self.worlds.values())), self.images()).image(ref)


class _FleetDriver:
    """Finds the world by the node that a call is about."""

    def __init__(self, fleet: _Fleet) -> None:
        self._fleet = fleet

    def __getattr__(self, call: str):
        worlds = self._fleet.worlds

        def send(first, *args, **kwargs):
            world = worlds[first.cluster_id] if isinstance(first, Node) else next(iter(worlds.values()))
            return getattr(SimDriver(world, self._fleet.doors), call)(first, *args, **kwargs)

        return send


class Ground:
    """A running server: `mine` asks, `other` must not be seen."""

    def __init__(self, service: Service, fleet: _Fleet, url: str, mine: Credentials, other: Credentials) -> None:
        self.service, self._fleet, self.url, self.mine, self.other = service, fleet, url, mine, other
        self._loop = asyncio.get_running_loop()
        self._names = (f"css-{number}" for number in itertools.count(1))
        self._addresses = (f"127.77.{number // 250}.{number % 250 + 1}" for number in itertools.count())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it in the server's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def add(
        self,
        name: str | None = None,
        *,
        nodes: int = 3,
        zones: tuple[str, ...] = ("zone-a",),
        who: Credentials | None = None,
        settings: dict[str, str] | None = None,
    ) -> Cluster:
        """A green cluster with two indices of 10 MiB; `settings` are those of the second."""
        return self.do(self._add(name or next(self._names), nodes, zones, who or self.mine, settings or {}))

    async def _add(self, name: str, nodes: int, zones: tuple[str, ...], who: Credentials, settings: dict) -> Cluster:
        cluster = make_cluster(who.project_id, nodes, zones, name)
        cluster = replace(cluster, nodes=tuple(replace(node, address=next(self._addresses)) for node in cluster.nodes))
        specs = [IndexSpec("books", 2, 1, 10 * MIB), IndexSpec("films", 1, 1, 10 * MIB, settings)]
        self._fleet.worlds[cluster.id] = build_world(cluster, self.service.clock, indices=specs)
        await self.service.store.add_cluster(cluster)
        return cluster

    def world(self, cluster: Cluster) -> World:
        return self._fleet.worlds[cluster.id]

    @contextmanager
    def held(self, call: str, node: str) -> Iterator[None]:
        """Whoever makes the call about the node waits before it until this ends."""
        self.do(self._hold(call, node))
        try:
            yield
        finally:
            self.do(self._release(call, node))

    async def _hold(self, call: str, node: str) -> None:
        self._fleet.doors.holds[call, node] = asyncio.Event()

    async def _release(self, call: str, node: str) -> None:
        self._fleet.doors.holds.pop((call, node)).set()

    def tasks(self, cluster: Cluster) -> tuple[Task, ...]:
        return self.do(self.service.tasks(cluster.id)).items

    def end(self, cluster: Cluster) -> str:
        """Aborts the running task before it has done anything, and waits for its end; its id."""
        return self.do(self._end(cluster))

    async def _end(self, cluster: Cluster) -> str:
        task = (await self.service.tasks(cluster.id)).items[0]
        await self.service.abort(task.id)
        while (task := await self.service.task(task.id)).status is TaskStatus.RUNNING:
            await self.service.wait_task(task.id, task.revision, _AMPLE_S)
        return task.id

    def end_soon(self, cluster: Cluster) -> None:
        """The same, but does not wait."""
        self.do(self.service.abort(self.tasks(cluster)[0].id))

    def lose(self, cluster: Cluster) -> None:
        """From now on the backend breaks whenever it is asked for that cluster."""
        del self._fleet.worlds[cluster.id]

    def signed(self, method: str, path: str, *, body: bytes = b"", who: Credentials | None = None) -> dict[str, str]:
        """Headers of a signed request to a path of this server."""
        who = who or self.mine
        return sign(method, self.url + path, ak=who.ak, sk=who.sk, now=SystemClock().now(), body=body)


def until(read: Callable[[], T], good: Callable[[T], bool]) -> T:
    """The first good answer; a client learns of progress only by asking again."""
    end_s = time.monotonic() + _PATIENCE_S
    while not good(seen := read()):
        assert time.monotonic() < end_s, seen
        time.sleep(_ASK_AGAIN_S)
    return seen


@contextmanager
def ground() -> Iterator[Ground]:
    """A server on an empty home in memory, with two projects. It has ended when this does, and its home is gone."""
    before = structlog.get_config() if structlog.is_configured() else None
    # Requests are logged at this level, whatever a test before has chosen.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    try:
        with temporary_home() as home, capture_logs() as logged:
            with _running(home) as made:
                yield made
                secrets = [secret for who in (made.mine, made.other) for secret in (who.sk, who.token)]
            told = str(logged)
            assert "request" in told
            assert not [secret for secret in secrets if secret in told]
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


@contextmanager
def _running(home: Path) -> Iterator[Ground]:
    made: list[Ground] = []
    ready, over = threading.Event(), asyncio.Event()
    broken: list[BaseException] = []

    async def live() -> None:
        bounds = dict.fromkeys(
            ("drain_timeout_s", "handover_timeout_s", "boot_timeout_s", "rejoin_timeout_s"), _AMPLE_S
        )
        settings = Settings(home=home, zones=",".join(ZONES), lease_s=_AMPLE_S, lease_renew_s=_AMPLE_S / 4, **bounds)
        clock: Clock = FastClock(_SPEED)
        fleet = _Fleet()
        async with open_service(settings, backend=fleet, clock=clock, role="test") as service:
            runner = Runner(service.store, service.leases, backend=fleet, settings=settings, clock=clock)
            mine, other = await service.create_project("mine"), await service.create_project("other")
            async with served_here(create_app(service)) as url, asyncio.TaskGroup() as group:
                running = group.create_task(runner.run())
                made.append(Ground(service, fleet, url, mine, other))
                ready.set()
                await over.wait()
                running.cancel()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001  (told in the test's thread)
            broken.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(_PATIENCE_S)
    try:
        assert made, broken
        yield made[0]
    finally:
        if made:
            made[0]._loop.call_soon_threadsafe(over.set)
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "the server did not end"
        assert not broken, broken


def connect_otc(here: Ground, token: str | None = None) -> Connection:
    """An OpenStack connection to `mine`. There is no identity service: the token is given, and so is where CSS is."""
    connection = Connection(
        auth_type="admin_token",
        auth={"endpoint": here.url, "token": token or here.mine.token},
        css_endpoint_override=f"{here.url}/v1.0/{here.mine.project_id}",
    )
    sdk.register_otc_extensions(connection)
    return connection


def stopping(task: dict[str, Any]) -> str | None:
    """The node of an UpgradeDetail that is being stopped, if any."""
    return task["currentNodeName"] if task["currentNodeDetail"][6]["status"] == "RUNNING" else None


# the bodies, to the letter

_STRINGS = ("id", "startTime", "endTime", "status", "agencyName", "totalNodes", "completedNodes", "currentNodeName",
            "executeTimes", "currentBatchNodes")  # fmt: skip
_IMAGE = ("id", "displayName", "imageDesc", "datastoreType", "datastoreVersion")
_STEP = ("name", "status", "desc", "beginTime", "endTime")


def check_details(page: dict[str, Any], *, moves: bool = False) -> list[dict[str, Any]]:
    """The tasks of an UpgradeDetail answer, every field of which is there, of its type and in its format."""
    assert page.keys() == {"totalSize", "detailList"}
    assert type(page["totalSize"]) is int
    for task in page["detailList"]:
        of_kind = {"migrateParam", "finalAzInfoMap"} if moves else {"imageInfo"}
        failed = {"failMessage"} if task["status"] in ("FAILED", "PARTIAL_FAILED") else set()
        assert task.keys() == {*_STRINGS, "batchSize", "currentNodeDetail"} | of_kind | failed
        for key in (*_STRINGS, *(of_kind - {"imageInfo"}), *failed):
            assert type(task[key]) is str, key
        assert type(task["batchSize"]) is int
        assert task["status"] in ("RUNNING", "SUCCESS", "FAILED", "PARTIAL_FAILED")
        assert _TIME.fullmatch(task["startTime"])
        assert _TIME.fullmatch(task["endTime"] or task["startTime"])
        assert (task["endTime"] == "") == (task["status"] == "RUNNING")
        assert task["executeTimes"].isdecimal()
        if not moves:
            image = task["imageInfo"]
            assert image.keys() == {*_IMAGE, "priority"}
            assert {type(image[key]) for key in _IMAGE} == {str}
            assert type(image["priority"]) is int
            assert re.fullmatch(re.escape(image["datastoreVersion"]) + r"_[0-9.]+_[0-9]{4}", image["displayName"])
        _check_steps(task["currentNodeDetail"])
        names = task["totalNodes"].split(",")
        for key in ("completedNodes", "currentNodeName", "currentBatchNodes"):
            assert set(filter(None, task[key].split(","))) <= set(names), key
    return page["detailList"]


def _check_steps(steps: list[dict[str, Any]]) -> None:
    assert [(step["order"], step["name"]) for step in steps] == [(step.order, step.name) for step in SUB_STEPS]
    for step in steps:
        assert step.keys() == {"order", *_STEP}
        assert type(step["order"]) is int
        assert {type(step[key]) for key in _STEP} == {str}
        assert step["status"] in ("WAITING", "RUNNING", "SUCCESS", "FAILED")
        waiting = step["status"] == "WAITING"
        assert waiting == (step["beginTime"] == ""), step
        assert (step["status"] in ("WAITING", "RUNNING")) == (step["endTime"] == ""), step
        for key in ("beginTime", "endTime"):
            assert not step[key] or _TIME.fullmatch(step[key])


def check_cluster(shown: dict[str, Any]) -> dict[str, Any]:
    """A ClusterDetail: what clients need of it is there and of its type."""
    assert type(shown["status"]) is str
    assert type(shown["actions"]) is list
    assert type(shown["actionProgress"]) is dict
    assert shown["actions"] == list(shown["actionProgress"])
    assert {type(value) for value in shown["actionProgress"].values()} <= {str}
    assert "failedReason" in shown
    assert shown["datastore"].keys() == {"type", "version", "subVersion"}
    assert shown["instances"]
    for node in shown["instances"]:
        assert node.keys() == {"id", "name", "type", "status", "azCode", "ip", "specCode", "volume"}
        assert {type(value) for key, value in node.items() if key != "volume"} == {str}
        assert (type(node["volume"]["type"]), type(node["volume"]["size"])) == (str, int)
    return shown
