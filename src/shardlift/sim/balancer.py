"""The load balancer of a simulated cluster."""

from __future__ import annotations

from shardlift.errors import HookError
from shardlift.model import Node
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.world import World

_POOL = "nodes"


class SimBalancer:
    """Leads clients to every node but those in `World.led_away`."""

    def __init__(self, world: World, door: Door | None = None) -> None:
        self._world = world
        self._door = door or OpenDoor()

    async def pools(self, node: Node) -> tuple[str, ...] | None:
        return () if node.name in self._world.led_away else (_POOL,)

    async def remove(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        if node.name not in self._world.led_away:
            await self._door.before("balancer.remove", node.name, effect=True)
            if not set(self._world.nodes) - self._world.led_away - {node.name}:
                raise HookError(f"{node.name} is the last node that clients are led to")
            self._world.led_away.add(node.name)
            await self._door.after("balancer.remove", node.name, effect=True)
        return "the simulated balancer leads no clients to it"

    async def put_back(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        if node.name in self._world.led_away:
            await self._door.before("balancer.put_back", node.name, effect=True)
            self._world.led_away.discard(node.name)
            await self._door.after("balancer.put_back", node.name, effect=True)
        return "the simulated balancer leads clients to it"

    async def sessions(self, node: Node) -> int | None:
        return int(node.name not in self._world.led_away)
