"""The unmodified `otcextensions` on `openstacksdk`, with a token and an endpoint given by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from openstack import exceptions

from shardlift.model import Cluster
from tests.clients import NEW, SAME, Ground, connect_otc, ground, until

pytestmark = pytest.mark.walks

_WAIT_S = 0.05


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.fixture(scope="module")
def css(here: Ground) -> Any:
    return connect_otc(here).css


def upgrade(css: Any, cluster: Cluster) -> Any:
    css.update_cluster_kernel(cluster.id, NEW.id, "cross", False, "css_agency")
    (task,) = css.get_cluster_upgrade_status(cluster.id)
    assert task.status == "RUNNING"
    return task


def newest(css: Any, cluster: Cluster) -> Any:
    return next(css.get_cluster_upgrade_status(cluster.id, start=1, limit=1))


def test_a_cluster_is_found_by_name_and_by_id(here: Ground, css: Any) -> None:
    cluster, foreign = here.add("css-found"), here.add("css-hidden", who=here.other)
    assert css.find_cluster("css-found").id == css.find_cluster(cluster.id).id == cluster.id
    for missing in ("css-hidden", "css-nowhere"):
        assert css.find_cluster(missing) is None
        with pytest.raises(exceptions.NotFoundException):
            css.find_cluster(missing, ignore_missing=False)
    assert foreign.id not in {one.id for one in css.clusters()}
    shown = css.get_cluster(cluster.id)
    assert (shown.name, shown.status, shown.status_code, shown.actions, shown.action_progress) == (
        "css-found", "AVAILABLE", 200, [], {},
    )  # fmt: skip
    assert (shown.datastore.type, shown.datastore.version) == ("opensearch", "2.19.4")
    assert shown.endpoints == [f"{node.address}:9200" for node in cluster.nodes]
    assert [(node.id, node.name, node.status, node.availability_zone) for node in shown.nodes] == [
        (node.id, node.name, "200", "zone-a") for node in cluster.nodes
    ]


def test_clusters_by_the_page(here: Ground, css: Any) -> None:
    made = [here.add().id for _ in range(3)]
    every = [one.id for one in css.clusters(limit=1000)]
    assert set(made) <= set(every)
    paged = [one.id for start in range(1, len(every) + 2) for one in css.clusters(start=start, limit=1)]
    assert paged == every


def test_an_upgrade_waited_for_as_the_command_line_does(here: Ground, css: Any) -> None:
    cluster = here.add()
    assert css.wait_for_cluster(cluster.id, wait=_WAIT_S)
    offered = css.get_cluster_version_upgrades(cluster.id, "cross")
    assert [image.id for image in offered.image_info_list] == [NEW.id]
    assert offered.need_upload_upgrade_plugin is False
    assert [one.id for one in css.get_cluster_version_upgrades(cluster.id, "same").image_info_list] == [SAME.id]
    assert css.get_cluster_version_upgrades(cluster.id, "crossEngine").image_info_list == []

    task = upgrade(css, cluster)
    assert (task.execute_times, task.end_time, task.agency_name) == ("1", "", "css_agency")
    assert task.image_info.datastore_version == "3.4.0"
    assert [step.order for step in task.current_node_detail] == list(range(13))
    assert css.wait_for_cluster(cluster.id, timeout=60, wait=_WAIT_S)
    done = newest(css, cluster)
    assert (done.id, done.status, done.completed_nodes) == (task.id, "SUCCESS", done.total_nodes)
    assert css.get_cluster(cluster.id).datastore.version == "3.4.0"


def test_a_failed_upgrade_is_retried_and_another_aborted(here: Ground, css: Any) -> None:
    cluster = here.add()
    nodes = here.world(cluster).nodes.values()
    for node in nodes:
        node.starts = False
    task = upgrade(css, cluster)
    failed = until(lambda: newest(css, cluster), lambda one: one.status != "RUNNING")
    assert failed.status == "FAILED"
    assert "the engine process ended before it answered" in failed.fail_message
    for node in nodes:
        node.starts = True
    css.retry_cluster_upgrade_job(cluster.id, task.id)
    assert css.wait_for_cluster(cluster.id, timeout=60, wait=_WAIT_S)
    assert (newest(css, cluster).status, newest(css, cluster).execute_times) == ("SUCCESS", "2")

    other = here.add()
    with here.held("host.stop", f"{other.name}-ess-esn-2-1"):
        css.retry_cluster_upgrade_job(other.id, upgrade(css, other).id, "abort")
    assert css.wait_for_cluster(other.id, timeout=60, wait=_WAIT_S)
    assert newest(css, other).status in ("FAILED", "PARTIAL_FAILED")
    assert here.world(other).persistent == {}


def test_errors(here: Ground, css: Any) -> None:
    cluster, foreign = here.add(), here.add(who=here.other)
    with pytest.raises(exceptions.BadRequestException, match=r"CSS\.5130"):
        css.update_cluster_kernel(cluster.id, NEW.id, "cross", False, "bad agency")
    with pytest.raises(exceptions.BadRequestException, match=r"CSS\.0082"):
        css.retry_cluster_upgrade_job(cluster.id, str(uuid4()))
    with here.held("host.stop", f"{cluster.name}-ess-esn-2-1"):
        upgrade(css, cluster)
        with pytest.raises(exceptions.ConflictException, match=r"CSS\.0011"):
            css.update_cluster_kernel(cluster.id, NEW.id, "cross", False, "css_agency")
        here.end_soon(cluster)
    for hidden in (foreign.id, str(uuid4())):
        with pytest.raises(exceptions.HttpException) as caught:
            css.update_cluster_kernel(hidden, NEW.id, "cross", False, "css_agency")
        assert (caught.value.status_code, "CSS.0015" in str(caught.value)) == (403, True)
    with pytest.raises(exceptions.HttpException) as caught:
        list(connect_otc(here, "no-such-token").css.clusters())
    assert caught.value.status_code == 401
