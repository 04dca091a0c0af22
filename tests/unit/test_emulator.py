"""The emulator as its users have it: a server in a thread, unmodified clients, faults on demand."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServerResponseException
from huaweicloudsdkcss.v1 import CssClient, UpgradeCoreRequest, UpgradeDetailRequest, UpgradingTheKernelBody

from shardlift.cli.main import run
from shardlift.errors import ShardliftError, UsageError
from shardlift.model import FaultKind
from shardlift.service import open_service
from shardlift.service.faults import FaultRequest, Faults
from shardlift.settings import Settings
from shardlift.testing import css_emulator, emulator
from tests.fakes import make_cluster

pytestmark = pytest.mark.walks

__all__ = ["css_emulator"]  # as a conftest imports it


def sdk(css) -> CssClient:
    credentials = BasicCredentials(css.ak, css.sk, css.project_id)
    return CssClient.new_builder().with_credentials(credentials).with_endpoint(css.url).build()


def begin(css, **more: object) -> str:
    return css.call("POST", f"/api/v1/clusters/{css.cluster_id}/upgrade", {"image": "opensearch:3.4.0", **more})[
        "task_id"
    ]


def failed_step(task: dict) -> tuple[str, int, str]:
    return next((step["node"], step["order"], step["desc"]) for step in task["steps"] if step["status"] == "FAILED")


@pytest.fixture(scope="module")
def css():
    """One server for the tests that only look; those that upgrade have clusters of their own."""
    with emulator(speed=2000) as running:
        yield running


def test_the_sdk_upgrades_a_cluster_of_the_fixture(css_emulator):
    client = sdk(css_emulator)
    target = css_emulator.call("GET", f"/api/v1/clusters/{css_emulator.cluster_id}/targets?upgrade_type=cross")
    body = UpgradingTheKernelBody(
        target_image_id=target["images"][0]["image_id"],
        upgrade_type="cross",
        indices_backup_check=False,
        agency="agency",
    )
    client.upgrade_core(UpgradeCoreRequest(css_emulator.cluster_id, "all", body))
    task = client.upgrade_detail(UpgradeDetailRequest(css_emulator.cluster_id)).detail_list[0]
    ended = css_emulator.wait_task(task.id)
    assert ended["status"] == "SUCCESS"
    assert ended["nodes_completed"] == 3


def test_a_sub_step_fails_as_often_as_asked_and_then_succeeds(css_emulator):
    css_emulator.add_fault("step", node="2", order=10, times=2, message="the disk smells of smoke")
    task_id = begin(css_emulator, strategy="in_place")
    for left in (1, 0):
        task = css_emulator.wait_task(task_id)
        assert task["status"] == "FAILED"
        node, order, told = failed_step(task)
        assert (node, order) == ("emulated-ess-esn-2-1", 10)
        assert "the disk smells of smoke" in told
        assert len(css_emulator.faults()) == left
        css_emulator.call("POST", f"/api/v1/tasks/{task_id}/retry")
    assert css_emulator.wait_task(task_id)["status"] == "SUCCESS"


def test_sub_steps_that_have_nothing_to_do_can_fail_too(css_emulator):
    """With drain the allocation hold (4) and plugins (9) do nothing; `make bench-emulator` fails each of the 13."""
    orders = (0, 4, 9, 12)
    for order in orders:
        css_emulator.add_fault("step", order=order)
    task_id = begin(css_emulator)
    for order in orders:
        task = css_emulator.wait_task(task_id)
        assert task["status"] == "FAILED"
        assert failed_step(task)[1] == order
        css_emulator.call("POST", f"/api/v1/tasks/{task_id}/retry")
    assert css_emulator.wait_task(task_id)["status"] == "SUCCESS"
    assert css_emulator.faults() == []


def test_a_node_that_does_not_start_is_told_by_its_log_and_starts_once_it_is_cleared(css_emulator):
    css_emulator.add_fault("no-start", node="emulated-ess-esn-3-1")
    task_id = begin(css_emulator)
    task = css_emulator.wait_task(task_id)
    assert (task["status"], failed_step(task)[1]) == ("FAILED", 10)
    assert "Nonsense" in str(task["steps"]), "the end of the engine's log"
    css_emulator.clear_faults()
    css_emulator.call("POST", f"/api/v1/tasks/{task_id}/retry")
    assert css_emulator.wait_task(task_id)["status"] == "SUCCESS"


def test_a_node_that_died_is_repaired_first(css_emulator):
    css_emulator.add_fault("dies", node="1")
    with pytest.raises(UsageError, match="does not run"):
        css_emulator.add_fault("dies", node="1")
    task = css_emulator.wait_task(begin(css_emulator, strategy="in_place"))
    assert task["status"] == "SUCCESS"
    assert task["steps"][0]["node"] == "emulated-ess-esn-1-1"
    assert "out of the cluster" in task["steps"][0]["desc"]


def test_a_slow_node_takes_longer(css_emulator):
    css_emulator.add_fault("slow", node="1", factor=4)
    task = css_emulator.wait_task(begin(css_emulator, strategy="in_place"))
    boots = {step["node"]: step["evidence"]["boot_s"] for step in task["steps"] if step["order"] == 10}
    assert boots["emulated-ess-esn-1-1"] >= 32, "four times eight seconds of its own time"


def test_nodes_move_to_another_zone_and_are_replaced_by_the_calls_of_css(css_emulator):
    path = f"/v1.0/{css_emulator.project_id}/clusters/{css_emulator.cluster_id}"
    node = css_emulator.call("GET", path)["instances"][0]
    body = {"source_az": "zone-a", "target_az": "zone-d", "migrate_type": "multi_az_change", "agency": "a"}
    post(css_emulator, "POST", f"{path}/inst-type/ess/azmigrate", {**body, "indices_backup_check": False})
    moved = css_emulator.wait_task(newest(css_emulator))
    assert moved["status"] == "SUCCESS"
    post(css_emulator, "PUT", f"{path}/instance/{node['id']}/replace")
    assert css_emulator.wait_task(newest(css_emulator))["status"] == "SUCCESS"
    now = next(one for one in css_emulator.call("GET", path)["instances"] if one["id"] == node["id"])
    assert (now["azCode"], now["name"]) == ("zone-d", node["name"])


def newest(css) -> str:
    return css.call("GET", f"/api/v1/clusters/{css.cluster_id}/tasks")["tasks"][0]["task_id"]


def post(css, method: str, path: str, body: dict | None = None) -> None:
    """Calls of CSS that answer 200 without a body."""
    headers = {"X-Auth-Token": css.token, "Content-Type": "application/json"}
    sent = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(css.url + path, sent, headers, method=method)) as answer:
        assert answer.read() == b""


def test_a_full_disk_makes_the_check_refuse_until_it_is_freed(css):
    path, asked = f"/api/v1/clusters/{css.cluster_id}/checks", {"image": "opensearch:3.4.0"}
    assert css.call("POST", path, asked)["plan"]
    css.add_fault("disk-full", node="2")
    found = css.call("POST", path, asked)
    assert found["plan"] is None
    assert any("disk" in finding["rule"] for finding in found["findings"])
    css.clear_faults()
    found, end_s = css.call("POST", path, asked), time.monotonic() + 30
    # Copies that had begun to leave the full node are on their way, at any speed for a moment.
    while found["plan"] is None and time.monotonic() < end_s:
        assert {one["rule"] for one in found["findings"] if one["severity"] == "block"} == {"cluster_healthy"}
        found = css.call("POST", path, asked)
    assert found["plan"]


def test_a_call_answers_as_asked_and_then_as_always(css):
    client, asked = sdk(css), UpgradeDetailRequest(css.cluster_id)
    css.add_fault("call", call="upgrade_detail", status=503, times=2)
    for _ in range(2):
        with pytest.raises(ServerResponseException) as error:
            client.upgrade_detail(asked)
        assert (error.value.status_code, error.value.error_code) == (503, "CSS.0005")
        assert error.value.request_id
    assert client.upgrade_detail(asked).detail_list == []


def test_a_call_can_be_carried_out_and_only_its_answer_be_lost(css_emulator):
    css_emulator.add_fault("call", call="upgrade_core", lost=True)
    images = css_emulator.call("GET", f"/api/v1/clusters/{css_emulator.cluster_id}/targets?upgrade_type=cross")
    body = UpgradingTheKernelBody(
        target_image_id=images["images"][0]["image_id"], upgrade_type="cross", indices_backup_check=False, agency="a"
    )
    with pytest.raises(ServerResponseException) as error:
        sdk(css_emulator).upgrade_core(UpgradeCoreRequest(css_emulator.cluster_id, "all", body))
    assert error.value.status_code == 500
    assert len(css_emulator.call("GET", f"/api/v1/clusters/{css_emulator.cluster_id}/tasks")["tasks"]) == 1


def test_only_the_owner_meets_a_fault_and_uses_it_up(css):
    css.add_fault("call", call="show_cluster")
    request = urllib.request.Request(
        f"{css.url}/v1.0/{css.project_id}/clusters/{css.cluster_id}", headers={"X-Auth-Token": "wrong"}
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code == 401
    assert len(css.faults()) == 1
    css.clear_faults()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"kind": "explodes"}, "kind"),
        ({"kind": "step"}, "order"),
        ({"kind": "step", "order": 13}, "order"),
        ({"kind": "step", "order": 1, "factor": 2}, "factor"),
        ({"kind": "step", "order": 1, "node": "4"}, "node"),
        ({"kind": "step", "order": 1, "times": 0}, "times"),
        ({"kind": "step", "order": 1, "message": "a\nb"}, "message"),
        ({"kind": "call", "call": "nothing"}, "call"),
        ({"kind": "call", "call": "show_cluster", "status": 200}, "status"),
        ({"kind": "slow", "node": "1"}, "factor"),
        ({"kind": "slow", "node": "1", "factor": 1}, "factor"),
        ({"kind": "dies"}, "node"),
        ({"kind": "dies", "node": "1", "more": 1}, "more"),
    ],
)
def test_what_is_no_fault_is_refused_by_field(css, asked, field):
    with pytest.raises(UsageError, match="answered 400") as error:
        css.add_fault(**asked)
    assert error.value.field == field
    assert css.faults() == []


def test_a_cluster_has_only_so_many_faults(css):
    for _ in range(100):
        css.add_fault("step", order=0)
    with pytest.raises(UsageError, match="answered 409"):
        css.add_fault("step", order=0)
    css.clear_faults()


def test_an_unknown_cluster_has_no_faults(css):
    with pytest.raises(UsageError, match="answered 404"):
        css.faults("nobody")


def test_it_leaves_no_thread_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("shardlift.emulator._MEMORY", tmp_path / "not-there")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = threading.active_count()
    with emulator() as running:
        assert list(tmp_path.iterdir())
        url = running.url
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() <= before
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)


def test_what_cannot_be_emulated_is_told_where_it_was_asked():
    with pytest.raises(UsageError, match="speed"), emulator(speed=0):
        pass
    with pytest.raises(ShardliftError, match="no image"), emulator(image="opensearch:9.9.9"):
        pass


def test_two_emulators_know_nothing_of_each_other():
    with ThreadPoolExecutor(2) as pool:
        runs = [emulator(nodes=2), emulator(nodes=4)]
        try:
            first, second = pool.map(lambda run: run.__enter__(), runs)
            assert first.url != second.url
            assert len(second.call("GET", f"/api/v1/clusters/{second.cluster_id}")["nodes"]) == 4
            with pytest.raises(UsageError, match="answered 404"):
                first.call("GET", f"/api/v1/clusters/{second.cluster_id}")
        finally:
            for run in runs:
                run.__exit__(None, None, None)


def test_the_command_serves_a_cluster_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    """As a person has it: another shell with the printed environment, and Ctrl-C in the end."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "shardlift", "emulate", "--json", "--nodes", "3", "--speed", "2000"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            told = json.JSONDecoder().decode(read_document(process.stdout))
            home = Path(told["environment"]["SHARDLIFT_HOME"])
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            assert told["environment"]["CSS_URL"] == told["url"]
            for name, value in told["environment"].items():
                monkeypatch.setenv(name, value)
            assert run(["fault", "add", "emulated", "step", "--node", "3", "--order", "0"]) == 0
            assert run(["fault", "clear", "emulated", "--all"]) == 0
            assert "emulated-ess-esn-3-1" in capsys.readouterr().out
            assert run(["fault", "clear", "emulated"]) == 2
            assert run(["fault", "clear", "emulated", "nothing"]) == 4
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    assert not home.exists()


def read_document(lines) -> str:
    """One JSON document, from a stream that stays open after it."""
    text = ""
    for line in lines:
        text += line
        if line == "}\n":
            return text
    raise AssertionError(f"no document: {text}")


async def test_real_clusters_have_no_faults(fast_home):
    async with open_service(Settings(home=fast_home)) as service:
        project = await service.create_project("p")
        cluster = make_cluster(project.project_id, service.image("opensearch:2.19.4"))
        await service.store.add_cluster(cluster)
        with pytest.raises(UsageError, match="real nodes") as error:
            await Faults(service, ()).add(cluster.id, FaultRequest(FaultKind.DIES, node="1"))
        assert error.value.field == "cluster"
