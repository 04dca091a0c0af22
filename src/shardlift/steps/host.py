"""Sub-steps 5 to 10: the work on the node's host."""

from __future__ import annotations

import asyncio

from shardlift.checks import only_copies
from shardlift.model import Health, NodeSeen
from shardlift.steps.context import BOOT_PAUSE_S, Outcome, StepContext, StepFailedError
from shardlift.steps.migration import EXCLUDE_NAME
from shardlift.steps.spare import stand_in, take_over

# A node that does not answer for one moment is not away.
_BLIP_S = 10.0


_ONLY_RESTARTED = Outcome("Not needed: the node is only restarted.")


async def configuration_backup(ctx: StepContext) -> Outcome:
    """Copies the configuration off the node, once per task."""
    if not ctx.replaced:
        return _ONLY_RESTARTED
    ctx.check_lease()
    backup = await ctx.driver.backup(ctx.node, key=ctx.task_id)
    plugins = [f"{plugin.name} {plugin.version}" for plugin in backup.plugins]
    return Outcome(
        f"{len(backup.files)} files and {len(plugins)} plugin names are kept, sha256 {backup.digest[:12]}.",
        {"digest": backup.digest, "plugins": plugins},
    )


async def node_shutdown(ctx: StepContext) -> Outcome:
    """SIGTERM, a bounded wait, SIGKILL only then. A process that is gone already is left in peace."""
    if not await ctx.driver.image_ready(ctx.image):
        # Made ready when the task began; if somebody has removed it since, the node had better stay up meanwhile.
        await ctx.driver.prepare(ctx.image)
    if await ctx.driver.process(ctx.node) is not None:
        await stand_in(ctx)
        await _last_look(ctx)
    await ctx.report({"waiting_for": "the engine process to end"})
    ctx.check_lease()
    stopped = await ctx.driver.stop(ctx.node, timeout_s=ctx.settings.stop_timeout_s)
    evidence: dict[str, object] = {"killed": stopped.killed, "took_s": round(stopped.took_s, 3)}
    if stopped.already:
        return Outcome("The engine process had ended before.", evidence)
    if stopped.killed:
        return Outcome(
            f"The engine process did not end within {ctx.settings.stop_timeout_s:.0f} s of SIGTERM and was killed.",
            evidence,
        )
    return Outcome(f"The engine process ended {stopped.took_s:.1f} s after SIGTERM.", evidence)


async def _last_look(ctx: StepContext) -> None:
    """What may have changed since the safety check: who is there, who answers, and what only this node has.

    Another master-eligible node that hangs is still a member for half a minute, but its vote is missing already.
    """
    away: list[str] = []
    short = ""
    async for _ in ctx.rounds(_BLIP_S):
        members = await ctx.engine.nodes()
        away = await _away(ctx, members)
        short = "" if away else await _votes_short(ctx, members)
        if not away and not short:
            await _none_alone(ctx)
            return
    if away:
        raise StepFailedError(
            f"{', '.join(away)} went away since the safety check",
            evidence={"away": away},
            remedy="bring it back, see its log for the cause, then retry",
        )
    raise StepFailedError(
        f"those that stay could not elect a master ({short})",
        evidence={"votes": short},
        remedy="GET _cluster/state?filter_path=metadata.cluster_coordination shows who votes; when all nodes do, retry",
    )


async def _away(ctx: StepContext, members: tuple[NodeSeen, ...]) -> list[str]:
    """Other nodes that are no members now, or that are to vote and do not answer."""
    others = [member for member in members if member.name not in ctx.away]
    wanted = {node.name for node in ctx.cluster.nodes}
    if ctx.plan.spare is not None and ctx.plan.stands_in:
        wanted.add(ctx.plan.spare)
    away = wanted - {member.name for member in others} - ctx.away
    voters = [member.name for member in others if member.master_eligible]
    answers = await asyncio.gather(*(ctx.engine.answers(name) for name in voters))
    return sorted(away | {name for name, answer in zip(voters, answers, strict=True) if not answer})


async def _votes_short(ctx: StepContext, members: tuple[NodeSeen, ...]) -> str:
    """What the votes lack for a majority once the node and its mates are gone, which stop at the same moment; empty
    when they have one. Of others that vote all have just answered.

    Whom the engine gives a vote may have changed since the safety check: while nodes left and came back fewer voted.
    """
    if not any(member.master_eligible and member.name in ctx.away for member in members):
        return ""
    voting = await ctx.engine.voting()
    config = frozenset() if voting is None else voting.config_ids
    votes = {member.name for member in members if member.id in config}
    staying = votes - ctx.away
    # None of them has a vote: nothing changes. So it is, too, while Elasticsearch 6 nodes elect in a way of their own.
    if staying == votes or 2 * len(staying) > len(config):
        return ""
    return f"{len(config)} nodes vote, {len(staying)} voters would stay"


async def _none_alone(ctx: StepContext) -> None:
    """An index made since the safety check may have its only copy on the node."""
    serving: dict[tuple[str, int], set[str | None]] = {}
    for copy in await ctx.engine.shards():
        if copy.serving:
            serving.setdefault(copy.group, set()).add(copy.node)
    alone = sorted(f"{index}[{shard}]" for (index, shard), nodes in serving.items() if nodes <= ctx.away)
    if alone:
        raise StepFailedError(
            f"{len(alone)} shards have their only started copy on the node",
            findings=(only_copies(ctx.node.name, alone),),
            remedy="retry: with drain these copies leave the node; in place they need a replica first",
        )


async def node_replacement(ctx: StepContext) -> Outcome:
    """Switches the engine by one atomic rename; with a fresh data path the old one is set aside, not deleted."""
    if not ctx.replaced:
        return _ONLY_RESTARTED
    if ctx.plan.fresh_data:
        await _not_red(ctx)
    ctx.check_lease()
    changed = await ctx.driver.switch(ctx.node, ctx.image, key=ctx.task_id, fresh_data=ctx.plan.fresh_data)
    if ctx.plan.takes_over:
        await take_over(ctx)
        return Outcome(
            f"The node's engine is {ctx.image.reference} ({ctx.image.display_name}), its data path is that of "
            f"{ctx.plan.spare}, which has been stopped.",
            {"image_id": ctx.image.id, "fresh_data": False, "spare": ctx.plan.spare},
        )
    data = "its data path is fresh" if ctx.plan.fresh_data else "its data path is kept"
    done = "" if changed else " This had been done before."
    return Outcome(
        f"The node's engine is {ctx.image.reference} ({ctx.image.display_name}), {data}.{done}",
        {"image_id": ctx.image.id, "fresh_data": ctx.plan.fresh_data},
    )


async def _not_red(ctx: StepContext) -> None:
    """A second belt: with the node away and its shards served by others, nothing may be missing."""
    health = await ctx.engine.health()
    if health.status is Health.RED:
        raise StepFailedError(
            "the cluster is red with the node away, so its data is not set aside",
            evidence={"unassigned": health.unassigned},
            remedy="start the node again with its old engine, see what is missing, then retry",
        )


async def configuration_restoration(ctx: StepContext) -> Outcome:
    """Rebuilds the configuration for the target from the backup and the target image's defaults."""
    if not ctx.replaced:
        return _ONLY_RESTARTED
    ctx.check_lease()
    restored = await ctx.driver.restore(ctx.node, ctx.image, key=ctx.task_id, zone=ctx.plan.to_zone)
    told = [f"{len(restored.translated)} settings translated" if restored.translated else "no setting had to change"]
    if ctx.plan.to_zone is not None:
        told.append(f"its zone is {ctx.plan.to_zone}")
    if restored.kept:
        told.append(f"changed files carried over: {', '.join(restored.kept)}")
    return Outcome(
        f"The configuration is back: {'; '.join(told)}.",
        {"translated": list(restored.translated), "kept": list(restored.kept)},
    )


async def plugin_installation(ctx: StepContext) -> Outcome:
    """Plugins come with the image, so they are of exactly its version; each one used before must be among them."""
    if not ctx.replaced:
        return _ONLY_RESTARTED
    used = ctx.earlier(5).get("plugins", [])
    assert isinstance(used, list), "sub-step 5 writes a list"
    now = await ctx.driver.plugins(ctx.node)
    missing = sorted({str(name).split(" ", 1)[0] for name in used} - {plugin.name for plugin in now})
    if missing:
        raise StepFailedError(
            "the target image lacks plugins that the node had",
            evidence={"missing": missing},
            remedy="use an image that has them, or take them out of the node's configuration, then retry",
        )
    return Outcome(
        f"{len(now)} plugins are in place." if now else "Not needed: the node has no plugins.",
        {"plugins": [f"{plugin.name} {plugin.version}" for plugin in now]},
    )


async def node_start(ctx: StepContext) -> Outcome:
    """Starts the engine unless it runs, and waits for its HTTP answer; an exit in between ends the wait at once."""
    begun_s = ctx.clock.elapsed_s()
    ctx.check_lease()
    if ctx.plan.canary:
        # Set long ago, but taken back if the task has failed since; it must stand before the node is a member.
        await ctx.ledger.add_token(EXCLUDE_NAME, ctx.node.name)
        ctx.check_lease()
    process = await ctx.driver.start(ctx.node)
    await ctx.report({"waiting_for": "the engine to answer HTTP", "pid": process.pid})
    async for _ in ctx.rounds(ctx.settings.boot_timeout_s, pause_last_s=BOOT_PAUSE_S):
        if await ctx.engine.answers(ctx.node.name):
            boot_s = ctx.clock.elapsed_s() - begun_s
            return Outcome(
                f"The engine runs as process {process.pid} and answers after {boot_s:.1f} s.",
                {"pid": process.pid, "started_at_s": process.started_at_s, "boot_s": round(boot_s, 3)},
            )
        if await ctx.driver.process(ctx.node) is None:
            raise StepFailedError(
                "the engine process ended before it answered",
                evidence={"pid": process.pid, "log": list(await ctx.driver.log_tail(ctx.node))},
                remedy="mend what the log tells (below the node's folder), then retry: only this sub-step is repeated",
            )
    raise StepFailedError(
        f"the engine did not answer within {ctx.settings.boot_timeout_s:.0f} s",
        evidence={"pid": process.pid, "log": list(await ctx.driver.log_tail(ctx.node))},
        remedy="see the log; if the machine is only slow raise SHARDLIFT_BOOT_TIMEOUT_S, then retry",
    )
