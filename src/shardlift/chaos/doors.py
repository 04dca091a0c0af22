"""What stands between a control plane and the simulated world: calls that fail, and points at which to die."""

from __future__ import annotations

import random

from shardlift.chaos.process import KilledError, Process
from shardlift.chaos.scenario import Rest
from shardlift.chaos.watch import Watch
from shardlift.errors import DriverError, EngineError

_TIMEOUT_S = 10.0
_BUSY = 429
_UNAVAILABLE = 503
_HOST = "host."


class TrialDoor:
    """The door of one process. `busy_until_s`: all calls to the cluster answer 429 or 503 until then."""

    def __init__(self, process: Process, watch: Watch, dice: random.Random, rest: Rest) -> None:
        self._process = process
        self._watch = watch
        self._dice = dice
        self._rest = rest
        self.busy_until_s = 0.0
        self._answer_lost = False

    async def before(self, call: str, where: str, *, effect: bool) -> None:
        """An effect is begun without a pause: between the look at the lease and the effect nothing may come."""
        self._alive()
        if effect:
            self._process.point(f"before {call} {where}")
        if call.startswith(_HOST):
            if effect and self._dice.random() < self._rest.host_failure:
                self._watch.note(f"host: {call} {where} fails")
                raise DriverError(f"{call} of {where} failed: input/output error")
        else:
            await self._engine_before(call, where)
        if effect:
            self._watch.effect(self._process, call, where)

    async def after(self, call: str, where: str, *, effect: bool) -> None:
        lost, self._answer_lost = self._answer_lost, False
        if effect:
            self._watch.done(call, where)
            self._process.point(f"after {call} {where}")
        self._alive()
        if lost:
            self._watch.note(f"rest: the answer to {call} {where} is lost")
            await self._process.clock.sleep(_TIMEOUT_S)
            self._alive()
            raise EngineError(f"{call}: no node could answer: no answer within {_TIMEOUT_S:.0f} s")

    async def _engine_before(self, call: str, where: str) -> None:
        now_s = self._process.clock.elapsed_s()
        if now_s < self.busy_until_s:
            status = self._dice.choice((_BUSY, _UNAVAILABLE))
            raise EngineError(f"{call}: no node could answer: {status}", status=status)
        fate = self._dice.random()
        if fate < self._rest.refused:
            raise EngineError(f"{call}: no node could answer: {_UNAVAILABLE}", status=_UNAVAILABLE)
        fate -= self._rest.refused
        if fate < self._rest.lost_request:
            self._watch.note(f"rest: {call} {where} is lost on its way")
            await self._process.clock.sleep(_TIMEOUT_S)
            self._alive()
            raise EngineError(f"{call}: no node could answer: no answer within {_TIMEOUT_S:.0f} s")
        self._answer_lost = fate - self._rest.lost_request < self._rest.lost_answer

    def _alive(self) -> None:
        if not self._process.alive:
            raise KilledError
