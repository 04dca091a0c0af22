"""Sub-steps 11 and 12: the node is back for good, and that is written down."""

from __future__ import annotations

import math
from contextlib import suppress

from shardlift.checks import unexplained_unassigned
from shardlift.errors import EngineError
from shardlift.model import SUB_STEPS, Health, NodeSeen, paused_text
from shardlift.steps.before import ALLOCATION_ENABLE
from shardlift.steps.context import Outcome, StepContext, StepFailedError, SuspendedError
from shardlift.steps.ledger import VOTING
from shardlift.steps.migration import EXCLUDE_ID, EXCLUDE_NAME
from shardlift.steps.spare import spare_done
from shardlift.steps.traffic import traffic_return

_LONG_POLL_S = 2.0
# How long another node may be missing from the member list before that is no passing moment any more: twice the
# engines' default of three failed 1 s checks, with some air.
_OTHERS_GONE_S = 10.0


async def cluster_rejoin(ctx: StepContext) -> Outcome:
    """Waits for the node as a NEW process of the right version, then gives it its shards back and lets them settle.

    A changed ephemeral id is what tells the new process from a stale entry of the old one; the number of members
    would be satisfied by any other node.
    """
    member = await _joined(ctx)
    notes = list(await ctx.ledger.restore(key=ALLOCATION_ENABLE))
    await ctx.ledger.restore(kind=VOTING)
    if ctx.plan.canary:
        await _approved(ctx, member)
    # The exclusion named the id of the old data path; with that gone, and before shards settle, it must go too. A
    # canary has one by name besides.
    notes += [*await ctx.ledger.restore(key=EXCLUDE_ID), *await ctx.ledger.restore(key=EXCLUDE_NAME)]
    status = await _settled(ctx)
    await ctx.count_recoveries()
    # Last: until shards have settled the node would answer from copies that are still on their way to it.
    led = await traffic_return(ctx)
    traffic = f" Clients are led to it: {led}." if led else ""
    noted = f" Note: {'; '.join(notes)}." if notes else ""
    return Outcome(
        f"The node is back as {member.engine} {member.version} in zone {member.zone}; the cluster is {status}."
        f"{traffic}{noted}",
        {
            "version": str(member.version),
            "ephemeral_id": member.ephemeral_id,
            "status": str(status),
            **({"hook_said": led} if led else {}),
        },
    )


async def _approved(ctx: StepContext, member: NodeSeen) -> None:
    """Waits until somebody says that the canary may take shards, or that the task is to end after this node.

    Without a bound: the node is back and was emptied before it left, so nothing is missed, however long it takes. What
    others change of the exclusion meanwhile is set again.
    """
    told = False
    async for _ in ctx.rounds(math.inf):
        control = await ctx.control()
        if control.approved or control.aborting:
            return
        if control.paused:
            raise SuspendedError(paused_text(ctx.task_id))
        if ctx.plan.drained:
            with suppress(EngineError):  # asked again in the next round
                await ctx.ledger.add_token(EXCLUDE_NAME, ctx.node.name)
        if not told:
            await ctx.report(
                {
                    "waiting_for": f"approval: `shardlift task approve {ctx.task_id}`; the canary is back as "
                    f"{member.engine} {member.version}, {await _holdings(ctx)}"
                }
            )
            told = True


async def _holdings(ctx: StepContext) -> str:
    """What the canary has of the cluster's data. One that a person started while its task had failed may have taken
    copies, which no older node may have back."""
    try:
        held = sum(copy.node == ctx.node.name for copy in await ctx.engine.shards())
    except EngineError:
        held = 0
    if not held:
        return "and takes no shards until then"
    return f"and takes no more shards until then; it holds {held}, taken when it was started while its task had failed"


async def _joined(ctx: StepContext) -> NodeSeen:
    old = ctx.earlier(1).get("ephemeral_id")
    await ctx.report({"waiting_for": "the node to join the cluster"})
    seen: NodeSeen | None = None
    async for _ in ctx.rounds(ctx.settings.rejoin_timeout_s):
        try:
            members = {member.name: member for member in await ctx.engine.nodes()}
        except EngineError:
            continue  # asked again until the bound
        seen = members.get(ctx.node.name)
        if seen is not None and seen.ephemeral_id != old:
            break
        if await ctx.driver.process(ctx.node) is None:
            raise StepFailedError(
                "the engine process ended before it joined the cluster",
                evidence={"log": list(await ctx.driver.log_tail(ctx.node))},
                remedy="mend what the log tells, start the node, then retry",
            )
    else:
        raise StepFailedError(
            f"the node did not join within {ctx.settings.rejoin_timeout_s:.0f} s",
            evidence={"log": list(await ctx.driver.log_tail(ctx.node))},
            remedy="see the log of the node and of the elected master, then retry",
        )
    if (seen.engine, seen.version) != (ctx.image.engine, ctx.image.version):
        raise StepFailedError(
            f"the node came back as {seen.engine} {seen.version}, not as {ctx.image.reference}",
            remedy="see which engine its folder links to, then retry",
        )
    if seen.zone != ctx.zone:
        raise StepFailedError(
            f"the node came back in zone {seen.zone}, not in {ctx.zone}",
            remedy="set node.attr.zone in its configuration, restart it, then retry",
        )
    return seen


async def _settled(ctx: StepContext) -> Health:
    """Waits for green, or for yellow in which every unassigned copy is explained by mixed versions."""
    gone_since_s: float | None = None
    why = "the cluster did not answer"
    async for _ in ctx.rounds(ctx.settings.rejoin_timeout_s):
        try:
            # Waiting for green itself: right after the join copies are unassigned, so nothing seems to move yet. Short,
            # because explained yellow never becomes green, and must be looked at.
            health = await ctx.engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=_LONG_POLL_S)
            members = await ctx.engine.nodes()
            missing = _missing(ctx, members)
            if missing:
                strangers = _strangers(ctx, missing)
                now_s = ctx.clock.elapsed_s()
                gone_since_s = (now_s if gone_since_s is None else gone_since_s) if strangers else None
                if gone_since_s is not None and now_s - gone_since_s >= _OTHERS_GONE_S:
                    _others_gone(ctx, strangers, health.status)
                continue
            gone_since_s = None
            if health.settled:
                if health.status is Health.GREEN:
                    return health.status
                unexplained = unexplained_unassigned(members, await ctx.engine.shards())
                if health.status is Health.YELLOW and not unexplained:
                    return health.status
                why = f"unassigned and not explained: {', '.join(f'{c.index}[{c.shard}]' for c in unexplained[:5])}"
            else:
                why = f"{health.initializing} copies initializing, {health.relocating} relocating"
            await ctx.report({"waiting_for": f"shards to settle: {why}", "shards_left": health.initializing})
        except EngineError as error:
            why = error.message
    raise StepFailedError(
        f"shards did not settle within {ctx.settings.rejoin_timeout_s:.0f} s: {why}",
        evidence={"why": why},
        remedy="GET _cluster/allocation/explain tells why; mend it, then retry",
    )


def _missing(ctx: StepContext, members: tuple[NodeSeen, ...]) -> tuple[str, ...]:
    seen = {member.name for member in members}
    return tuple(node.name for node in ctx.cluster.nodes if node.name not in seen)


def _strangers(ctx: StepContext, missing: tuple[str, ...]) -> tuple[str, ...]:
    """Those of them that are not away because they are taken, too."""
    return tuple(name for name in missing if name not in ctx.mates)


def _others_gone(ctx: StepContext, missing: tuple[str, ...], status: Health) -> None:
    raise StepFailedError(
        f"{', '.join(missing)} left the cluster while {ctx.node.name} was being upgraded",
        evidence={"missing": list(missing), "health": str(status)},
        remedy="bring it back, see its log for the cause, then retry",
    )


async def task_status_update(ctx: StepContext) -> Outcome:
    """Lets go of what was set aside for the way back: from here on the node counts as done."""
    if ctx.plan.fresh_data and (await ctx.engine.health()).status is Health.RED:
        raise StepFailedError(
            "the cluster is red, so the node's old data is not deleted",
            remedy="see which primaries are missing; the old data lies beside the node's data folder",
        )
    await spare_done(ctx)
    ctx.check_lease()
    await ctx.driver.discard(ctx.node, key=ctx.task_id)
    return Outcome(SUB_STEPS[12].desc)
