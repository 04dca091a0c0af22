"""Server-sent events, over the real app and a real service on the simulated world, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from shardlift.api import create_app, events
from shardlift.model import StepStatus, Task, TaskStatus
from shardlift.service.requests import Credentials
from tests.worlds import Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True


@dataclass
class Client:
    """Opens one stream over ASGI, and reads it as a browser does."""

    app: FastAPI
    path: str
    headers: Mapping[str, str]
    status: int = 0
    sent: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    done: bool = False
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            await self.takes.wait()
            async with self.news:
                if message["type"] == "http.response.start":
                    self.status = message["status"]
                    self.sent = {key.decode(): value.decode() for key, value in message["headers"]}
                else:
                    self.raw += message.get("body", b"")
                    self.done = not message.get("more_body", False)
                self.news.notify_all()

        named = [(key.lower().encode(), value.encode()) for key, value in self.headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": self.path, "raw_path": self.path.encode(), "query_string": b"", "root_path": "",
            "headers": named, "client": ("127.0.0.1", 1), "server": ("shardlift.test", 80), "state": {},
        }  # fmt: skip
        await self.app(scope, receive, send)  # type: ignore[arg-type]

    @property
    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(name, id, data) of each."""
        found = []
        for block in self.raw.decode().split("\n\n")[:-1]:
            lines = [line.partition(": ")[::2] for line in block.split("\n")]
            told = dict(lines)
            if "data" in told:
                found.append((told["event"], told.get("id", ""), json.loads(told["data"])))
        return found

    async def until(self, name: str, count: int = 1) -> list[tuple[str, str, dict[str, Any]]]:
        async with asyncio.timeout(20_000), self.news:
            await self.news.wait_for(lambda: sum(one[0] == name for one in self.events) >= count)
        return self.events


@dataclass
class Ground:
    lab: Lab
    app: FastAPI
    mine: Credentials
    open_clients: list[asyncio.Task[None]] = field(default_factory=list)

    def client(self, path: str, *, takes: bool = True, who: Credentials | None = None, **headers: str) -> Client:
        sent = {"X-Auth-Token": (who or self.mine).token} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        client = Client(self.app, path, sent)
        if takes:
            client.takes.set()
        self.open_clients.append(asyncio.create_task(client.run()))
        return client

    @property
    def streams(self) -> int:
        return len(self.app.state.streams)

    async def all_closed(self) -> None:
        async with asyncio.timeout(20_000):
            await asyncio.gather(*self.open_clients)
        assert self.streams == 0


@asynccontextmanager
async def ground(home: Path, **more: Any) -> AsyncIterator[Ground]:
    async with open_lab(home, **more) as lab:
        mine = await lab.service.create_project("mine")
        own = replace(lab.cluster, project_id=mine.project_id)
        await lab.service.store.remove_cluster(lab.cluster.id)
        await lab.service.store.add_cluster(own)
        lab.cluster = own
        yield Ground(lab, create_app(lab.service, clock=lab.clock), mine)


def states(
    told: list[tuple[str, str, dict[str, Any]]], known: Mapping[tuple[str, int], str]
) -> dict[tuple[str, int], str]:
    """What a client knows of each sub-step after these events, by (node, order)."""
    return dict(known) | {(data["node"], data["order"]): data["status"] for name, _, data in told if name == "step"}


def truth(task: Task) -> dict[tuple[str, int], str]:
    return {(row.node, row.order): str(row.status) for row in task.steps}


async def test_a_task_from_its_beginning_to_its_end(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        client = ours.client(f"/api/v1/tasks/{task.id}/events")
        await client.until("task")
        await ours.lab.drive()
        await client.until("end")
        await ours.all_closed()
        assert client.done
        assert (client.status, client.sent["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (client.sent["cache-control"], len(client.sent["x-request-id"])) == ("no-cache", 32)
        done = await ours.lab.task(task)
        assert states(client.events, {}) == truth(done)
        revisions = [int(one[1]) for one in client.events if one[0] == "task"]
        assert revisions == sorted(set(revisions))
        assert revisions[-1] == done.revision
        begun = {
            (data["node"], data["order"])
            for name, _, data in client.events
            if name == "step" and data["status"] == "RUNNING"
        }
        assert len(begun) > 13, "sub-steps are told while they run"
        assert client.events[-1] == ("end", str(done.revision), {"task_id": task.id, "status": "SUCCESS"})
        assert client.events[-2][2]["eta_s"] == 0
        assert "steps" not in client.events[-2][2]


@pytest.mark.parametrize("cut_after", [1, 25])
async def test_who_comes_back_misses_nothing_and_is_told_nothing_old(fast_home: Path, cut_after: int) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        path = f"/api/v1/tasks/{task.id}/events"
        first = ours.client(path)
        await first.until("task")
        driving = asyncio.create_task(ours.lab.drive())
        seen = await first.until("task", cut_after)
        first.gone.set()
        last = next(one[1] for one in reversed(seen) if one[1])
        known = states(seen, {})
        await driving
        second = ours.client(path, Last_Event_ID=last)
        await second.until("end")
        await ours.all_closed()
        done = await ours.lab.task(task)
        assert states(second.events, known) == truth(done)
        assert all(data["revision"] > int(last) for name, _, data in second.events if name == "step")
        third = ours.client(path, Last_Event_ID=str(done.revision))
        await third.until("end")
        assert [one[0] for one in third.events] == ["end"]
        await ours.all_closed()


async def test_a_retry_is_told_to_who_was_away(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        path = f"/api/v1/tasks/{task.id}/events"

        node = ours.lab.world.nodes[task.total[1]]
        node.starts = False
        await ours.lab.drive()
        failed = await ours.lab.task(task)
        assert failed.status is TaskStatus.FAILED
        first = ours.client(path)
        told = await first.until("end")
        known, last = states(told, {}), told[-1][1]
        assert StepStatus.FAILED in known.values()
        node.starts = True
        await ours.lab.service.retry(task.id)
        second = ours.client(path, Last_Event_ID=last)
        known = states(await second.until("task"), known)
        assert StepStatus.FAILED not in known.values()
        await ours.lab.drive()
        assert states(await second.until("end"), known) == truth(await ours.lab.task(task))
        await ours.all_closed()


async def test_a_slow_client_gets_the_newest_state_and_holds_nobody_up(
    fast_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "TAKE_S", 10_000.0)
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        slow = ours.client(f"/api/v1/tasks/{task.id}/events", takes=False)
        fast = ours.client(f"/api/v1/tasks/{task.id}/events")
        await fast.until("task")
        await ours.lab.drive()
        await fast.until("end")
        slow.takes.set()
        await slow.until("end")
        await ours.all_closed()
        assert states(slow.events, {}) == states(fast.events, {}) == truth(await ours.lab.task(task))
        assert len(slow.events) < len(fast.events) / 2


async def test_silence_is_broken_by_comments_and_time_ends_it(fast_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STREAM_MAX_S", 120.0)
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        client = ours.client(f"/api/v1/tasks/{task.id}/events")
        await ours.all_closed()
        assert client.done
        assert [one[0] for one in client.events] == ["task"], "no end: the task goes on"
        assert client.raw.count(b": ping\n\n") == events.STREAM_MAX_S / events.HEARTBEAT_S
        assert b"retry: 2000\n" in client.raw


async def test_too_many_streams_of_a_project(fast_home: Path) -> None:
    async with ground(fast_home, project_streams_max=2) as ours:
        other = await ours.lab.service.create_project("other")
        task = await ours.lab.submit()
        path = f"/api/v1/tasks/{task.id}/events"
        two = [ours.client(path), ours.client(f"/api/v1/clusters/{ours.lab.cluster.id}/events")]
        for client in two:
            await client.until("task")
        third = ours.client(path)
        await ours.open_clients[2]
        assert (third.status, json.loads(third.raw)["error_code"]) == (429, "APIGW.0308")
        assert int(third.sent["retry-after"]) > 0
        assert "2 event streams" in json.loads(third.raw)["error_msg"]
        foreign = ours.client(path, who=other)
        await ours.open_clients[3]
        assert foreign.status == 404, "another project has its own, and learns nothing"
        assert ours.streams == 2
        two[0].gone.set()
        await ours.open_clients[0]
        again = ours.client(path)
        await again.until("task")
        for client in (two[1], again):
            client.gone.set()
        await ours.all_closed()
        assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]


async def test_a_client_that_takes_nothing_is_dropped(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        client = ours.client(f"/api/v1/tasks/{task.id}/events", takes=False)
        began_s = ours.lab.clock.elapsed_s()
        await ours.all_closed()
        assert ours.lab.clock.elapsed_s() - began_s == pytest.approx(events.TAKE_S)
        assert (client.status, client.done) == (0, False)


async def test_a_client_that_takes_nothing_and_leaves_frees_everything(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        client = ours.client(f"/api/v1/tasks/{task.id}/events", takes=False)
        await ours.lab.drive()
        client.gone.set()
        await ours.all_closed()
        assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]


async def test_an_id_that_is_none(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        paths = (f"/api/v1/tasks/{task.id}/events", f"/api/v1/clusters/{ours.lab.cluster.id}/events")
        for path, value in itertools.product(paths, ["x", "-1", "1.5", "9" * 30, "²", ""]):
            client = ours.client(path, Last_Event_ID=value)
            await ours.open_clients[-1]
            told = json.loads(client.raw)
            assert (client.status, told["field"]) == (400, "Last-Event-ID")
            assert told["remedy"]
        assert ours.streams == 0


async def test_a_cluster_from_task_to_task(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        path = f"/api/v1/clusters/{ours.lab.cluster.id}/events"
        client = ours.client(path)
        await client.until("cluster")
        first = await ours.lab.submit()
        await client.until("task")
        await ours.lab.service.abort(first.id)
        await ours.lab.drive()
        second = await ours.lab.submit()
        away = [one[1] for one in await client.until("cluster", 2) if one[1]][-1]
        driving = asyncio.create_task(ours.lab.drive())
        await driving
        for _ in range(100):
            await ours.lab.clock.sleep(0.1)
        client.gone.set()
        told = client.events
        done = await ours.lab.task(second)
        own = [one for one in told if one[2].get("task_id") == second.id or one[2].get("node")]
        assert states(own, {}) == truth(done)
        ended = [one[2]["status"] for one in told if one[2].get("task_id") == first.id]
        assert ended[-1] == "FAILED"
        assert [one[2]["busy_with"] for one in told if one[0] == "cluster"][-1] is None
        assert [one[2]["status"] for one in told if one[0] == "task"][-1] == "SUCCESS"
        back = ours.client(path, Last_Event_ID=away)
        await back.until("task")
        tasks = {one[2]["task_id"] for one in back.events if one[0] == "task"}
        assert tasks == {second.id}
        at_end = ours.client(path, Last_Event_ID=f"{second.id}:{done.revision}")
        await at_end.until("cluster")
        for one in (back, at_end):
            one.gone.set()
        await ours.all_closed()
        assert [one[0] for one in at_end.events] == ["cluster"]


async def test_a_deleted_cluster_ends_its_streams(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        two = [
            ours.client(f"/api/v1/tasks/{task.id}/events"),
            ours.client(f"/api/v1/clusters/{ours.lab.cluster.id}/events"),
        ]
        for client in two:
            await client.until("task")
        await ours.lab.service.store.remove_cluster(ours.lab.cluster.id)
        await ours.all_closed()
        assert all(client.done for client in two)


async def test_who_waits_for_a_task_is_not_woken_by_others(fast_home: Path) -> None:
    async with ground(fast_home) as ours:
        task = await ours.lab.submit()
        waiting = asyncio.create_task(ours.lab.service.next_of(task, 1000))
        await ours.lab.service.create_project("noise")
        await ours.lab.clock.sleep(5)
        assert not waiting.done()
        await ours.lab.service.pause(task.id)
        changed = await waiting
        assert (changed.paused, changed.steps) == (True, task.steps)
        assert await ours.lab.service.next_of(changed, 1) is changed
