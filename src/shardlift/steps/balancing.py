"""Who is out of the balancer because of us, and how they get back.

A node that is taken out is a row in the ledger, written before it is done. It comes back with its node, with the end of
the task, or, after a crash, by whoever takes over; never while it is down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from shardlift.clock import Clock
from shardlift.engine.protocol import Engine
from shardlift.errors import HookError
from shardlift.model import Cluster, Node, TrafficHook
from shardlift.store import Journal, SettingChange
from shardlift.store.hooks import TRAFFIC
from shardlift.traffic import Balancer

T = TypeVar("T")

_TRIES = 3
_PAUSE_S = 0.5


@dataclass(slots=True)
class Traffic:
    """The balancer of one cluster under one lease. `hook` None: the cluster has none.

    `unreadable`: it has one, and this is why it cannot be used. `task_id`: as in the ledger.
    """

    cluster: Cluster
    hook: TrafficHook | None
    balancer: Balancer | None
    journal: Journal
    engine: Engine
    clock: Clock
    task_id: str
    unreadable: str | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take_out(self, node: Node) -> tuple[str, tuple[str, ...] | None]:
        """What was done, in words, and the pools that the node has left; () when others had taken it out before.

        Does the same again when it was done before. One node at a time, since others must be left to serve.
        """
        balancer = self._known()
        async with self._turn:
            held = await self._held(node.name)
            if held is not None:
                pools = _pools(held)
            else:
                pools = await self._tried(lambda: balancer.pools(node))
                if pools == ():
                    return "it led no clients to the node before", pools
                before = None if pools is None else ",".join(pools)
                await self.journal.add_change(self.task_id, TRAFFIC, layer="", key="", before=before, ours=node.name)
            return await self._tried(lambda: balancer.remove(node, pools)), pools

    async def bring_back(self, node: Node) -> str | None:
        """Puts the node back if it was taken out by us; what was done, in words. Raises HookError."""
        held = await self._held(node.name)
        if held is None:
            return None
        balancer = self._known()
        told = await self._tried(lambda: balancer.put_back(node, _pools(held)))
        for change in await self._open():
            if change.ours == node.name:
                await self.journal.change_restored(change.id, told)
        return told

    async def restore(self) -> tuple[str, ...]:
        """Puts back every node that is up. A line for each that stays out, and in the ledger, to be tried again.

        Raises EngineError when nobody can tell which nodes are up.
        """
        changes = await self._open()
        if not changes:
            return ()
        if self.unreadable is not None:
            return (f"nodes are out of the balancer, and the traffic hook cannot be used: {self.unreadable}",)
        if self.balancer is None:
            return await self._forgotten(changes)
        notes, members = [], {member.name for member in await self.engine.nodes()}
        for name in dict.fromkeys(change.ours for change in changes):
            node = next((one for one in self.cluster.nodes if one.name == name), None)
            if node is None or name not in members or not await self.engine.answers(name):
                notes.append(f"{name} is not up, and stays out of the balancer until it is")
                continue
            try:
                await self.bring_back(node)
            except HookError as error:
                notes.append(f"{name} is not back in the balancer yet ({error.message}); it is tried again")
        return tuple(notes)

    async def sessions(self, node: Node) -> int | None:
        return await self._known().sessions(node)

    async def _forgotten(self, changes: tuple[SettingChange, ...]) -> tuple[str, ...]:
        """The hook was taken away meanwhile, by somebody who was told which nodes it had left out."""
        for change in changes:
            self.journal.lease.check()
            await self.journal.change_restored(change.id, "the cluster has no traffic hook any more")
        return ()

    async def _tried(self, act: Callable[[], Awaitable[T]]) -> T:
        """A few times: a balancer that reloads its configuration is back within a second."""
        for _ in range(_TRIES - 1):
            self.journal.lease.check()
            try:
                return await act()
            except HookError:
                await self.clock.sleep(_PAUSE_S)
        self.journal.lease.check()
        return await act()

    def _known(self) -> Balancer:
        if self.balancer is None:
            raise HookError("the cluster has no traffic hook", remedy="set one with `shardlift cluster hook`")
        return self.balancer

    async def _held(self, name: str) -> SettingChange | None:
        return next((change for change in await self._open() if change.ours == name), None)

    async def _open(self) -> tuple[SettingChange, ...]:
        return tuple(change for change in await self.journal.open_changes() if change.kind == TRAFFIC)


def _pools(change: SettingChange) -> tuple[str, ...] | None:
    return None if change.before is None else tuple(change.before.split(","))
