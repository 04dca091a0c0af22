"""Between two nodes: whether the next one may be begun now, must wait, or must not be begun at all.

Here the task can rest for as long as anybody likes, because no node is half done.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardlift.checks.gates import gate_findings, gates_unknown
from shardlift.clock import Clock
from shardlift.engine.protocol import Engine
from shardlift.errors import EngineError
from shardlift.model import (
    Finding,
    Gates,
    Observation,
    OnBreach,
    Policy,
    Task,
    next_opening,
    open_at,
    paused_text,
)
from shardlift.steps.context import READING_REST, AbortedError, StepFailedError, SuspendedError
from shardlift.store import Journal

_PAUSE_LAST_S = 60.0


@dataclass(slots=True)
class Boundary:
    """What is asked before `node` is begun, in this order: abort, pause, window, gates.

    The policy is read at each look, since people may change it while the task goes on or waits.
    """

    task: Task
    journal: Journal
    engine: Engine
    clock: Clock
    interval_s: float
    told: str | None = None

    async def passed(self, node: str) -> None:
        """Returns once the node may be begun.

        Raises AbortedError, SuspendedError, and StepFailedError for a gate that is to fail the task.
        """
        gates = (await self._wishes()).gates
        if gates is None or not gates.limits:
            return
        began_s = self.clock.elapsed_s()
        before, pause_s = await self._read()
        while True:  # ends by the gates' own bound
            await self.clock.sleep(pause_s)
            gates = (await self._wishes()).gates
            if gates is None or not gates.limits:
                await self._tell(None)
                return
            now, pause_s = await self._read()
            findings = _closed(gates, before, now)
            if not findings:
                await self._tell(None)
                return
            await self._breached(node, gates, findings, self.clock.elapsed_s() - began_s)
            before = now

    async def _wishes(self) -> Policy:
        self.journal.lease.check()
        control = await self.journal.control(self.task.id)
        if control.aborting:
            raise AbortedError("the task was asked to end")
        if control.paused:
            raise SuspendedError(paused_text(self.task.id))
        windows, now = control.policy.windows, self.clock.now()
        if not open_at(windows, now):
            opens = next_opening(windows, now)
            named = " or ".join(str(window) for window in windows)
            raise SuspendedError(
                f"its maintenance window ({named}), which opens at {opens:%Y-%m-%d %H:%M} UTC; to go on before that, "
                f"`shardlift task policy {self.task.id} --no-windows`",
                hold_until=opens,
            )
        return control.policy

    async def _read(self) -> tuple[Observation | EngineError, float]:
        """What is seen now, or why nothing is; and how long to wait until the next reading."""
        begun_s = self.clock.elapsed_s()
        try:
            seen: Observation | EngineError = await self.engine.observe()
        except EngineError as error:
            seen = error
        took_s = self.clock.elapsed_s() - begun_s
        return seen, min(max(self.interval_s, READING_REST * took_s), _PAUSE_LAST_S)

    async def _breached(self, node: str, gates: Gates, findings: tuple[Finding, ...], waited_s: float) -> None:
        seen = "; ".join(f"{one.rule}: {one.subject}: {one.evidence}" for one in findings)
        if gates.on_breach is OnBreach.FAIL:
            raise StepFailedError(
                f"{len(findings)} gates are closed, so {node} is not begun",
                findings=findings,
                remedy="see what loads the cluster, then retry",
            )
        if gates.on_breach is OnBreach.PAUSE or waited_s >= gates.wait_timeout_s:
            waited = f" for {waited_s:.0f} s" if gates.on_breach is OnBreach.WAIT else ""
            raise SuspendedError(
                f"paused by its gates, closed{waited} ({seen}): put right what loads the cluster, then "
                f"`shardlift task resume {self.task.id}`",
                pause=True,
            )
        await self._tell(
            f"its gates ({seen}); it pauses after {gates.wait_timeout_s:.0f} s of that, and "
            f"`shardlift task policy {self.task.id} --no-gates` takes them away, `shardlift task abort {self.task.id}` "
            "ends it"
        )

    async def _tell(self, waiting_for: str | None) -> None:
        if waiting_for != self.told:
            self.told = waiting_for
            await self.journal.waiting(self.task.id, waiting_for)


def _closed(gates: Gates, before: Observation | EngineError, now: Observation | EngineError) -> tuple[Finding, ...]:
    for reading in (now, before):
        if isinstance(reading, EngineError):
            return gates_unknown(gates, reading.message)
    assert isinstance(before, Observation), "just looked at"
    assert isinstance(now, Observation), "just looked at"
    return gate_findings(before, now, gates)
