"""Copies leave a node as fast as the nodes bear: the engines' limit of recoveries is raised meanwhile, and put back.

The engines let 40 MB a second through on each node, also where the machines are idle. What is raised stands in the
ledger before it is set, and is put back at the end of the sub-step, so that a task that rests holds nothing up; after
a failure or an end on request with all other settings, after a crash by whoever goes on. None of this is needed for
the move itself: a cluster that does not let us read or set the limit is emptied at its own pace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from shardlift.errors import EngineError
from shardlift.model import Gates, NodeSeen
from shardlift.planner import (
    RECOVERY_LIMIT,
    Load,
    LoadSeen,
    base_limit_bytes,
    judge_load,
    limit_text,
    next_limit_bytes,
)
from shardlift.steps.context import READING_REST, Outcome, StepContext

_log = structlog.get_logger(__name__)
# A load average of a minute follows slowly; a limit that changes more often than its effect can be seen overshoots.
_LOOK_S = 10.0
_REFUSALS = frozenset({400, 401, 403})
_AT_REST = LoadSeen(Load.ALARM, "nothing moves")
_THEIRS = "somebody else has changed it"


async def paced(ctx: StepContext, work: Callable[[StepContext], Awaitable[Outcome]]) -> Outcome:
    """Does the work with the limit raised as far as the nodes bear it, and puts it back after.

    Not after an error: whoever gets that puts back everything, or begins the work again.
    """
    if ctx.settings.recovery_raise_max == 1:
        # It may have been more when a process before this one had raised the limit.
        await ctx.ledger.set_limit(RECOVERY_LIMIT, None, known=None)
        return await work(ctx)
    speed = _Speed(ctx)
    done = await work(replace(ctx, pace=speed.look, report=speed.report))
    await ctx.ledger.set_limit(RECOVERY_LIMIT, None, known=speed.known)
    return Outcome(done.desc, {**done.evidence, **speed.evidence()})


@dataclass(slots=True)
class _Speed:
    """What is remembered from look to look. After a crash it begins anew, with what stood there before us.

    `known`: the one value that stands there if nobody else has changed it; None: what the ledger says. `why`: why the
    limit is left alone; `held_back`: why it is not higher. Bytes per second.
    """

    ctx: StepContext
    known: tuple[str | None] | None = None
    before: str | None = None
    base_bytes: int = 0
    present_bytes: int = 0
    highest_bytes: int = 0
    why: str = ""
    held_back: str = ""
    begun: bool = False
    seen: tuple[NodeSeen, ...] = ()
    look_at_s: float = 0.0

    async def look(self, moving: bool) -> None:
        """Reads the load and sets the limit by it, unless the last look is not long ago, or reading is dear."""
        begun_s = self.ctx.clock.elapsed_s()
        if self.why or begun_s < self.look_at_s:
            return
        try:
            if self.begun or await self._begin():
                await self._set(moving=moving)
        except EngineError as error:
            # What was asked for may have been done, or not. So it begins anew: with what was there before.
            self.begun, self.known = False, None
            if error.status in _REFUSALS:
                self.why = f"the cluster refuses to have it changed: {error.message}"
            _log.info("recovery limit is left for now", task=self.ctx.task_id, error=error.message)
        now_s = self.ctx.clock.elapsed_s()
        self.look_at_s = now_s + max(_LOOK_S, READING_REST * (now_s - begun_s))

    async def report(self, progress: Mapping[str, object]) -> None:
        """The progress of the work, with the limit in force."""
        await self.ctx.report({**progress, **self._in_force()})

    def evidence(self) -> dict[str, object]:
        """What the journal keeps: only what was changed, or why nothing was."""
        told: dict[str, object] = {"recovery_limit_left": self.why} if self.why else {}
        if self.highest_bytes > self.base_bytes:
            told["recovery_limit_before_bytes_per_s"] = self.base_bytes
            told["recovery_limit_raised_to_bytes_per_s"] = self.highest_bytes
        return told

    def _in_force(self) -> dict[str, object]:
        if self.why:
            return {"recovery_limit_left": self.why}
        if not self.begun:
            return {}
        told: dict[str, object] = {"recovery_limit_bytes_per_s": self.present_bytes}
        return told | ({"recovery_limit_held_back": self.held_back} if self.held_back else {})

    async def _begin(self) -> bool:
        """Finds out what limit stands there. Returns False when it is to be left alone."""
        ledger, engine = self.ctx.ledger, self.ctx.engine
        ours = await ledger.set_limit(RECOVERY_LIMIT, None, known=None)
        if not ours or await ledger.limit_disputed(RECOVERY_LIMIT):
            self.why = _THEIRS
            return False
        settings = await engine.settings(defaults=True)
        self.before = settings.transient.get(RECOVERY_LIMIT, settings.persistent.get(RECOVERY_LIMIT))
        configured = {} if self.before is not None else await engine.configured(RECOVERY_LIMIT)
        nodes = () if self.before is not None else await engine.nodes()
        base_bytes = base_limit_bytes(self.before, configured, settings.defaults.get(RECOVERY_LIMIT), nodes)
        if base_bytes is None:
            self.why = "there is no limit, or not one for all nodes"
            return False
        self.known, self.seen, self.begun = (self.before,), (), True
        self.base_bytes = self.present_bytes = base_bytes
        return True

    async def _set(self, *, moving: bool) -> None:
        found = await self._load() if moving else _AT_REST
        factor = self.ctx.settings.recovery_raise_max
        wanted_bytes = next_limit_bytes(self.base_bytes, self.present_bytes, found.load, factor)
        self.held_back = found.why
        if wanted_bytes == self.present_bytes == self.base_bytes:
            return  # nothing of ours stands there
        value = None if wanted_bytes == self.base_bytes else limit_text(wanted_bytes)
        if not await self.ctx.ledger.set_limit(RECOVERY_LIMIT, value, known=self.known):
            self.why = _THEIRS
            return
        self.known = (self.before if value is None else value,)
        self.present_bytes = wanted_bytes
        self.highest_bytes = max(self.highest_bytes, wanted_bytes)

    async def _load(self) -> LoadSeen:
        """What the nodes bear since the last look. Nobody can tell where the cluster does not answer."""
        try:
            seen = await self.ctx.engine.nodes_with_load()
        except EngineError:
            seen = ()
        gates = (await self.ctx.control()).policy.gates or Gates()
        found = judge_load(self.seen, seen, gates)
        self.seen = seen
        return found
