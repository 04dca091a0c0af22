"""The local driver with a real engine: one node from 2.19.4 to 3.4.0 on its own data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from shardlift.driver import addresses
from shardlift.driver.local import LocalDriver
from shardlift.images import Catalogue, ImageStore
from shardlift.model import InstanceType, Node
from shardlift.settings import Settings
from tests.driver_fakes import open_home

pytestmark = pytest.mark.engine

_BOOT_TIMEOUT_S = 240
_STARTER = """
import asyncio, pickle, sys
from shardlift.driver.local import LocalDriver
from shardlift.images import ImageStore
settings, node = pickle.load(sys.stdin.buffer)
print("go", flush=True)
asyncio.run(LocalDriver(settings, ImageStore(settings.images_path)).start(node, bootstrap=(node.name,)))
"""


class Lab:
    """A home with a driver and one node."""

    def __init__(self, home: Path, endpoint: addresses.Endpoint) -> None:
        self.settings = Settings(home=home, heap_mib=512)
        self.images = Catalogue(self.settings.images_path)
        self.store = ImageStore(self.settings.images_path)
        self.driver = LocalDriver(self.settings, self.store)
        self.source = self.images.find("opensearch:2.19.4")
        self.target = self.images.find("opensearch:3.4.0")
        address, http_port, transport_port = endpoint
        self.node = Node(
            id="id-1",
            cluster_id="cluster-1",
            name="real-1",
            instance_type=InstanceType.ESS,
            roles=(),
            zone="zone-a",
            address=address,
            http_port=http_port,
            transport_port=transport_port,
            image_id=self.source.id,
        )
        self.root = home / "nodes" / "cluster-1" / "real-1"

    async def answer(self, path: str) -> dict[str, object]:
        """The node's answer once it gives one; fails at once when its process ends instead."""
        deadline = time.monotonic() + _BOOT_TIMEOUT_S
        async with httpx.AsyncClient(base_url=self.node.url, timeout=10) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    found = await client.get(path)
                    if found.status_code == 200:
                        return dict(found.json())
                if await self.driver.process(self.node) is None:
                    raise AssertionError("\n".join(await self.driver.log_tail(self.node)))
                await asyncio.sleep(0.2)
        raise AssertionError(f"no answer within {_BOOT_TIMEOUT_S} s")

    async def until_gone(self) -> None:
        seen = await self.driver.process(self.node)
        if seen is not None:
            await asyncio.to_thread(psutil.wait_procs, [psutil.Process(seen.pid)], timeout=_BOOT_TIMEOUT_S)
        assert await self.driver.process(self.node) is None

    def effects(self, name: str) -> int:
        lines = (self.root / "host.log").read_text().splitlines()
        return sum(json.loads(line)["effect"] == name for line in lines)

    def version_of(self, answer: dict[str, object]) -> object:
        version = answer["version"]
        assert isinstance(version, dict)
        return version["number"]

    def lives(self, pid: int) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False

    def start_and_kill(self) -> None:
        """Another process begins to start the node and is killed in the midst of it."""
        starter = subprocess.Popen([sys.executable, "-c", _STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert starter.stdin is not None
        assert starter.stdout is not None
        starter.stdin.write(pickle.dumps((self.settings, self.node)))
        starter.stdin.close()
        assert starter.stdout.readline() == b"go\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            starter.wait(0.15)
        starter.kill()
        starter.wait()
        starter.stdout.close()


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    with open_home() as home:
        made = Lab(home, (await allocated(home)))
        try:
            yield made
        finally:
            await made.driver.delete(made.node)


async def allocated(home: Path) -> addresses.Endpoint:
    return (await asyncio.to_thread(addresses.allocate, home, 1, set()))[0]


async def test_a_real_node_through_its_life() -> None:
    async with lab() as it:
        driver, node = it.driver, it.node
        assert await driver.java_problem(it.source) is None
        await driver.prepare(it.source)
        await driver.create(node, it.source, seeds=(node,), heap_mib=512)

        # Started once, though the first who starts it is killed and others try at the same time.
        await asyncio.to_thread(it.start_and_kill)
        seen = await asyncio.gather(*(driver.start(node, bootstrap=(node.name,)) for _ in range(3)))
        assert len(set(seen)) == 1
        assert it.effects("start") == 1
        assert it.version_of(await it.answer("/")) == "2.19.4"
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            written = await client.put("/docs/_doc/1?refresh=true", json={"word": "kept"})
            assert written.status_code == 201
        assert await driver.process(node) == seen[0]

        # To 3.4.0 on the same data.
        await driver.prepare(it.target)
        assert "opensearch.yml" in (await driver.backup(node, key="task-1")).files
        stopped = await driver.stop(node, timeout_s=60)
        assert (stopped.already, stopped.killed) == (False, False)
        assert await driver.switch(node, it.target, key="task-1", fresh_data=False)
        assert "opensearch.keystore" in (await driver.restore(node, it.target, key="task-1")).kept
        assert await driver.current_image(node) == it.target.id
        await driver.start(node)
        assert it.version_of(await it.answer("/")) == "3.4.0"
        assert (await it.answer("/docs/_doc/1"))["_source"] == {"word": "kept"}

        # A bad option ends the engine, and the log says why.
        await driver.stop(node, timeout_s=60)
        bad = it.root / "config" / "jvm.options.d" / "bad.options"
        bad.write_text("-XX:+UseMagicGC\n")
        bad.chmod(0o644)
        await driver.start(node)
        await it.until_gone()
        assert any("UseMagicGC" in line for line in await driver.log_tail(node))

        # Repaired, it comes up again; deleted, nothing is left.
        bad.unlink()
        last = await driver.start(node)
        await it.answer("/")
        await driver.delete(node)
        assert not it.lives(last.pid)
        assert list((it.root.parent.parent).iterdir()) == []
