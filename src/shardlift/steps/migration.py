"""Sub-step 0: what must not be lost or missing leaves the node, and a drain that cannot end fails at once.

The end of a drain is told the way the engines' own shutdown status tells it (TransportGetShutdownStatusAction): copies
on the move are progress; a copy that may go nowhere is no obstacle when another started copy exists on a node that
stays; one without such a copy, twice seen and for a reason that does not pass by itself, is a stall.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from shardlift.checks import Subject
from shardlift.model import SUB_STEPS, CopyState, Explanation, NodeSeen, ShardCopy
from shardlift.planner import stalled_findings
from shardlift.steps.context import AbortedError, Outcome, StepContext, StepFailedError
from shardlift.steps.filling import fill
from shardlift.steps.rescue import find_member, rescue
from shardlift.steps.speed import paced

EXCLUDE_ID = "cluster.routing.allocation.exclude._id"
EXCLUDE_NAME = "cluster.routing.allocation.exclude._name"
_LONG_POLL_S = 5.0
_EXPLAINED_MAX = 200
_NAMED_MAX = 20
# Deciders whose no does not pass by itself; disk, throttling, snapshots and the like do.
_PERMANENT = frozenset(
    {"filter", "same_shard", "node_version", "awareness", "shards_limit", "enable", "tier", "data_tier"}
)
# How often a third party may take our exclusion away before we stop arguing.
_REASSERTED_MAX = 5


@dataclass(slots=True)
class _Drain:
    """What is remembered from round to round. Lost in a crash, which only makes a stall be told later."""

    groups: set[tuple[str, int]] = field(default_factory=set)
    stuck: frozenset[tuple[str, int]] = frozenset()
    stuck_since_s: float = 0.0
    reasserted: int = 0
    why: str = ""


async def data_migration(ctx: StepContext) -> Outcome:
    """Moves what can be moved, excludes the node by its id and waits until no copy that matters is on it."""
    await ctx.ledger.reassert()
    if ctx.plan.repair:
        return Outcome("Not needed: the node is out of the cluster, and other nodes hold what it held.")
    if ctx.plan.rescued:
        return await paced(ctx, rescue)
    if not ctx.plan.drained:
        return Outcome("Not needed: the node keeps its data path, and every shard has a started copy on another node.")
    return await paced(ctx, _emptied)


async def _emptied(ctx: StepContext) -> Outcome:
    member = await find_member(ctx)
    begun_s = ctx.clock.elapsed_s()
    filled = await fill(ctx, ctx.settings.drain_timeout_s)
    drain = _Drain(groups=set(filled.groups))
    if ctx.plan.canary:
        # By name, since it must hold for the node that comes back, which may have another id.
        await ctx.ledger.add_token(EXCLUDE_NAME, ctx.node.name)
    left_s = ctx.settings.drain_timeout_s - (ctx.clock.elapsed_s() - begun_s)
    async for _ in ctx.rounds(left_s):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end while the node was being drained")
        await _assert_exclusion(ctx, member, drain)
        await ctx.engine.health(wait_settled=True, timeout_s=_LONG_POLL_S)
        shards = await ctx.engine.shards()
        left = [copy for copy in shards if copy.node == ctx.node.name]
        drain.groups |= {copy.group for copy in left}
        if not left:
            await ctx.count_recoveries()
            moved = len(drain.groups)
            return Outcome(
                f"{SUB_STEPS[0].desc} {moved} shard copies left it.",
                {"copies_moved": moved, "bytes_moved": filled.size_bytes},
            )
        member = await find_member(ctx)
        moving = any(copy.state in (CopyState.RELOCATING, CopyState.INITIALIZING) for copy in left)
        await ctx.pace(moving)
        await _report(ctx, left, drain)
        if moving:
            drain.stuck, drain.why = frozenset(), ""
            continue
        done = await _judge(ctx, left, shards, drain)
        if done is not None:
            await ctx.count_recoveries()
            return done
    raise StepFailedError(
        f"the node was not empty after {ctx.settings.drain_timeout_s:.0f} s",
        evidence={"shards_left": _names(copy for copy in await ctx.engine.shards() if copy.node == ctx.node.name)},
        remedy="see why shards move so slowly, raise SHARDLIFT_DRAIN_TIMEOUT_S, then retry",
    )


async def _assert_exclusion(ctx: StepContext, member: NodeSeen, drain: _Drain) -> None:
    """Keeps our exclusion in force; somebody else's clean-up may have taken it away."""
    excluded = (await ctx.engine.settings()).effective(EXCLUDE_ID) or ""
    if member.id in excluded.split(","):
        return
    if drain.reasserted > _REASSERTED_MAX:
        raise StepFailedError(
            "the exclusion of the node is taken away again and again by somebody else",
            evidence={"key": EXCLUDE_ID, "now": excluded, "set_again": drain.reasserted - 1},
            remedy=f"find out what resets {EXCLUDE_ID}, hold it back during the upgrade, then retry",
        )
    drain.reasserted += 1
    await ctx.ledger.add_token(EXCLUDE_ID, member.id)


async def _judge(
    ctx: StepContext, left: list[ShardCopy], shards: tuple[ShardCopy, ...], drain: _Drain
) -> Outcome | None:
    """What to make of copies of which none is on its way: an end, a stall (raises), or wait (None)."""
    elsewhere: dict[tuple[str, int], set[str]] = defaultdict(set)
    for copy in shards:
        if copy.serving and copy.node is not None:
            elsewhere[copy.group].add(copy.node)
    held = [copy for copy in left if not elsewhere[copy.group] - {ctx.node.name}]
    explained = [await ctx.engine.explain(copy) for copy in (held or left)[:_EXPLAINED_MAX]]
    movable = [reason for reason in explained if reason.can_move != "no"]
    if movable:
        drain.stuck, drain.why = frozenset(), f"{_told(movable[0])} ({movable[0].can_move})"
        return None
    if not held:
        kept = _names(left)
        return Outcome(
            f"{SUB_STEPS[0].desc} {len(left)} copies have no other place to go, and each has a started copy on a node "
            "that stays.",
            {"copies_kept": kept, "why": [_told(reason) for reason in explained[:_NAMED_MAX]]},
        )
    drain.why = _told(explained[0])
    now = frozenset(copy.group for copy in held)
    if now != drain.stuck or not all(_permanent(reason) for reason in explained):
        drain.stuck, drain.stuck_since_s = now, ctx.clock.elapsed_s()
        return None
    if ctx.clock.elapsed_s() - drain.stuck_since_s < ctx.settings.drain_stalled_s:
        return None
    subject = Subject(
        seen=await ctx.engine.observe(), cluster=ctx.cluster, image=ctx.image, strategy=ctx.strategy, node=ctx.node
    )
    findings = stalled_findings(subject, ctx.node.name, explained)
    raise StepFailedError(
        f"{len(held)} shard copies cannot leave the node and have no started copy elsewhere",
        evidence={"shards_left": _names(held)},
        findings=findings,
        remedy=f"{findings[0].remedy}; then retry: the data stays where it is meanwhile",
    )


def _permanent(reason: Explanation) -> bool:
    """Whether no node will take the copy by mere waiting: each one has an objection that does not pass by itself."""
    by_node: dict[str | None, set[str]] = defaultdict(set)
    for decision in reason.decisions:
        if decision.verdict == "NO":
            by_node[decision.node].add(decision.decider)
    return bool(by_node) and all(deciders & _PERMANENT for deciders in by_node.values())


def _told(reason: Explanation) -> str:
    said = sorted({f"{d.decider}: {d.explanation}" for d in reason.decisions if d.verdict != "YES"})
    return f"{reason.index}[{reason.shard}] {'primary' if reason.primary else 'replica'}: {'; '.join(said) or 'no'}"


async def _report(ctx: StepContext, left: list[ShardCopy], drain: _Drain) -> None:
    moving = sum(copy.state is CopyState.RELOCATING for copy in left)
    why = f"; {drain.why}" if drain.why else ""
    await ctx.report(
        {
            "shards_left": len(left),
            "waiting_for": f"{len(left)} shard copies to leave the node, {moving} of them on their way{why}",
        }
    )


def _names(copies: Iterable[ShardCopy]) -> list[str]:
    return [f"{copy.index}[{copy.shard}]" for copy in copies][:_NAMED_MAX]
