"""Bytes of recoveries are counted once each, whoever counts and whatever has failed in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardlift.errors import FencedError
from shardlift.model import Task
from shardlift.store import Journal
from tests.worlds import Lab, open_lab

VIRTUAL_TIME = True


async def _journal(lab: Lab) -> Journal:
    lease = await lab.service.leases.claim(lab.cluster.id)
    assert lease is not None
    return Journal(lab.service.store.database, lease)


async def _moved(lab: Lab, task: Task) -> int:
    return (await lab.task(task)).bytes_moved


async def test_each_recovery_counts_once_under_whichever_lease(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        first = await _journal(lab)
        await first.add_recoveries(task.id, [("a", 5)])
        await first.add_recoveries(task.id, [("a", 5), ("b", 3)])
        assert await _moved(lab, task) == 8
        await first.add_recoveries(task.id, [("a", 9), ("b", 2)])
        assert await _moved(lab, task) == 12, "the larger reading counts"
        await lab.service.leases.reap("test:")
        second = await _journal(lab)
        await second.add_recoveries(task.id, [("a", 9), ("b", 3), ("c", 1)])
        assert await _moved(lab, task) == 13
        with pytest.raises(FencedError):
            await first.add_recoveries(task.id, [("d", 1000)])
        assert await _moved(lab, task) == 13


async def test_what_was_not_written_is_not_counted(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        journal = await _journal(lab)
        await journal.add_recoveries(task.id, [("a", 5)])
        with pytest.raises(OverflowError):
            await journal.add_recoveries(task.id, [("b", 3), ("c", 2**70)])
        assert await _moved(lab, task) == 5
        await journal.add_recoveries(task.id, [("a", 5), ("b", 3)])
        assert await _moved(lab, task) == 8
