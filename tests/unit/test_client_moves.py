"""Changes of zones, replacements and restarts, asked for by the unmodified clients of three makers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkcss.v1 import (
    CssClient,
    RestartClusterRequest,
    RetryUpgradeTaskRequest,
    ShowClusterDetailRequest,
    UpdateAzByInstanceTypeReq,
    UpdateAzByInstanceTypeRequest,
    UpdateInstanceRequest,
    UpgradeDetailRequest,
)
from huaweicloudsdkcss.v2 import CssClient as CssClient2
from huaweicloudsdkcss.v2 import RestartClusterReq, RollingRestartReq, RollingRestartRequest
from huaweicloudsdkcss.v2 import RestartClusterRequest as RestartClusterRequest2

from shardlift.model import Cluster, TaskKind, TaskStatus
from tests.clients import Ground, check_cluster, check_details, connect_otc, ground, stopping, until
from tests.terraform import Terraform

pytestmark = pytest.mark.walks

AZ = "AZ_MIGRATION"


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground() as made:
        yield made


def _client(here: Ground, kind: type) -> Any:
    credentials = BasicCredentials(here.mine.ak, here.mine.sk, here.mine.project_id)
    return kind.new_builder().with_credentials(credentials).with_endpoint(here.url).build()


@pytest.fixture
def css(here: Ground) -> CssClient:
    return _client(here, CssClient)


def change(css: CssClient, cluster: Cluster, inst_type: str = "ess", **changes: object) -> None:
    fields = {"source_az": "zone-a", "target_az": "zone-c", "migrate_type": "az_migrate", "agency": "css_agency"}
    body = UpdateAzByInstanceTypeReq(**{"indices_backup_check": False, **fields, **changes})
    answer = css.update_az_by_instance_type(UpdateAzByInstanceTypeRequest(cluster.id, inst_type, body))
    assert (answer.status_code, answer.raw_content) == (200, b"")


def moves(css: CssClient, cluster: Cluster) -> list[dict[str, Any]]:
    answer = css.upgrade_detail(UpgradeDetailRequest(cluster.id, action_mode=AZ))
    return check_details(json.loads(answer.raw_content), moves=True)


def shown(css: CssClient, cluster: Cluster) -> dict[str, Any]:
    return check_cluster(json.loads(css.show_cluster_detail(ShowClusterDetailRequest(cluster.id)).raw_content))


def busy(css: CssClient, cluster: Cluster, word: str) -> bool:
    """Whether the cluster says so, and nothing but that."""
    actions = shown(css, cluster)["actions"]
    assert actions in ([word], [])
    return bool(actions)


def error_of(call: Callable[[], object]) -> tuple[int, str, str]:
    with pytest.raises(ServiceResponseException) as caught:
        call()
    assert caught.value.request_id
    return caught.value.status_code, caught.value.error_code, caught.value.error_msg


def test_a_change_of_zones_by_the_sdk(here: Ground, css: CssClient) -> None:
    cluster = here.add("css-zones")
    names = [f"css-zones-ess-esn-{number}-1" for number in (1, 2, 3)]
    before = shown(css, cluster)
    with here.held("host.start", names[1]):
        change(css, cluster)
        (begun,) = moves(css, cluster)
        assert (begun["status"], begun["agencyName"], begun["executeTimes"]) == ("RUNNING", "css_agency", "1")
        assert begun["migrateParam"] == (
            '{"instType":"ess","migrateType":"az_migrate","sourceAz":"zone-a","targetAz":"zone-c"}'
        )
        assert json.loads(begun["finalAzInfoMap"]) == {"zone-c": ",".join(names)}
        assert set(begun["totalNodes"].split(",")) == set(names)
        now = shown(css, cluster)
        assert now["actions"] == [AZ]
        assert re.fullmatch("[0-9]{1,2}%", now["actionProgress"][AZ])
        # The other kind's list has none of it.
        upgrades = css.upgrade_detail(UpgradeDetailRequest(cluster.id))
        assert json.loads(upgrades.raw_content) == {"totalSize": 0, "detailList": []}
        assert error_of(lambda: change(css, cluster))[:2] == (409, "CSS.0011")
    done = until(lambda: moves(css, cluster)[0], lambda task: task["status"] != "RUNNING")
    after = shown(css, cluster)
    assert (done["status"], done["completedNodes"]) == ("SUCCESS", done["totalNodes"])
    assert (after["actions"], after["actionProgress"]) == ([], {})
    kept = ("id", "name", "ip", "type", "specCode")
    for old, new in zip(before["instances"], after["instances"], strict=True):
        assert [new[key] for key in kept] == [old[key] for key in kept]
        assert (old["azCode"], new["azCode"]) == ("zone-a", "zone-c")
    assert {node.zone for node in here.world(cluster).nodes.values()} == {"zone-c"}


def test_one_zone_becomes_three(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    change(css, cluster, "all", target_az="zone-a,zone-b,zone-c", migrate_type="multi_az_change")
    done = until(lambda: moves(css, cluster)[0], lambda task: task["status"] != "RUNNING")
    assert done["status"] == "SUCCESS"
    assert json.loads(done["migrateParam"])["migrateType"] == "multi_az_change"
    final = json.loads(done["finalAzInfoMap"])
    assert sorted(final) == ["zone-a", "zone-b", "zone-c"]
    assert {node["name"]: node["azCode"] for node in shown(css, cluster)["instances"]} == {
        name: zone for zone, names in final.items() for name in names.split(",")
    }


def test_a_failed_change_of_zones_is_retried(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    nodes = here.world(cluster).nodes.values()
    for node in nodes:
        node.starts = False
    change(css, cluster)
    failed = until(lambda: moves(css, cluster)[0], lambda task: task["status"] != "RUNNING")
    assert failed["status"] == "FAILED"
    assert failed["currentNodeDetail"][10]["status"] == "FAILED"
    for node in nodes:
        node.starts = True
    for _ in range(2):
        css.retry_upgrade_task(RetryUpgradeTaskRequest(cluster.id, failed["id"]))
    done = until(lambda: moves(css, cluster)[0], lambda task: task["status"] != "RUNNING")
    assert (done["status"], done["executeTimes"]) == ("SUCCESS", "2")


def test_a_replacement_by_the_sdk_sent_twice(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    node = cluster.nodes[1]
    before = shown(css, cluster)["instances"]
    with here.held("host.start", node.name):
        for _ in range(2):
            answer = css.update_instance(UpdateInstanceRequest(cluster.id, node.id, "true", "css_agency"))
            assert (answer.status_code, answer.raw_content) == (200, b"")
        assert busy(css, cluster, "REPLACING")
        other = UpdateInstanceRequest(cluster.id, cluster.nodes[0].id)
        assert error_of(lambda: css.update_instance(other))[:2] == (409, "CSS.0011")
    until(lambda: busy(css, cluster, "REPLACING"), lambda is_busy: not is_busy)
    (task,) = here.tasks(cluster)
    assert (task.kind, task.status, task.total) == (TaskKind.REPLACING, TaskStatus.SUCCESS, (node.name,))
    assert shown(css, cluster)["instances"] == before
    assert here.world(cluster).persistent == {}
    for action_mode in (None, AZ):
        listed = css.upgrade_detail(UpgradeDetailRequest(cluster.id, action_mode=action_mode))
        assert json.loads(listed.raw_content) == {"totalSize": 0, "detailList": []}


def test_restarts_by_the_sdk(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    second = _client(here, CssClient2)
    for restart in (
        lambda: css.restart_cluster(RestartClusterRequest(cluster.id)),
        lambda: second.restart_cluster(RestartClusterRequest2(cluster.id, RestartClusterReq("role", "all"))),
        lambda: second.rolling_restart(RollingRestartRequest(cluster.id, RollingRestartReq("role", "ess"))),
    ):
        pids = {node.pid for node in here.world(cluster).nodes.values()}
        answer = restart()
        assert (answer.status_code, answer.raw_content) == (200, b"")
        until(lambda: busy(css, cluster, "REBOOTING"), lambda is_busy: not is_busy)
        task = here.tasks(cluster)[0]
        assert (task.kind, task.status) == (TaskKind.REBOOTING, TaskStatus.SUCCESS)
        assert not pids & {node.pid for node in here.world(cluster).nodes.values()}
    assert len(here.tasks(cluster)) == 3


def test_errors_of_moves(here: Ground, css: CssClient) -> None:
    cluster, foreign = here.add(), here.add(who=here.other)
    for changes, expected in (
        ({"source_az": "zone-x"}, (400, "CSS.5011")),
        ({"target_az": "zone-a"}, (400, "CSS.5011")),
        ({"target_az": "no zone!"}, (400, "CSS.5011")),
        ({"target_az": "zone-z"}, (404, "CSS.5012")),
        ({"migrate_type": "sideways"}, (400, "CSS.0001")),
        ({"agency": "no spaces"}, (400, "CSS.5130")),
        ({"indices_backup_check": True}, (400, "CSS.0083")),
    ):
        assert error_of(lambda changes=changes: change(css, cluster, **changes))[:2] == expected, changes
    assert error_of(lambda: change(css, cluster, "ess-hot"))[:2] == (400, "CSS.0076")
    empty = UpdateAzByInstanceTypeRequest(cluster.id, "ess")
    assert error_of(lambda: css.update_az_by_instance_type(empty))[:2] == (400, "CSS.0006")
    assert error_of(lambda: change(css, foreign))[:2] == (403, "CSS.0015")

    def replace(cluster_id: str, node_id: str, migrate: str = "true") -> tuple[int, str]:
        asked = UpdateInstanceRequest(cluster_id, node_id, migrate, "css_agency")
        return error_of(lambda: css.update_instance(asked))[:2]

    assert replace(cluster.id, str(uuid4())) == replace(cluster.id, foreign.nodes[0].id) == (404, "CSS.0022")
    assert replace(cluster.id, cluster.nodes[0].id, "perhaps") == (400, "CSS.0001")
    assert replace(foreign.id, foreign.nodes[0].id) == (403, "CSS.0015")
    second = _client(here, CssClient2)
    wrong = RestartClusterRequest2(cluster.id, RestartClusterReq("role", "everything"))
    assert error_of(lambda: second.restart_cluster(wrong))[:2] == (400, "CSS.0001")
    assert here.tasks(cluster) == ()


def test_a_replacement_and_a_restart_by_otcextensions(here: Ground) -> None:
    cluster = here.add()
    css = connect_otc(here).css
    css.replace_cluster_node(cluster.id, cluster.nodes[0].id)  # without an agency or a body
    assert css.wait_for_cluster(cluster.id, timeout=60, wait=0.05)
    css.restart_cluster(cluster.id)  # v1.0, without a body
    assert css.wait_for_cluster(cluster.id, timeout=60, wait=0.05)
    kinds = [(task.kind, task.status) for task in here.tasks(cluster)]
    assert kinds == [(TaskKind.REBOOTING, TaskStatus.SUCCESS), (TaskKind.REPLACING, TaskStatus.SUCCESS)]


@pytest.fixture
def terraform(here: Ground) -> Terraform:
    return Terraform(here.url, here.mine)


CHANGE = {
    "agency": "css_agency",
    "indices_backup_check": False,
    "migrate_type": "az_migrate",
    "source_az": "zone-a",
    "target_az": "zone-b",
}
QUERY = f"?action_mode={AZ}"


def test_terraform_changes_zones_and_restarts_at_once(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    task = terraform.begin(cluster, "/inst-type/ess/azmigrate", CHANGE, QUERY)
    assert terraform.wait(cluster, task["id"], QUERY) == "SUCCESS"
    # Nothing in between: the provider sends the restart within 10 ms of reading SUCCESS.
    path = f"/v2.0/{here.mine.project_id}/clusters/{cluster.id}/restart"
    answer = terraform.call("POST", path, {"type": "role", "value": "all"})
    assert (answer.status_code, answer.content) == (200, b"")
    terraform.wait_idle(cluster)
    assert [task.kind for task in here.tasks(cluster)] == [TaskKind.REBOOTING, TaskKind.AZ_MIGRATION]
    # The second plan finds the change again, though a restart came after it.
    assert terraform.task(cluster, task["id"], QUERY)["status"] == "SUCCESS"


def test_terraform_aborts_a_change_of_zones(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    with here.held("host.stop", f"{cluster.name}-ess-esn-2-1"):
        task = terraform.begin(cluster, "/inst-type/ess/azmigrate", CHANGE, QUERY)
        until(lambda: terraform.task(cluster, task["id"], QUERY), lambda one: stopping(one) is not None)
        for _ in range(2):
            assert terraform.abort(cluster, task["id"]).status_code == 200
    assert terraform.wait(cluster, task["id"], QUERY) in ("FAILED", "PARTIAL_FAILED")
    terraform.wait_idle(cluster)
    assert here.world(cluster).persistent == {}


def test_terraform_replaces_a_node(here: Ground, terraform: Terraform) -> None:
    cluster = here.add()
    node = cluster.nodes[2]
    terraform.wait_idle(cluster)
    path = terraform.cluster_path(cluster, f"/instance/{node.id}/replace?agency=css_agency&migrateData=true")
    assert terraform.call("PUT", path).status_code == 200
    terraform.wait_idle(cluster)
    (task,) = here.tasks(cluster)
    assert (task.kind, task.status, task.total) == (TaskKind.REPLACING, TaskStatus.SUCCESS, (node.name,))
