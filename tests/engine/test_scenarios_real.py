"""The scenarios of `tests.scenarios` on real nodes, one after the other on one cluster, since clusters boot slowly.

What is seen is held to the same words as what the simulator shows (tests/unit/test_scenarios_sim.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardlift.executor import Event
from tests import scenarios
from tests.engine.bad import index_settings, new_index
from tests.engine.cluster import real_cluster
from tests.engine.desk import Desk, desk_of, say
from tests.stand import Stand

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

_DOCUMENTS = 150


class RealHands:
    """An operator with the cluster's REST API and the hosts' files."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create_index(self, name: str, node: str) -> None:
        await self._desk.rest(*new_index(name, index__routing__allocation__include___name=node))
        await self._desk.fill(name, _DOCUMENTS)

    async def put_index(self, name: str, settings: Mapping[str, str | None]) -> None:
        await self._desk.rest(*index_settings(name, dict(settings)))

    async def delete_index(self, name: str) -> None:
        await self._desk.rest("DELETE", f"/{name}")

    async def spoil_start(self, node: str) -> None:
        def write(path: Path) -> None:
            path.parent.mkdir(exist_ok=True)
            path.write_text("-XX:+Nonsense\n")
            path.chmod(0o644)

        await asyncio.to_thread(write, self._options(node))

    async def mend_start(self, node: str) -> None:
        await asyncio.to_thread(self._options(node).unlink)

    async def drive(self, observer: Callable[[Event], None]) -> None:
        def told(event: Event) -> None:
            say(f"{event.node} {event.order} {event.what}")
            observer(event)

        await self._desk.drive(told)

    def _options(self, node: str) -> Path:
        real = self._desk.real
        return real.home / "nodes" / self._desk.cluster_id / node / "config" / "jvm.options.d" / "bad.options"


@asynccontextmanager
async def real_stand() -> AsyncIterator[Stand]:
    async with real_cluster("opensearch:2.19.4") as real, desk_of(real, drain_stalled_s=2, moves_max=1) as desk:
        yield Stand(desk.service, real.engine, real.driver, desk.cluster_id, RealHands(desk))


async def test_real_nodes_do_as_the_simulator_does() -> None:
    async with real_stand() as stand:
        assert await scenarios.in_place(stand, "opensearch:2.19.5") == scenarios.IN_PLACE
        assert await scenarios.drain(stand, "opensearch:3.4.0") == scenarios.DRAIN
        assert await scenarios.version_deadlock(stand, "opensearch:3.6.0") == scenarios.DEADLOCK
