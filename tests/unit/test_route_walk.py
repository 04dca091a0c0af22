"""A route on a simulated cluster: begun once, led from hop to hop, waiting where it must, the same after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from shardlift.errors import BusyError, NotFoundError, RefusedError
from shardlift.model import Cluster, EngineKind, Policy, Route, RouteStatus, Severity, Strategy, TaskStatus, Version
from shardlift.service.requests import RestartRequest, UpgradeRequest
from shardlift.sim import sim_image
from shardlift.store.routes import RouteStore
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True

ES, OS = EngineKind.ELASTICSEARCH, EngineKind.OPENSEARCH
ES_68, ES_710 = sim_image("6.8.23", ES), sim_image("7.10.2", ES)
OS_1, OS_2, OS_3 = (sim_image(version) for version in ("1.3.20", "2.19.4", "3.4.0"))
ALL = (ES_68, ES_710, OS_1, OS_2, OS_3)
FULL_WAY = (ES_710.reference, OS_1.reference, OS_2.reference)


@asynccontextmanager
async def lab_on_6_8(home: Path, **more: object) -> AsyncIterator[Lab]:
    async with open_lab(home, images=ALL, runs=ES_68, **more) as lab:  # type: ignore[arg-type]
        yield lab


def wish(lab: Lab, **more: object) -> UpgradeRequest:
    request = {"cluster_id": lab.cluster.id, "image": OS_3.reference, "strategy": Strategy.IN_PLACE, **more}
    return UpgradeRequest(**request)  # type: ignore[arg-type]


async def begin(lab: Lab, via: tuple[str, ...] = (), **more: object) -> Route:
    return await lab.service.routes.begin(await cluster_of(lab), wish(lab, **more), via)


async def cluster_of(lab: Lab) -> Cluster:
    return await lab.service.cluster(lab.cluster.id)


async def newest(lab: Lab) -> Route:
    return await lab.service.routes.newest(await cluster_of(lab))


async def walk(lab: Lab) -> Route:
    """Drives tasks and leads the route on until neither changes anything any more."""
    while True:
        before = await newest(lab)
        await lab.drive()
        await lab.service.routes.look()
        after = await newest(lab)
        if after == before or after.status is not RouteStatus.RUNNING:
            return after


def make_again(lab: Lab) -> None:
    """What an operator does to indices that are too old: they are made anew on what runs now."""
    node = next(iter(lab.world.nodes.values()))
    for index in lab.world.indices.values():
        index.created_by, index.created_on = node.engine, node.version


async def passed(lab: Lab) -> list[str]:
    """The images of the cluster's tasks, oldest first."""
    page = await lab.service.tasks(lab.cluster.id)
    return [lab.service.image(task.image_id).reference for task in reversed(page.items)]


async def test_what_each_hop_takes_is_told_and_nothing_is_changed(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        report = await lab.service.routes.plan(await cluster_of(lab), wish(lab), FULL_WAY)
        assert [(hop.leg.source, hop.leg.image.reference) for hop in report.hops] == [
            ("elasticsearch:6.8.23", "elasticsearch:7.10.2"),
            ("elasticsearch:7.10.2", "opensearch:1.3.20"),
            ("opensearch:1.3.20", "opensearch:2.19.4"),
            ("opensearch:2.19.4", "opensearch:3.4.0"),
        ]
        assert [hop.leg.rebuild for hop in report.hops] == [(), (), ("index-0", "index-1"), ("index-0", "index-1")]
        assert not report.blocking
        for hop in report.hops:
            assert hop.check.plan is not None
            assert len(hop.check.plan.nodes) == 3
            assert {node.from_version for node in hop.check.plan.nodes} == {str(hop.leg.version)}
        assert (await lab.service.tasks(lab.cluster.id)).total == 0
        with pytest.raises(NotFoundError, match="no route"):
            await newest(lab)


async def test_a_later_hop_that_cannot_be_is_known_before_the_first_begins(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        driver = lab.service.backend.driver("sim")

        async def java_problem(image: object) -> str | None:
            return "opensearch:3.4.0 needs Java 21 to 25; found: none" if image == OS_3 else None

        driver.java_problem = java_problem  # type: ignore[method-assign]
        lab.service.backend.driver = lambda _name: driver  # type: ignore[method-assign]
        with pytest.raises(RefusedError, match=r"cannot set out for opensearch:3\.4\.0") as refused:
            await begin(lab)
        assert {one.rule for one in refused.value.findings} == {"java_available"}
        assert (await lab.service.tasks(lab.cluster.id)).total == 0


async def test_findings_are_told_at_the_first_hop_that_they_are_about(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        lab.world.persistent["discovery.zen.publish_timeout"] = "31s"
        report = await lab.service.routes.plan(await cluster_of(lab), wish(lab))
        warned = [
            [one.evidence for one in hop.check.findings if one.rule == "no_archived_settings"] for hop in report.hops
        ]
        assert warned[1] == ["discovery.zen.publish_timeout=31s"]
        assert warned[2] == []
        assert all(one.severity is Severity.WARN for hop in report.hops for one in hop.check.findings)


async def test_the_whole_way_with_indices_made_again_where_the_route_waits_for_that(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        begun = await begin(lab, FULL_WAY)
        assert (begun.status, begun.begun, len(begun.hops)) == (RouteStatus.RUNNING, 1, 4)
        for hop, (engine, version) in ((2, (OS, "1.3.20")), (3, (OS, "2.19.4"))):
            waits = await walk(lab)
            assert waits.begun == hop
            assert waits.waiting_for is not None
            assert f"hop {hop + 1} to" in waits.waiting_for
            assert "index_compatible" in waits.waiting_for
            assert "_reindex" in waits.waiting_for
            assert waits.look_at is not None
            assert {(node.engine, node.version) for node in lab.world.nodes.values()} == {
                (engine, Version.parse(version))
            }
            make_again(lab)
            assert (await walk(lab)).begun == hop, "it is left alone for a while"
            await lab.service.routes.resume(await cluster_of(lab))
        done = await walk(lab)
        assert (done.status, done.waiting_for) == (RouteStatus.SUCCESS, None)
        assert done.ended_at is not None
        assert await passed(lab) == [*FULL_WAY, OS_3.reference]
        cluster = await cluster_of(lab)
        assert (cluster.engine, cluster.version) == (OS, OS_3.version)


async def test_a_waiting_route_is_looked_at_again_by_itself(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        await begin(lab)
        waits = await walk(lab)
        assert waits.look_at is not None
        assert waits.look_at - lab.clock.now() <= timedelta(seconds=30)
        make_again(lab)
        await lab.clock.sleep(31)
        assert (await walk(lab)).begun == 2


async def test_a_failed_hop_stops_the_route_until_its_task_is_retried(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        begun = await begin(lab)
        broken = lab.world.nodes[lab.cluster.nodes[1].name]
        broken.starts = False
        stopped = await walk(lab)
        assert (stopped.status, stopped.begun) == (RouteStatus.RUNNING, 1)
        assert stopped.waiting_for is not None
        assert "hop 1 has failed" in stopped.waiting_for
        assert f"task retry {begun.task_id}" in stopped.waiting_for
        assert stopped.look_at is None, "a retry is seen at once"
        broken.starts = True
        assert begun.task_id is not None
        await lab.service.retry(begun.task_id)
        await lab.service.routes.look()
        assert (await newest(lab)).waiting_for is None
        assert (await walk(lab)).begun == 1
        assert "hop 2 to" in ((await newest(lab)).waiting_for or ""), "it has gone on to the next one"


async def test_aborting_the_task_of_a_hop_ends_the_route(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        begun = await begin(lab)
        assert begun.task_id is not None
        await lab.service.abort(begun.task_id)
        ended = await walk(lab)
        assert (ended.status, ended.begun) == (RouteStatus.ABORTED, 1)
        with pytest.raises(RefusedError, match="has ended"):
            await lab.service.routes.resume(await cluster_of(lab))


async def test_aborting_a_route_ends_its_task_too(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        begun = await begin(lab)
        assert begun.task_id is not None
        assert (await lab.service.routes.abort(await cluster_of(lab))).status is RouteStatus.ABORTED
        await lab.drive()
        task = await lab.service.task(begun.task_id)
        assert (task.status, task.aborting) == (TaskStatus.FAILED, True)
        await lab.service.routes.look()
        assert (await newest(lab)).begun == 1


async def test_while_it_waits_no_other_upgrade_begins_but_nodes_can_be_restarted(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        await begin(lab)
        await walk(lab)
        with pytest.raises(BusyError, match="on a route"):
            await lab.service.upgrade(wish(lab, image=OS_2.reference))
        with pytest.raises(BusyError, match="on a route"):
            await begin(lab)
        task = await lab.service.restart(RestartRequest(lab.cluster.id))
        await lab.drive()
        assert (await lab.service.task(task.id)).status is TaskStatus.SUCCESS


@pytest.mark.parametrize("at", [1, 20, 60])
async def test_a_crash_costs_nothing_and_no_hop_is_begun_twice(fast_home: Path, at: int) -> None:
    async with lab_on_6_8(fast_home) as lab:
        make_again(lab)
        await begin(lab, (ES_710.reference,), image=OS_1.reference)
        count = 0

        def crash(when: str, what: str, where: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise Crash

        lab.fault = crash
        while True:
            try:
                done = await walk(lab)
            except Crash:
                continue
            break
        assert done.status is RouteStatus.SUCCESS
        assert await passed(lab) == [ES_710.reference, OS_1.reference]


async def test_of_two_processes_that_lead_one_on_one_begins_the_hop(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        route = await begin(lab, (ES_710.reference,), image=OS_1.reference)
        await lab.drive()
        task = await lab.service.task(route.task_id or "")
        other = RouteStore(lab.service.store.database)
        await lab.service.routes.look()
        gone_on = await newest(lab)
        assert gone_on.begun == 2
        await lab.drive()
        with pytest.raises(BusyError):
            await other.go_on(route.id, 1, type(task)(**{**_fields(task), "id": "another"}))
        assert (await lab.service.tasks(lab.cluster.id)).total == 2, "its task was rolled back"


def _fields(task: object) -> dict[str, object]:
    return {name: getattr(task, name) for name in type(task).__slots__}  # type: ignore[attr-defined]


async def test_its_wishes_hold_for_every_hop(fast_home: Path) -> None:
    async with lab_on_6_8(fast_home) as lab:
        await begin(lab, (ES_710.reference,), image=OS_1.reference, policy=Policy(canary=True))
        for _ in range(2):
            task = (await lab.service.tasks(lab.cluster.id)).items[0]
            assert task.policy.canary
            assert task.strategy is Strategy.IN_PLACE
            await lab.service.approve(task.id)
            await lab.drive()
            await lab.service.routes.look()
        assert (await newest(lab)).status is RouteStatus.SUCCESS
