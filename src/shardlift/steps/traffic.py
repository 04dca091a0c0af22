"""Sub-step 3 and the end of sub-step 11: clients are led away from a node and back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardlift.errors import HookError
from shardlift.model import Leftovers, TrafficHook
from shardlift.steps.context import AbortedError, Outcome, StepContext, StepFailedError

# A request that was on its way when the balancer was told may arrive just after a look.
_QUIET_LOOKS = 2


async def traffic_removal(ctx: StepContext) -> Outcome:
    """Takes the node out of the balancer and waits, within a bound, until no request is in flight on it."""
    hook = ctx.traffic.hook
    if ctx.traffic.unreadable is not None:
        raise StepFailedError(
            f"the traffic hook cannot be used, so the node is not stopped: {ctx.traffic.unreadable}",
            remedy="mend that, or set the hook again with `shardlift cluster hook`, then retry",
        )
    if hook is None:
        in_flight = await ctx.engine.in_flight(ctx.node.name)
        told = "an unknown number of" if in_flight is None else str(in_flight)
        return Outcome(
            f"No traffic hook is configured: clients retry on another node. {told} requests are in flight on it.",
            {"in_flight": in_flight},
        )
    if not hook.leads_to(ctx.node):
        return Outcome(f"Not needed: the traffic hook is not for nodes of type {ctx.node.instance_type}.")
    await ctx.report({"waiting_for": f"the traffic hook ({hook.kind}) to lead clients away"})
    try:
        told, pools = await ctx.traffic.take_out(ctx.node)
    except HookError as error:
        raise StepFailedError(
            f"clients could not be led away from the node, so it is not stopped: {error.message}",
            evidence={"hook": str(hook.kind)},
            remedy=error.remedy,
        ) from None
    evidence: dict[str, object] = {"hook": str(hook.kind), "hook_said": told}
    if pools is not None:
        evidence["pools"] = list(pools)
    if await ctx.driver.process(ctx.node) is None:
        return Outcome(f"Clients are led away: {told}. The node is down, so nothing is in flight.", evidence)
    return await _quiet(ctx, hook, told, evidence)


async def _quiet(ctx: StepContext, hook: TrafficHook, told: str, evidence: dict[str, object]) -> Outcome:
    begun_s, quiet, seen = ctx.clock.elapsed_s(), 0, _InFlight(None, None)
    async for _ in ctx.rounds(hook.in_flight_timeout_s):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end before the node was stopped")
        seen = _InFlight(await ctx.engine.in_flight(ctx.node.name), await _sessions(ctx))
        quiet = quiet + 1 if seen.none else 0
        if quiet >= _QUIET_LOOKS:
            waited_s = ctx.clock.elapsed_s() - begun_s
            more = {**seen.evidence, "waited_s": round(waited_s, 3)}
            return Outcome(
                f"Clients are led away: {told}. Nothing is in flight after {waited_s:.1f} s.", evidence | more
            )
        await ctx.report({"waiting_for": f"requests in flight to end: {seen}", **seen.evidence})
    evidence |= {**seen.evidence, "waited_s": round(ctx.clock.elapsed_s() - begun_s, 3)}
    late = f"after {hook.in_flight_timeout_s:.0f} s still in flight: {seen}"
    if hook.leftovers is Leftovers.GO_ON:
        return Outcome(f"Clients are led away: {told}. Noted: {late}; it goes on, as the hook says.", evidence)
    raise StepFailedError(
        f"{late}, so the node is not stopped",
        evidence=evidence,
        remedy="see which (GET _tasks?actions=indices:data/*&detailed), end them or give them more time, then retry",
    )


@dataclass(frozen=True, slots=True)
class _InFlight:
    """Requests that the node works on, and those that the balancer has open for it; None where nobody can tell."""

    requests: int | None
    sessions: int | None

    @property
    def none(self) -> bool:
        return self.requests == 0 and not self.sessions

    @property
    def evidence(self) -> Mapping[str, object]:
        known = {} if self.sessions is None else {"balancer_sessions": self.sessions}
        return {"in_flight": self.requests, **known}

    def __str__(self) -> str:
        told = "an unknown number of" if self.requests is None else str(self.requests)
        known = "" if self.sessions is None else f", {self.sessions} sessions of the balancer"
        return f"{told} requests{known}"


async def _sessions(ctx: StepContext) -> int | None:
    """A balancer that does not answer now has not said that it is done: counts as one."""
    try:
        return await ctx.traffic.sessions(ctx.node)
    except HookError:
        return 1


async def traffic_return(ctx: StepContext) -> str | None:
    """Leads clients to the node again, if they were led away. Returns what was done. Raises StepFailedError."""
    try:
        return await ctx.traffic.bring_back(ctx.node)
    except HookError as error:
        raise StepFailedError(
            f"the node is back, but clients could not be led to it: {error.message}", remedy=error.remedy
        ) from None
