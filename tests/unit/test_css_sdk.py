"""The unmodified `huaweicloudsdkcss`, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcss.v1 import (
    CssClient,
    ListClustersDetailsRequest,
    ListImagesRequest,
    RetryUpgradeTaskRequest,
    ShowClusterDetailRequest,
    UpgradeCoreRequest,
    UpgradeDetailRequest,
    UpgradingTheKernelBody,
)

from shardlift.model import TaskStatus
from tests.api_world import World, make_world
from tests.fakes import START, make_task
from tests.served import served


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with served(world.app) as url:
        yield url


@pytest.fixture
def css(world: World, url: str) -> CssClient:
    return client(url, world, world.mine.sk)


def client(url: str, world: World, sk: str) -> CssClient:
    credentials = BasicCredentials(world.mine.ak, sk, world.mine.project_id)
    return CssClient.new_builder().with_credentials(credentials).with_endpoint(url).build()


def upgrade_request(world: World, cluster_id: str | None = None, **changes: object) -> UpgradeCoreRequest:
    fields = {
        "target_image_id": world.target.id,
        "upgrade_type": "cross",
        "indices_backup_check": False,
        "agency": "css_test_agency",
    } | changes
    return UpgradeCoreRequest(cluster_id or world.cluster.id, "all", UpgradingTheKernelBody(**fields))


def test_an_upgrade_from_end_to_end(world: World, css: CssClient) -> None:
    cluster_id = world.cluster.id
    listed = css.list_clusters_details(ListClustersDetailsRequest(offset=1, limit=10))
    assert [one.id for one in listed.clusters] == [cluster_id]
    images = css.list_images(ListImagesRequest(cluster_id, "cross"))
    assert (images.image_info_list[0].id, images.total_size) == (world.target.id, 2)

    assert css.upgrade_core(upgrade_request(world)).status_code == 200
    details = css.upgrade_detail(UpgradeDetailRequest(cluster_id))
    task = details.detail_list[0]
    assert (details.total_size, task.status, task.execute_times) == (1, "RUNNING", "1")
    assert [step.order for step in task.current_node_detail] == list(range(13))
    assert task.image_info.datastore_version == "3.4.0"
    busy = css.show_cluster_detail(ShowClusterDetailRequest(cluster_id))
    assert (busy.status, busy.actions, busy.action_progress) == ("200", ["UPGRADING"], {"UPGRADING": "0%"})

    stored = world.service.kept_tasks[task.id]
    world.service.keep(replace(stored, status=TaskStatus.SUCCESS, ended_at=START + timedelta(hours=1)))
    ended = css.upgrade_detail(UpgradeDetailRequest(cluster_id, offset=1, limit=10)).detail_list[0]
    assert (ended.status, ended.end_time) == ("SUCCESS", "2023-01-05T03:23:39")
    idle = css.show_cluster_detail(ShowClusterDetailRequest(cluster_id))
    assert (idle.actions, idle.action_progress) == ([], {})


def test_a_retry_and_an_abort(world: World, css: CssClient) -> None:
    task = make_task(world.cluster, world.target, done=4, status=TaskStatus.FAILED, ended_at=START, fail_message="x")
    world.service.keep(task)
    for _ in range(2):
        assert css.retry_upgrade_task(RetryUpgradeTaskRequest(world.cluster.id, task.id)).status_code == 200
    assert world.service.kept_tasks[task.id].execute_times == 2
    aborted = css.retry_upgrade_task(RetryUpgradeTaskRequest(world.cluster.id, task.id, "abort"))
    assert aborted.status_code == 200
    assert world.service.kept_tasks[task.id].aborting


@pytest.mark.parametrize(("changes", "code"), [({"agency": "not ok"}, "CSS.5130"), ({"batch_size": -1}, "CSS.0001")])
def test_errors_reach_the_caller_as_code_text_and_request_id(
    world: World, css: CssClient, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(ClientRequestException) as caught:
        css.upgrade_core(upgrade_request(world, **changes))
    error = caught.value
    assert (error.status_code, error.error_code) == (400, code)
    assert next(iter(changes)) in error.error_msg
    assert error.request_id


def test_a_foreign_cluster(world: World, css: CssClient) -> None:
    with pytest.raises(ClientRequestException) as caught:
        css.upgrade_core(upgrade_request(world, world.foreign.id))
    assert (caught.value.status_code, caught.value.error_code) == (403, "CSS.0015")


def test_a_wrong_secret(world: World, url: str) -> None:
    with pytest.raises(ClientRequestException) as caught:
        client(url, world, "wrong").upgrade_detail(UpgradeDetailRequest(world.cluster.id))
    assert (caught.value.status_code, caught.value.error_code) == (401, "APIGW.0301")
