"""Our own API, asked through the running app over a service in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from shardlift.api.documents import task_document
from shardlift.errors import BusyError, EngineError, RefusedError
from shardlift.model import Finding, Policy, Severity, StepStatus, Task, TaskStatus, Window
from shardlift.service.requests import NodeState
from tests.api_world import BASE, World, assert_error, make_world
from tests.fakes import START, make_task

HOUR = timedelta(hours=1)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


def clusters(world: World, rest: str = "") -> str:
    return f"/api/v1/clusters/{world.cluster.id}{rest}"


async def test_a_cluster_tells_what_its_nodes_say_themselves(world: World) -> None:
    first, second, _ = (node.name for node in world.cluster.nodes)
    world.service.states = {first: NodeState(4711, "3.4.0", answers=True), second: NodeState(None, None, answers=False)}
    body = (await world.call("GET", clusters(world), token=True)).json()
    assert body["cluster_id"] == world.cluster.id
    states = [(node["pid"], node["version"], node["answers"]) for node in body["nodes"]]
    assert states == [(4711, "3.4.0", True), (None, None, False), (None, None, None)]
    assert body["nodes"][0]["url"] == "http://127.77.0.1:9200"
    by_name = (await world.call("GET", f"/api/v1/clusters/{world.cluster.name}")).json()
    assert by_name == body


async def test_only_the_callers_own_things(world: World) -> None:
    theirs = world.service.keep(make_task(world.foreign, world.target))
    body = (await world.call("GET", "/api/v1/clusters")).json()
    assert [one["cluster_id"] for one in body["clusters"]] == [world.cluster.id]
    same = [
        assert_error(await world.call("GET", f"/api/v1/clusters/{ref}"), 404, "CSS.0016")
        for ref in (world.foreign.id, world.foreign.name, str(uuid4()), "%00", "x" * 500)
    ]
    for method, rest in (("GET", ""), ("POST", "/retry"), ("POST", "/abort")):
        for task_id in (theirs.id, str(uuid4())):
            assert_error(await world.call(method, f"/api/v1/tasks/{task_id}{rest}"), 404, "CSS.0016")
    assert all(one == same[0] for one in same)
    assert not world.service.calls
    assert_error(await world.send("GET", BASE + "/api/v1/clusters", {}), 401, "APIGW.0301")


async def test_images_and_targets(world: World) -> None:
    every = (await world.call("GET", "/api/v1/images")).json()
    assert (every["total"], every["images"][0]["reference"]) == (4, "opensearch:3.4.0")
    same = (await world.call("GET", clusters(world, "/targets"), {"upgrade_type": "same"})).json()
    assert [one["version"] for one in same["images"]] == ["2.19.9"]
    assert_error(await world.call("GET", clusters(world, "/targets"), {"upgrade_type": "up"}), 400, "CSS.0001")


async def test_a_check_shows_the_plan(world: World) -> None:
    body = (await world.call("POST", clusters(world, "/checks"), body={"image": "opensearch:3.4.0"})).json()
    assert (body["ok"], body["findings"], body["strategy"]) == (True, [], "drain")
    assert [[node["name"] for node in batch] for batch in body["plan"]["batches"]] == [
        [node.name] for node in world.cluster.nodes
    ]


async def test_an_upgrade_answers_with_its_task(world: World) -> None:
    answer = await world.call(
        "POST", clusters(world, "/upgrade"), body={"image": world.target.id, "strategy": "in_place", "batch_size": 1}
    )
    body = answer.json()
    assert (answer.status_code, body["status"], body["nodes_total"], body["nodes_completed"]) == (202, "RUNNING", 3, 0)
    assert len(body["steps"]) == 39
    assert str(world.service.requests[0].strategy) == "in_place"


@pytest.mark.parametrize(
    "body", [None, {}, {"image": "a b"}, {"image": "opensearch:3.4.0", "strategy": "magic"}, {"image": 1}, [1]]
)
async def test_a_bad_request_names_the_field(world: World, body: object) -> None:
    told = assert_error(await world.call("POST", clusters(world, "/upgrade"), body=body), 400, "CSS.0001")
    assert "image" in told["error_msg"] or "strategy" in told["error_msg"] or "object" in told["error_msg"]


async def test_an_unknown_image(world: World) -> None:
    told = assert_error(
        await world.call("POST", clusters(world, "/upgrade"), body={"image": "opensearch:9.9.9"}), 404, "CSS.0016"
    )
    assert (told["error"], told["message"]) == ("not_found", "no image opensearch:9.9.9")


async def test_refusals_carry_findings_as_data(world: World) -> None:
    found = Finding("disk_room", Severity.BLOCK, "esn-1", "would fill up", "91 %", "Free some space.")
    world.service.fails = RefusedError("refused", (found,), remedy="see the findings")
    answer = await world.call("POST", clusters(world, "/upgrade"), body={"image": "opensearch:3.4.0"})
    told = assert_error(answer, 412, "CSS.0078")
    assert told["findings"] == [found.as_dict()]
    world.service.fails = BusyError("task 7 runs")
    answer = await world.call("POST", clusters(world, "/upgrade"), body={"image": "opensearch:3.4.0"})
    assert_error(answer, 409, "CSS.0011")
    world.service.fails = EngineError("connection refused")
    answer = await world.call("POST", clusters(world, "/checks"), body={"image": "opensearch:3.4.0"})
    assert_error(answer, 502, "CSS.0078")


async def test_a_task_with_evidence_and_progress(world: World) -> None:
    task = make_task(world.cluster, world.target, done=15, bytes_moved=2048)
    progress = {"waiting_for": "2 shards of logs-1", "shards_left": 2}
    steps = tuple(replace(row, progress=progress) if row.status is StepStatus.RUNNING else row for row in task.steps)
    steps = (replace(steps[0], evidence={"log_tail": ["a", "b"]}), *steps[1:])
    world.service.keep(replace(task, steps=steps))
    body = (await world.call("GET", f"/api/v1/tasks/{task.id}")).json()
    assert (body["nodes_completed"], body["bytes_moved"], body["blocked_by"]) == (1, 2048, "2 shards of logs-1")
    assert body["steps"][0]["evidence"] == {"log_tail": ["a", "b"]}
    assert body["steps"][0]["begin"] == "2023-01-05T02:23:39.400Z"
    assert body["steps"][15]["progress"] == progress
    listed = (await world.call("GET", clusters(world, "/tasks"), {"kind": "UPGRADING"})).json()
    assert (listed["total"], listed["tasks"][0]["task_id"]) == (1, task.id)
    assert (await world.call("GET", clusters(world, "/tasks"), {"start": 2})).json()["tasks"] == []


async def test_a_long_poll_answers_at_the_next_change(world: World) -> None:
    task = world.service.keep(make_task(world.cluster, world.target, revision=5))
    path = f"/api/v1/tasks/{task.id}"
    behind = await world.call("GET", path, {"after_revision": 4, "wait_s": 60})
    assert behind.json()["revision"] == 5
    poll = asyncio.create_task(world.call("GET", path, {"after_revision": 5, "wait_s": 60}))
    await asyncio.sleep(0)
    await world.service.announce(replace(task, revision=6, status=TaskStatus.SUCCESS, ended_at=START + HOUR))
    body = (await poll).json()
    assert (body["revision"], body["status"], body["eta_s"]) == (6, "SUCCESS", 0)


async def test_a_long_poll_ends_without_news(world: World) -> None:
    task = world.service.keep(make_task(world.cluster, world.target, revision=5))
    answer = await world.call("GET", f"/api/v1/tasks/{task.id}", {"after_revision": 5, "wait_s": 0})
    assert answer.json()["revision"] == 5
    for query in ({"wait_s": 61}, {"wait_s": -1}, {"after_revision": "x"}):
        assert_error(await world.call("GET", f"/api/v1/tasks/{task.id}", query), 400, "CSS.0001")


async def test_retry_and_abort(world: World) -> None:
    failed = make_task(world.cluster, world.target, done=4, status=TaskStatus.FAILED, ended_at=START + HOUR)
    world.service.keep(failed)
    retried = (await world.call("POST", f"/api/v1/tasks/{failed.id}/retry")).json()
    assert (retried["status"], retried["execute_times"]) == ("RUNNING", 2)
    told = assert_error(await world.call("POST", f"/api/v1/tasks/{failed.id}/retry"), 400, "CSS.0001")
    assert told["error"] == "usage"
    assert (await world.call("POST", f"/api/v1/tasks/{failed.id}/abort")).json()["aborting"] is True


async def test_a_plan_on_its_own(world: World) -> None:
    asked = {"image": "opensearch:3.4.0"}
    checked = (await world.call("POST", clusters(world, "/checks"), body=asked)).json()
    assert (await world.call("POST", clusters(world, "/plan"), body=asked)).json() == checked["plan"]
    found = Finding("disk_room", Severity.BLOCK, "esn-1", "would fill up", "91 %", "Free some space.")
    world.service.blocking = (found,)
    refused = assert_error(await world.call("POST", clusters(world, "/plan"), body=asked), 412, "CSS.0078")
    assert refused["findings"] == [found.as_dict()]
    task = world.service.keep(make_task(world.cluster, world.target))
    assert (await world.call("GET", f"/api/v1/tasks/{task.id}/plan")).json() == checked["plan"]


async def test_nodes_of_a_task_a_page_at_a_time(world: World) -> None:
    task = world.service.keep(make_task(world.cluster, world.target, done=15))
    path = f"/api/v1/tasks/{task.id}/nodes"
    every = (await world.call("GET", path)).json()
    assert (every["total"], [node["status"] for node in every["nodes"]]) == (3, ["SUCCESS", "RUNNING", "WAITING"])
    whole = (await world.call("GET", f"/api/v1/tasks/{task.id}")).json()
    assert [step for node in every["nodes"] for step in node["steps"]] == whole["steps"]
    assert [(node["batch"], node["begin"], node["end"]) for node in every["nodes"]] == [
        (1, "2023-01-05T02:23:39.400Z", "2023-01-05T02:36:39.400Z"),
        (2, "2023-01-05T02:36:39.400Z", None),
        (3, None, None),
    ]
    assert (await world.call("GET", path, {"start": 2, "limit": 1})).json()["nodes"] == every["nodes"][1:2]
    assert (await world.call("GET", path, {"start": 4})).json()["nodes"] == []
    assert (await world.call("GET", f"{path}/{task.total[1]}")).json() == every["nodes"][1]
    for query in ({"limit": 1001}, {"start": 0}):
        assert_error(await world.call("GET", path, query), 400, "CSS.0001")
    for name in ("nobody", "%00", "x" * 500):
        assert_error(await world.call("GET", f"{path}/{name}"), 404, "CSS.0016")


async def test_the_policy_of_a_task_is_changed(world: World) -> None:
    task = world.service.keep(make_task(world.cluster, world.target))
    path = f"/api/v1/tasks/{task.id}/policy"
    gates = {"heap_percent": 80, "on_breach": "pause"}
    window = "mon-fri 01:00-05:00 Europe/Berlin"
    told = (await world.call("PATCH", path, body={"gates": gates, "windows": [window]})).json()["policy"]
    both = {"heap_percent": 80.0, "on_breach": "pause", "wait_timeout_s": 600.0}
    assert told == {"canary": False, "gates": both, "windows": [str(Window.parse(window))]}
    told = (await world.call("PATCH", path, body={"windows": [], "gates": None})).json()["policy"]
    assert told == {"canary": False, "gates": both, "windows": []}
    told = (await world.call("PATCH", path, body={"gates": {}})).json()["policy"]
    assert told == {"canary": False, "gates": None, "windows": []}
    for body, field in (
        ({"gates": {"heap_percent": 101}}, "heap_percent"),
        ({"gates": {"on_breach": "wait"}}, "gate"),
        ({"windows": ["mon"]}, "window"),
        ({"strategy": "drain"}, "strategy"),
        ([1], None),
    ):
        refused = assert_error(await world.call("PATCH", path, body=body), 400, "CSS.0001")
        assert refused.get("field") == field
    assert world.service.kept_tasks[task.id].policy == Policy()


def test_the_time_left(world: World) -> None:
    def left(task: Task, minutes: float) -> dict[str, object]:
        document = task_document(task, START + timedelta(minutes=minutes))
        return {key: document[key] for key in ("eta_low_s", "eta_s", "eta_high_s")}

    assert set(left(make_task(world.cluster, world.target, done=4), 4).values()) == {None}
    one_done = make_task(world.cluster, world.target, done=13)  # a node takes 13 minutes
    low, middle, high = left(one_done, 13).values()
    assert low < middle == 27 * 60 < high  # type: ignore[operator]
    assert set(left(replace(one_done, ended_at=START), 13).values()) == {0}


def test_a_task_document_has_what_the_command_line_promises(world: World) -> None:
    document = task_document(make_task(world.cluster, world.target), START)
    promised = {"task_id", "status", "nodes_total", "nodes_completed", "bytes_moved", "eta_s", "blocked_by", "steps"}
    assert promised <= set(document)
    assert {"node", "order", "name", "status", "begin", "end", "desc"} <= set(document["steps"][0])
