"""The order of calls of the Terraform provider, step by step, signed as it signs.

docs/clients.md tells how the provider itself is pointed here; it needs a plug-in that is not there in every test run.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from shardlift.service.requests import Credentials
from tests.clients import NEW, SAME, Ground, ground, stopping, until
from tests.terraform import Terraform

pytestmark = pytest.mark.walks


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.fixture
def terraform(here: Ground) -> Terraform:
    return Terraform(here.url, here.mine)


UPGRADE = "/inst-type/all/image/upgrade"


def core_upgrade(**changes: object) -> dict[str, object]:
    return {
        "agency": "css_upgrade_agency",
        "cluster_load_check": False,
        "indices_backup_check": False,
        "target_image_id": SAME.id,
        "upgrade_type": "same",
    } | changes


def test_an_upgrade(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    assert terraform.images(cluster) == [SAME.id]
    task = terraform.begin(cluster, UPGRADE, core_upgrade())
    assert task["executeTimes"] == "1"
    assert terraform.wait(cluster, task["id"]) == "SUCCESS"
    assert terraform.idle(cluster)  # the very next call
    last = terraform.task(cluster, task["id"])
    assert (last["status"], last["imageInfo"]["id"]) == ("SUCCESS", SAME.id)
    # The second plan reads again, and finds the same.
    assert terraform.images(cluster) == []
    assert terraform.task(cluster, task["id"]) == last
    base = f"/clusters/{cluster.id}"
    seen = [f"GET {base}/target/same/images 200", f"GET {base} 200", f"POST {base}{UPGRADE} 200"]
    assert terraform.calls[:4] == [*seen, f"GET {base}/upgrade/detail 200"]


def test_no_success_leads_to_an_abort_in_the_body(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    for node in here.world(cluster).nodes.values():
        node.starts = False
    task = terraform.begin(cluster, UPGRADE, core_upgrade(target_image_id=NEW.id, upgrade_type="cross"))
    assert terraform.wait(cluster, task["id"]) == "FAILED"
    for _ in range(2):
        answer = terraform.abort(cluster, task["id"])
        assert (answer.status_code, answer.content) == (200, b"")
    assert terraform.idle(cluster)
    assert terraform.task(cluster, task["id"])["executeTimes"] == "1"


def test_its_own_time_out_aborts_a_running_task(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    second = f"{cluster.name}-ess-esn-3-1"
    with here.held("host.stop", second):
        task = terraform.begin(cluster, UPGRADE, core_upgrade())
        until(lambda: terraform.task(cluster, task["id"]), lambda one: stopping(one) == second)
        for _ in range(2):
            assert terraform.abort(cluster, task["id"]).status_code == 200
        assert terraform.task(cluster, task["id"])["status"] == "RUNNING"
    assert terraform.wait(cluster, task["id"]) == "PARTIAL_FAILED"
    terraform.wait_idle(cluster)
    assert here.world(cluster).persistent == {}


def test_a_retry_without_a_body(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    nodes = here.world(cluster).nodes.values()
    for node in nodes:
        node.starts = False
    task = terraform.begin(cluster, UPGRADE, core_upgrade())
    assert terraform.wait(cluster, task["id"]) == "FAILED"
    for node in nodes:
        node.starts = True
    answer = terraform.call("PUT", terraform.cluster_path(cluster, f"/upgrade/{task['id']}/retry"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert terraform.wait(cluster, task["id"]) == "SUCCESS"
    assert terraform.task(cluster, task["id"])["executeTimes"] == "2"


def test_the_project_of_the_path_counts_and_not_that_of_the_header(here: Ground, terraform: Terraform) -> None:
    cluster = here.add(who=here.other)
    terraform.who = Credentials("", here.other.project_id, "", here.mine.ak, here.mine.sk, "")
    answer = terraform.call("GET", terraform.cluster_path(cluster))
    assert (answer.status_code, answer.json()["error_code"]) == (403, "CSS.0010")


def test_no_unsigned_byte_of_the_body(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    headers = terraform.call("GET", terraform.cluster_path(cluster)).request.headers
    again = httpx.post(here.url + terraform.cluster_path(cluster, UPGRADE), headers=headers, json=core_upgrade())
    assert (again.status_code, again.json()["error_code"]) == (401, "APIGW.0301")
    assert here.tasks(cluster) == ()
