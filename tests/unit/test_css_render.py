"""Tasks and clusters in CSS's words, field by field."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from shardlift.api import render, schemas
from shardlift.model import SUB_STEPS, ClusterStatus, StepStatus, Task, TaskKind, TaskStatus
from tests.fakes import START, make_cluster, make_image, make_task

IMAGE = make_image("3.4.0")
CLUSTER = make_cluster("project", make_image("2.19.4"))
NODES = [node.name for node in CLUSTER.nodes]
DONE = 13 * 3


def detail(task: Task) -> dict:
    out = render.upgrade_detail(task, IMAGE)
    schemas.UpgradeDetailInfo.model_validate(out)
    return json.loads(json.dumps(out))


def ended(task: Task, status: TaskStatus, **changes: object) -> Task:
    return replace(task, status=status, ended_at=START + timedelta(hours=1), **changes)


def with_step(task: Task, node: str, order: int, **changes: object) -> Task:
    steps = tuple(replace(row, **changes) if (row.node, row.order) == (node, order) else row for row in task.steps)
    return replace(task, steps=steps)


def test_a_running_task_has_every_field_of_the_seed_page() -> None:
    shown = detail(make_task(CLUSTER, IMAGE, done=13 + 4))
    assert shown | {"id": "", "currentNodeDetail": [], "imageInfo": {}} == {
        "id": "",
        "startTime": "2023-01-05T02:23:39",
        "endTime": "",
        "status": "RUNNING",
        "agencyName": "css_test_agency",
        "imageInfo": {},
        "totalNodes": ",".join(NODES),
        "completedNodes": NODES[0],
        "currentNodeName": NODES[1],
        "executeTimes": "1",
        "currentNodeDetail": [],
        "batchSize": 1,
        "currentBatchNodes": NODES[1],
    }
    assert shown["imageInfo"] == {
        "id": IMAGE.id,
        "displayName": "3.4.0_1.0.0_1105",
        "imageDesc": "OpenSearch 3.4.0",
        "datastoreType": "opensearch",
        "datastoreVersion": "3.4.0",
        "priority": 16,
    }


def test_sub_steps_are_13_in_order_and_unset_times_are_empty() -> None:
    steps = detail(make_task(CLUSTER, IMAGE, done=4))["currentNodeDetail"]
    assert [step["order"] for step in steps] == list(range(13))
    assert [step["status"] for step in steps] == ["SUCCESS"] * 4 + ["RUNNING"] + ["WAITING"] * 8
    assert steps[0] == {
        "order": 0,
        "name": "Data migration",
        "status": "SUCCESS",
        "desc": "Data is migrated from a node to other nodes in the cluster by running the exclude command.",
        "beginTime": "2023-01-05T02:23:39",
        "endTime": "2023-01-05T02:24:39",
    }
    assert (steps[4]["beginTime"], steps[4]["endTime"]) == ("2023-01-05T02:27:39", "")
    assert steps[12] == {
        "order": 12,
        "name": "Task status update",
        "status": "WAITING",
        "desc": SUB_STEPS[12].desc,
        "beginTime": "",
        "endTime": "",
    }


def test_the_node_shown() -> None:
    fresh = make_task(CLUSTER, IMAGE, done=-1)
    assert fresh.shown_node == NODES[0]  # before the first begins: the first planned
    assert make_task(CLUSTER, IMAGE, done=13).shown_node == NODES[1]
    between = with_step(make_task(CLUSTER, IMAGE, done=13), NODES[1], 0, status=StepStatus.WAITING, begin=None)
    assert between.shown_node == NODES[1]
    assert detail(between)["currentNodeName"] == ""
    assert ended(make_task(CLUSTER, IMAGE, done=DONE), TaskStatus.SUCCESS).shown_node == NODES[2]
    assert make_task(CLUSTER, IMAGE, done=DONE).shown_node == NODES[2]
    aborted = ended(between, TaskStatus.PARTIAL_FAILED)
    assert aborted.shown_node == NODES[0]  # stopped between two: the last completed


def test_a_task_without_journal_rows_still_shows_13_waiting_steps() -> None:
    steps = detail(make_task(CLUSTER, IMAGE, steps=()))["currentNodeDetail"]
    assert [(step["order"], step["status"]) for step in steps] == [(order, "WAITING") for order in range(13)]
    assert [step["name"] for step in steps] == [step.name for step in SUB_STEPS]


def test_a_success_names_all_nodes_and_no_current_one() -> None:
    shown = detail(ended(make_task(CLUSTER, IMAGE, done=DONE), TaskStatus.SUCCESS))
    assert shown["completedNodes"] == shown["totalNodes"]
    assert (shown["currentNodeName"], shown["currentBatchNodes"]) == ("", "")
    assert shown["endTime"] == "2023-01-05T03:23:39"
    assert "failMessage" not in shown
    assert len(shown["currentNodeDetail"]) == 13


def test_a_failure_tells_evidence_in_the_failing_step() -> None:
    failed = with_step(
        make_task(CLUSTER, IMAGE, done=10),
        NODES[0],
        10,
        status=StepStatus.FAILED,
        desc="The engine did not start.",
        evidence={"exit_code": 1, "log_tail": ["line 1", "Unrecognized VM option 'Nonsense'"], "empty": None},
    )
    shown = detail(ended(failed, TaskStatus.FAILED, fail_message="esn-1: Node start failed"))
    assert shown["failMessage"] == "esn-1: Node start failed"
    step = shown["currentNodeDetail"][10]
    assert step["status"] == "FAILED"
    assert step["desc"] == (
        "The engine did not start. exit_code: 1; log_tail: line 1 | Unrecognized VM option 'Nonsense'"
    )
    assert shown["currentNodeName"] == NODES[0]


def test_a_failed_step_without_evidence_tells_the_tasks_failure() -> None:
    failed = with_step(make_task(CLUSTER, IMAGE), NODES[0], 0, status=StepStatus.FAILED)
    shown = detail(ended(failed, TaskStatus.FAILED, fail_message="drain stalled on index-a"))
    assert shown["currentNodeDetail"][0]["desc"].endswith("drain stalled on index-a")


def test_evidence_is_bounded_and_not_said_twice() -> None:
    text = render.evidence_text(
        {"error": "the disk is full", "pid": 7, "exit": 1, "log": ["x" * 9000]}, "the disk is full; pid: 7"
    )
    assert len(text) < 1600
    assert text.startswith("exit: 1; log: xxx")
    nested = render.evidence_text({"findings": [{"rule": "disk_room", "reason": "full"}], "text": "a\nb\n"})
    assert nested == "findings: rule: disk_room, reason: full; text: a | b"


def test_batches() -> None:
    shown = detail(make_task(CLUSTER, IMAGE, done=1, batch_size=2))
    assert shown["batchSize"] == 2
    assert shown["currentBatchNodes"] == ",".join(NODES[:2])


def test_an_image_that_is_gone_leaves_its_id() -> None:
    info = render.upgrade_detail(make_task(CLUSTER, IMAGE), None)["imageInfo"]
    assert info == {
        "id": IMAGE.id,
        "displayName": "",
        "imageDesc": "",
        "datastoreType": "",
        "datastoreVersion": "",
        "priority": 0,
    }


def test_a_zone_task_carries_no_image() -> None:
    assert "imageInfo" not in detail(make_task(CLUSTER, IMAGE, kind=TaskKind.AZ_MIGRATION))


def test_an_idle_cluster() -> None:
    shown = render.cluster_detail(CLUSTER, make_image("2.19.4"), None, volume_gib=40)
    schemas.ClusterDetail.model_validate(shown)
    assert (shown["status"], shown["actions"], shown["actionProgress"]) == ("200", [], {})
    assert shown["datastore"] == {"type": "opensearch", "version": "2.19.4", "subVersion": "2.19.4_1.0.0_1105"}
    assert shown["failedReason"] is None
    assert shown["instances"][0] == {
        "id": CLUSTER.nodes[0].id,
        "name": "css-test-ess-esn-1-1",
        "type": "ess",
        "status": "200",
        "azCode": "zone-a",
        "ip": "127.77.0.1",
        "specCode": "ess.heap-512m",
        "volume": {"type": "LOCAL", "size": 40},
    }


@pytest.mark.parametrize(("done", "percent"), [(0, "0%"), (13, "33%"), (DONE - 1, "97%"), (DONE, "100%")])
def test_a_busy_cluster_tells_how_far_it_is(done: int, percent: str) -> None:
    busy = replace(CLUSTER, busy_with="UPGRADING")
    shown = render.cluster_detail(busy, None, make_task(busy, IMAGE, done=done), volume_gib=0)
    schemas.ClusterDetail.model_validate(shown)
    assert (shown["actions"], shown["actionProgress"]) == (["UPGRADING"], {"UPGRADING": percent})


def statuses(cluster: object, task: Task | None) -> list[str]:
    return [node["status"] for node in render.cluster_detail(cluster, None, task, volume_gib=0)["instances"]]


def test_a_node_is_away_from_its_shutdown_to_its_rejoin() -> None:
    busy = replace(CLUSTER, busy_with="UPGRADING")
    assert statuses(busy, make_task(busy, IMAGE, done=5)) == ["200", "200", "200"]
    assert statuses(busy, make_task(busy, IMAGE, done=6)) == ["303", "200", "200"]
    assert statuses(busy, make_task(busy, IMAGE, done=11)) == ["303", "200", "200"]
    assert statuses(busy, make_task(busy, IMAGE, done=12)) == ["200", "200", "200"]
    assert statuses(CLUSTER, make_task(CLUSTER, IMAGE, done=6)) == ["200", "200", "200"]


def test_a_cluster_that_is_not_available() -> None:
    failed = replace(CLUSTER, status=ClusterStatus.UNAVAILABLE, failed_reason="node 1 did not start")
    assert statuses(failed, None) == ["303"] * 3
    assert statuses(replace(CLUSTER, status=ClusterStatus.CREATING), None) == ["100"] * 3
    shown = render.cluster_detail(failed, None, None, volume_gib=0)
    assert shown["failedReason"] == {"errorCode": "CSS.0005", "errorMsg": "node 1 did not start"}
