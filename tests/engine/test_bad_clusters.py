"""Real clusters made bad, one way after the other: each is refused by the right rule, and passes once the remedy of the
finding was followed.

One cluster of OpenSearch and one of Elasticsearch go through all of it, because clusters take long to boot. What was
mended is upgraded in the end, so that a remedy that only silences a rule would come to light.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shardlift.executor import Event
from shardlift.model import StepStatus, Strategy, Task, TaskStatus
from tests.engine import plugin
from tests.engine.bad import ALLOCATION, PIN, Bad, bad_by_rest, index_settings, new_index, persistent
from tests.engine.cluster import RealCluster, linked_images, real_cluster
from tests.engine.desk import Desk, desk_of, request_in, say

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

_SOURCE, _TARGET, _NEXT = "opensearch:2.19.4", "opensearch:3.4.0", "opensearch:3.6.0"
_PLUGIN = "tiny-plugin"
_DRAIN, _IN_PLACE = Strategy.DRAIN, Strategy.IN_PLACE
# Dynamic in OpenSearch 2, unknown to OpenSearch 3, which calls it slow_cluster_manager_task_logging_threshold.
_UNKNOWN_LATER = "cluster.service.slow_master_task_logging_threshold"


async def show(desk: Desk, bad: Bad) -> None:
    """Bad, refused by the rule, mended by its remedy, granted."""
    say(f"---- {bad.rule} ----")
    for ask in bad.spoil:
        await desk.rest(*ask)
    await desk.at_rest()
    found = await desk.refused(_TARGET, bad.strategy, {bad.rule, *bad.also})
    mine = next(one for one in found if one.rule == bad.rule)
    assert bad.words in mine.remedy, mine
    assert bad.evidence in f"{mine.subject} {mine.evidence}", mine
    for ask in bad.mend or (request_in(mine.remedy),):
        await desk.rest(*ask)
    await desk.settled()
    await desk.passes(_TARGET, bad.strategy)


def amend(yml: Path, *lines: str) -> str:
    """Adds lines to a node's settings. Returns what was there."""
    before = yml.read_text("utf-8")
    yml.write_text(before + "".join(f"{line}\n" for line in lines), "utf-8")
    return before


async def spoilt_boot(real: RealCluster) -> None:
    """Two masters of two, since the third node only holds data; and that one has a plugin. All can take snapshots."""
    await real.create()
    repository = real.home / "snapshots"
    repository.mkdir()
    repository.chmod(0o777)
    for node in real.nodes:
        amend(real.yml(node), f"path.repo: {repository}")
    *masters, third = real.nodes
    await real.start_first(*masters)
    plugin.install(engine_of(real), name=_PLUGIN, version=str(real.image.version))
    amend(real.yml(third), "node.roles: [data, ingest]")
    await real.start_first(third)


def engine_of(real: RealCluster) -> Path:
    return real.images / "engines" / real.image.id


@asynccontextmanager
async def bad_opensearch() -> AsyncIterator[Desk]:
    def images(home: Path) -> Path:
        return linked_images(home, _SOURCE, _TARGET)

    async with (
        real_cluster(_SOURCE, images_at=images, boot=spoilt_boot) as real,
        desk_of(real, drain_stalled_s=2) as desk,
    ):
        yield desk


async def test_opensearch() -> None:
    async with bad_opensearch() as desk:
        await mended_by_a_restart(desk)
        await desk.rest(*new_index("docs", shards=2, replicas=1))
        await desk.fill("docs", 600)
        stats = await desk.rest("GET", "/_nodes/stats/fs?filter_path=nodes.*.fs.total.available_in_bytes")
        free = max(one["fs"]["total"]["available_in_bytes"] for one in stats["nodes"].values())
        elected = await desk.real.engine.elected()
        node = next(one.name for one in desk.real.nodes if one.name != elected)
        await desk.rest(*persistent(**{_UNKNOWN_LATER: "20s"}))
        for bad in bad_by_rest(node, free):
            await show(desk, bad)
        await desk.rest("DELETE", "/bad")
        await a_running_snapshot(desk)
        settings = await desk.settings()
        await a_copy_pinned_while_its_node_is_drained(desk)
        await an_archived_setting(desk, settings)


async def mended_by_a_restart(desk: Desk) -> None:
    third = desk.real.nodes[-1]
    found = await desk.refused(_TARGET, _DRAIN, {"master_quorum", "plugins_available"})
    by_rule = {one.rule: one for one in found}
    quorum, plugins = by_rule["master_quorum"], by_rule["plugins_available"]
    assert "add 1 master-eligible node" in quorum.remedy
    assert all(node.name in quorum.evidence for node in desk.real.nodes[:2])
    assert "remove them from the cluster" in plugins.remedy
    assert (plugins.subject, plugins.evidence) == (third.name, _PLUGIN)
    await desk.real.stop(third)
    shutil.rmtree(engine_of(desk.real) / "plugins" / _PLUGIN)
    yml = desk.real.yml(third)
    yml.write_text(yml.read_text("utf-8").replace("node.roles: [data, ingest]\n", ""), "utf-8")
    await desk.real.start(third)
    await desk.settled()
    await desk.passes(_TARGET, _DRAIN)


async def a_running_snapshot(desk: Desk) -> None:
    """Slowed down, so that it runs when it is looked for. The remedy is to wait."""
    say("---- no_running_snapshot ----")
    repository = {"location": str(desk.real.home / "snapshots"), "max_snapshot_bytes_per_sec": "150kb"}
    await desk.rest("PUT", "/_snapshot/backups", {"type": "fs", "settings": repository})
    await desk.rest("PUT", "/_snapshot/backups/one")
    (found,) = await desk.refused(_TARGET, _DRAIN, {"no_running_snapshot"})
    assert "wait until GET _snapshot/_status answers with an empty list" in found.remedy
    await desk.until(lambda: desk.rest("GET", "/_snapshot/_status"), lambda seen: not seen["snapshots"])
    await desk.passes(_TARGET, _DRAIN)


async def a_copy_pinned_while_its_node_is_drained(desk: Desk) -> None:
    """Allowed when the task was made, and stopped in sub-step 0 when it no longer can end. Retried, it goes on."""
    say("---- drain_can_end, while it drains ----")
    report = await desk.check(_TARGET, _DRAIN)
    assert report.plan is not None
    assert any(one.rule == "no_archived_settings" and _UNKNOWN_LATER in one.evidence for one in report.findings), "told"
    first = report.plan.nodes[0].name
    # One copy at a time and slowly, so that one is still at home when the other is on its way.
    limits: dict[str, object] = {
        "indices.recovery.max_bytes_per_sec": "40kb",
        f"{ALLOCATION}.node_concurrent_recoveries": 1,
    }
    await desk.rest("PUT", "/_cluster/settings", {"transient": limits})
    for name in ("bad-1", "bad-2"):
        await desk.rest(*new_index(name, index__routing__rebalance__enable="none", **{PIN: first}))
        await desk.fill(name, 150)
        await desk.rest(*index_settings(name, {PIN: None}))
    await desk.settled()
    task = await desk.upgrade(_TARGET, _DRAIN)
    begun = asyncio.Event()

    def observe(event: Event) -> None:
        if event == Event("begun", first, 0):
            begun.set()

    driving = asyncio.create_task(desk.drive(observe))
    await begun.wait()
    pinned = await still_at_home(desk)
    await desk.rest(*index_settings(pinned, {PIN: first}))
    await desk.rest("PUT", "/_cluster/settings", {"transient": dict.fromkeys(limits)})
    await driving
    await desk.rest(*request_in(await stopped_by_the_drain(desk, task, pinned)))
    await desk.service.retry(task.id)
    await desk.drive()
    done = await desk.service.task(task.id)
    assert (done.status, done.execute_times) == (TaskStatus.SUCCESS, 2), done.fail_message
    assert {str(node.version) for node in await desk.real.engine.nodes()} == {"3.4.0"}


async def still_at_home(desk: Desk) -> str:
    """An index whose one copy has not begun to move, once the drain has taken another one up."""
    seen = await desk.until(
        lambda: desk.copies("bad-*"), lambda copies: {one["state"] for one in copies} == {"RELOCATING", "STARTED"}
    )
    return next(one["index"] for one in seen if one["state"] == "STARTED")


async def stopped_by_the_drain(desk: Desk, task: Task, pinned: str) -> str:
    """Returns the remedy."""
    seen = await desk.service.task(task.id)
    assert seen.status is TaskStatus.FAILED
    (row,) = (one for one in seen.steps if one.status is StepStatus.FAILED)
    say(f"stopped: {row.desc}")
    assert row.order == 0
    findings = row.evidence["findings"]
    assert isinstance(findings, list)
    (finding,) = findings
    assert (finding["rule"], finding["subject"].split(" on ")[0]) == ("drain_can_end", f"{pinned}[0]")
    assert "filter" in finding["evidence"]
    assert (await desk.settings())["transient"] == {}, "nothing of ours is left while the task waits"
    return str(finding["remedy"])


async def an_archived_setting(desk: Desk, before: dict[str, Any]) -> None:
    """What OpenSearch 2 knew and 3 does not is in the way as soon as a new node is master, of our own settings too."""
    say("---- no_archived_settings ----")
    task = (await desk.service.tasks(desk.cluster_id)).items[0]
    assert "no_archived_settings" in (task.fail_message or ""), task.fail_message
    key = f"archived.{_UNKNOWN_LATER}"
    assert key in (await desk.settings())["persistent"]
    report = await desk.check(_NEXT, _DRAIN)
    (found,) = report.blocking
    say(str(found))
    assert found.rule == "no_archived_settings"
    assert key in found.evidence
    await desk.rest(*request_in(found.remedy))
    await desk.drive()
    del before["persistent"][_UNKNOWN_LATER]
    assert await desk.settings() == before, "what could not be put back then is put back now"
    await desk.settled()
    await desk.passes(_NEXT, _DRAIN)


async def test_elasticsearch() -> None:
    """A closed index on 6.8, which does not move; and an index of 6.8 on 7.10, which OpenSearch 2 does not open."""
    async with real_cluster("elasticsearch:6.8.23") as real, desk_of(real) as desk:
        for name in ("old", "shut"):
            await desk.rest(*new_index(name, replicas=1))
        await desk.rest("PUT", "/old/_doc/1", {"kept": "yes"})
        await desk.rest("POST", "/shut/_close")
        await a_closed_index(desk)
        task = await desk.upgrade("elasticsearch:7.10.2", _DRAIN)
        await desk.drive()
        done = await desk.service.task(task.id)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        await an_index_from_two_majors_back(desk)


async def a_closed_index(desk: Desk) -> None:
    say("---- closed_indices_replicated ----")
    (found,) = await desk.refused("elasticsearch:7.10.2", _DRAIN, {"closed_indices_replicated"})
    assert "shut" in f"{found.subject} {found.evidence}"
    assert request_in(found.remedy) == ("POST", "/shut/_open", None)
    await desk.rest(*request_in(found.remedy))
    await desk.settled()
    await desk.passes("elasticsearch:7.10.2", _DRAIN)


async def an_index_from_two_majors_back(desk: Desk) -> None:
    say("---- index_compatible ----")
    found = await desk.refused("opensearch:2.19.4", _DRAIN, {"index_compatible"})
    assert {one.subject for one in found} == {"old", "shut"}
    assert all("6.8.23" in one.evidence for one in found)
    assert all("copy it into a new index" in one.remedy and f"DELETE {one.subject}" in one.remedy for one in found)
    # The minimal distribution has no _reindex, so the client does it.
    kept = (await desk.rest("GET", "/old/_doc/1"))["_source"]
    await desk.rest(*new_index("new", replicas=1))
    await desk.rest("PUT", "/new/_doc/1", kept)
    for name in ("old", "shut"):
        await desk.rest("DELETE", f"/{name}")
    await desk.settled()
    await desk.passes("opensearch:2.19.4", _DRAIN)
