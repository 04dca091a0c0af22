"""The documented rolling upgrade, as a plain script does it: what `make bench-upgrade` measures Shardlift against.

In place: allocation `primaries`, flush, stop, swap, start, wait until it has joined, allocation back, wait for green.
Drain: exclude the node by name, wait until it holds no shard, stop, swap on an empty disk, start, wait until it has
joined, end the exclusion, wait for green. Then the next node; the elected master comes last, as the guides say.
What is waited for is asked for once a second, unless told otherwise. The local driver stops, swaps and starts, as it
does for Shardlift.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.stage import Say
from shardlift.driver.protocol import Driver
from shardlift.errors import EngineError
from shardlift.model import Cluster, Image, Node, Strategy

POLL_S = 1.0
_WAIT_S = 900.0
_STUCK_S = 60.0
_KEY = "plain-script"


class StuckError(Exception):
    """The procedure waits for something that does not come about by itself."""


@dataclass
class PlainUpgrade:
    """One run of the script. `boots_s` and `bytes_moved` are filled as it goes. `poll_s`: how often it asks."""

    cluster: Cluster
    image: Image
    driver: Driver
    say: Say
    poll_s: float = POLL_S
    boots_s: float = 0.0
    _recovered: dict[str, int] = field(default_factory=dict)

    @property
    def bytes_moved(self) -> int:
        return sum(self._recovered.values())

    async def run(self, strategy: Strategy) -> str:
        """Upgrades all nodes; returns SUCCESS, or how it got stuck. Raises EngineError when a wait takes 15 minutes."""
        await self.driver.prepare(self.image)
        async with ClusterClient([node.url for node in self.cluster.nodes], deadline_s=120) as client:
            await self._green(client)
            await self._note_recoveries(client)
            for node in await self._elected_last(client):
                self.say(f"plain script: {node.name}")
                try:
                    await (self._in_place(client, node) if strategy is Strategy.IN_PLACE else self._drain(client, node))
                except StuckError as error:
                    return f"STUCK: {error}"
                await self._note_recoveries(client)
        return "SUCCESS"

    async def _in_place(self, client: ClusterClient, node: Node) -> None:
        await self._put_setting(client, "cluster.routing.allocation.enable", "primaries")
        await self._must(client, Call("POST", "/_flush"))
        await self._swap(client, node, fresh_data=False)
        await self._put_setting(client, "cluster.routing.allocation.enable", None)
        await self._green(client)

    async def _drain(self, client: ClusterClient, node: Node) -> None:
        await self._put_setting(client, "cluster.routing.allocation.exclude._name", node.name)

        still_since = time.monotonic()

        async def empty() -> bool:
            nonlocal still_since
            rows = await self._must(client, Call("GET", "/_cat/shards?format=json&h=node,state"))
            left = [row for row in rows if node.name in (row["node"] or "").split()]
            if any(row["state"] == "RELOCATING" for row in rows):
                still_since = time.monotonic()
            if left and time.monotonic() - still_since > _STUCK_S:
                # A replica cannot go to a node older than its primary's: without rebalancing held off, primaries
                # gather on the first upgraded node, and the replicas of the next one to be drained have nowhere to go.
                raise StuckError(
                    f"{len(left)} shard copies stay on {node.name}, and none has moved for {_STUCK_S:.0f} s"
                )
            return not left

        await self._until(f"{node.name} holds no shard", empty)
        await self._note_recoveries(client)
        await self._swap(client, node, fresh_data=True)
        await self._put_setting(client, "cluster.routing.allocation.exclude._name", None)
        await self._green(client)

    async def _swap(self, client: ClusterClient, node: Node, *, fresh_data: bool) -> None:
        await self.driver.backup(node, key=_KEY)
        await self.driver.stop(node, timeout_s=60)
        await self.driver.switch(node, self.image, key=_KEY, fresh_data=fresh_data)
        await self.driver.restore(node, self.image, key=_KEY)
        begin = time.monotonic()
        await self.driver.start(node)

        async def answers() -> bool:
            return (await client.ask(node.url, Call("GET", "/_nodes/_local"))).ok

        await self._until(f"{node.name} answers", answers)
        self.boots_s += time.monotonic() - begin

        async def joined() -> bool:
            known = (await self._must(client, Call("GET", "/_nodes?filter_path=nodes.*.name,nodes.*.version")))["nodes"]
            version = str(self.image.version)
            return any(seen["name"] == node.name and seen["version"] == version for seen in known.values())

        await self._until(f"{node.name} has joined", joined)

    async def _green(self, client: ClusterClient) -> None:
        async def green() -> bool:
            health = await self._must(client, Call("GET", "/_cluster/health"))
            return health["status"] == "green" and not health["relocating_shards"]

        await self._until("the cluster is green", green)

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + _WAIT_S
        while not await holds():
            if time.monotonic() > end:
                raise EngineError(f"the plain script waited {_WAIT_S:.0f} s in vain until {what}")
            await asyncio.sleep(self.poll_s)

    async def _elected_last(self, client: ClusterClient) -> list[Node]:
        master = (await self._must(client, Call("GET", "/_cat/master?format=json")))[0]["node"]
        return sorted(self.cluster.nodes, key=lambda node: node.name == master)

    async def _put_setting(self, client: ClusterClient, key: str, value: str | None) -> None:
        body = json.dumps({"persistent": {key: value}}).encode()
        await self._must(client, Call("PUT", "/_cluster/settings", body))

    async def _note_recoveries(self, client: ClusterClient) -> None:
        """Adds the bytes that peer recoveries sent, each recovery once: those of copies that moved on are forgotten."""
        for index, seen in (await self._must(client, Call("GET", "/_recovery"))).items():
            for shard in seen["shards"]:
                if shard["type"] == "PEER":
                    key = f"{index}/{shard['id']}/{shard['target']['name']}/{shard['start_time_in_millis']}"
                    self._recovered[key] = int(shard["index"]["size"]["recovered_in_bytes"])

    async def _must(self, client: ClusterClient, call: Call) -> Any:
        outcome = await client.call(call)
        if not outcome.ok:
            raise EngineError(f"the plain script cannot go on: {call.method} {call.path}: {outcome}")
        return outcome.body
