"""Control of tasks as people and programs ask for it: the command line and the native API."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from shardlift.cli.main import run
from shardlift.cli.progress import LineView, summary
from shardlift.cli.session import Session
from shardlift.errors import RefusedError
from shardlift.model import Gates, OnBreach, Policy, TaskStatus, Window
from shardlift.service.requests import PolicyChange
from shardlift.settings import load_settings
from tests.api_world import World, make_world
from tests.fakes import START, make_task
from tests.unit.fake_service import FakeService, a_cluster, a_task

NIGHTS = "mon-fri 01:00-05:00 Europe/Berlin"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    monkeypatch.setenv("SHARDLIFT_HOME", str(tmp_path))
    made = FakeService(load_settings())
    made.clusters_ = [a_cluster()]
    return made


def shardlift(service: FakeService, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict, str]:
    code = run((*arguments, "--json"), Session(service.opened))
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_upgrade_takes_a_policy(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = shardlift(
        service, capsys, "upgrade", "books", "--to", "opensearch:3.4.0", "--canary", "--gate", "search_latency_ms=50",
        "--gate", "on_breach=pause", "--window", NIGHTS, "--window", "sat,sun 00:00-24:00",
    )  # fmt: skip
    assert code == 0
    assert service.asked[0].policy == Policy(
        canary=True,
        gates=Gates(search_latency_ms=50, on_breach=OnBreach.PAUSE),
        windows=(Window.parse(NIGHTS), Window.parse("sat,sun 00:00-24:00")),
    )
    code, _, _ = shardlift(service, capsys, "check", "books", "--to", "opensearch:3.4.0", "--canary")
    assert service.asked[1].policy == Policy(canary=True)


@pytest.mark.parametrize(
    ("option", "value"), [("--gate", "load=1"), ("--gate", "heap_percent=200"), ("--window", "never")]
)
def test_words_that_are_none_end_with_usage(
    service: FakeService, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    code, out, err = shardlift(service, capsys, "upgrade", "books", "--to", "opensearch:3.4.0", option, value)
    assert (code, out["error"]) == (2, "usage")
    assert out["remedy"]
    assert "remedy" in err
    assert service.asked == []


@pytest.mark.parametrize("wish", ["pause", "resume", "approve"])
def test_wishes_answer_with_the_task(service: FakeService, capsys: pytest.CaptureFixture[str], wish: str) -> None:
    code, out, _ = shardlift(service, capsys, "task", wish, "t1")
    assert (code, out["task_id"], out["status"]) == (0, "t1", "RUNNING")
    assert service.asked == [(wish, "t1")]
    assert {"paused", "approved", "waiting_for", "queue_position", "hold_until", "policy", "at_rest"} <= out.keys()


def test_the_policy_of_a_task_is_changed_by_words(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    def change(*words: str) -> tuple[int, dict[str, object]]:
        code, out, _ = shardlift(service, capsys, "task", "policy", "t1", *words)
        return code, out

    code, out = change("--gate", "heap_percent=80", "--gate", "on_breach=pause", "--window", NIGHTS)
    assert (code, service.asked) == (
        0,
        [("policy", "t1", PolicyChange(None, {"heap_percent": "80", "on_breach": "pause"}, [NIGHTS]))],
    )
    assert out["policy"] == {
        "canary": False,
        "gates": {"heap_percent": 80, "on_breach": "pause", "wait_timeout_s": 600},
        "windows": ["mon,tue,wed,thu,fri 01:00-05:00 Europe/Berlin"],
    }
    service.asked.clear()
    assert change("--no-gates", "--no-windows", "--no-canary")[0] == 0
    assert service.asked == [("policy", "t1", PolicyChange(False, {}, []))]
    service.asked.clear()
    for words in (
        (),
        ("--gate", "heap_percent=80", "--no-gates"),
        ("--window", NIGHTS, "--no-windows"),
        ("--gate", "x"),
    ):
        code, out = change(*words)
        assert (code, out["error"]) == (2, "usage")
        assert out["remedy"]
    assert service.asked == []


def test_progress_says_why_nothing_moves() -> None:
    sink = io.StringIO()
    view = LineView(Console(file=sink, width=200))
    task = replace(a_task(done=13), at_rest=True)
    task = replace(task, steps=tuple(replace(row, progress={}) for row in task.steps))
    view.show(replace(task, waiting_for="its turn: 2 tasks before it", queue_position=2))
    view.show(replace(task, paused=True))
    view.show(replace(task, paused=True))
    lines = sink.getvalue().splitlines()
    assert "waits for its turn: 2 tasks before it" in lines
    assert sum("task resume t1" in line for line in lines) == 1
    now = datetime.now(UTC)
    assert "PAUSED" in summary(replace(task, paused=True), now)
    assert "pauses before the next node" in summary(replace(a_task(), paused=True), now)
    assert "ABORTING" in summary(replace(a_task(), paused=True, aborting=True), now)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


async def test_api_wishes_and_their_document(world: World) -> None:
    policy = Policy(canary=True, gates=Gates(rejections=0), windows=(Window.parse(NIGHTS),))
    task = world.service.keep(
        make_task(world.cluster, world.target, policy=policy, at_rest=True, hold_until=START, waiting_for="its window")
    )
    for wish, field, value in (("pause", "paused", True), ("resume", "paused", False), ("approve", "approved", True)):
        answer = await world.call("POST", f"/api/v1/tasks/{task.id}/{wish}")
        assert (answer.status_code, answer.json()[field]) == (200, value)
    shown = (await world.call("GET", f"/api/v1/tasks/{task.id}")).json()
    assert (shown["status"], shown["blocked_by"], shown["waiting_for"]) == ("RUNNING", "its window", "its window")
    assert shown["hold_until"] == "2023-01-05T02:23:39.400Z"
    assert shown["queue_position"] is None
    assert shown["policy"] == {
        "canary": True,
        "gates": {"rejections": 0, "on_breach": "wait", "wait_timeout_s": 600},
        "windows": ["mon,tue,wed,thu,fri 01:00-05:00 Europe/Berlin"],
    }
    world.service.fails = RefusedError("it has ended", remedy="start a new one")
    refused = await world.call("POST", f"/api/v1/tasks/{task.id}/pause")
    assert refused.status_code == 412
    assert refused.json()["remedy"] == "start a new one"
    assert (await world.call("POST", "/api/v1/tasks/none/pause")).status_code == 404


async def test_api_upgrade_takes_a_policy(world: World) -> None:
    body = {
        "image": world.target.id,
        "policy": {"canary": True, "gates": {"search_latency_ms": 20, "on_breach": "fail"}, "windows": [NIGHTS]},
    }
    answer = await world.call("POST", f"/api/v1/clusters/{world.cluster.id}/upgrade", body=body)
    assert answer.status_code == 202
    assert world.service.requests[0].policy == Policy(
        canary=True,
        gates=Gates(search_latency_ms=20, on_breach=OnBreach.FAIL),
        windows=(Window.parse(NIGHTS),),
    )


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ({"windows": ["whenever"]}, "window"),
        ({"gates": {"load": 1}}, "load"),
        ({"gates": {"heap_percent": 101}}, "heap_percent"),
        ({"gates": {"on_breach": "wait"}}, "gate"),
        ({"canary": "maybe"}, "canary"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_api_names_what_is_no_policy(world: World, policy: dict[str, object], named: str) -> None:
    body = {"image": world.target.id, "policy": policy}
    answer = await world.call("POST", f"/api/v1/clusters/{world.cluster.id}/upgrade", body=body)
    assert answer.status_code == 400
    assert named in json.dumps(answer.json())
    assert world.service.requests == []


async def test_css_still_reads_a_paused_task_as_running(world: World) -> None:
    world.service.keep(make_task(world.cluster, world.target, done=13, paused=True, at_rest=True))
    path = f"/v1.0/{world.cluster.project_id}/clusters/{world.cluster.id}"
    details = (await world.call("GET", f"{path}/upgrade/detail")).json()
    assert details["detailList"][0]["status"] == str(TaskStatus.RUNNING)
    cluster = (await world.call("GET", path)).json()
    assert cluster["actions"] == ["UPGRADING"]
