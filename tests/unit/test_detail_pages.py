"""Kept answers of UpgradeDetail: always those that would be made anew, whoever writes, and only for who may ask."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shardlift.api import render, schemas
from shardlift.api.pages import Asked, DetailPages
from shardlift.api.signing import sign
from shardlift.bounded import Bounded
from shardlift.errors import BusyError, NotFoundError
from shardlift.model import SUB_STEPS, NodePlan, Plan, StepStatus, Strategy, Task, TaskKind, TaskStatus
from shardlift.service import Service
from shardlift.store import Database, Journal, Store
from tests.detail_door import another_process, door
from tests.fakes import make_task
from tests.worlds import NEW, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True


async def anew(service: Service, asked: Asked) -> bytes:
    """The answer made from whole tasks, with nothing kept."""
    page = await service.tasks(asked.cluster_id, kind=asked.kind, start=asked.start, limit=asked.limit)
    details = [render.upgrade_detail(task, service.image(task.image_id)) for task in page.items]
    shown = schemas.UpgradeDetailPage.model_validate({"totalSize": page.total, "detailList": details})
    return shown.model_dump_json(by_alias=True, exclude_unset=True).encode()


class Writers:
    """Does what journals, runners and people do, in an order that no executor would choose."""

    def __init__(self, lab: Lab, database: Database, journal: Journal, chance: random.Random) -> None:
        self._lab, self._store, self._journal, self._chance = lab, Store(database), journal, chance
        self.tasks: list[Task] = []

    async def act(self) -> None:
        if not self.tasks:
            await self._add()
        await self._chance.choice(
            [self._begin, self._end, self._end, self._progress, self._add, self._finish, self._wish]
        )()

    def _any(self) -> tuple[Task, str, int]:
        task = self._chance.choice(self.tasks[-3:])
        return task, self._chance.choice(task.total), self._chance.randrange(13)

    async def _add(self) -> None:
        kind = self._chance.choice([TaskKind.UPGRADING, TaskKind.UPGRADING, TaskKind.AZ_MIGRATION])
        batch = self._chance.choice([1, 2])
        new = replace(make_task(self._lab.cluster, NEW, batch_size=batch), kind=kind)
        try:
            await self._store.add_task(new)
        except BusyError:
            return
        self.tasks.append(new)

    async def _begin(self) -> None:
        task, node, order = self._any()
        await self._journal.begin_step(task.id, node, order, self._lab.clock.now())

    async def _progress(self) -> None:
        await self._journal.progress(*self._any_ids(), {"waiting_for": "a shard"})

    async def _end(self) -> None:
        task, node, order = self._any()
        done = self._chance.random() < 0.8
        orders = range(13) if done and self._chance.random() < 0.5 else [order]
        for one in orders:
            await self._journal.end_step(
                task.id,
                node,
                one,
                status=StepStatus.SUCCESS if done else StepStatus.FAILED,
                desc=f'é "{self._chance.random()}"',
                evidence={} if done else {"log": ["a", "b"]},
                at=self._lab.clock.now(),
            )

    def _any_ids(self) -> tuple[str, str, int]:
        task, node, order = self._any()
        return task.id, node, order

    async def _finish(self) -> None:
        ended = self._chance.choice([TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.PARTIAL_FAILED])
        message = None if ended is TaskStatus.SUCCESS else "what went wrong"
        await self._journal.end_task(self.tasks[-1].id, ended, message, self._lab.clock.now())

    async def _wish(self) -> None:
        task, wish = self._any()[0], self._chance.randrange(4)
        if wish == 0:
            await self._store.request(task.id, paused=self._chance.random() < 0.5)
        elif wish == 1:
            await self._store.request_abort(task.id, TaskStatus.PARTIAL_FAILED, "given up")
        else:
            await self._retry(task)

    async def _retry(self, task: Task) -> None:
        try:
            await self._store.request_retry(task.id)
        except BusyError:
            return


PAGES = [
    (TaskKind.UPGRADING, 1, 10),
    (TaskKind.UPGRADING, 2, 1),
    (TaskKind.AZ_MIGRATION, 1, 10),
    (TaskKind.UPGRADING, 9, 3),
]


@pytest.mark.parametrize("seed", range(6))
async def test_a_kept_answer_is_the_one_that_would_be_made_anew(fast_home: Path, seed: int) -> None:
    """Whatever is written, by this process or by another one, and however often was asked in between."""
    chance = random.Random(seed)
    async with open_lab(fast_home, nodes=4) as lab, another_process(lab) as other:
        lease = await lab.service.leases.claim(lab.cluster.id)
        assert lease is not None
        both = [Writers(lab, one, Journal(one, lease), chance) for one in (lab.service.store.database, other)]
        both[1].tasks = both[0].tasks
        pages = DetailPages(lab.service)
        kept = 0
        for _ in range(60):
            await chance.choice(both).act()
            for kind, start, limit in chance.sample(PAGES, 2):
                asked = Asked("p" * 32, lab.cluster.id, kind, start, limit)
                expected = await anew(lab.service, asked)
                ready = pages.kept(asked, lab.service.details.mark(), lab.service.images())
                assert ready is None or ready.body == expected
                assert await pages.answer(asked) == expected
                again = pages.kept(asked, lab.service.details.mark(), lab.service.images())
                assert again is not None
                assert again.body == expected
                kept += ready is not None
        assert kept  # a write to a task of one page leaves the other page as it is


async def test_what_is_kept_is_no_answer_for_others(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        pages = DetailPages(lab.service)
        await pages.answer(Asked("p" * 32, lab.cluster.id))
        stranger = Asked("q" * 32, lab.cluster.id)
        assert pages.kept(stranger, lab.service.details.mark(), lab.service.images()) is None
        with pytest.raises(NotFoundError):
            await pages.answer(stranger)


async def test_a_task_of_many_nodes_is_read_without_their_rows(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        names = [f"node-{at:04}" for at in range(300)]
        plan = Plan(
            lab.cluster.id,
            Strategy.DRAIN,
            NEW.id,
            tuple((NodePlan(name, name, "", fresh_data=True),) for name in names),
        )
        await lab.service.store.add_task(replace(make_task(lab.cluster, NEW), plan=plan, id="large"))
        lease = await lab.service.leases.claim(lab.cluster.id)
        assert lease is not None
        journal = Journal(lab.service.store.database, lease)
        for order in (step.order for name in names[:1] for step in SUB_STEPS):
            await journal.end_step(
                "large", names[0], order, status=StepStatus.SUCCESS, desc="", evidence={}, at=lab.clock.now()
            )
        await journal.begin_step("large", names[1], 0, lab.clock.now())
        (thin,) = await lab.service.details.tasks(["large"])
        assert len(thin.steps) == 1 + 13
        whole = await lab.service.store.task("large")
        assert (thin.completed, thin.current) == (whole.completed, whole.current) == ((names[0],), (names[1],))
        assert thin.steps_of(names[1]) == whole.steps_of(names[1])


# through the app


async def test_the_short_way_answers_as_the_long_way_does(fast_home: Path) -> None:
    async with door(fast_home) as made:
        long = await made.poll()
        assert made.pages.asked == 1
        short = await made.poll()
        assert made.pages.asked == 1
        assert (short.status_code, short.content) == (200, long.content)
        assert len(short.json()["detailList"][0]["currentNodeDetail"]) == 13
        assert len({answer.headers.pop("x-request-id") for answer in (short, long)}) == 2
        assert short.headers == long.headers
        token = await made.get({"X-Auth-Token": made.mine.token})
        token.headers.pop("x-request-id")
        assert (token.content, token.headers) == (short.content, short.headers)


async def test_the_short_way_refuses_what_the_long_way_refuses(fast_home: Path) -> None:
    async with door(fast_home, refused_rate_per_s=0) as made:
        assert (await made.poll()).status_code == (await made.poll()).status_code == 200
        other = await made.lab.service.create_project("other")
        assert (await made.poll(other)).status_code == 403
        theirs = made.url.replace(made.mine.project_id, other.project_id)
        assert (await made.poll(other, theirs)).status_code == 403
        assert (await made.poll(replace(made.mine, sk="wrong"))).status_code == 401
        good = sign("GET", made.url, ak=made.mine.ak, sk=made.mine.sk, now=made.lab.clock.now())
        for name in ("Authorization", "X-Sdk-Date", "Host"):
            for at in range(0, len(good[name]), 7):
                changed = "0" if good[name][at] != "0" else "1"
                spoiled = good | {name: good[name][:at] + changed + good[name][at + 1 :]}
                assert (await made.get(spoiled)).status_code == 401, (name, at)
        old = made.lab.clock.now() - timedelta(minutes=16)
        assert (await made.get(sign("GET", made.url, ak=made.mine.ak, sk=made.mine.sk, now=old))).status_code == 401


async def test_a_key_or_cluster_that_another_process_takes_away_counts_no_longer(fast_home: Path) -> None:
    async with door(fast_home) as made, another_process(made.lab) as other:
        made.cluster_id = made.lab.cluster.id  # of the lab's project, not mine
        assert (await made.poll()).status_code == 403
        async with other.write() as connection:
            await connection.exec_driver_sql("UPDATE cluster SET project_id = ?", (made.mine.project_id,))
        assert (await made.poll()).json() == (await made.poll()).json() == {"totalSize": 0, "detailList": []}
        await Store(other).remove_cluster(made.cluster_id)
        assert (await made.poll()).status_code == 403
        async with other.write() as connection:
            await connection.exec_driver_sql("DELETE FROM access_key")
        assert (await made.poll()).status_code == 401


async def test_the_rate_of_a_key_counts_on_both_ways(fast_home: Path) -> None:
    async with door(fast_home, key_rate_per_s=0.001, key_rate_burst=3) as made:
        assert [(await made.poll()).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert made.pages.asked == 1


# the memory


def test_a_bounded_memory_forgets_what_was_not_asked_for_longest() -> None:
    kept: Bounded[str, int] = Bounded(3)
    for key in "abc":
        kept.put(key, 1)
    assert kept.get("a") == 1
    kept.put("d", 2, weight=2)
    assert [kept.get(key) for key in "abcd"] == [1, None, None, 2]
    kept.put("d", 3, weight=4)  # too heavy by itself
    assert [kept.get(key) for key in "ad"] == [1, None]
    assert "a" in kept
