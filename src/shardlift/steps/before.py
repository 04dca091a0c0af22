"""Sub-steps 1 to 4: the last look, and everything that lets the node go without anybody missing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from shardlift.checks import Subject, check_node
from shardlift.errors import EngineError
from shardlift.model import Finding, Health, Observation, RetainedCopy, Severity
from shardlift.steps.context import READING_REST, AbortedError, Outcome, StepContext, StepFailedError
from shardlift.steps.ledger import VOTING

ALLOCATION_ENABLE = "cluster.routing.allocation.enable"
_NAMED = 10
# index.soft_deletes.retention_lease.sync_interval as the engines have it.
LEASES_RENEWED_S = 30.0
# Rules whose objection goes away without anybody's doing; a red cluster is given less time than the others.
_PASSING = frozenset({"cluster_healthy", "cluster_state_at_rest", "load_low", "no_running_snapshot", "no_running_work"})


async def safety_check(ctx: StepContext) -> Outcome:
    """Asks every node rule on a fresh observation, and notes who the node is before it stops.

    What passes by itself (a snapshot, shards on the move) is waited for, within a bound; anything else ends the task.
    """
    notes = await ctx.ledger.reassert()
    seen, findings = await _calm(ctx)
    member = seen.node(ctx.node.name)
    told = [*notes, *(str(finding) for finding in findings)]
    noted = f" Noted: {'; '.join(told)}." if told else ""
    outcome = f"All rules hold: the cluster is {seen.health.status}, its master is {seen.elected}.{noted}"
    if member is None:
        return Outcome(outcome)
    return Outcome(outcome, {"ephemeral_id": member.ephemeral_id, "node_id": member.id, "version": str(member.version)})


async def _calm(ctx: StepContext) -> tuple[Observation, tuple[Finding, ...]]:
    """An observation in which no rule forbids to go on, and what rules only warn of. Raises StepFailedError."""
    blocking: tuple[Finding, ...] = ()
    look_at_s, red_since_s = ctx.clock.elapsed_s(), None
    async for _ in ctx.rounds(ctx.settings.safety_timeout_s):
        if await ctx.abort_requested():
            raise AbortedError("the task was asked to end before the node was stopped")
        begun_s = ctx.clock.elapsed_s()
        if begun_s < look_at_s:
            continue
        seen, findings = await _ask_rules(ctx)
        blocking = tuple(finding for finding in findings if finding.severity is Severity.BLOCK)
        if not blocking:
            return seen, findings
        now_s = ctx.clock.elapsed_s()
        red_since_s = None if seen.health.status is not Health.RED else red_since_s or now_s
        lasting = red_since_s is not None and now_s - red_since_s >= ctx.settings.drain_stalled_s
        if lasting or not {finding.rule for finding in blocking} <= _PASSING:
            break
        await ctx.report({"waiting_for": f"{blocking[0].reason} ({blocking[0].evidence}); {blocking[0].remedy}"})
        look_at_s = now_s + READING_REST * (now_s - begun_s)
    raise StepFailedError(
        f"{len(blocking)} rules forbid taking the node down now", findings=blocking, remedy=blocking[0].remedy
    )


async def _ask_rules(ctx: StepContext) -> tuple[Observation, tuple[Finding, ...]]:
    seen = await ctx.engine.observe()
    subject = Subject(
        seen=seen,
        cluster=ctx.cluster,
        image=ctx.image,
        strategy=ctx.strategy,
        node=ctx.node,
        mates=ctx.mates,
        budget=1 + sum(node.name in ctx.mates for node in ctx.cluster.nodes),
        own_tokens=await ctx.ledger.own_tokens(),
    )
    return seen, check_node(subject)


async def master_handover(ctx: StepContext) -> Outcome:
    """Lets another master be elected while this one still lives, so that no write waits for an election time-out.

    The exclusion from voting makes the elected master step down in favour of another candidate. It is taken back as
    soon as that has happened: with it in force two of three masters have one vote, and losing that one would halt the
    cluster; without it, the two that stay are a majority of three.

    None of those that are taken together with the node may be its successor, so they are excluded as well. They come
    first: the elected master, excluded last, then steps down once, in favour of one that stays.
    """
    elected = await ctx.engine.elected()
    if elected == ctx.node.name:
        for name in (*await _mates_that_vote(ctx), ctx.node.name):
            if not await ctx.ledger.exclude_from_voting(name):
                await ctx.ledger.restore(kind=VOTING)
                return Outcome("This engine cannot hand over; the others elect a master when the node stops.")
        elected = await _new_master(ctx)
        await ctx.ledger.restore(kind=VOTING)
        return Outcome(f"The node was the elected master; {elected} is now.", {"elected": elected})
    await ctx.ledger.restore(kind=VOTING)
    return Outcome(f"Not needed: the elected master is {elected}.", {"elected": elected})


async def _mates_that_vote(ctx: StepContext) -> tuple[str, ...]:
    if not ctx.mates:
        return ()
    members = await ctx.engine.nodes()
    return tuple(member.name for member in members if member.name in ctx.mates and member.master_eligible)


async def _new_master(ctx: StepContext) -> str:
    await ctx.report({"waiting_for": "another master to be elected"})
    async for _ in ctx.rounds(ctx.settings.handover_timeout_s):
        try:
            elected = await ctx.engine.elected()
        except EngineError:
            continue  # no answer in the very moment of the election
        if elected is not None and elected not in ctx.away:
            return elected
    raise StepFailedError(
        f"no other master was elected within {ctx.settings.handover_timeout_s:.0f} s",
        remedy="see the logs of the master-eligible nodes, then retry",
    )


async def allocation_hold(ctx: StepContext) -> Outcome:
    """In place: keeps replicas from being rebuilt elsewhere while the node is away, and flushes.

    Not with drain: the same setting would gate the targets of relocations too (EnableAllocationDecider).
    """
    if not (ctx.strategy.keeps_data or ctx.plan.takes_over):
        return Outcome("Not needed: no copy is missed while the node is away.")
    rebuilt, told = await _leases_renewed(ctx)
    if rebuilt:
        told |= {"rebuilt": [f"{one.index}[{one.shard}]" for one in rebuilt[:_NAMED]], "rebuilt_copies": len(rebuilt)}
    await ctx.ledger.set_value(ALLOCATION_ENABLE, "primaries")
    ctx.check_lease()
    try:
        await ctx.engine.flush()
    except EngineError as error:
        # A flush only shortens the recovery; without it the node replays more operations.
        return Outcome(f"Replicas wait for the node. The flush did not end well: {error.message}", told)
    if rebuilt:
        return Outcome(
            "Replicas wait for the node to return, and all indices are flushed. Clients write so much that files of "
            f"{len(rebuilt)} of the node's copies may be copied anew then.",
            told,
        )
    return Outcome("Replicas wait for the node to return, and all indices are flushed.", told)


async def _leases_renewed(ctx: StepContext) -> tuple[tuple[RetainedCopy, ...], dict[str, object]]:
    """Waits until the node's copies would get back what they miss as operations. Returns those that would not, and what
    is to be kept of the wait, which the time left goes by.

    The engines renew retention leases every 30 s. A copy whose node leaves before that, after much was written, loses
    its lease, and then all of its files are sent although it has them.
    """
    begun_s = ctx.clock.elapsed_s()
    rebuilt: tuple[RetainedCopy, ...] = ()
    looks: list[tuple[float, tuple[RetainedCopy, ...]]] = []
    async for _ in ctx.rounds(ctx.settings.lease_timeout_s):
        try:
            looks.append((ctx.clock.elapsed_s(), await ctx.engine.retained(ctx.node.name)))
            rebuilt = tuple(one for one in looks[-1][1] if one.rebuilt and not one.small)
        except EngineError as error:
            await ctx.report({"waiting_for": f"an answer of the cluster: {error.message}"})
            continue
        if not rebuilt:
            break
        size_bytes = sum(one.bytes for one in rebuilt)
        await ctx.report(
            {
                "waiting_for": f"the engine to note what {len(rebuilt)} of the node's copies have, as it does every "
                f"30 s; else {size_bytes:,} bytes would be copied anew",
                "lease_wait_s": min(LEASES_RENEWED_S, ctx.settings.lease_timeout_s),
            }
        )
    waited_s = ctx.clock.elapsed_s() - begun_s
    if len(looks) <= 1 and not rebuilt:
        return (), {}
    return rebuilt, {"leases_waited_s": round(waited_s, 3), "leases_again": bool(rebuilt) or behind_again(looks)}


def behind_again(looks: Sequence[tuple[float, Iterable[RetainedCopy]]]) -> bool:
    """Whether some copy falls so far behind within 30 s that the next node has to wait, too.

    By how much was written from look to look of a wait; each is told in seconds of any clock, and what was seen then.
    """
    if len(looks) <= 1:
        return False
    watched_s = looks[-1][0] - looks[0][0]
    grown: Counter[tuple[str, int]] = Counter()
    seen: dict[tuple[str, int], RetainedCopy] = {}
    for _, copies in looks:
        for copy in copies:
            group = copy.index, copy.shard
            # After its leases were renewed it is less behind than before, and nobody knows what was written between.
            grown[group] += max(copy.behind - seen[group].behind, 0) if group in seen else 0
            seen[group] = copy
    share = LEASES_RENEWED_S / watched_s if watched_s > 0 else 0.0
    later = (replace(copy, behind=int(grown[group] * share)) for group, copy in seen.items())
    return any(copy.rebuilt and not copy.small for copy in later)
