"""The order of calls of the Terraform provider, step by step, signed as it signs.

docs/clients.md tells how the provider itself is pointed here; it needs a plug-in that is not there in every test run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shardlift.model import Cluster
from shardlift.service.requests import Credentials
from tests.clients import NEW, SAME, Ground, check_cluster, check_details, ground, stopping, until


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("home")) as made:
        yield made


@dataclass
class Terraform:
    """Signs four headers, sends the project as a fifth, and calls everything JSON, also where there is no body."""

    url: str
    who: Credentials
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.url, timeout=60)

    def call(self, method: str, path: str, body: object = None, *, data_source: bool = False) -> httpx.Response:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": "terraform"}
        if data_source:
            headers["x-language"] = "en-us"
        headers["x-sdk-date"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers["authorization"] = self._signature(method, path, headers, content)
        headers["x-project-id"] = self.who.project_id
        answer = self._client.request(method, path, headers=headers, content=content)
        self.calls.append(f"{method} {path.removeprefix(f'/v1.0/{self.who.project_id}')} {answer.status_code}")
        assert answer.headers["x-request-id"]
        return answer

    def _signature(self, method: str, path: str, headers: dict[str, str], content: bytes) -> str:
        path, _, query = path.partition("?")
        signed = ";".join(sorted(headers))
        lines = [method, f"{path}/", query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", signed]
        canonical = "\n".join([*lines, hashlib.sha256(content).hexdigest()])
        text = f"SDK-HMAC-SHA256\n{headers['x-sdk-date']}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self.who.sk.encode(), text.encode(), hashlib.sha256).hexdigest()
        return f"SDK-HMAC-SHA256 Access={self.who.ak}, SignedHeaders={signed}, Signature={signature}"

    # what the provider does with the answers

    def cluster_path(self, cluster: Cluster, rest: str = "") -> str:
        return f"/v1.0/{self.who.project_id}/clusters/{cluster.id}{rest}"

    def images(self, cluster: Cluster) -> list[str]:
        answer = self.call("GET", self.cluster_path(cluster, "/target/same/images"), data_source=True)
        return [image["id"] for image in answer.raise_for_status().json()["imageInfoList"]]

    def idle(self, cluster: Cluster) -> bool:
        shown = check_cluster(self.call("GET", self.cluster_path(cluster)).raise_for_status().json())
        nodes = shown["instances"]
        return shown["status"] == "200" and not shown["actions"] and all(node["status"] == "200" for node in nodes)

    def wait_idle(self, cluster: Cluster) -> None:
        until(lambda: self.idle(cluster), lambda idle: idle)

    def begin(self, cluster: Cluster, path: str, body: dict[str, object], query: str = "") -> dict[str, Any]:
        """POSTs, then at once reads the details once, and must find the task RUNNING on the default page."""
        self.wait_idle(cluster)
        answer = self.call("POST", self.cluster_path(cluster, path), body)
        assert (answer.status_code, answer.content) == (200, b"")
        task = self.details(cluster, query)[0]
        assert task["status"] == "RUNNING"
        return task

    def details(self, cluster: Cluster, query: str = "") -> list[dict[str, Any]]:
        answer = self.call("GET", self.cluster_path(cluster, f"/upgrade/detail{query}")).raise_for_status()
        return check_details(answer.json(), moves=bool(query))

    def task(self, cluster: Cluster, task_id: str, query: str = "") -> dict[str, Any]:
        """By id, on the default page."""
        return next(one for one in self.details(cluster, query) if one["id"] == task_id)

    def wait(self, cluster: Cluster, task_id: str, query: str = "") -> str:
        read = lambda: self.task(cluster, task_id, query)["status"]  # noqa: E731  (asked again and again)
        return until(read, lambda status: status != "RUNNING")

    def abort(self, cluster: Cluster, task_id: str) -> httpx.Response:
        path = self.cluster_path(cluster, f"/upgrade/{task_id}/retry")
        return self.call("PUT", path, {"retry_mode": "abort"})


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
