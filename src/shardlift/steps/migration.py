"""Sub-step 0: what must not be lost or missing leaves the node, and a drain that cannot end fails at once.

The end of a drain is told the way the engines' own shutdown status tells it (TransportGetShutdownStatusAction): copies
on the move are progress; a copy that may go nowhere is no obstacle when another started copy exists on a node that
stays; one without such a copy, twice seen and for a reason that does not pass by itself, is a stall.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardlift.model import SUB_STEPS, CopyState, Explanation, Finding, NodeSeen, Severity, ShardCopy
from shardlift.steps.context import AbortedError, Outcome, StepContext, StepFailedError

EXCLUDE_ID = "cluster.routing.allocation.exclude._id"
_LONG_POLL_S = 5.0
_EXPLAINED_MAX = 20
# Deciders whose no does not pass by itself; disk, throttling, snapshots and the like do.
_PERMANENT = frozenset(
    {"filter", "same_shard", "node_version", "awareness", "shards_limit", "enable", "tier", "data_tier"}
)


async def data_migration(ctx: StepContext) -> Outcome:
    """Excludes the node by its id and waits until no copy that matters is on it."""
    if not ctx.plan.drained:
        return Outcome("Not needed: the node keeps its data path, and every shard has a started copy on another node.")
    member = await find_member(ctx)
    await ctx.ledger.add_token(EXCLUDE_ID, member.id)
    before: set[tuple[str, int]] = set()
    stuck: frozenset[tuple[str, int]] = frozenset()
    stuck_since_s = 0.0
    async for _ in ctx.rounds(ctx.settings.drain_timeout_s):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end while the node was being drained")
        health = await ctx.engine.health(wait_settled=True, timeout_s=_LONG_POLL_S)
        shards = await ctx.engine.shards()
        left = [copy for copy in shards if copy.node == ctx.node.name]
        before |= {copy.group for copy in left}
        if not left:
            await ctx.count_recoveries()
            return Outcome(f"{SUB_STEPS[0].desc} {len(before)} shard copies left it.", {"copies_moved": len(before)})
        await find_member(ctx)
        await _report(ctx, left)
        if any(copy.state is CopyState.RELOCATING for copy in left) or not health.settled:
            stuck = frozenset()
            continue
        held = frozenset(copy.group for copy in left)
        if held != stuck:
            stuck, stuck_since_s = held, ctx.clock.elapsed_s()
            continue
        done = await _judge(ctx, left, shards, stuck_for_s=ctx.clock.elapsed_s() - stuck_since_s)
        if done is not None:
            await ctx.count_recoveries()
            return done
    raise StepFailedError(
        f"the node was not empty after {ctx.settings.drain_timeout_s:.0f} s",
        evidence={"shards_left": _names(left for left in await ctx.engine.shards() if left.node == ctx.node.name)},
        remedy="see why shards move so slowly, raise SHARDLIFT_DRAIN_TIMEOUT_S, then retry",
    )


async def find_member(ctx: StepContext) -> NodeSeen:
    """The node as a member of the cluster. Raises StepFailedError when it is none."""
    for member in await ctx.engine.nodes():
        if member.name == ctx.node.name:
            return member
    raise StepFailedError(
        "the node is not a member of the cluster",
        evidence={"process": str(await ctx.driver.process(ctx.node)), "log": list(await ctx.driver.log_tail(ctx.node))},
        remedy=f"bring it back (it should answer at {ctx.node.url}), then retry",
    )


async def _judge(
    ctx: StepContext, left: list[ShardCopy], shards: tuple[ShardCopy, ...], *, stuck_for_s: float
) -> Outcome | None:
    """What to make of copies that stay although nothing moves: an end, a stall (raises), or wait (None)."""
    held = [copy for copy in left if not _elsewhere(copy, shards)]
    asked = (held or left)[:_EXPLAINED_MAX]
    explained = [await ctx.engine.explain(copy) for copy in asked]
    if any(reason.can_move != "no" for reason in explained):
        return None
    if not held:
        kept = _names(left)
        return Outcome(
            f"{SUB_STEPS[0].desc} {len(kept)} copies have no other place to go, and each has a started copy on a node "
            "that stays.",
            {"copies_kept": kept, "why": [_told(reason) for reason in explained]},
        )
    deciders = {d.decider for reason in explained for d in reason.decisions if d.verdict == "NO"}
    if stuck_for_s < ctx.settings.drain_stalled_s or not deciders & _PERMANENT:
        return None
    raise StepFailedError(
        f"{len(held)} shard copies cannot leave the node and have no started copy elsewhere",
        evidence={"shards_left": _names(held)},
        findings=tuple(_finding(reason) for reason in explained),
        remedy="mend what the deciders name, then retry; the data stays where it is meanwhile",
    )


def _elsewhere(copy: ShardCopy, shards: tuple[ShardCopy, ...]) -> bool:
    return any(other.group == copy.group and other.node != copy.node and other.serving for other in shards)


def _told(reason: Explanation) -> str:
    said = sorted({f"{d.decider}: {d.explanation}" for d in reason.decisions if d.verdict == "NO"})
    return f"{reason.index}[{reason.shard}] {'primary' if reason.primary else 'replica'}: {'; '.join(said) or 'no'}"


def _finding(reason: Explanation) -> Finding:
    return Finding(
        rule="drain_can_end",
        severity=Severity.BLOCK,
        subject=f"{reason.index}[{reason.shard}]",
        reason="the engine lets this copy go to no other node",
        evidence=_told(reason),
        remedy="change what the decider names (index filters, total_shards_per_node, replicas, zones), then retry",
    )


async def _report(ctx: StepContext, left: list[ShardCopy]) -> None:
    moving = sum(copy.state is CopyState.RELOCATING for copy in left)
    await ctx.report(
        {
            "shards_left": len(left),
            "waiting_for": f"{len(left)} shard copies to leave the node, {moving} of them on their way",
        }
    )


def _names(copies: Iterable[ShardCopy]) -> list[str]:
    return [f"{copy.index}[{copy.shard}]" for copy in copies][:_EXPLAINED_MAX]
