"""The limit of recoveries is raised while copies leave idle nodes, stands in the ledger first, and is put back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from shardlift.errors import EngineError
from shardlift.model import StepStatus, Strategy, Task, TaskStatus
from shardlift.planner import RECOVERY_LIMIT
from shardlift.service.requests import PolicyChange
from shardlift.sim import MIB
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
BASE = 40 * MIB


@asynccontextmanager
async def large_lab(home: Path, *, replicas: int = 1, copy_mib: int = 4096, **settings: object) -> AsyncIterator[Lab]:
    """Three nodes with two copies of 4 GiB each: it takes minutes to empty one."""
    async with open_lab(home, indices=1, shards=3, replicas=replicas, **settings) as lab:
        for index in lab.world.indices.values():
            index.copy_bytes = copy_mib * MIB
        yield lab


def puts_of(lab: Lab, before: Callable[[str], None] = lambda _value: None) -> list[str]:
    """What the limit is set to, in order, as long as nothing else watches the lab. `before` may raise."""
    seen: list[str] = []

    def look(when: str, what: str, where: str) -> None:
        if what == "put_setting" and RECOVERY_LIMIT in where:
            if when == "before":
                before(where.split("=")[1])
            else:
                seen.append(where.split("=")[1])

    lab.fault = look
    return seen


@asynccontextmanager
async def meanwhile(lab: Lab, work: Callable[[], Awaitable[None]], *, every_s: float = 0) -> AsyncIterator[None]:
    """`work` beside the drive, once, or again and again."""

    async def go_on() -> None:
        while True:
            await work()
            if not every_s:
                return
            await lab.clock.sleep(every_s)

    running = asyncio.create_task(go_on())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def at(lab: Lab, seconds: float, do: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        await lab.clock.sleep(seconds)
        do()

    return work


def put(lab: Lab, value: str | None, layer: str = "persistent") -> Callable[[], None]:
    return lambda: lab.world.put_cluster_setting(layer, RECOVERY_LIMIT, value)


def raised(task: Task) -> dict[str, int]:
    """To how many MiB a second it was raised, by the node that was emptied."""
    told = {row.node: row.evidence.get("recovery_limit_raised_to_bytes_per_s") for row in task.steps if row.order == 0}
    return {name: size // MIB for name, size in told.items() if isinstance(size, int)}


def bears(lab: Lab, load: float | None, number: int = -1) -> Callable[[], None]:
    node = list(lab.world.nodes.values())[number]

    def bear() -> None:
        node.load_1m = load

    return bear


def rows(lab: Lab) -> list[tuple[str | None, str, int]]:
    """Of the ledger, as another process would find them."""
    with sqlite3.connect(lab.service.settings.database_path) as database:
        query = "SELECT before, ours, restored FROM setting_change WHERE key = ? ORDER BY id"
        return database.execute(query, (RECOVERY_LIMIT,)).fetchall()


STRATEGIES = [(Strategy.DRAIN, 1), (Strategy.AUTO, 0), (Strategy.SURGE, 1)]


@pytest.mark.parametrize(("strategy", "replicas"), STRATEGIES)
async def test_idle_nodes_are_emptied_sooner(fast_home: Path, strategy: Strategy, replicas: int) -> None:
    took_s: dict[int, float] = {}
    for factor in (1, 4):
        home = fast_home / str(factor)
        home.mkdir()
        async with large_lab(home, replicas=replicas, recovery_raise_max=factor) as lab:
            seen = puts_of(lab)
            task = await lab.submit(strategy)
            await lab.drive(lambda _event: lab.world.write())
            done = await lab.task(task)
            took_s[factor] = max(row.end for row in done.steps if row.end).timestamp() - done.created_at.timestamp()
            await assert_whole(lab, task.id)
            if factor == 1:
                assert (seen, raised(done)) == ([], {})
            else:
                assert set(raised(done).values()) == {160}
                assert all(row[2] for row in rows(lab))
    assert took_s[4] < 0.6 * took_s[1]


async def test_it_is_put_back_after_each_node_and_told_meanwhile(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        puts_of(lab)
        task = await lab.submit()
        progress: list[Mapping[str, object]] = []

        async def look() -> None:
            now = await lab.task(task)
            progress.extend(row.progress for row in now.steps if row.status is StepStatus.RUNNING and row.order == 0)

        between: set[str] = set()

        def rest(event: object) -> None:
            if getattr(event, "what", "") == "begun" and getattr(event, "order", 0) > 0:
                between.add(lab.world.setting(RECOVERY_LIMIT))

        async with meanwhile(lab, look, every_s=2):
            await lab.drive(rest)
        await assert_whole(lab, task.id)
        assert between == {""}, "nothing but the move of copies needs it"
        told = [one["recovery_limit_bytes_per_s"] for one in progress if "recovery_limit_bytes_per_s" in one]
        assert set(told) == {BASE, 2 * BASE, 4 * BASE}
        assert told[0] == BASE
        first = (await lab.task(task)).steps_of(task.total[0])[0]
        assert first.evidence["recovery_limit_before_bytes_per_s"] == BASE


async def test_it_is_in_the_database_before_it_is_set(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        before: list[tuple[str, str]] = []

        def look(value: str) -> None:
            if value != "None":
                before.append((value, rows(lab)[-1][1]))

        puts_of(lab, look)
        task = await lab.submit()
        await lab.drive()
        await assert_whole(lab, task.id)
        assert before
        assert all(value in ours.split(",") for value, ours in before)
        assert len(rows(lab)) == 1, "one row for the task, however often it changes"


@pytest.mark.parametrize("load", [3.0, 1.0, None])
async def test_a_node_that_is_loaded_or_not_known_keeps_the_base(fast_home: Path, load: float | None) -> None:
    async with large_lab(fast_home) as lab:
        bears(lab, load)()
        seen = puts_of(lab)
        task = await lab.submit()
        await lab.drive()
        await assert_whole(lab, task.id)
        assert (seen, raised(await lab.task(task))) == ([], {})


@pytest.mark.parametrize(("load", "way"), [(3.0, ["83886080b", "None"]), (None, ["None"])])
async def test_load_that_comes_meanwhile_makes_it_go_back(fast_home: Path, load: float | None, way: list[str]) -> None:
    async with large_lab(fast_home, copy_mib=8192) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        driving = asyncio.create_task(lab.drive())
        await lab.clock.sleep(35)
        bears(lab, load)()
        await lab.clock.sleep(24)
        assert seen == ["83886080b", "167772160b", *way]
        assert (await lab.task(task)).steps_of(task.total[0])[0].status is StepStatus.RUNNING, "not at its end"
        await driving
        await assert_whole(lab, task.id)
        assert seen == ["83886080b", "167772160b", *way], "and it stays there, for the other nodes too"


async def test_a_closed_gate_makes_it_go_back(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        driving = asyncio.create_task(lab.drive())
        await lab.clock.sleep(35)
        await lab.service.set_policy(task.id, PolicyChange(gates={"heap_percent": 30}))
        await lab.clock.sleep(25)
        assert seen == ["83886080b", "167772160b", "None"]
        await lab.service.set_policy(task.id, PolicyChange(gates={}))
        await driving
        await assert_whole(lab, task.id)


@pytest.mark.parametrize("value", ["20mb", "80mb", "160mb", None])
async def test_somebody_elses_word_is_the_last(fast_home: Path, value: str | None) -> None:
    """Also when it is as much as ours at that moment, and when they have taken ours away."""
    async with large_lab(fast_home) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        async with meanwhile(lab, at(lab, 35, put(lab, value))):
            await lab.drive()
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert seen == ["83886080b", "167772160b"]
        assert lab.world.persistent == ({} if value is None else {RECOVERY_LIMIT: value})
        assert lab.world.transient == {}
        assert f"{RECOVERY_LIMIT} was changed by somebody else" in (done.fail_message or "")
        assert "recovery_limit_left" in done.steps_of(task.total[1])[0].evidence


async def test_a_layer_above_ours_is_somebody_elses_word_too(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        async with meanwhile(lab, at(lab, 35, put(lab, "20mb", "transient"))):
            await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert seen == ["83886080b", "167772160b", "None"], "ours below is taken back at once"
        assert (lab.world.persistent, lab.world.transient) == ({}, {RECOVERY_LIMIT: "20mb"})


@pytest.mark.parametrize("layer", ["persistent", "transient"])
async def test_a_limit_that_stood_there_is_the_base(fast_home: Path, layer: str) -> None:
    async with large_lab(fast_home) as lab:
        put(lab, "20mb", layer)()
        seen = puts_of(lab)
        task = await lab.submit()
        await lab.drive()
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert set(raised(done).values()) == {80}
        assert seen[-1] == "20mb"
        assert getattr(lab.world, layer) == {RECOVERY_LIMIT: "20mb"}
        assert lab.world.setting(RECOVERY_LIMIT) == "20mb"


@pytest.mark.parametrize("value", ["-1", "0b", "0"])
async def test_what_does_not_limit_is_left_alone(fast_home: Path, value: str) -> None:
    async with large_lab(fast_home) as lab:
        put(lab, value)()
        seen = puts_of(lab)
        task = await lab.submit()
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert (seen, lab.world.persistent) == ([], {RECOVERY_LIMIT: value})


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("then", ["goes on", "is aborted", "has factor 1"])
async def test_a_crash_while_it_is_raised(fast_home: Path, moment: str, number: int, then: str) -> None:
    async with large_lab(fast_home) as lab:
        task = await lab.submit()
        count = 0

        def crash(when: str, what: str, where: str) -> None:
            nonlocal count
            if (when, what) == (moment, "put_setting") and RECOVERY_LIMIT in where:
                count += 1
                if count == number:
                    raise Crash

        lab.fault = crash
        with pytest.raises(Crash):
            await lab.drive()
        assert any(not restored for _, _, restored in rows(lab)), "whoever comes next finds it"
        if then == "is aborted":
            await lab.service.abort(task.id)
            await lab.drive()
            assert (await lab.task(task)).status is TaskStatus.FAILED
        elif then == "has factor 1":
            lab.service.settings = lab.service.settings.model_copy(update={"recovery_raise_max": 1})
            await lab.drive()
            await assert_whole(lab, task.id)
        else:
            await lab.drive(lambda _event: lab.world.write())
            await assert_whole(lab, task.id)
        assert (lab.world.persistent, lab.world.transient) == ({}, {})
        assert all(restored for _, _, restored in rows(lab))


async def test_it_is_put_back_after_a_failure_and_their_word_outlives_it(fast_home: Path) -> None:
    async with large_lab(fast_home, drain_timeout_s=40) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        async with meanwhile(lab, at(lab, 26, put(lab, "1mb"))):
            await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert seen == ["83886080b", "167772160b"]
        assert lab.world.persistent == {RECOVERY_LIMIT: "1mb"}
        await lab.service.retry(task.id)
        await lab.drive()
        assert lab.world.persistent == {RECOVERY_LIMIT: "1mb"}
        assert len(seen) == 2, "a retry is the same task"


async def test_it_is_put_back_after_a_failure(fast_home: Path) -> None:
    async with large_lab(fast_home, drain_timeout_s=30) as lab:
        seen = puts_of(lab)
        task = await lab.submit()
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert seen == ["83886080b", "167772160b", "None"]
        assert (lab.world.persistent, lab.world.transient) == ({}, {})


async def test_it_is_put_back_after_an_end_on_request(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        seen = puts_of(lab)
        task = await lab.submit()

        async def abort() -> None:
            await lab.clock.sleep(35)
            await lab.service.abort(task.id)

        async with meanwhile(lab, abort):
            await lab.drive()
        ended = await lab.task(task)
        assert ended.status is TaskStatus.FAILED
        assert RECOVERY_LIMIT in (ended.fail_message or "")
        assert seen == ["83886080b", "167772160b", "None"]
        assert (lab.world.persistent, lab.world.transient) == ({}, {})


async def test_a_cluster_that_refuses_is_emptied_at_its_own_pace(fast_home: Path) -> None:
    async with large_lab(fast_home) as lab:
        tried: list[str] = []

        def refuse(value: str) -> None:
            tried.append(value)
            raise EngineError("PUT /_cluster/settings: 403: operator privileges are required", status=403)

        seen = puts_of(lab, refuse)
        task = await lab.submit()
        await lab.drive()
        await assert_whole(lab, task.id)
        assert (seen, len(tried)) == ([], 3), "asked once for each node"
        assert "operator privileges" in str((await lab.task(task)).steps_of(task.total[0])[0].evidence)


async def test_reading_load_takes_a_small_share_of_the_time(fast_home: Path) -> None:
    """With a cluster that takes its time to tell, the next look is later."""
    async with large_lab(fast_home) as lab:
        engine = type(lab.service.backend.engine(lab.cluster))
        real = engine.nodes_with_load
        looks: list[tuple[datetime, datetime]] = []

        async def slow(self: object) -> object:
            begun = lab.clock.now()
            await lab.clock.sleep(4)
            found = await real(self)  # type: ignore[arg-type]
            looks.append((begun, lab.clock.now()))
            return found

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(engine, "nodes_with_load", slow)
            task = await lab.submit()
            await lab.drive()
        await assert_whole(lab, task.id)
        ended = (await lab.task(task)).steps_of(task.total[0])[0].end
        assert ended is not None
        of_first = [look for look in looks if look[1] <= ended]
        assert len(of_first) >= 2
        assert all((later - end).total_seconds() >= 9 * 4 for (_, end), (later, _) in pairwise(of_first))
