"""How many copies a node takes back at once: a setting of the cluster, for the length of a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardlift.model import Strategy
from tests.worlds import Lab, open_lab

_RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"


async def in_force(lab: Lab, strategy: Strategy) -> set[str | None]:
    """Which values it had in the course of an upgrade; none of them stays."""
    before = dict(lab.world.persistent)
    await lab.submit(strategy)
    seen: set[str | None] = set()
    await lab.drive(lambda _event: seen.add(lab.world.persistent.get(_RECOVERIES)))
    assert lab.world.persistent == before
    return seen


@pytest.mark.parametrize("chosen", [None, "4"])
async def test_recoveries_in_place_are_raised_unless_somebody_chose(fast_home: Path, chosen: str | None) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.persistent.update({} if chosen is None else {_RECOVERIES: chosen})
        assert await in_force(lab, Strategy.IN_PLACE) == {chosen or "64"}


@pytest.mark.parametrize(("strategy", "at_once"), [(Strategy.SURGE, "64"), (Strategy.DRAIN, None)])
async def test_copies_return_where_a_spares_folder_is_taken_over(
    fast_home: Path, strategy: Strategy, at_once: str | None
) -> None:
    async with open_lab(fast_home) as lab:
        assert await in_force(lab, strategy) == {at_once}


async def test_fewer_recoveries_run_at_once_where_a_node_may_have_lost_its_disk(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.kill_node(lab.cluster.nodes[2].name)
        await lab.clock.sleep(200)
        assert await in_force(lab, Strategy.IN_PLACE) == {"8"}
