"""Leases on clusters: who may take one over, and by whose clock."""

from __future__ import annotations

from pathlib import Path

from shardlift.chaos.time import VirtualClock
from shardlift.store import Lease, Leases
from tests.worlds import Lab, open_lab

VIRTUAL_TIME = True
LEASE_S = 8


async def held(lab: Lab) -> tuple[Leases, Lease, Leases, VirtualClock]:
    """A cluster with work whose lease is held; another process that would take it, and that one's clock."""
    await lab.submit()
    holder, _ = leases_of(lab, "holder")
    lease = await holder.claim(lab.cluster.id)
    assert lease is not None
    return holder, lease, *leases_of(lab, "other")


def leases_of(lab: Lab, owner: str) -> tuple[Leases, VirtualClock]:
    """A process of its own, with a wall clock of its own."""
    clock = VirtualClock()
    return Leases(lab.service.store.database, clock, owner, LEASE_S), clock


async def test_a_wall_clock_that_jumps_frees_no_lease(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        holder, lease, other, clock = await held(lab)
        clock.jump_s = 86_400
        for _ in range(10):
            assert await other.claimable() == ()
            assert await other.claim(lab.cluster.id) is None
            await lab.clock.sleep(2)
            await holder.renew(lease)
            lease.check()


async def test_a_lease_that_is_not_renewed_is_taken_over_after_its_length(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        holder, lease, other, clock = await held(lab)
        clock.jump_s = -3600  # behind the holder's: the row's own time would keep it for an hour
        assert await other.claimable() == ()
        await lab.clock.sleep(LEASE_S - 1)
        assert await other.claimable() == ()
        await lab.clock.sleep(1)
        assert await other.claimable() == (lab.cluster.id,)
        taken = await other.claim(lab.cluster.id)
        assert taken is not None
        assert taken.epoch == lease.epoch + 1
        await holder.renew(lease)
        assert lease.lost


async def test_a_lease_given_back_is_free_at_once(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        holder, lease, other, _ = await held(lab)
        assert await other.claimable() == ()
        await holder.release(lease)
        assert await other.claimable() == (lab.cluster.id,)
        assert await other.claim(lab.cluster.id) is not None
