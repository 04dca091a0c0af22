"""The unmodified `huaweicloudsdkcss` through whole lives of tasks, each answer held to the contract to the letter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServiceResponseException
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdkcore.sdk_response import SdkResponse
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
from requests import Response

from shardlift.model import Cluster
from shardlift.service.requests import Credentials
from tests.clients import NEW, SAME, Ground, check_cluster, check_details, ground, stopping, until

pytestmark = pytest.mark.walks


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground() as made:
        yield made


def client(here: Ground, project_id: str | None = None, who: Credentials | None = None) -> CssClient:
    who = who or here.mine
    credentials = BasicCredentials(who.ak, who.sk, project_id or who.project_id)
    watching = HttpHandler().add_response_handler(has_request_id)
    builder = CssClient.new_builder().with_credentials(credentials).with_endpoint(here.url)
    return builder.with_http_handler(watching).build()


def has_request_id(response: Response, **_: object) -> None:
    """Of every answer, whatever it says."""
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


@pytest.fixture
def css(here: Ground) -> CssClient:
    return client(here)


def raw(answer: SdkResponse) -> dict[str, Any]:
    """The body as it came, before the SDK made objects of it."""
    return json.loads(answer.raw_content)


def upgrade(css: CssClient, cluster: Cluster, **changes: object) -> None:
    fields = {
        "target_image_id": NEW.id,
        "upgrade_type": "cross",
        "indices_backup_check": False,
        "agency": "css_test_agency",
    } | changes
    answer = css.upgrade_core(UpgradeCoreRequest(cluster.id, "all", UpgradingTheKernelBody(**fields)))
    assert (answer.status_code, answer.raw_content) == (200, b"")


def details(css: CssClient, cluster: Cluster, **query: object) -> list[dict[str, Any]]:
    return check_details(raw(css.upgrade_detail(UpgradeDetailRequest(cluster.id, **query))))


def shown(css: CssClient, cluster: Cluster) -> dict[str, Any]:
    return check_cluster(raw(css.show_cluster_detail(ShowClusterDetailRequest(cluster.id))))


def ended(css: CssClient, cluster: Cluster) -> dict[str, Any]:
    return until(lambda: details(css, cluster)[0], lambda task: task["status"] != "RUNNING")


def retry(css: CssClient, cluster: Cluster, task_id: str, mode: str | None = None) -> None:
    answer = css.retry_upgrade_task(RetryUpgradeTaskRequest(cluster.id, task_id, mode))
    assert (answer.status_code, answer.raw_content) == (200, b"")


def test_an_upgrade_from_the_images_to_success(here: Ground, css: CssClient) -> None:
    cluster = here.add("css-test")
    first, second, third = names = [f"css-test-ess-esn-{number}-1" for number in (2, 3, 1)]
    idle = shown(css, cluster)
    assert (idle["status"], idle["actions"], idle["actionProgress"], idle["failedReason"]) == ("200", [], {}, None)
    assert idle["datastore"] == {"type": "opensearch", "version": "2.19.4", "subVersion": "2.19.4_1.0.0_1124"}
    assert {node["status"] for node in idle["instances"]} == {"200"}

    images = raw(css.list_images(ListImagesRequest(cluster.id, "cross")))
    assert images == {
        "needUploadUpgradePlugin": False,
        "imageInfoList": [
            {
                "id": NEW.id,
                "displayName": "3.4.0_1.0.0_1124",
                "imageDesc": "simulated",
                "datastoreType": "opensearch",
                "datastoreVersion": "3.4.0",
                "priority": 1,
            }
        ],
        "totalSize": 1,
    }
    assert raw(css.upgrade_detail(UpgradeDetailRequest(cluster.id))) == {"totalSize": 0, "detailList": []}

    with here.held("host.start", first):
        upgrade(css, cluster)
        (begun,) = details(css, cluster)
        assert begun["status"] == "RUNNING"
        assert begun["agencyName"] == "css_test_agency"
        assert begun["imageInfo"] == images["imageInfoList"][0]
        assert begun["totalNodes"].split(",") == names
        assert (begun["completedNodes"], begun["executeTimes"], begun["endTime"]) == ("", "1", "")
        at_start = until(lambda: details(css, cluster)[0], lambda task: task["currentNodeDetail"][10]["beginTime"])
        assert at_start["currentNodeName"] == at_start["currentBatchNodes"] == first
        states = [step["status"] for step in at_start["currentNodeDetail"]]
        assert states == ["SUCCESS"] * 10 + ["RUNNING", "WAITING", "WAITING"]
        busy = shown(css, cluster)
        assert (busy["status"], busy["actions"]) == ("200", ["UPGRADING"])
        assert re.fullmatch(r"[0-9]{1,2}%", busy["actionProgress"]["UPGRADING"])
        by_name = {node["name"]: node["status"] for node in busy["instances"]}
        assert by_name == {first: "303", second: "200", third: "200"}

    done = ended(css, cluster)
    # The very next thing that Terraform does after SUCCESS needs an idle cluster.
    after = shown(css, cluster)
    assert done["status"] == "SUCCESS"
    assert done["completedNodes"].split(",") == names
    assert (done["currentNodeName"], done["currentBatchNodes"], done["executeTimes"]) == ("", "", "1")
    assert {step["status"] for step in done["currentNodeDetail"]} == {"SUCCESS"}
    assert done["startTime"] <= done["currentNodeDetail"][0]["beginTime"] <= done["endTime"]
    assert (after["actions"], after["actionProgress"]) == ([], {})
    assert after["datastore"] == {"type": "opensearch", "version": "3.4.0", "subVersion": "3.4.0_1.0.0_1124"}
    kept = ("id", "name", "ip", "azCode", "type")
    assert [[node[key] for key in kept] for node in after["instances"]] == [
        [node[key] for key in kept] for node in idle["instances"]
    ]


def test_a_failed_upgrade_is_retried_where_it_stood(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    world = here.world(cluster)
    for node in world.nodes.values():
        node.starts = False
    upgrade(css, cluster)
    failed = ended(css, cluster)
    assert failed["status"] == "FAILED"
    assert failed["failMessage"]
    states = [step["status"] for step in failed["currentNodeDetail"]]
    assert states == ["SUCCESS"] * 10 + ["FAILED", "WAITING", "WAITING"]
    assert failed["currentNodeName"] == failed["totalNodes"].split(",")[0]
    at_rest = shown(css, cluster)
    assert (at_rest["actions"], at_rest["actionProgress"]) == ([], {})

    retry(css, cluster, failed["id"])  # the cause is still there
    again = until(lambda: ended(css, cluster), lambda task: task["executeTimes"] == "2")
    assert (again["id"], again["status"]) == (failed["id"], "FAILED")
    for node in world.nodes.values():
        node.starts = True
    with here.held("host.start", failed["currentNodeName"]):
        retry(css, cluster, failed["id"])
        retry(css, cluster, failed["id"])  # as the SDK does when an answer is lost
        (running,) = details(css, cluster)
        assert (running["status"], running["executeTimes"], running["endTime"]) == ("RUNNING", "3", "")
    done = ended(css, cluster)
    assert (done["id"], done["status"], done["executeTimes"]) == (failed["id"], "SUCCESS", "3")
    with pytest.raises(ClientRequestException) as caught:
        retry(css, cluster, failed["id"])
    assert (caught.value.status_code, caught.value.error_code) == (400, "CSS.5090")


@pytest.mark.parametrize("mode", ["running", "failed"])
def test_an_abort(here: Ground, css: CssClient, mode: str) -> None:
    cluster = here.add()
    world = here.world(cluster)
    first, second = [f"{cluster.name}-ess-esn-{number}-1" for number in (2, 3)]
    if mode == "failed":
        world.nodes[first].starts = False
        upgrade(css, cluster)
        task_id = ended(css, cluster)["id"]
        world.nodes[first].starts = True
        for _ in range(2):
            retry(css, cluster, task_id, "abort")
    else:
        with here.held("host.stop", second):
            upgrade(css, cluster)
            seen = until(lambda: details(css, cluster)[0], lambda task: stopping(task) == second)
            task_id = seen["id"]
            for _ in range(2):
                retry(css, cluster, task_id, "abort")
    done = until(lambda: details(css, cluster)[0], lambda task: task["status"] not in ("RUNNING", "SUCCESS"))
    assert done["id"] == task_id
    assert done["failMessage"]
    assert done["status"] == ("FAILED" if mode == "failed" else "PARTIAL_FAILED")
    idle = until(lambda: shown(css, cluster), lambda one: one["actions"] == [])
    assert idle["actionProgress"] == {}
    assert world.persistent == {}
    with pytest.raises(ClientRequestException) as caught:
        retry(css, cluster, task_id)
    assert caught.value.error_code == "CSS.5090"


def test_pages_to_the_letter(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    ids: list[str] = []
    for _ in range(3):
        upgrade(css, cluster)
        ids.insert(0, here.end(cluster))
    assert [task["id"] for task in details(css, cluster)] == ids
    assert [task["id"] for task in details(css, cluster, offset=2, limit=1)] == ids[1:2]
    assert [task["id"] for task in details(css, cluster, offset=2, limit=2)] == ids[1:]
    past = raw(css.upgrade_detail(UpgradeDetailRequest(cluster.id, offset=4)))
    assert past == {"totalSize": 3, "detailList": []}
    moves = raw(css.upgrade_detail(UpgradeDetailRequest(cluster.id, action_mode="AZ_MIGRATION")))
    assert moves == {"totalSize": 0, "detailList": []}
    for wrong in ({"offset": 0}, {"offset": -1}, {"limit": 0}, {"limit": 1001}, {"offset": "x"}, {"action_mode": "NO"}):
        with pytest.raises(ClientRequestException) as caught:
            css.upgrade_detail(UpgradeDetailRequest(cluster.id, **wrong))
        assert (caught.value.status_code, caught.value.error_code) == (400, "CSS.0001"), wrong
        assert next(iter(wrong)) in caught.value.error_msg

    listed = raw(css.list_clusters_details(ListClustersDetailsRequest(offset=1, limit=1)))
    assert len(listed["clusters"]) == 1
    every = raw(css.list_clusters_details(ListClustersDetailsRequest(limit=1000)))
    assert listed["totalSize"] == every["totalSize"] == len(every["clusters"])
    assert listed["clusters"] == every["clusters"][:1]
    for one in every["clusters"]:
        check_cluster(one)
    beyond = raw(css.list_clusters_details(ListClustersDetailsRequest(offset=every["totalSize"] + 1)))
    assert beyond == {"totalSize": every["totalSize"], "clusters": []}

    both = raw(css.list_images(ListImagesRequest(cluster.id, "same")))
    assert [image["id"] for image in both["imageInfoList"]] == [SAME.id]
    none = raw(css.list_images(ListImagesRequest(cluster.id, "same", offset=1, limit=5)))
    assert none == {"needUploadUpgradePlugin": False, "imageInfoList": [], "totalSize": 1}


def refused(css: CssClient, cluster: Cluster | str, **changes: object) -> tuple[int, str, str]:
    """Status, code and text of the error that an upgrade is answered with; the SDK reads them from the body."""
    cluster_id = cluster if isinstance(cluster, str) else cluster.id
    fields = {"target_image_id": NEW.id, "upgrade_type": "cross", "indices_backup_check": False, "agency": "a"}
    asked = UpgradingTheKernelBody(**fields | changes)
    return error_of(lambda: css.upgrade_core(UpgradeCoreRequest(cluster_id, "all", asked)))


def error_of(call: Callable[[], object]) -> tuple[int, str, str]:
    with pytest.raises(ServiceResponseException) as caught:
        call()
    error = caught.value
    assert error.request_id
    assert "Traceback" not in error.error_msg
    return error.status_code, error.error_code, error.error_msg


def test_errors_of_a_request(here: Ground, css: CssClient) -> None:
    cluster = here.add()
    for changes in (
        {"target_image_id": "no-such-image"},
        {"target_image_id": SAME.id},  # not a cross upgrade
        {"upgrade_type": "sideways"},
        {"indices_backup_check": "perhaps"},
        {"cluster_load_check": 3},
        {"batch_size": 0},
    ):
        status, code, text = refused(css, cluster, **changes)
        assert (status, code) == (400, "CSS.0001"), changes
        assert text.startswith("Incorrect parameters."), changes
    status, code, text = refused(css, cluster, agency="no spaces, please")
    assert (status, code) == (400, "CSS.5130")
    assert text.startswith("Invalid agency name.")
    assert refused(css, cluster, agency="a" * 65)[1] == "CSS.5130"
    no_body = error_of(lambda: css.upgrade_core(UpgradeCoreRequest(cluster.id, "all")))
    assert no_body == (400, "CSS.0006", "The request is null. Enter the request parameters.")
    body = UpgradingTheKernelBody(NEW.id, "cross", False, "a")
    status, code, text = error_of(lambda: css.upgrade_core(UpgradeCoreRequest(cluster.id, "ess", body)))
    assert (status, code) == (400, "CSS.0076")
    assert text.startswith("Invalid node role type.")
    status, code, _ = error_of(lambda: css.list_images(ListImagesRequest(cluster.id, "sideways")))
    assert (status, code) == (400, "CSS.0001")
    for missing in ("no-such-task", str(uuid4())):
        told = error_of(lambda missing=missing: retry(css, cluster, missing))
        assert told == (400, "CSS.0082", "The record does not exist.")
    assert here.tasks(cluster) == ()


def test_errors_of_what_is_not_ones_own(here: Ground, css: CssClient) -> None:
    foreign = here.add(who=here.other)
    upgraded = client(here, who=here.other)
    upgrade(upgraded, foreign)
    their_task = here.end(foreign)
    mine = here.add()
    told = {
        refused(css, foreign),
        refused(css, str(uuid4())),
        error_of(lambda: css.show_cluster_detail(ShowClusterDetailRequest(foreign.id))),
        error_of(lambda: css.upgrade_detail(UpgradeDetailRequest(foreign.id))),
        error_of(lambda: css.list_images(ListImagesRequest(str(uuid4()), "same"))),
        error_of(lambda: retry(css, foreign, their_task)),
    }
    assert told == {(403, "CSS.0015", "No resources are found or the access is denied.")}
    assert error_of(lambda: retry(css, mine, their_task))[:2] == (400, "CSS.0082")
    assert refused(css, "css-1") == (404, "CSS.0016", "Resource not found.")
    status, code, text = refused(client(here, here.other.project_id), foreign)
    assert (status, code) == (403, "CSS.0010")
    assert "not authorized" in text
    assert foreign.id not in json.dumps(raw(css.list_clusters_details(ListClustersDetailsRequest(limit=1000))))
    wrong = BasicCredentials(here.mine.ak, "wrong", here.mine.project_id)
    stranger = CssClient.new_builder().with_credentials(wrong).with_endpoint(here.url).build()
    assert refused(stranger, mine)[:2] == (401, "APIGW.0301")


def test_errors_of_the_cluster(here: Ground, css: CssClient) -> None:
    busy = here.add()
    with here.held("host.stop", f"{busy.name}-ess-esn-2-1"):
        upgrade(css, busy)
        status, code, text = refused(css, busy)
        assert (status, code) == (409, "CSS.0011")
        assert text.startswith("This operation cannot be performed because another operation is being performed")
        here.end_soon(busy)
    small = here.add(nodes=2)
    assert refused(css, small)[:2] == (400, "CSS.0074")
    cluster = here.add()
    status, code, text = refused(css, cluster, indices_backup_check=True)
    assert (status, code) == (400, "CSS.0083")
    assert "books" in text
    assert "films" in text
    here.world(cluster).persistent["cluster.routing.allocation.enable"] = "none"
    assert refused(css, cluster)[0] == 412
    here.world(cluster).persistent.clear()
    for node in here.world(cluster).nodes.values():
        here.world(cluster).stop(node)
    assert refused(css, cluster)[:2] == (400, "CSS.0078")
    here.lose(cluster)
    status, code, text = refused(css, cluster)
    assert (status, code) == (500, "CSS.0005")
    assert text.startswith("Server error.")
    assert here.tasks(cluster) == here.tasks(small) == ()
