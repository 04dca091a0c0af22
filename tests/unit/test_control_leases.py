"""What happens to work under a lease that is kept, lost, or ended by its own holder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardlift.errors import FencedError
from tests.worlds import open_lab

VIRTUAL_TIME = True


async def test_work_under_a_lost_lease_is_stopped_and_says_so(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        leases = lab.service.leases
        lease = await leases.claim(lab.cluster.id)
        assert lease is not None
        await leases.reap("test:")
        other = await leases.claim(lab.cluster.id)
        assert other is not None
        with pytest.raises(FencedError, match="was lost"):
            async with leases.kept(lease, 2):
                await lab.clock.sleep(60)
        assert await leases.claim(lab.cluster.id) is None, "the other one's lease is left alone"


async def test_a_cancelled_holder_gives_the_lease_back_and_stays_cancelled(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        leases = lab.service.leases
        lease = await leases.claim(lab.cluster.id)
        assert lease is not None

        async def work() -> None:
            async with leases.kept(lease, 2):
                await lab.clock.sleep(3600)

        working = asyncio.create_task(work())
        await lab.clock.sleep(10)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await leases.claim(lab.cluster.id) is not None


async def test_who_removes_the_cluster_is_not_stopped_by_that(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        leases = lab.service.leases
        lease = await leases.claim(lab.cluster.id)
        assert lease is not None
        async with leases.kept(lease, 2):
            lease.over = True
            await lab.service.store.remove_cluster(lab.cluster.id)
            await lab.clock.sleep(10)
        assert lease.lost
