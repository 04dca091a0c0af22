"""The CSS calls, asked through the running app over a service in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog

from shardlift.errors import BusyError, DriverError, EngineError, RefusedError, UsageError
from shardlift.model import Finding, Severity, Task, TaskKind, TaskStatus
from tests.api_world import BASE, World, assert_error, make_world
from tests.fakes import START, make_task

UPGRADE = "/inst-type/all/image/upgrade"


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


def asked(world: World, **changes: Any) -> dict[str, Any]:
    body = {
        "target_image_id": world.target.id,
        "upgrade_type": "cross",
        "indices_backup_check": False,
        "agency": "css_test_agency",
    }
    return {key: value for key, value in (body | changes).items() if value != "left out"}


def failed(world: World, **changes: Any) -> Task:
    changes = {"status": TaskStatus.FAILED, "ended_at": START + timedelta(hours=1), "fail_message": "esn-1"} | changes
    return world.service.keep(make_task(world.cluster, world.target, done=4, **changes))


# clusters


async def test_show_cluster(world: World) -> None:
    answer = await world.call("GET", world.path())
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["actions"], body["actionProgress"]) == ("200", [], {})
    assert [node["status"] for node in body["instances"]] == ["200"] * 3
    assert body["datastore"]["subVersion"] == "2.19.4_1.0.0_1105"
    assert body["instances"][0]["volume"]["size"] > 0


async def test_a_cluster_by_name_is_not_found_so_that_clients_go_on_with_the_list(world: World) -> None:
    path = f"/v1.0/{world.mine.project_id}/clusters/{world.cluster.name}"
    assert_error(await world.call("GET", path, token=True), 404, "CSS.0016")


async def test_a_missing_cluster_and_another_projects_look_the_same(world: World) -> None:
    base = f"/v1.0/{world.mine.project_id}/clusters/"
    for rest in ("", "/upgrade/detail", "/target/same/images"):
        foreign = await world.call("GET", base + world.foreign.id + rest)
        missing = await world.call("GET", base + str(uuid4()) + rest)
        assert assert_error(foreign, 403, "CSS.0015") == assert_error(missing, 403, "CSS.0015")
    assert_error(await world.call("POST", base + world.foreign.id + UPGRADE, body=asked(world)), 403, "CSS.0015")
    retry = f"{base}{world.foreign.id}/upgrade/{uuid4()}/retry"
    assert_error(await world.call("PUT", retry), 403, "CSS.0015")


async def test_a_cluster_named_like_another_ones_id_is_not_taken_for_it(world: World) -> None:
    ghost = str(uuid4())
    renamed = replace(world.cluster, name=ghost)
    world.service.kept_clusters[world.cluster.id] = renamed
    path = f"/v1.0/{world.mine.project_id}/clusters/{ghost}"
    assert_error(await world.call("GET", path), 403, "CSS.0015")


async def test_list_clusters_shows_only_the_callers_own_page_by_page(world: World) -> None:
    path = f"/v1.0/{world.mine.project_id}/clusters"
    body = (await world.call("GET", path)).json()
    assert (body["totalSize"], [one["id"] for one in body["clusters"]]) == (1, [world.cluster.id])
    past = (await world.call("GET", path, {"start": 2})).json()
    assert (past["totalSize"], past["clusters"]) == (1, [])


async def test_a_busy_cluster_names_its_action(world: World) -> None:
    world.service.keep(make_task(world.cluster, world.target, done=13))
    body = (await world.call("GET", world.path())).json()
    assert (body["actions"], body["actionProgress"]) == (["UPGRADING"], {"UPGRADING": "33%"})


# details


async def test_details_are_paged_by_item_newest_first(world: World) -> None:
    tasks = [failed(world) for _ in range(12)]
    path = world.path("/upgrade/detail")
    ids = [task.id for task in reversed(tasks)]

    async def page(**query: object) -> list[str]:
        body = (await world.call("GET", path, query)).json()
        assert body["totalSize"] == 12
        return [one["id"] for one in body["detailList"]]

    assert await page() == ids[:10]
    assert await page(start=11) == await page(offset=11) == ids[10:]
    assert await page(start=3, limit=2) == await page(offset=3, limit=2) == ids[2:4]
    assert await page(start=13) == await page(start=1000) == []
    assert await page(limit=1000, unknown="ignored") == ids


@pytest.mark.parametrize("name", ["start", "offset", "limit"])
@pytest.mark.parametrize("value", ["0", "-1", "1001", "x", "1.0", "", " 1", "1_0", "9" * 30])
async def test_a_bad_page_is_refused_by_name(world: World, name: str, value: str) -> None:
    body = assert_error(await world.call("GET", world.path("/upgrade/detail"), {name: value}), 400, "CSS.0001")
    assert name in body["error_msg"]


async def test_action_mode_selects_the_kind(world: World) -> None:
    failed(world)
    zones = failed(world, kind=TaskKind.AZ_MIGRATION)
    path = world.path("/upgrade/detail")
    default = (await world.call("GET", path)).json()
    assert (default["totalSize"], default["detailList"][0]["imageInfo"]["id"]) == (1, world.target.id)
    assert default == (await world.call("GET", path, {"action_mode": "UPGRADING"})).json()
    moved = (await world.call("GET", path, {"action_mode": "AZ_MIGRATION"})).json()
    assert (moved["totalSize"], moved["detailList"][0]["id"]) == (1, zones.id)
    assert "imageInfo" not in moved["detailList"][0]
    assert_error(await world.call("GET", path, {"action_mode": "OTHER"}), 400, "CSS.0001")


async def test_optional_fields_are_absent_and_not_null(world: World) -> None:
    world.service.keep(make_task(world.cluster, world.target))
    shown = (await world.call("GET", world.path("/upgrade/detail"))).json()["detailList"][0]
    assert None not in shown.values()
    assert not {"migrateParam", "finalAzInfoMap", "failMessage"} & set(shown)
    assert shown["executeTimes"] == "1"


# images


async def test_images_by_kind_of_hop(world: World) -> None:
    for word, versions in (("same", ["2.19.9"]), ("cross", ["3.4.0", "3.1.0"]), ("crossEngine", ["3.4.0", "3.1.0"])):
        body = (await world.call("GET", world.path(f"/target/{word}/images"))).json()
        assert [one["datastoreVersion"] for one in body["imageInfoList"]] == versions
        assert (body["needUploadUpgradePlugin"], body["totalSize"]) == (False, len(versions))
    assert_error(await world.call("GET", world.path("/target/sideways/images")), 400, "CSS.0001")


async def test_images_are_paged_from_zero(world: World) -> None:
    path = world.path("/target/cross/images")
    body = (await world.call("GET", path, {"offset": 1, "limit": 1})).json()
    assert ([one["datastoreVersion"] for one in body["imageInfoList"]], body["totalSize"]) == (["3.1.0"], 2)
    assert (await world.call("GET", path, {"offset": 0})).status_code == 200
    assert_error(await world.call("GET", path, {"offset": -1}), 400, "CSS.0001")


# upgrade


async def test_the_running_task_is_there_when_the_empty_answer_comes(world: World) -> None:
    answer = await world.call("POST", world.path(UPGRADE), body=asked(world, batch_size=2, cluster_load_check=True))
    assert (answer.status_code, answer.content) == (200, b"")
    shown = (await world.call("GET", world.path("/upgrade/detail"))).json()["detailList"][0]
    assert (shown["status"], shown["agencyName"]) == ("RUNNING", "css_test_agency")
    request = world.service.requests[0]
    assert (request.image, request.upgrade_type, request.batch_size) == (world.target.id, "cross", 2)
    assert (request.backup_check, request.load_check, request.strategy) == (False, True, None)


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"upgrade_type": "crossEngine"}, "upgrade_type", "cross-engine"),
        ({"indices_backup_check": "true"}, "backup_check", True),
        ({"indices_backup_check": "left out"}, "backup_check", True),
        ({"indices_backup_check": None}, "backup_check", True),
        ({"check_load": True}, "load_check", True),
        ({"check_load": "false"}, "load_check", False),
        ({"agency": "left out"}, "agency", ""),
        ({"agency": "a" * 64}, "agency", "a" * 64),
        ({"unknown": [1]}, "batch_size", 1),
    ],
)
async def test_what_clients_send_in_other_ways(
    world: World, changes: dict[str, Any], attribute: str, value: object
) -> None:
    answer = await world.call("POST", world.path(UPGRADE), body=asked(world, **changes))
    assert answer.status_code == 200, answer.text
    assert getattr(world.service.requests[0], attribute) == value


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"target_image_id": "left out"}, "CSS.0001", "target_image_id"),
        ({"target_image_id": str(uuid4())}, "CSS.0001", "target_image_id"),
        ({"target_image_id": "\ud800"}, "CSS.0001", "target_image_id"),
        ({"target_image_id": 7}, "CSS.0001", "target_image_id"),
        ({"upgrade_type": "left out"}, "CSS.0001", "upgrade_type"),
        ({"upgrade_type": "sideways"}, "CSS.0001", "upgrade_type"),
        ({"indices_backup_check": "yes"}, "CSS.0001", "indices_backup_check"),
        ({"indices_backup_check": 1}, "CSS.0001", "indices_backup_check"),
        ({"cluster_load_check": []}, "CSS.0001", "cluster_load_check"),
        ({"check_load": "no"}, "CSS.0001", "check_load"),
        ({"batch_size": 0}, "CSS.0001", "batch_size"),
        ({"batch_size": "2"}, "CSS.0001", "batch_size"),
        ({"batch_size": True}, "CSS.0001", "batch_size"),
        ({"agency": ""}, "CSS.5130", "agency"),
        ({"agency": "a" * 65}, "CSS.5130", "agency"),
        ({"agency": "white space"}, "CSS.5130", "agency"),
        ({"agency": 5}, "CSS.5130", "agency"),
    ],
)
async def test_a_bad_field_is_refused_by_name(world: World, changes: dict[str, Any], code: str, field: str) -> None:
    body = assert_error(await world.call("POST", world.path(UPGRADE), body=asked(world, **changes)), 400, code)
    assert field in body["error_msg"]
    assert not world.service.requests


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "CSS.0006"),
        (b"null", "CSS.0006"),
        (b" \n", "CSS.0006"),
        (b"{}", "CSS.0001"),
        (b"[]", "CSS.0001"),
        (b"{", "CSS.0001"),
        (b"\xff\xfe", "CSS.0001"),
        (b"[" * 100_000, "CSS.0001"),
        (b"1" * 5000, "CSS.0001"),
    ],
)
async def test_a_body_that_is_none(world: World, raw: bytes, code: str) -> None:
    assert_error(await world.call("POST", world.path(UPGRADE), raw=raw), 400, code)


async def test_only_all_nodes_can_be_upgraded(world: World) -> None:
    path = world.path("/inst-type/ess-master/image/upgrade")
    assert_error(await world.call("POST", path, body=asked(world)), 400, "CSS.0076")


def finding(rule: str) -> Finding:
    return Finding(rule, Severity.BLOCK, "logs-1", "not as it must be", "seen: 2", "Mend it.")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RefusedError("no", (finding("data_nodes_minimum"),)), 400, "CSS.0074"),
        (RefusedError("no", (finding("indices_backed_up"),)), 400, "CSS.0083"),
        (RefusedError("no", (finding("cluster_healthy"),)), 412, "CSS.0078"),
        (RefusedError("the cluster is being created"), 400, "CSS.0078"),
        (BusyError("busy with task 1"), 409, "CSS.0011"),
        (UsageError("batch_size is larger than the cluster"), 400, "CSS.0001"),
        (EngineError("connection refused"), 400, "CSS.0078"),
        (DriverError("the disk is full"), 500, "CSS.0005"),
    ],
)
async def test_refusals(world: World, error: Exception, status: int, code: str) -> None:
    world.service.fails = error
    body = assert_error(await world.call("POST", world.path(UPGRADE), body=asked(world)), status, code)
    if isinstance(error, RefusedError) and error.findings:
        assert f"{error.findings[0].rule}: logs-1: not as it must be (seen: 2). Mend it." in body["error_msg"]


async def test_a_second_upgrade_is_told_to_wait(world: World) -> None:
    assert (await world.call("POST", world.path(UPGRADE), body=asked(world))).status_code == 200
    assert_error(await world.call("POST", world.path(UPGRADE), body=asked(world)), 409, "CSS.0011")


# retry and abort


def retry_path(world: World, task: Task) -> str:
    return world.path(f"/upgrade/{task.id}/retry")


async def test_a_retry_sent_twice_runs_once(world: World) -> None:
    task = failed(world)
    for _ in range(2):
        answer = await world.call("PUT", retry_path(world, task))
        assert (answer.status_code, answer.content) == (200, b"")
    shown = (await world.call("GET", world.path("/upgrade/detail"))).json()["detailList"][0]
    assert (shown["status"], shown["executeTimes"]) == ("RUNNING", "2")
    assert world.service.calls == ["retry"]


async def test_a_retry_that_loses_against_its_twin_is_well(world: World) -> None:
    task = failed(world)
    stored = world.service.task

    async def stale_once(task_id: str, project_id: str | None = None) -> Task:
        # The twin's retry lands between this request's look and its own retry.
        world.service.task = stored  # type: ignore[method-assign]
        await world.service.retry(task_id)
        return task

    world.service.task = stale_once  # type: ignore[method-assign]
    assert (await world.call("PUT", retry_path(world, task))).status_code == 200
    assert world.service.kept_tasks[task.id].execute_times == 2


@pytest.mark.parametrize("status", [TaskStatus.SUCCESS, TaskStatus.RUNNING])
async def test_a_task_that_did_not_fail_cannot_be_retried(world: World, status: TaskStatus) -> None:
    task = failed(world, status=status)
    assert_error(await world.call("PUT", retry_path(world, task)), 400, "CSS.5090")


async def test_a_retry_refused_by_rules_says_so(world: World) -> None:
    task = failed(world)
    world.service.fails = RefusedError("no", (finding("cluster_healthy"),))
    assert_error(await world.call("PUT", retry_path(world, task)), 412, "CSS.0078")
    world.service.fails = RefusedError("the task was aborted")
    assert_error(await world.call("PUT", retry_path(world, task)), 400, "CSS.5090")


@pytest.mark.parametrize("how", [{"query": {"retry_mode": "abort"}}, {"body": {"retry_mode": "abort"}}])
@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.FAILED])
async def test_an_abort_in_query_or_body_sent_twice(world: World, how: dict[str, Any], status: TaskStatus) -> None:
    task = failed(world, status=status)
    for _ in range(2):
        answer = await world.call("PUT", retry_path(world, task), how.get("query"), body=how.get("body"))
        assert (answer.status_code, answer.content) == (200, b"")
    assert world.service.calls == ["abort"]


async def test_a_task_that_ended_well_cannot_be_aborted(world: World) -> None:
    task = failed(world, status=TaskStatus.SUCCESS)
    answer = await world.call("PUT", retry_path(world, task), {"retry_mode": "abort"})
    assert_error(answer, 400, "CSS.5090")


@pytest.mark.parametrize(
    ("query", "raw"), [({"retry_mode": "stop"}, b""), (None, b'{"retry_mode": "stop"}'), (None, b"[]")]
)
async def test_another_retry_mode_is_refused(world: World, query: dict[str, str] | None, raw: bytes) -> None:
    task = failed(world)
    assert_error(await world.call("PUT", retry_path(world, task), query, raw=raw), 400, "CSS.0001")
    assert not world.service.calls


@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b'{"retry_mode": null}'])
async def test_a_body_without_mode_is_a_retry(world: World, raw: bytes) -> None:
    assert (await world.call("PUT", retry_path(world, failed(world)), raw=raw)).status_code == 200
    assert world.service.calls == ["retry"]


async def test_a_missing_task_and_one_of_another_cluster(world: World) -> None:
    theirs = world.service.keep(make_task(world.foreign, world.target))
    for task_id in (str(uuid4()), theirs.id, "no%00name", "%ff"):
        answer = await world.call("PUT", world.path(f"/upgrade/{task_id}/retry"), {"retry_mode": "abort"})
        assert_error(answer, 400, "CSS.0082")
    assert not world.service.calls


# the frame


async def test_gets_with_a_content_type_and_no_body_are_well(world: World) -> None:
    answer = await world.call("GET", world.path("/upgrade/detail"))
    assert answer.request.headers["content-type"] == "application/json"
    assert (answer.status_code, answer.json()) == (200, {"totalSize": 0, "detailList": []})


async def test_every_answer_has_its_own_request_id(world: World) -> None:
    ids = {(await world.call("GET", path)).headers["x-request-id"] for path in (world.path(), "/nowhere", "/docs")}
    assert len(ids) == 3


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1.0/p/clusters/", "/v2.0/p/clusters/c/rest", "/%00", "/docs/assets/no"]
)
async def test_an_unknown_path_has_the_same_shape(world: World, path: str) -> None:
    assert_error(await world.send("GET", BASE + path, {}), 404, "CSS.0016")


async def test_a_wrong_method_has_the_same_shape(world: World) -> None:
    answer = await world.call("DELETE", world.path())
    assert_error(answer, 405, "CSS.0001")
    assert answer.headers["allow"] == "GET"


async def test_a_crash_is_told_without_its_traceback_and_logged_with_it(world: World) -> None:
    world.service.fails = ZeroDivisionError("the inside of things")
    with structlog.testing.capture_logs() as lines:
        answer = await world.call("POST", world.path(UPGRADE), body=asked(world))
    assert_error(answer, 500, "CSS.0005")
    assert "inside" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error_msg"]
    crashed = next(line for line in lines if line["event"] == "request_crashed")
    assert crashed["log_level"] == "error"
    assert crashed["exc_info"]
