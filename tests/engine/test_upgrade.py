"""A real cluster, upgraded by the unmodified SDK through a real server, under a probing client.

Two upgrades, because clusters take long to boot: one in place in which the server is killed after each of the 13
sub-steps of a node, one by drain in which an engine does not start and is repaired.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcss.v1 import (
    CssClient,
    ListImagesRequest,
    RetryUpgradeTaskRequest,
    ShowClusterDetailRequest,
    UpgradeCoreRequest,
    UpgradeDetailRequest,
    UpgradingTheKernelBody,
)

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.stage import DemoOptions, Probed, Stage, staged, under_load, versions
from shardlift.driver.protocol import ProcessSeen
from shardlift.images import ImageStore
from shardlift.model import Image, Strategy
from shardlift.serve import read_credentials, write_credentials
from shardlift.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

_POLL_S = 0.3
_START_S = 60
_ORDERS = list(range(13))


def say(text: str) -> None:
    print(text, file=sys.stderr)


def pull(_settings: Settings, image: Image, store: ImageStore) -> None:
    store.pull(image)


@asynccontextmanager
async def stage_of(strategy: Strategy) -> AsyncIterator[Stage]:
    async with staged(DemoOptions(documents=9_000, strategy=strategy), pull, say) as stage:
        write_credentials(stage.settings.credentials_path, stage.credentials)
        try:
            yield stage
        except BaseException:
            for node in stage.cluster.nodes:
                say(f"---- log of {node.name} ----")
                say("\n".join(await stage.service.backend.driver("local").log_tail(node)))
            raise


class Server:
    """The crashing server as a process, started again whenever it has died."""

    def __init__(self, stage: Stage) -> None:
        self._home = stage.settings.home
        self._points = self._home / "points.json"
        self._points.write_text("[]")
        self._process: asyncio.subprocess.Process | None = None
        self.deaths = 0

    def crash_at(self, points: list[tuple[str, str, int]]) -> None:
        self._points.write_text(json.dumps(points))

    @property
    def points_left(self) -> list[object]:
        return json.loads(self._points.read_text())

    async def url(self) -> str:
        """Where it answers now; started if it does not run."""
        if self._process is None or self._process.returncode is not None:
            self.deaths += self._process is not None
            await self._start()
        return str(json.loads((self._home / "serve.json").read_text())["url"])

    async def _start(self) -> None:
        with (self._home / "serve.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.engine.crashing_serve", str(self._home), str(self._points)),
                stdout=log,
                stderr=log,
            )
        end, pause_s = time.monotonic() + _START_S, 0.05
        while time.monotonic() < end and self._process.returncode is None:
            if await self._announced():
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)
        if self._process.returncode is None:
            raise AssertionError(f"no server after {_START_S} s: {(self._home / 'serve.log').read_text()[-2000:]}")

    async def _announced(self) -> bool:
        assert self._process is not None
        try:
            told = json.loads((self._home / "serve.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(told["pid"] == self._process.pid)

    async def died(self) -> None:
        """Returns once the blow that it was to deal to itself has come."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """`kill -9`, wherever it is."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def server_of(stage: Stage) -> AsyncIterator[Server]:
    server = Server(stage)
    try:
        yield server
    finally:
        await server.stop()


class Sdk:
    """The unmodified SDK, in threads since it blocks; tries again while the server is being started again."""

    def __init__(self, stage: Stage, server: Server) -> None:
        self._stage, self._server = stage, server

    async def call(self, act: Callable[[CssClient], Any]) -> Any:
        for _ in range(20):
            url = await self._server.url()
            keys = read_credentials(self._stage.settings.credentials_path)
            client = (
                CssClient.new_builder()
                .with_credentials(BasicCredentials(keys.ak, keys.sk, keys.project_id))
                .with_endpoint(url)
                .build()
            )
            try:
                return await asyncio.to_thread(act, client)
            except (ConnectionError, OSError) as error:
                say(f"server away: {type(error).__name__}")
            except Exception as error:
                if "Connect" not in type(error).__name__:
                    raise
                say(f"server away: {type(error).__name__}")
        raise AssertionError("the server did not come back")

    async def detail(self) -> Any:
        answer = await self.call(lambda c: c.upgrade_detail(UpgradeDetailRequest(self._stage.cluster.id)))
        return answer.detail_list[0]

    async def upgrade(self) -> None:
        images = await self.call(lambda c: c.list_images(ListImagesRequest(self._stage.cluster.id, "cross")))
        target = next(one for one in images.image_info_list if one.datastore_version == "3.4.0")
        body = UpgradingTheKernelBody(target.id, "cross", False, "css_test_agency", cluster_load_check=False)
        await self.call(lambda c: c.upgrade_core(UpgradeCoreRequest(self._stage.cluster.id, "all", body)))
        assert (await self.detail()).status == "RUNNING", "at once, on the first page"

    async def retry(self) -> None:
        task = await self.detail()
        await self.call(lambda c: c.retry_upgrade_task(RetryUpgradeTaskRequest(self._stage.cluster.id, task.id)))

    async def idle(self) -> None:
        shown = await self.call(lambda c: c.show_cluster_detail(ShowClusterDetailRequest(self._stage.cluster.id)))
        assert (shown.status, shown.actions, shown.action_progress) == ("200", [], {})
        assert shown.datastore.version == "3.4.0"
        assert {one.status for one in shown.instances} == {"200"}


async def followed(stage: Stage, sdk: Sdk) -> str:
    """Polls to the end. Each answer is held to what it promises, and to what the nodes say of themselves."""
    completed: set[str] = set()
    latest: dict[tuple[str, int], tuple[str, str]] = {}
    async with ClusterClient(stage.urls) as client:
        while True:  # ends with the task; the test's time limit bounds it
            task = await sdk.detail()
            rows = task.current_node_detail
            assert [row.order for row in rows] == _ORDERS
            now_completed = {name for name in task.completed_nodes.split(",") if name}
            assert completed <= now_completed, "completedNodes only grows"
            fresh, completed = now_completed - completed, now_completed
            node = task.current_node_name or task.total_nodes.split(",")[-1]
            ends = [row.end_time for row in rows if row.status == "SUCCESS"]
            assert ends == sorted(ends)
            for row in rows:
                begin, end = latest.get((node, row.order), ("", ""))
                assert not begin or row.begin_time == begin, "a begin that was told stays"
                assert row.end_time >= end or task.execute_times != "1", "an end that was told stays"
                assert not row.end_time or row.end_time >= row.begin_time
                latest[node, row.order] = (row.begin_time, row.end_time)
            if fresh:
                told = await versions(client, stage.cluster)
                assert {told[name] for name in completed} == {"3.4.0"}, "what is completed runs the target"
            if task.status != "RUNNING":
                return str(task.status)
            await asyncio.sleep(_POLL_S)


async def settings_of(stage: Stage) -> dict[str, Any]:
    async with ClusterClient(stage.urls) as client:
        found = await client.call(Call("GET", "/_cluster/settings?flat_settings=true"))
        voting = await client.call(
            Call("GET", "/_cluster/state/metadata?filter_path=metadata.cluster_coordination.voting_config_exclusions")
        )
    left = voting.body.get("metadata", {}).get("cluster_coordination", {}).get("voting_config_exclusions", [])
    return {**found.body, "voting": left}


NOTHING_LEFT = {"persistent": {}, "transient": {}, "voting": []}


def effects_of(stage: Stage) -> Counter[tuple[str, str]]:
    """(node, effect) as each host's own log has them, without those of the cluster's making."""
    out: Counter[tuple[str, str]] = Counter()
    for log in Path(stage.settings.nodes_path).glob("*/*/host.log"):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["effect"] for line in lines[:2]] == ["create", "start"]
        out.update((log.parent.name, line["effect"]) for line in lines[2:])
    return out


async def processes(stage: Stage) -> dict[str, ProcessSeen | None]:
    driver = stage.service.backend.driver("local")
    return {node.name: await driver.process(node) for node in stage.cluster.nodes}


def assert_served(seen: Probed[str]) -> None:
    """Nothing lost, nothing doubled, and a client that retries on the next node never failed."""
    assert seen.result == "SUCCESS"
    assert seen.verified.good, seen.verified
    assert seen.loaded_found == seen.loaded
    assert (seen.probe.writes.failed, seen.probe.searches.failed) == (0, 0), (
        seen.probe.writes.failures + seen.probe.searches.failures
    )
    assert len(seen.probe.acknowledged) > 100, "the client was there"
    assert set(seen.versions.values()) == {"3.4.0"}


async def test_in_place_with_the_server_killed_after_each_sub_step() -> None:
    async with stage_of(Strategy.IN_PLACE) as stage, server_of(stage) as server:
        sdk = Sdk(stage, server)

        async def act() -> str:
            # Known before it begins: the elected master last, the others in order.
            report = await stage.service.check(upgrade_of(stage))
            assert report.plan is not None
            first, second, _ = (node.name for node in report.plan.nodes)
            server.crash_at(
                [("acted", first, order) for order in _ORDERS] + [("journaled", second, order) for order in (0, 6, 10)]
            )
            await sdk.upgrade()
            return await followed(stage, sdk)

        before = await processes(stage)
        seen = await under_load(stage, act, say)
        assert_served(seen)
        assert server.points_left == []
        assert server.deaths == 16
        await sdk.idle()
        assert await settings_of(stage) == NOTHING_LEFT
        wanted = ("backup", "stop", "switch", "restore", "start")
        effects = effects_of(stage)
        for node in stage.cluster.nodes:
            counts = {effect: effects[node.name, effect] for effect in wanted}
            assert counts == dict.fromkeys(wanted, 1), (node.name, counts)
        after = await processes(stage)
        assert all(after.values()), "all engines run"
        assert not {one for one in before.values() if one} & {one for one in after.values() if one}


def upgrade_of(stage: Stage) -> Any:
    from shardlift.service.requests import UpgradeRequest  # noqa: PLC0415

    return UpgradeRequest(cluster_id=stage.cluster.id, image=stage.target.id)


async def test_drain_with_an_engine_that_does_not_start_and_is_repaired() -> None:
    async with stage_of(Strategy.DRAIN) as stage, server_of(stage) as server:
        sdk = Sdk(stage, server)

        async def act() -> str:
            report = await stage.service.check(upgrade_of(stage))
            assert report.plan is not None
            second = report.plan.nodes[1].name
            options = stage.settings.nodes_path / stage.cluster.id / second / "config" / "jvm.options.d" / "bad.options"
            await write_options(options, "-XX:+NoSuchFlagAtAll\n")
            await sdk.upgrade()
            assert await followed(stage, sdk) == "FAILED"
            await failed_rightly(stage, server, sdk, second)
            assert await settings_of(stage) == NOTHING_LEFT
            await asyncio.to_thread(options.unlink)
            await sdk.retry()
            await sdk.retry()
            assert (await sdk.detail()).execute_times == "2", "sent twice, it went on once"
            return await followed(stage, sdk)

        seen = await under_load(stage, act, say)
        assert_served(seen)
        await sdk.idle()
        assert await settings_of(stage) == NOTHING_LEFT
        task = (await stage.service.tasks(stage.cluster.id)).items[0]
        assert task.bytes_moved > 0, "draining moves data"
        effects = effects_of(stage)
        assert all(effects[node.name, "stop"] == 1 for node in stage.cluster.nodes)


async def write_options(path: Path, text: str) -> None:
    def write() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)

    await asyncio.to_thread(write)


async def failed_rightly(stage: Stage, server: Server, sdk: Sdk, node: str) -> None:
    """FAILED at the right sub-step, evidence in desc, the log's last lines in the native answer."""
    task = await sdk.detail()
    assert task.current_node_name == node
    row = task.current_node_detail[10]
    assert (row.name, row.status) == ("Node start", "FAILED")
    assert "retry" in row.desc
    assert [one.status for one in task.current_node_detail[:10]] == ["SUCCESS"] * 10
    keys = read_credentials(stage.settings.credentials_path)
    async with httpx.AsyncClient(base_url=await server.url(), headers={"X-Auth-Token": keys.token}) as client:
        native = (await client.get(f"/api/v1/tasks/{task.id}")).json()
    (failed,) = [step for step in native["steps"] if step["status"] == "FAILED"]
    assert failed["node"] == node
    assert any("NoSuchFlagAtAll" in line for line in failed["evidence"]["log"])
