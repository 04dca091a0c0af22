"""A tenant cannot tell what is another's from what is nowhere: same answer, same words, same statements."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
from sqlalchemy import event

from shardlift.api import create_app
from shardlift.service.requests import Credentials
from tests.doors import BASE, Door, HandClock, clusters, open_door
from tests.worlds import open_lab


@dataclass
class Town:
    """`me` has nothing. `them` have a cluster with a task on it."""

    door: Door
    me: Credentials
    them: Credentials
    cluster_id: str
    cluster_name: str
    task_id: str
    statements: list[str]

    async def ask(self, who: Credentials, method: str, path: str) -> tuple[httpx.Response, list[str]]:
        """The answer, and the statements that it took once the caller's own key is known."""
        for _ in range(2):  # the first one notes the use of the key, and that is a change
            await self.door.call(who, "GET", clusters(who))
            await self.door.service.keys.settle()
        self.statements.clear()
        answer = await self.door.call(who, method, path, body=b"" if method == "GET" else b"{}")
        # The audit log is shortened with every so many records, whatever they are about.
        return answer, [one for one in self.statements if not one.startswith("DELETE FROM audit")]


@asynccontextmanager
async def open_town(home: Path) -> AsyncIterator[Town]:
    async with open_lab(home) as lab:
        clock = HandClock()
        clock.at = datetime.now(UTC)
        door = Door(lab.service, create_app(lab.service, clock=clock), clock)
        lab.service.keys._clock = clock  # the lab's own one runs, and with it would come notes of when keys were used
        me = await lab.service.create_project("me")
        them = await lab.service.keys.create(lab.cluster.project_id)
        task = await lab.submit()
        seen: list[str] = []
        engine = lab.service.store.database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
        yield Town(door, me, them, lab.cluster.id, lab.cluster.name, task.id, seen)


def plain(answer: httpx.Response, *hidden: str) -> tuple[int, dict[str, str], str]:
    """The whole answer, without what differs between any two: the request id, and the ids that were asked with."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    text = answer.text
    for one in hidden:
        text = text.replace(one, "ID")
    return answer.status_code, headers, text


async def calls(town: Town) -> list[tuple[str, str]]:
    """Method and path of every documented call that names a cluster or a task, whoever adds one."""
    paths = (await town.door.send("GET", f"{BASE}/openapi.json", {})).json()["paths"]
    named = [path for path in paths if re.search(r"\{(cluster_id|cluster|task_id)\}", path)]
    return [(method.upper(), path) for path in named for method in paths[path]]


def filled(template: str, project_id: str, cluster: str, task_id: str) -> str:
    known = {"project_id": project_id, "cluster_id": cluster, "cluster": cluster, "task_id": task_id}
    known |= {"action_id": task_id, "inst_type": "all", "upgrade_type": "same"}
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], "any"), template)


async def test_every_call_answers_a_foreign_id_like_an_unknown_one(fast_home: Path) -> None:
    async with open_town(fast_home) as town:
        templates = await calls(town)
        assert len(templates) > 12
        query = "?upgrade_type=same&cluster=any"
        nowhere, never = str(uuid.uuid4()), str(uuid.uuid4())
        for method, template in templates:
            answers, work = [], []
            for cluster, task in ((nowhere, never), (town.cluster_id, town.task_id)):
                path = filled(template, town.me.project_id, cluster, task)
                answer, statements = await town.ask(town.me, method, path + query)
                answers.append(plain(answer, cluster, task))
                work.append(statements)
            assert answers[0] == answers[1], template
            assert work[0] == work[1], template
            assert answers[0][0] in (403, 404), (template, answers[0])
            assert town.cluster_name not in answers[1][2]


async def test_a_foreign_name_is_like_an_unknown_one(fast_home: Path) -> None:
    async with open_town(fast_home) as town:
        for base in (clusters(town.me), "/api/v1/clusters"):
            known = await town.door.call(town.me, "GET", f"{base}/{town.cluster_name}")
            unknown = await town.door.call(town.me, "GET", f"{base}/nosuchname")
            assert plain(known, town.cluster_name) == plain(unknown, "nosuchname")
            assert known.status_code == 404


async def test_a_foreign_task_under_an_own_cluster_is_like_an_unknown_one(fast_home: Path) -> None:
    async with open_town(fast_home) as town:
        base = f"{clusters(town.them)}/{town.cluster_id}/upgrade"
        other = await town.door.service.create_project("third")
        answers, work = [], []
        for task_id in (str(uuid.uuid4()), town.task_id):
            async with town.door.service.store.database.write() as connection:
                await connection.exec_driver_sql("UPDATE task SET project_id = ?", (other.project_id,))
            answer, statements = await town.ask(town.them, "PUT", f"{base}/{task_id}/retry")
            answers.append(plain(answer, task_id))
            work.append(statements)
        assert answers[0] == answers[1]
        assert answers[0][0] == 400
        assert work[0] == work[1]


async def test_lists_hold_nothing_of_others(fast_home: Path) -> None:
    async with open_town(fast_home) as town:
        await town.door.service.agencies.create(town.them.project_id, "their-agency", ("upgrade",))
        for path in (clusters(town.me), "/api/v1/clusters", "/api/v1/keys", "/api/v1/agencies", "/api/v1/audit"):
            text = (await town.door.call(town.me, "GET", path)).text
            for theirs in (town.cluster_id, town.cluster_name, town.task_id, town.them.ak, "their-agency"):
                assert theirs not in text, path


async def test_an_unknown_key_costs_what_a_wrong_secret_costs(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        seen: list[str] = []
        engine = door.service.store.database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
        await door.call(made, "GET", clusters(made))  # what is right may be known from memory
        await door.service.keys.settle()
        answers, work = [], []
        for who in (replace(made, ak="UNKNOWN"), replace(made, sk="wrong")):
            await door.call(made, "GET", clusters(made))
            await door.service.keys.settle()
            seen.clear()
            answers.append(plain(await door.call(who, "GET", clusters(made))))
            work.append(list(seen))
        assert answers[0] == answers[1]
        assert answers[0][0] == 401
        assert len(work[0]) > 1
        assert work[0] == work[1]
