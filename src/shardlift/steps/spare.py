"""Spare nodes: made, filled, handed over or emptied, removed. Those of the strategy surge take copies; the one that is
there while masters change zones votes, and holds nothing.

A spare is a row in the ledger, written before anything of it exists and closed after all of it is gone. So whatever
crashes when, whoever comes next finds it: there are never two of one name, and none is forgotten. What it holds leaves
it before it goes, or goes with its folder; it is never stopped with the only started copy of a shard (invariant 1).
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from shardlift.checks import Subject
from shardlift.checks.members import holds_data
from shardlift.errors import DriverError, EngineError
from shardlift.model import Health, InstanceType, Node
from shardlift.planner import needs_master, spare_roles, stand_in_roles
from shardlift.steps.context import Outcome, StepContext, StepFailedError
from shardlift.steps.ledger import VOTING, Ledger
from shardlift.steps.migration import EXCLUDE_ID, data_migration
from shardlift.steps.rescue import rescue
from shardlift.steps.speed import paced
from shardlift.steps.standin import votes_with, votes_without
from shardlift.store import Control
from shardlift.store.codec import spare_from, spare_to_json

_REPLACEMENT = 7
_GONE_S = 60.0
_HANDOVER_S = 60.0


async def surge_migration(ctx: StepContext) -> Outcome:
    """Sub-step 0: with a spare planned, all copies leave by explicit moves, once the spare is a member."""
    if ctx.plan.spare is None:
        return await data_migration(ctx)
    await ctx.ledger.reassert()
    begun_s = ctx.clock.elapsed_s()
    if "spare" in ctx.earlier(_REPLACEMENT):
        # Stopped a second time, since somebody has started it half changed: it has the spare's folder, and keeps it.
        return await paced(ctx, rescue)
    if ctx.plan.stands_in:
        await stand_in(ctx)
        return Outcome(
            f"The node has no copies. The extra master {ctx.plan.spare} stands in.",
            {"spare": ctx.plan.spare, "spare_boot_s": round(ctx.clock.elapsed_s() - begun_s, 3)},
        )
    spare = await raise_spare(ctx, ctx.plan.spare)
    # Told apart, since the drain of no other node has to wait for it: the time left is reckoned from drains.
    boot_s = ctx.clock.elapsed_s() - begun_s
    done = await data_migration(_filling(ctx, ctx.plan.fills or spare.name))
    if ctx.plan.takes_over:
        # What is started on the spare alone would be missed while its folder changes hands.
        await paced(_about(ctx, spare, away=frozenset({ctx.node.name})), rescue)
    return Outcome(
        f"{done.desc} The spare node {spare.name} stands in.",
        {**done.evidence, "spare": spare.name, "spare_boot_s": round(boot_s, 3)},
    )


async def stand_in(ctx: StepContext) -> None:
    """Before a master is stopped: the extra one that is planned for it is a member, and three vote without it.

    Does nothing where none is planned. Raises StepFailedError.
    """
    if ctx.plan.spare is None or not ctx.plan.stands_in:
        return
    await raise_spare(ctx, ctx.plan.spare)
    await votes_with(ctx, ctx.plan.spare)


async def raise_spare(ctx: StepContext, name: str) -> Node:
    """The spare of that name as a member of the cluster; made if there is none. Raises StepFailedError."""
    spare = await known_spare(ctx, name)
    if spare is not None and (spare.image_id != ctx.image.id or ctx.plan.spare_zone not in (None, spare.zone)):
        await end_spare(ctx, spare)  # left by a task to another image, or zone
        spare = None
    if spare is None:
        spare = await _laid_out(ctx, name)
    if await ctx.driver.process(spare) is None:  # the files of one that runs are its own business
        ctx.check_lease()
        await ctx.driver.create(spare, ctx.image, seeds=ctx.cluster.nodes, heap_mib=ctx.cluster.heap_mib)
    await _up(ctx, spare)
    return spare


async def take_over(ctx: StepContext) -> None:
    """The stopped node gets the data folder of its spare, which is stopped for that. No byte is copied.

    To the cluster it is as if the spare were restarted under the node's name: each of its copies needs another one that
    is started. Those made since without one leave it first.
    """
    assert ctx.plan.spare is not None, "only a node with a spare takes over"
    spare = await known_spare(ctx, ctx.plan.spare)
    if spare is None:
        raise StepFailedError(
            f"the spare node {ctx.plan.spare} is not known any more",
            remedy="see the folders of the cluster's nodes for its data, then report it",
        )
    if await ctx.driver.process(spare) is not None:
        about = _unhurried(_about(ctx, spare, away=frozenset({ctx.node.name})))
        await paced(about, rescue)
        await _stop(about)
    ctx.check_lease()
    await ctx.driver.hand_over(spare, ctx.node, key=ctx.task_id)


async def spare_done(ctx: StepContext) -> None:
    """Sub-step 12 of the last node that the spare stands in for: the spare goes."""
    if ctx.plan.spare is None or not (ctx.plan.takes_over or ctx.plan.empties_spare):
        return
    spare = await known_spare(ctx, ctx.plan.spare)
    if spare is None:
        return
    if ctx.plan.takes_over:
        await _remove(ctx, spare)
    else:
        await end_spare(_filling(ctx, ctx.node.name), spare)


async def spares_left(ledger: Ledger) -> tuple[str, ...]:
    """What a failed task says of its spares."""
    return tuple(
        f"the spare node {change.key} stays for a retry; ending the task empties and removes it"
        for change in await ledger.spares()
    )


async def end_spares(
    ctx: StepContext,
    patiently: Callable[[Callable[[], Awaitable[tuple[str, ...]]]], Awaitable[tuple[str, ...]]],
    hold: Callable[[], Awaitable[None]],
    tell: Callable[[str | None], Awaitable[None]],
) -> tuple[str, ...]:
    """Ends every spare there is, as a part of no sub-step. A line for each that has to stay, and why.

    `patiently` begins work again when the cluster did not answer; `hold` sets what holds for the length of a task.
    """
    if not await ctx.ledger.spares():
        return ()

    async def report(_progress: Mapping[str, object]) -> None:
        return None

    async def work() -> tuple[str, ...]:
        await hold()
        await ctx.driver.prepare(ctx.image)
        return await _ended(replace(ctx, report=report))

    await tell("what the spare node holds to move away, so that the spare can go")
    try:
        notes = await patiently(work)
    except (EngineError, DriverError) as error:
        notes = (f"a spare node is left, and could not be removed yet: {error.message}",)
    await tell(None)
    return notes


async def _ended(ctx: StepContext) -> tuple[str, ...]:
    notes = []
    for change in await ctx.ledger.spares():
        spare = spare_from(change.ours)
        try:
            await end_spare(ctx, spare)
        except StepFailedError as error:
            why = "it cannot be emptied" if holds_data(spare, None) else "its vote is needed"
            notes.append(f"the spare node {spare.name} stays a member, since {why}: {error.message}")
    return tuple(notes)


async def end_spare(ctx: StepContext, spare: Node) -> None:
    """Empties, stops and removes it. Raises StepFailedError while it has the only started copy of a shard, or its vote
    is one of three."""
    about = _unhurried(_about(ctx, spare, away=frozenset()))
    if await ctx.driver.process(spare) is None:
        await _taken_off(ctx, spare)
        if await _is_missed(about):
            await ctx.driver.create(spare, ctx.image, seeds=ctx.cluster.nodes, heap_mib=ctx.cluster.heap_mib)
            await _up(ctx, spare)
    if await ctx.driver.process(spare) is not None:
        await _up(ctx, spare)
        if holds_data(spare, None):
            await data_migration(about)
        else:
            await votes_without(about, spare.name)
        await _leave_votes(about)
        await _stop(about)
    await _remove(ctx, spare)


async def _is_missed(about: StepContext) -> bool:
    """Whether a spare that has ended may have on its disk what is missing: a copy, or a vote."""
    if holds_data(about.node, None):
        return (await about.engine.health()).status is not Health.GREEN
    try:
        await votes_without(about, about.node.name)
    except StepFailedError:
        return True
    return False


async def known_spare(ctx: StepContext, name: str) -> Node | None:
    """The spare of that name, of whichever task of the cluster."""
    for change in await ctx.ledger.spares():
        if change.key == name:
            return spare_from(change.ours)
    return None


async def _laid_out(ctx: StepContext, name: str) -> Node:
    subject = Subject(
        seen=await ctx.engine.observe(), cluster=ctx.cluster, image=ctx.image, strategy=ctx.strategy, node=ctx.node
    )
    ((address, http_port, transport_port),) = await ctx.driver.allocate(1, await ctx.ledger.addresses())
    if ctx.plan.stands_in:
        kind, roles = InstanceType.MASTER, stand_in_roles(ctx.node, subject.seen.node(ctx.node.name))
    else:
        kind, roles = ctx.node.instance_type, spare_roles(ctx.node, votes=needs_master(subject))
    spare = Node(
        id=str(uuid.uuid4()),
        cluster_id=ctx.cluster.id,
        name=name,
        instance_type=kind,
        roles=roles,
        zone=ctx.plan.spare_zone or ctx.node.zone,
        address=address,
        http_port=http_port,
        transport_port=transport_port,
        image_id=ctx.image.id,
    )
    await ctx.ledger.add_spare(name, spare_to_json(spare))
    return spare


async def _up(ctx: StepContext, spare: Node) -> None:
    """Starts it unless it runs, and waits until it is a member of the right version."""
    ctx.check_lease()
    process = await ctx.driver.start(spare)
    await ctx.report({"waiting_for": f"the spare node {spare.name} to join the cluster", "pid": process.pid})
    async for _ in ctx.rounds(ctx.settings.boot_timeout_s):
        try:
            members = {member.name: member for member in await ctx.engine.nodes()}
        except EngineError:
            continue  # asked again until the bound
        # Of one that has died its entry may still be there while it boots again.
        if spare.name in members and await ctx.engine.answers(spare.name):
            return
        if await ctx.driver.process(spare) is None:
            raise StepFailedError(
                f"the spare node {spare.name} ended before it joined the cluster",
                evidence={"log": list(await ctx.driver.log_tail(spare))},
                remedy="mend what the log tells, then retry; or use another strategy",
            )
    raise StepFailedError(
        f"the spare node {spare.name} did not join within {ctx.settings.boot_timeout_s:.0f} s",
        evidence={"log": list(await ctx.driver.log_tail(spare))},
        remedy="see the log; if the machine is only slow raise SHARDLIFT_BOOT_TIMEOUT_S, then retry",
    )


async def _taken_off(ctx: StepContext, spare: Node) -> None:
    """Waits until the cluster has noticed that it is gone: before, its copies would count as started."""
    async for _ in ctx.rounds(_GONE_S):
        member = spare.name in {member.name for member in await ctx.engine.nodes()}
        # A dead node may be missing from one list while the other still has it.
        if not member and all(copy.node != spare.name for copy in await ctx.engine.shards()):
            return
    raise StepFailedError(
        f"the spare node {spare.name} has no process, and is still a member of the cluster",
        remedy=f"see what answers at {spare.url}, end it, then retry",
    )


async def _leave_votes(about: StepContext) -> None:
    """A spare that votes is excluded from voting first, so that its going takes no majority with it."""
    member = next((one for one in await about.engine.nodes() if one.name == about.node.name), None)
    if member is None or not member.master_eligible:
        return
    if not await about.ledger.exclude_from_voting(about.node.name):
        return
    async for _ in about.rounds(_HANDOVER_S):
        voting = await about.engine.voting()
        if voting is None or (member.id not in voting.config_ids and await about.engine.elected() != member.name):
            return
    raise StepFailedError(
        f"the spare node {member.name} still votes", remedy="see the elected master's log, then retry"
    )


async def _stop(about: StepContext) -> None:
    """Stops the spare that `about` is about.

    Raises StepFailedError when it has what no node that stays has, or has copies at all while another node is away.
    """
    copies = await about.engine.shards()
    if any(copy.node == about.node.name for copy in copies):
        there = {member.name for member in await about.engine.nodes()} | about.away
        missing = sorted(node.name for node in about.cluster.nodes if node.name not in there)
        if missing:
            raise StepFailedError(
                f"{', '.join(missing)} is away, and the spare node {about.node.name} still has copies",
                evidence={"missing": missing},
                remedy="bring it back, see its log for the cause, then retry",
            )
    serving: dict[tuple[str, int], set[str | None]] = {}
    for copy in copies:
        if copy.serving:
            serving.setdefault(copy.group, set()).add(copy.node)
    alone = sorted(f"{index}[{shard}]" for (index, shard), nodes in serving.items() if nodes <= about.away)
    if alone:
        raise StepFailedError(
            f"{len(alone)} shards have their only started copy on the spare node {about.node.name}",
            evidence={"shards_left": alone[:20]},
            remedy="retry: they leave it first",
        )
    about.check_lease()
    await about.driver.stop(about.node, timeout_s=about.settings.stop_timeout_s)


async def _remove(ctx: StepContext, spare: Node) -> None:
    ctx.check_lease()
    await ctx.driver.delete(spare)
    await ctx.ledger.restore(kind=VOTING)
    await ctx.ledger.restore(key=EXCLUDE_ID)
    await ctx.ledger.spare_gone(spare.name)


def _filling(ctx: StepContext, name: str) -> StepContext:
    """The same, with that node as the one that is empty and takes what leaves."""
    return replace(ctx, taken=(*ctx.taken, frozenset({name})))


def _about(ctx: StepContext, spare: Node, *, away: frozenset[str]) -> StepContext:
    """The same with the spare as the node that is emptied. `away`: nodes that are away when it is."""
    plan = replace(ctx.plan, name=spare.name, drained=True, rescued=False, repair=False, canary=False, spare=None)
    return replace(ctx, node=spare, plan=plan, mates=away)


def _unhurried(ctx: StepContext) -> StepContext:
    """The same for what must be done to its end even if the task is to end: the task ends after it."""

    async def control() -> Control:
        return replace(await ctx.control(), aborting=False)

    return replace(ctx, control=control)
