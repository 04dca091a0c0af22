"""Agencies: any name while a project has none, and only what they allow from the first one on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from shardlift.api import create_app
from shardlift.errors import NotFoundError, UsageError
from shardlift.model import TaskStatus
from shardlift.service.agencies import Action
from shardlift.service.requests import Credentials
from shardlift.store.tables import task as task_table
from tests.api_world import assert_error
from tests.doors import Door, HandClock, clusters, open_door
from tests.worlds import NEW, Lab, open_lab


@dataclass
class Desk:
    lab: Lab
    door: Door
    me: Credentials

    async def upgrade(self, **more: object) -> httpx.Response:
        body = {"target_image_id": NEW.id, "upgrade_type": "cross", "indices_backup_check": False, **more}
        path = f"{clusters(self.me)}/{self.lab.cluster.id}/inst-type/all/image/upgrade"
        return await self.door.call(self.me, "POST", path, body=json.dumps(body).encode())

    async def allow(self, name: str, *actions: str) -> None:
        await self.lab.service.agencies.create(self.me.project_id, name, actions)


@asynccontextmanager
async def open_desk(home: Path) -> AsyncIterator[Desk]:
    async with open_lab(home) as lab:
        clock = HandClock()
        clock.at = datetime.now(UTC)
        door = Door(lab.service, create_app(lab.service, clock=clock), clock)
        yield Desk(lab, door, await lab.service.keys.create(lab.cluster.project_id))


async def test_without_agencies_every_well_formed_name_is_taken(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        # Another project's agencies are its own business.
        other = await desk.lab.service.create_project("other")
        await desk.lab.service.agencies.create(other.project_id, "theirs", ("restart",))
        assert_error(await desk.upgrade(agency="not ok"), 400, "CSS.5130")
        assert (await desk.upgrade(agency="css_upgrade_agency")).status_code == 200


async def test_with_agencies_a_name_must_be_known_and_allow_what_is_asked_for(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        await desk.allow("movers", "az_migrate", "replace")
        await desk.allow("upgraders", "restart", "upgrade")
        unknown = assert_error(await desk.upgrade(agency="css_upgrade_agency"), 400, "CSS.5130")
        assert "movers, upgraders" in unknown["error_msg"]
        assert_error(await desk.upgrade(), 400, "CSS.5130")
        denied = assert_error(await desk.upgrade(agency="movers"), 403, "CSS.0010")
        assert "Agency movers does not allow upgrade." in denied["error_msg"]
        assert (await desk.lab.service.tasks(desk.lab.cluster.id)).total == 0
        assert (await desk.upgrade(agency="upgraders")).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "status", "code"), [("upgrade", 403, "CSS.0010"), (None, 400, "CSS.5130")], ids=["denied", "unknown"]
)
async def test_moves_need_an_agency_that_allows_them(
    fast_home: Path, allowed: str | None, status: int, code: str
) -> None:
    async with open_desk(fast_home) as desk:
        await desk.allow("mine" if allowed else "other", "upgrade")
        base = f"{clusters(desk.me)}/{desk.lab.cluster.id}"
        zones = {"source_az": "a", "target_az": "c", "migrate_type": "az_migrate", "agency": "mine"}
        moved = await desk.door.call(
            desk.me, "POST", f"{base}/inst-type/all/azmigrate", body=json.dumps(zones).encode()
        )
        assert_error(moved, status, code)
        node = desk.lab.cluster.nodes[0].id
        replaced = await desk.door.call(desk.me, "PUT", f"{base}/instance/{node}/replace?agency=mine")
        assert_error(replaced, status, code)
        assert (await desk.lab.service.tasks(desk.lab.cluster.id)).total == 0


async def test_a_retry_needs_what_its_task_needs_and_an_abort_nothing(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        service = desk.lab.service
        await desk.allow("upgraders", "upgrade")
        await desk.allow("others", "restart")
        assert (await desk.upgrade(agency="upgraders")).status_code == 200
        task = (await service.tasks(desk.lab.cluster.id)).items[0]
        async with service.store.database.write() as connection:
            await connection.execute(update(task_table).values(status=str(TaskStatus.FAILED)))
        await service.agencies.delete(desk.me.project_id, "upgraders")
        path = f"{clusters(desk.me)}/{desk.lab.cluster.id}/upgrade/{task.id}/retry"
        assert_error(await desk.door.call(desk.me, "PUT", path), 400, "CSS.5130")
        await desk.allow("upgraders", "restart")
        assert_error(await desk.door.call(desk.me, "PUT", path), 403, "CSS.0010")
        assert (await service.task(task.id)).execute_times == 1
        assert (await desk.door.call(desk.me, "PUT", f"{path}?retry_mode=abort")).status_code == 200


async def test_making_and_removing(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        agencies = door.service.agencies
        me, other = await door.service.create_project("one"), await door.service.create_project("two")
        made = await agencies.create(me.project_id, "a-1", ("upgrade", "restart", "upgrade"))
        assert made.actions == (Action.UPGRADE, Action.RESTART)
        for name, allowed, field in (("a 1", ("upgrade",), "name"), ("b", ("fly",), "allow"), ("b", (), "allow")):
            with pytest.raises(UsageError) as refused:
                await agencies.create(me.project_id, name, allowed)
            assert refused.value.field == field
            assert refused.value.remedy
        with pytest.raises(UsageError, match="already"):
            await agencies.create(me.project_id, "a-1", ("upgrade",))
        assert (await door.call(me, "GET", "/api/v1/agencies")).json()["agencies"][0]["actions"] == [
            "upgrade",
            "restart",
        ]
        assert (await door.call(other, "GET", "/api/v1/agencies")).json() == {"total": 0, "agencies": []}
        with pytest.raises(NotFoundError):
            await agencies.delete(other.project_id, "a-1")
        await agencies.delete(me.project_id, "a-1")
        assert await agencies.list(me.project_id) == ()
