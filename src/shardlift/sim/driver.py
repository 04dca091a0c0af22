"""The hosts of a simulated cluster. Every real change is noted in `World.effects`, repeated calls are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shardlift.driver.protocol import Backup, ProcessSeen, Restored, Stopped
from shardlift.errors import DriverError
from shardlift.model import Image, Node, PluginSeen
from shardlift.sim.build import extra_node
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.parts import SimNode, again
from shardlift.sim.world import World

_STOP_S = 0.3


class SimDriver:
    """Implements the driver protocol on the world's nodes."""

    def __init__(self, world: World, door: Door | None = None) -> None:
        self._world = world
        self._door = door or OpenDoor()
        self._ready: set[str] = set()

    async def prepare(self, image: Image) -> None:
        self._ready.add(image.id)

    async def image_ready(self, image: Image) -> bool:
        return image.id in self._ready

    async def java_problem(self, image: Image) -> str | None:
        del image
        return None

    async def allocate(self, count: int, taken: frozenset[str]) -> tuple[tuple[str, int, int], ...]:
        free = (f"127.77.0.{last}" for last in range(2, 255) if f"127.77.0.{last}" not in taken)
        return tuple((next(free), 9200, 9300) for _ in range(count))

    async def create(self, node: Node, image: Image, *, seeds: tuple[Node, ...], heap_mib: int) -> None:
        del heap_mib
        self._world.advance()
        known = self._world.nodes.get(node.name)
        if known is None:
            if node.name in {seed.name for seed in seeds} or not self._world.nodes:
                raise DriverError(f"the simulated world has no node {node.name}")
            known = extra_node(self._world, node, image)
            async with self._effect("create", known):
                self._world.nodes[node.name] = known
        elif not known.extra:
            known.image_id = image.id

    async def process(self, node: Node) -> ProcessSeen | None:
        self._world.advance()
        known = self._world.nodes.get(node.name)
        pid = None if known is None else known.pid
        return None if pid is None else ProcessSeen(pid, float(pid))

    async def start(self, node: Node, *, bootstrap: tuple[str, ...] = ()) -> ProcessSeen:
        del bootstrap
        mine = self._node(node)
        if mine.pid is None:
            async with self._effect("start", mine):
                self._world.start(mine)
        return ProcessSeen(mine.pid or 1, float(mine.pid or 1))

    async def stop(self, node: Node, *, timeout_s: float) -> Stopped:
        """A process that hangs does not hear SIGTERM: it is killed when its time is up."""
        mine = self._node(node)
        if mine.pid is None:
            return Stopped(already=True, killed=False, took_s=0)
        hung = mine.hung
        async with self._effect("stop", mine):
            self._world.stop(mine)
        took_s = timeout_s if hung else _STOP_S
        await self._world.clock.sleep(took_s)
        return Stopped(already=False, killed=hung, took_s=took_s)

    async def backup(self, node: Node, *, key: str) -> Backup:
        mine = self._node(node)
        if key not in mine.backups:
            async with self._effect("backup", mine):
                mine.backups.add(key)
        return Backup(digest="0" * 64, files=("opensearch.yml",), plugins=())

    async def current_image(self, node: Node) -> str | None:
        return self._node(node).image_id

    async def switch(self, node: Node, image: Image, *, key: str, fresh_data: bool) -> bool:
        mine = self._node(node)
        if mine.pid is not None:
            raise DriverError(f"{node.name} is running")
        changed = False
        if fresh_data and key not in mine.set_aside:
            async with self._effect("set aside", mine):
                mine.set_aside[key], mine.disk = mine.disk, {}
                mine.node_id = f"id-new-{self._world.new_number()}"
            changed = True
        if mine.image_id != image.id:
            async with self._effect("switch", mine):
                mine.image_id, mine.engine, mine.version = image.id, image.engine, image.version
            changed = True
        return changed

    async def hand_over(self, source: Node, target: Node, *, key: str) -> bool:
        giver, mine = self._node(source), self._node(target)
        if giver.pid is not None or mine.pid is not None:
            raise DriverError(f"{source.name} or {target.name} is running")
        if key in mine.taken_over:
            return False
        if mine.disk and key not in mine.set_aside:
            raise DriverError(f"the data folder of {target.name} is not empty")
        async with self._effect("hand over", mine):
            if mine.disk:
                mine.set_aside[again(key)] = mine.disk
            mine.disk, giver.disk = giver.disk, {}
            mine.node_id, giver.node_id = giver.node_id, f"id-new-{self._world.new_number()}"
            mine.taken_over.add(key)
        return True

    async def restore(self, node: Node, image: Image, *, key: str, zone: str | None = None) -> Restored:
        del image
        mine = self._node(node)
        if key not in mine.backups:
            raise DriverError(f"no backup {key} of {node.name}")
        already = key in mine.restored
        if not already:
            async with self._effect("restore", mine):
                mine.restored.add(key)
                mine.zone = zone or mine.zone
        return Restored(already=already, translated=(), kept=())

    async def plugins(self, node: Node) -> tuple[PluginSeen, ...]:
        del node
        return ()

    async def image_plugins(self, image: Image) -> tuple[PluginSeen, ...]:
        del image
        return ()

    async def discard(self, node: Node, *, key: str) -> None:
        mine = self._node(node)
        kept = [one for one in (key, again(key)) if mine.set_aside.get(one)]
        if kept:
            async with self._effect("discard", mine):
                mine.set_aside |= {one: {} for one in kept}

    async def log_tail(self, node: Node, lines: int = 40) -> tuple[str, ...]:
        return tuple(self._node(node).log[-lines:])

    async def delete(self, node: Node) -> None:
        self._world.advance()
        mine = self._world.nodes.get(node.name)
        if mine is None:
            return
        if mine.pid is not None:
            self._world.stop(mine)
        if mine.extra:
            async with self._effect("delete", mine):
                del self._world.nodes[node.name]

    def _node(self, node: Node) -> SimNode:
        self._world.advance()
        return self._world.nodes[node.name]

    @asynccontextmanager
    async def _effect(self, what: str, node: SimNode) -> AsyncIterator[None]:
        """Brackets one change of a host: what strikes, strikes before it or after it, never in the middle."""
        await self._door.before(f"host.{what}", node.name, effect=True)
        with self._world.changing():
            self._world.effects.append((what, node.name))
            yield
        await self._door.after(f"host.{what}", node.name, effect=True)
