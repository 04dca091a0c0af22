"""After the last node: waiting until shards have come to rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from shardlift.chaos.time import VirtualClock
from shardlift.engine.protocol import Engine
from shardlift.model import HealthSeen
from shardlift.steps import Ledger, settle_cluster
from tests.observations import seen

VIRTUAL_TIME = True


class Nothing:
    """A ledger with nothing to put back."""

    async def restore(self) -> tuple[str, ...]:
        return ()


@dataclass
class Balancing:
    """An engine that balances in rounds of three seconds; a wait ends where one round has ended, or in time."""

    clock: VirtualClock
    rounds: int
    waits: list[float] = field(default_factory=list)

    async def health(self, *, wait_settled: bool, timeout_s: float) -> HealthSeen:
        assert wait_settled
        self.waits.append(timeout_s)
        ends = self.rounds == 0 or timeout_s >= 3
        await self.clock.sleep(min(timeout_s, 3) if self.rounds else 0)
        # Every other request is told of the moment between two rounds.
        between = ends and len(self.waits) % 2 == 1
        self.rounds -= ends and self.rounds > 0
        relocating = 0 if between or not self.rounds else 2
        return replace(seen().health, relocating=relocating, timed_out=not ends)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 8])
async def test_a_moment_between_two_rounds_is_no_end(rounds: int) -> None:
    clock = VirtualClock()
    engine = Balancing(clock, rounds)
    await settle_cluster(cast("Ledger", Nothing()), cast("Engine", engine), clock, timeout_s=3600)
    assert engine.rounds == 0
    assert clock.elapsed_s() == pytest.approx(3 * rounds)


async def test_what_goes_on_for_long_is_left() -> None:
    clock = VirtualClock()
    engine = Balancing(clock, 1000)
    await settle_cluster(cast("Ledger", Nothing()), cast("Engine", engine), clock, timeout_s=60)
    assert clock.elapsed_s() == pytest.approx(60)
    assert max(engine.waits) <= 10
