"""Routes: found, shown with what is in the way, begun once approved, and led from hop to hop.

Each hop is a task like any other. What leads a route on is its row: whichever process looks at it next begins the hop
after the last one that succeeded, so a crash costs nothing.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from shardlift.backend import Backend
from shardlift.checks import Subject, find_route, legs_of
from shardlift.clock import Clock
from shardlift.errors import BusyError, NotFoundError, RefusedError, ShardliftError
from shardlift.model import Cluster, Finding, Hop, Image, Leg, Route, RouteStatus, Severity, Task, TaskKind, TaskStatus
from shardlift.planner import foreseen, plan_and_forecast
from shardlift.service.audit import note
from shardlift.service.checking import look
from shardlift.service.requests import CheckReport, HopReport, Intent, RouteReport, UpgradeRequest
from shardlift.store import Store
from shardlift.store.routes import RouteDue, RouteStore

_log = structlog.get_logger(__name__)

Keep = Callable[[Task], Awaitable[None]]
Submit = Callable[[Cluster, Image, Intent, Keep], Awaitable[Task]]
Abort = Callable[[Task], Awaitable[None]]

# The safety net under the wake-ups, and how long a hop that may not begin is left alone.
_LOOK_S = 2.0
_REST_S = 0.5
_AGAIN_S = 30.0
_NAMED_MAX = 5


class Routes:
    """`submit` checks, then keeps a new task by the function that it is given; `abort` ends one."""

    def __init__(self, store: Store, backend: Backend, clock: Clock, submit: Submit, abort: Abort) -> None:
        self._store = store
        self._routes = RouteStore(store.database)
        self._backend = backend
        self._clock = clock
        self._submit = submit
        self._abort = abort

    # finding one

    def way(self, cluster: Cluster, request: UpgradeRequest, via: Sequence[str] = ()) -> tuple[Image, ...]:
        """The images of the route, `request.image` last. Raises NotFoundError, RefusedError when there is no way."""
        target = self._backend.image(request.image)
        stops = [self._backend.image(ref) for ref in via]
        found = find_route((cluster.engine, cluster.version), target, self._backend.images(), stops)
        if not found:
            through = f" through {', '.join(via)}" if via else ""
            raise RefusedError(
                f"no route leads from {cluster.engine} {cluster.version} to {target.reference}{through}",
                remedy="docs/rules/version_hop_allowed.md has the hops that engines allow; `shardlift image add` brings"
                " a release that the catalogue lacks",
            )
        return found

    async def plan(self, cluster: Cluster, request: UpgradeRequest, via: Sequence[str] = ()) -> RouteReport:
        """The route, with what each hop takes and what is in its way. Changes nothing. Raises as `way`."""
        way = self.way(cluster, request, via)
        intent = upgrade_intent(cluster, request)
        check, subject = await look(self._backend, cluster, way[0], intent)
        legs = legs_of((cluster.engine, cluster.version), way, subject.seen.indices)
        hops = [HopReport(legs[0], check, await self._download_bytes(cluster, way[0]))]
        told = {_said(finding) for finding in check.findings}
        for at in range(1, len(way)):
            later = await self._later(cluster, subject, legs[: at + 1], way[at - 1])
            check = _checked(later, told)
            told |= {_said(finding) for finding in check.findings}
            hops.append(HopReport(legs[at], check, await self._download_bytes(cluster, way[at])))
        return RouteReport(cluster.id, tuple(hops))

    async def _later(self, cluster: Cluster, subject: Subject, legs: tuple[Leg, ...], source: Image) -> Subject:
        driver = self._backend.driver(cluster.driver)
        image = legs[-1].image
        ready = await driver.image_ready(image)
        return replace(
            foreseen(subject, legs, source),
            image_plugins=await driver.image_plugins(image) if ready else None,
            java_problem=await driver.java_problem(image),
        )

    async def _download_bytes(self, cluster: Cluster, image: Image) -> int:
        ready = await self._backend.driver(cluster.driver).image_ready(image)
        return 0 if ready else image.size_bytes

    # beginning and ending one

    async def begin(self, cluster: Cluster, request: UpgradeRequest, via: Sequence[str] = ()) -> Route:
        """Checks all of it, then writes the route with the RUNNING task of its first hop. Raises RefusedError."""
        note("route.begin", project_id=cluster.project_id, cluster_id=cluster.id)
        await self.require_none(cluster)
        report = await self.plan(cluster, request, via)
        if report.blocking:
            hops = len(report.hops)
            raise RefusedError(
                f"cluster {cluster.name} cannot set out for {report.hops[-1].leg.image.reference} ({hops} hops) now",
                report.blocking,
                remedy="; ".join(dict.fromkeys(finding.remedy for finding in report.blocking)),
            )
        route = Route(
            id=str(uuid.uuid4()),
            cluster_id=cluster.id,
            project_id=cluster.project_id,
            status=RouteStatus.RUNNING,
            hops=tuple(Hop(hop.leg.image.id) for hop in report.hops),
            strategy=request.strategy,
            agency=request.agency,
            backup_check=request.backup_check,
            load_check=request.load_check,
            policy=request.policy,
            created_at=self._clock.now(),
        )

        async def keep(task: Task) -> None:
            first = replace(route.hops[0], task_id=task.id)
            await self._routes.add(replace(route, hops=(first, *route.hops[1:])), task)

        await self._submit(cluster, report.hops[0].leg.image, upgrade_intent(cluster, request), keep)
        note("route.begin")
        return await self.newest(cluster)

    async def require_none(self, cluster: Cluster) -> None:
        """Raises BusyError while the cluster is on a route."""
        routes = await self._routes.of_cluster(cluster.id, limit=1)
        if routes and routes[0].status is RouteStatus.RUNNING:
            raise BusyError(
                f"cluster {cluster.name} is on a route already",
                field="cluster",
                value=cluster.id,
                remedy=f"`shardlift route show {cluster.name}` shows it; wait for its end, or abort it",
            )

    async def newest(self, cluster: Cluster) -> Route:
        """Raises NotFoundError when the cluster never was on one."""
        routes = await self._routes.of_cluster(cluster.id, limit=1)
        if not routes:
            raise NotFoundError(
                f"cluster {cluster.name} has no route",
                field="cluster",
                value=cluster.id,
                remedy="`shardlift upgrade CLUSTER --to IMAGE` offers one where a single upgrade does not lead there",
            )
        return routes[0]

    async def of_cluster(self, cluster: Cluster) -> tuple[Route, ...]:
        """Newest first."""
        return await self._routes.of_cluster(cluster.id)

    async def resume(self, cluster: Cluster) -> Route:
        """Has it looked at now whether the next hop may begin, instead of some time soon."""
        note("route.resume", project_id=cluster.project_id, cluster_id=cluster.id)
        route = await self._running(cluster)
        if route.look_at is not None:
            await self._routes.wait(route.id, route.waiting_for, None)
        return await self.newest(cluster)

    async def abort(self, cluster: Cluster) -> Route:
        """No further hop begins, and the task of the present one ends as if it had been aborted itself."""
        note("route.abort", project_id=cluster.project_id, cluster_id=cluster.id)
        route = await self._running(cluster)
        await self._routes.end(route.id, RouteStatus.ABORTED, self._clock.now())
        if route.task_id is not None:
            task = await self._store.task(route.task_id)
            if task.status in {TaskStatus.RUNNING, TaskStatus.FAILED} and not task.aborting:
                await self._abort(task)
        return await self.newest(cluster)

    async def _running(self, cluster: Cluster) -> Route:
        route = await self.newest(cluster)
        if route.status is not RouteStatus.RUNNING:
            raise RefusedError(
                f"the route of cluster {cluster.name} has ended: {route.status}",
                remedy="`shardlift upgrade CLUSTER --to IMAGE` begins another",
            )
        return route

    # leading it on

    async def run(self, rest_s: float = _REST_S) -> None:
        """Until cancelled: looks at each change, and every now and then; `rest_s` is the least time between."""
        mark: int | None = None
        while True:  # the loop of the process, as the runner's
            try:
                await self.look()
                await self._clock.sleep(rest_s)
                mark = await self._store.database.wait_change(mark, _LOOK_S * random.uniform(0.75, 1.25))  # noqa: S311  (jitter, no secret)
            except ShardliftError as error:
                _log.warning("the database did not answer", error=error.message)
                await self._clock.sleep(_LOOK_S)

    async def look(self) -> None:
        """Takes each route a step further that can go on now. One that cannot does not keep the others."""
        for due in await self._routes.due(self._clock.now()):
            try:
                await self._lead(due)
            except NotFoundError:
                _log.warning("the cluster of a route is gone", route=due.route.id)
            except ShardliftError as error:
                await self._wait(due, f"hop {due.route.begun + 1} cannot begin: {error.message}{_remedy(error)}")

    async def _lead(self, due: RouteDue) -> None:
        route = due.route
        if due.status is TaskStatus.RUNNING:
            if route.waiting_for is not None:  # its task was retried
                await self._routes.wait(route.id, None, None)
        elif route.begun == len(route.hops) and due.status is TaskStatus.SUCCESS:
            await self._end(route, RouteStatus.SUCCESS)
        elif due.aborting or due.status is TaskStatus.PARTIAL_FAILED:
            await self._end(route, RouteStatus.ABORTED)
        elif due.status is TaskStatus.FAILED:
            await self._wait(due, _failed(route, due.fail_message))
        else:
            await self._next(due)

    async def _end(self, route: Route, status: RouteStatus) -> None:
        await self._routes.end(route.id, status, self._clock.now())
        _log.info("route ended", route=route.id, status=str(status), task=route.task_id)

    async def _next(self, due: RouteDue) -> None:
        route, position = due.route, due.route.begun
        cluster = await self._store.cluster(route.cluster_id)
        image = self._backend.image(route.hops[position].image_id)

        async def keep(task: Task) -> None:
            await self._routes.go_on(route.id, position, task)

        try:
            task = await self._submit(cluster, image, upgrade_intent(cluster, route), keep)
        except RefusedError as error:
            named = [str(one) for one in error.findings if one.severity is Severity.BLOCK]
            more = f"; and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
            # A finding tells its remedy itself.
            told = "; ".join(named[:_NAMED_MAX]) + more if named else f"{error.message}{_remedy(error)}"
            await self._wait(due, f"hop {position + 1} to {image.reference} cannot begin: {told}")
            return
        _log.info("route goes on", route=route.id, hop=position + 1, task=task.id)

    async def _wait(self, due: RouteDue, why: str) -> None:
        if due.status is TaskStatus.FAILED:
            # Nothing is to be asked until somebody retries or aborts its task, and that is seen at once.
            if due.route.waiting_for != why:
                await self._routes.wait(due.route.id, why, None)
            return
        again = self._clock.now() + timedelta(seconds=_AGAIN_S)
        await self._routes.wait(due.route.id, why, again)
        if due.route.waiting_for != why:
            _log.warning("route waits", route=due.route.id, why=why)


def _failed(route: Route, message: str | None) -> str:
    task_id = route.task_id
    return (
        f"hop {route.begun} has failed: {message}; remedy: put that right, then `shardlift task retry {task_id}` lets"
        f" the route go on, `shardlift task abort {task_id}` ends it"
    )


def _remedy(error: ShardliftError) -> str:
    return f"; remedy: {error.remedy}" if error.remedy else ""


def _said(finding: Finding) -> tuple[str, str, str]:
    return finding.rule, finding.subject, finding.evidence


def _checked(later: Subject, told: set[tuple[str, str, str]]) -> CheckReport:
    """What is new at that hop: what is in the way of an earlier one is told there."""
    plan, forecast, findings = plan_and_forecast(later)
    fresh = tuple(one for one in findings if _said(one) not in told)
    return CheckReport(later.cluster.id, later.image.id, later.strategy, fresh, plan, forecast)


def upgrade_intent(cluster: Cluster, asked: UpgradeRequest | Route) -> Intent:
    return Intent(
        kind=TaskKind.UPGRADING,
        strategy=asked.strategy or cluster.strategy,
        agency=asked.agency,
        backup_check=asked.backup_check,
        load_check=asked.load_check,
        batch_size=asked.batch_size if isinstance(asked, UpgradeRequest) else 1,
        policy=asked.policy,
    )
