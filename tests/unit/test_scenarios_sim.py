"""The scenarios of `tests.scenarios` on the simulator; `tests/engine/test_scenarios_real.py` has them on real nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from shardlift.executor import Event
from shardlift.sim import IndexSpec, sim_image
from tests import scenarios
from tests.stand import Stand
from tests.worlds import OLD, Lab, open_lab

VIRTUAL_TIME = True
_COPY_BYTES = 150 * 1024
_TARGETS = ("2.19.5", "3.4.0", "3.6.0")


class SimHands:
    """An operator of the simulated world."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._world = lab, lab.world

    async def create_index(self, name: str, node: str) -> None:
        bound = {"index.routing.allocation.include._name": node}
        self._world.create_index(IndexSpec(name, replicas=0, copy_bytes=_COPY_BYTES, settings=bound))

    async def put_index(self, name: str, settings: Mapping[str, str | None]) -> None:
        for key, value in settings.items():
            self._world.put_index_setting(name, key, value)

    async def delete_index(self, name: str) -> None:
        self._world.delete_index(name)

    async def spoil_start(self, node: str) -> None:
        self._world.nodes[node].starts = False

    async def mend_start(self, node: str) -> None:
        self._world.nodes[node].starts = True

    async def drive(self, observer: Callable[[Event], None]) -> None:
        await self._lab.drive(observer)


@asynccontextmanager
async def sim_stand(home: Path) -> AsyncIterator[Stand]:
    images = (OLD, *(sim_image(version) for version in _TARGETS))
    async with open_lab(home, indices=0, zones=("a", "b", "c"), images=images, drain_stalled_s=2, moves_max=1) as lab:
        backend = lab.service.backend
        engine = backend.engine(lab.cluster)
        yield Stand(lab.service, engine, backend.driver("sim"), lab.cluster.id, SimHands(lab))


async def test_in_place(fast_home: Path) -> None:
    async with sim_stand(fast_home) as stand:
        assert await scenarios.in_place(stand, "opensearch:2.19.5") == scenarios.IN_PLACE


async def test_drain_that_gets_stuck_and_a_node_that_does_not_start(fast_home: Path) -> None:
    async with sim_stand(fast_home) as stand:
        assert await scenarios.drain(stand, "opensearch:3.4.0") == scenarios.DRAIN


async def test_version_deadlock(fast_home: Path) -> None:
    async with sim_stand(fast_home) as stand:
        assert await scenarios.version_deadlock(stand, "opensearch:3.6.0") == scenarios.DEADLOCK
