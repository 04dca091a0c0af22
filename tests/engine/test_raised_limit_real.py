"""On real nodes with nothing else to do copies leave a node faster than the cluster's limit, which is put back."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardlift.demo.load import load
from shardlift.model import Gates, Strategy
from shardlift.planner import RECOVERY_LIMIT, Load, judge_load
from shardlift.service.requests import UpgradeRequest
from tests.engine.moving import Moving, ess, moving, say

pytestmark = [pytest.mark.moves, pytest.mark.timeout(900)]

# A third of the data takes most of a minute at this rate: time for three looks at the load.
LIMIT, LIMIT_BYTES = "400kb", 400 * 1024
DOCUMENTS = 40_000
CALM_WITHIN_S, LOOK_S = 420.0, 5.0


async def calm(at: Moving) -> None:
    """Waits until no node is busy, as the control plane judges it: loading and booting go on in load averages."""
    engine = at.stage.service.backend.engine(at.stage.cluster)
    end_s = time.monotonic() + CALM_WITHIN_S
    before = await engine.nodes_with_load()
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            now = await engine.nodes_with_load()
            seen = judge_load(before, now, Gates())
            if seen.load is Load.CALM:
                return
            assert time.monotonic() < end_s, f"this machine has other work: after {CALM_WITHIN_S:.0f} s {seen.why}"
            before = now
    finally:
        await engine.close()


async def test_the_limit_is_raised_while_no_node_is_busy_and_put_back() -> None:
    async with moving(ess(3), zones=("zone-a",), settings={RECOVERY_LIMIT: LIMIT}) as at:
        await load(at.client, at.stage.target, DOCUMENTS)
        await calm(at)
        await at.stage.service.upgrade(UpgradeRequest(at.stage.cluster.id, at.stage.target.id, strategy=Strategy.DRAIN))
        seen: list[str] = []
        working = asyncio.create_task(at.drive())
        while not working.done():
            now = (await at.settings())["persistent"].get(RECOVERY_LIMIT, "")
            if not seen or seen[-1] != now:
                seen.append(now)
            await asyncio.wait({working}, timeout=0.5)
        task = await working
        say(f"limits that stood there: {', '.join(seen)}")
        first = task.steps[0]
        say(f"{first.evidence} in {first.end - first.begin if first.begin and first.end else None}")
        raised = first.evidence["recovery_limit_raised_to_bytes_per_s"]
        assert isinstance(raised, int)
        assert raised >= 2 * LIMIT_BYTES
        assert first.evidence["recovery_limit_before_bytes_per_s"] == LIMIT_BYTES
        assert {LIMIT, f"{2 * LIMIT_BYTES}b"} <= set(seen), seen
        assert (await at.settings())["persistent"] == {RECOVERY_LIMIT: LIMIT}
        moved, spent_s = first.evidence["bytes_moved"], (first.end - first.begin).total_seconds()  # type: ignore[operator]
        assert isinstance(moved, int)
        say(f"{moved:,} bytes in {spent_s:.1f} s: {moved / spent_s / LIMIT_BYTES:.2f} times the limit that stood there")
