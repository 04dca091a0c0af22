"""The unmodified SDK, the API, the real service, store and runner; only engines and hosts are simulated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcss.v1 import (
    CssClient,
    GetUpgradeDetailInfo,
    ListImagesRequest,
    RetryUpgradeTaskRequest,
    ShowClusterDetailRequest,
    UpgradeCoreRequest,
    UpgradeDetailRequest,
    UpgradingTheKernelBody,
)

from shardlift.api import create_app
from tests.served import served_here
from tests.worlds import NEW, Lab, open_lab

pytestmark = pytest.mark.walks

AK, SK, TOKEN = "AKLAB", "lab-secret", "lab-token"


@dataclass
class Desk:
    """What a user of the SDK has: a client, and the cluster's id. Calls run in threads, for the SDK blocks."""

    lab: Lab
    css: CssClient
    url: str

    async def upgrade(self, **changes: object) -> None:
        fields = {
            "target_image_id": NEW.id,
            "upgrade_type": "cross",
            "indices_backup_check": False,
            "agency": "css_test_agency",
        } | changes
        request = UpgradeCoreRequest(self.lab.cluster.id, "all", UpgradingTheKernelBody(**fields))
        await asyncio.to_thread(self.css.upgrade_core, request)

    async def newest(self) -> GetUpgradeDetailInfo:
        request = UpgradeDetailRequest(self.lab.cluster.id)
        return (await asyncio.to_thread(self.css.upgrade_detail, request)).detail_list[0]

    async def cluster(self) -> Any:
        return await asyncio.to_thread(self.css.show_cluster_detail, ShowClusterDetailRequest(self.lab.cluster.id))

    async def retry(self, task_id: str, mode: str | None = None) -> None:
        request = RetryUpgradeTaskRequest(self.lab.cluster.id, task_id, mode)
        await asyncio.to_thread(self.css.retry_upgrade_task, request)

    async def next_revision(self, task_id: str, after: int) -> int:
        """The long poll of the native API, so that a poll of the CSS API follows each change."""
        async with httpx.AsyncClient(base_url=self.url, headers={"X-Auth-Token": TOKEN}, timeout=90) as client:
            answer = await client.get(f"/api/v1/tasks/{task_id}", params={"after_revision": after, "wait_s": 10})
            return int(answer.json()["revision"])


@asynccontextmanager
async def open_desk(home: Path, nodes: int = 3) -> AsyncIterator[Desk]:
    async with open_lab(home, nodes=nodes) as lab:
        await lab.service.keys.add(lab.cluster.project_id, AK, SK, TOKEN)
        async with served_here(create_app(lab.service)) as url:
            credentials = BasicCredentials(AK, SK, lab.cluster.project_id)
            css = CssClient.new_builder().with_credentials(credentials).with_endpoint(url).build()
            yield Desk(lab, css, url)


def names(joined: str) -> list[str]:
    return joined.split(",") if joined else []


async def test_an_upgrade_watched_at_every_change(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        images = await asyncio.to_thread(desk.css.list_images, ListImagesRequest(desk.lab.cluster.id, "cross"))
        assert [one.id for one in images.image_info_list] == [NEW.id]
        await desk.upgrade()
        polls = [await desk.newest()]
        assert polls[0].status == "RUNNING"
        assert (await desk.cluster()).actions == ["UPGRADING"]

        driving = asyncio.create_task(desk.lab.drive())
        revision = 0
        while polls[-1].status == "RUNNING":
            revision = await desk.next_revision(polls[0].id, revision)
            polls.append(await desk.newest())
        idle = await desk.cluster()  # the moment SUCCESS shows
        await driving

        assert polls[-1].status == "SUCCESS", polls[-1]
        assert (idle.status, idle.actions, idle.action_progress) == ("200", [], {})
        assert idle.datastore.sub_version == NEW.display_name
        assert names(polls[-1].completed_nodes) == names(polls[-1].total_nodes)
        assert_orderly(polls)


def assert_orderly(polls: list[GetUpgradeDetailInfo]) -> None:
    """Times never run backwards and completedNodes only grows, each poll shows all 13 sub-steps."""
    seen: dict[tuple[str, int], str] = {}
    done: list[str] = []
    for poll in polls:
        assert [step.order for step in poll.current_node_detail] == list(range(13))
        completed = names(poll.completed_nodes)
        assert completed[: len(done)] == done
        done = completed
        times = [at for step in poll.current_node_detail for at in (step.begin_time, step.end_time) if at]
        assert times == sorted(times)
        for node in names(poll.current_node_name):
            for step in poll.current_node_detail:
                begun = seen.setdefault((node, step.order), step.begin_time) if step.begin_time else ""
                assert begun == step.begin_time, "a sub-step began twice"


async def test_a_failure_its_retry_and_what_the_client_sees(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        await desk.upgrade()
        first = names((await desk.newest()).total_nodes)[0]
        desk.lab.world.nodes[first].starts = False
        await desk.lab.drive()

        failed = await desk.newest()
        assert (failed.status, failed.current_node_name) == ("FAILED", first)
        broken = [step for step in failed.current_node_detail if step.status == "FAILED"]
        assert [step.name for step in broken] == ["Node start"]
        assert len(broken[0].desc) > len("The engine is started with the same name and address.")
        assert (await desk.cluster()).actions == []

        desk.lab.world.nodes[first].starts = True
        await desk.retry(failed.id)
        await desk.retry(failed.id)
        running = await desk.newest()
        assert (running.status, running.execute_times) == ("RUNNING", "2")
        await desk.lab.drive()
        assert (await desk.newest()).status == "SUCCESS"
        with pytest.raises(ClientRequestException) as caught:
            await desk.retry(failed.id)
        assert caught.value.error_code == "CSS.5090"


async def test_an_abort_sent_twice(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        await desk.upgrade()
        task = await desk.newest()
        await desk.retry(task.id, "abort")
        await desk.retry(task.id, "abort")
        await desk.lab.drive()
        ended = await desk.newest()
        assert ended.status in ("FAILED", "PARTIAL_FAILED")
        assert (await desk.cluster()).actions == []
        await desk.retry(task.id, "abort")
        with pytest.raises(ClientRequestException) as caught:
            await desk.retry(task.id)
        assert caught.value.error_code == "CSS.5090"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"upgrade_type": "same"}, 400, "CSS.0001"),
        ({"target_image_id": "no-such-image"}, 400, "CSS.0001"),
        ({"indices_backup_check": True}, 400, "CSS.0083"),
    ],
)
async def test_requests_that_the_real_service_refuses(
    fast_home: Path, changes: dict[str, object], status: int, code: str
) -> None:
    async with open_desk(fast_home) as desk:
        with pytest.raises(ClientRequestException) as caught:
            await desk.upgrade(**changes)
        assert (caught.value.status_code, caught.value.error_code) == (status, code), caught.value.error_msg
        if code == "CSS.0083":
            assert "index-0" in caught.value.error_msg


async def test_a_second_upgrade_is_busy(fast_home: Path) -> None:
    async with open_desk(fast_home) as desk:
        await desk.upgrade()
        with pytest.raises(ClientRequestException) as caught:
            await desk.upgrade()
        assert (caught.value.status_code, caught.value.error_code) == (409, "CSS.0011")
        await desk.lab.drive()


async def test_too_few_data_nodes(fast_home: Path) -> None:
    async with open_desk(fast_home, nodes=2) as desk:
        with pytest.raises(ClientRequestException) as caught:
            await desk.upgrade()
        assert (caught.value.status_code, caught.value.error_code) == (400, "CSS.0074"), caught.value.error_msg


async def test_a_cluster_with_two_nodes_down(fast_home: Path) -> None:
    """One that is down is repaired first; two are more than may be away at once."""
    async with open_desk(fast_home, nodes=5) as desk:
        for node in list(desk.lab.world.nodes.values())[-2:]:
            desk.lab.world.stop(node)
        with pytest.raises(ClientRequestException) as caught:
            await desk.upgrade()
        assert (caught.value.status_code, caught.value.error_code) == (412, "CSS.0078"), caught.value.error_msg
        assert "unavailable_budget" in caught.value.error_msg
