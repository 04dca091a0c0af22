"""Planted bugs: each one switch, each a mistake that somebody could make in the rules, the steps or the journal.

A simulator that finds none of them would prove nothing about the code without them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

from shardlift import executor
from shardlift.checks import order, rules
from shardlift.executor import Executor
from shardlift.model import Node, NodePlan, StepStatus
from shardlift.planner import batches
from shardlift.steps import Ledger, Outcome, StepContext, host, migration, rejoin, spare
from shardlift.steps.context import StepFailedError
from shardlift.store.journal import Journal
from shardlift.store.leases import Lease, Leases

Switch = Callable[[], AbstractContextManager[object]]


@contextmanager
def without_rules(*names: str) -> Iterator[None]:
    """The node question without these rules."""
    left = tuple(rule for rule in rules.NODE_RULES if rule.__name__ not in names)
    assert len(left) < len(rules.NODE_RULES), "the mutation must change something"
    with patch.object(rules, "NODE_RULES", left):
        yield


@contextmanager
def step(order: int, instead: Callable[[StepContext], Awaitable[Outcome]]) -> Iterator[None]:
    """Another function in place of the sub-step of that order."""
    changed = (*executor.STEPS[:order], instead, *executor.STEPS[order + 1 :])
    with patch.object(executor, "STEPS", changed):
        yield


async def nothing(_ctx: StepContext, *_more: object) -> Outcome:
    return Outcome("Planted: nothing was done.")


async def no_look(_ctx: StepContext) -> None:
    return None


@contextmanager
def no_last_look_and_no_rules() -> Iterator[None]:
    """Neither the rules nor the last look care whether another node is away."""
    unseen = without_rules(
        "nodes_present", "unavailable_budget", "cluster_healthy", "last_started_copy", "one_master_at_a_time",
        "master_quorum",
    )  # fmt: skip
    with unseen, patch.object(host, "_last_look", no_look):
        yield


@contextmanager
def last_copy_unguarded() -> Iterator[None]:
    """Nobody looks for the last started copy: neither the rule nor the last look."""
    with without_rules("last_started_copy"), patch.object(host, "_none_alone", no_look), step(0, half_a_drain):
        yield


async def half_a_drain(ctx: StepContext) -> Outcome:
    """Takes the acknowledged exclusion for a finished drain."""
    if not ctx.plan.drained:
        return Outcome("Not needed.")
    member = await migration.find_member(ctx)
    await ctx.ledger.add_token(migration.EXCLUDE_ID, member.id)
    return Outcome("Planted: the exclusion is acknowledged.")


@contextmanager
def no_fence() -> Iterator[None]:
    """Neither the clock of the holder nor the epoch in the journal stops a stale process."""

    @asynccontextmanager
    async def unfenced(self: Journal) -> Any:
        async with self._database.write() as connection:
            yield connection

    async def keep_on(self: object, lease: Lease) -> None:
        lease.trusted_until_s = float("inf")

    with (
        patch.object(Lease, "check", lambda _self: None),
        patch.object(Journal, "_fenced", unfenced),
        patch.object(Leases, "renew", keep_on),
    ):
        yield


@contextmanager
def change_before_ledger() -> Iterator[None]:
    """The change is made first and written down afterwards: a crash in between leaves it behind."""

    async def set_value(self: Ledger, key: str, value: str) -> None:
        settings = await self._engine.settings()
        before = settings.persistent.get(key)
        if settings.effective(key) != value:
            await self._engine.put_setting("persistent", key, value)
            await self._add("value", "persistent", key, before=before, ours=value)

    with patch.object(Ledger, "set_value", set_value):
        yield


@contextmanager
def old_snapshot_is_written_back() -> Iterator[None]:
    """What stood there before us is written back, whatever others have set since."""

    async def undo(self: Ledger, change: Any) -> str:
        if change.kind == "voting":
            await self._engine.clear_voting_exclusions()
        else:
            await self._engine.put_setting(change.layer, change.key, change.before)
        return ""

    async def reassert(_self: Ledger) -> tuple[str, ...]:
        return ()

    async def take_back(self: Ledger, change: Any, _now: str | None) -> str:
        await self._put(change.layer, change.key, change.ours)
        return ""

    with (
        patch.object(Ledger, "_undo", undo),
        patch.object(Ledger, "reassert", reassert),
        patch.object(Ledger, "_take_back", take_back),
    ):
        yield


@contextmanager
def voting_exclusion_forgotten() -> Iterator[None]:
    real = Ledger._undo

    async def undo(self: Ledger, change: Any) -> str:
        return "" if change.kind == "voting" else await real(self, change)

    with patch.object(Ledger, "_undo", undo), without_rules("voting_exclusions_clean"):
        yield


@contextmanager
def whole_list_is_deleted() -> Iterator[None]:
    """With our token the tokens of others go."""
    real = Ledger._undo

    async def undo(self: Ledger, change: Any) -> str:
        if change.kind == "token":
            await self._engine.put_setting(change.layer, change.key, None)
            return ""
        return await real(self, change)

    with patch.object(Ledger, "_undo", undo):
        yield


@contextmanager
def raised_limit_stays() -> Iterator[None]:
    """What was raised for the move of copies is not put back, neither after it nor in the end."""
    set_limit, undo = Ledger.set_limit, Ledger._undo

    async def only_up(self: Ledger, key: str, value: str | None, *, known: Any) -> bool:
        return value is None or await set_limit(self, key, value, known=known)

    async def not_the_limit(self: Ledger, change: Any) -> str:
        return "" if change.kind == "limit" else await undo(self, change)

    with patch.object(Ledger, "set_limit", only_up), patch.object(Ledger, "_undo", not_the_limit):
        yield


@contextmanager
def their_limit_is_overruled() -> Iterator[None]:
    """The limit is ours to set and to put back, whatever somebody else has set meanwhile."""
    set_limit, undo = Ledger.set_limit, Ledger._undo

    async def anything(self: Ledger, key: str, value: str | None, *, known: Any) -> bool:
        del known
        settings = await self._engine.settings()
        return await set_limit(self, key, value, known=(settings.persistent.get(key), settings.transient.get(key)))

    async def back(self: Ledger, change: Any) -> str:
        if change.kind != "limit":
            return await undo(self, change)
        await self._engine.put_setting(change.layer, change.key, change.before)
        return ""

    with patch.object(Ledger, "set_limit", anything), patch.object(Ledger, "_undo", back):
        yield


@contextmanager
def restored_on_paper() -> Iterator[None]:
    """The ledger says that a value was put back, and nobody did it."""
    real = Ledger._undo

    async def undo(self: Ledger, change: Any) -> str:
        return "" if change.kind == "value" else await real(self, change)

    with patch.object(Ledger, "_undo", undo):
        yield


@contextmanager
def version_unchecked() -> Iterator[None]:
    """The engine is not switched, and whoever joins is welcome."""

    async def joined(ctx: StepContext) -> Any:
        async for _ in ctx.rounds(300):
            for member in await ctx.engine.nodes():
                if member.name == ctx.node.name:
                    return member
        raise StepFailedError("no such member")

    with step(7, nothing), step(8, nothing), patch.object(rejoin, "_joined", joined):
        yield


@contextmanager
def interrupted_step_is_done() -> Iterator[None]:
    """After a crash the sub-step that was under way is taken for done."""
    real = Executor.__init__

    def init(self: Executor, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        for key, row in self._rows.items():
            if row.status is StepStatus.RUNNING:
                self._rows[key] = type(row)(
                    row.task_id, row.node, row.order, row.name, StepStatus.SUCCESS, row.desc, row.attempts
                )

    with patch.object(Executor, "__init__", init):
        yield


@contextmanager
def canary_takes_shards() -> Iterator[None]:
    real = Ledger.add_token

    async def add_token(self: Ledger, key: str, token: str) -> None:
        if key != migration.EXCLUDE_NAME:
            await real(self, key, token)

    with patch.object(Ledger, "add_token", add_token):
        yield


@contextmanager
def abort_in_the_middle() -> Iterator[None]:
    """A task may end while its node is down."""

    async def may_end(_self: Executor, _plan: NodePlan, _order: int) -> bool:
        return True

    with patch.object(Executor, "_may_end_before", may_end):
        yield


@contextmanager
def old_data_goes_early() -> Iterator[None]:
    """What was set aside is deleted before the node is back, from a node that was not drained."""

    async def replace_and_discard(ctx: StepContext) -> Outcome:
        await ctx.driver.switch(ctx.node, ctx.image, key=ctx.task_id, fresh_data=True)
        await ctx.driver.discard(ctx.node, key=ctx.task_id)
        return Outcome("Planted: gone.")

    with last_copy_unguarded(), step(7, replace_and_discard), without_rules("cluster_healthy"):
        yield


@contextmanager
def nobody_waits_for_shards() -> Iterator[None]:
    """The next node is taken although the shards of the last one have not come to rest."""

    async def settled(ctx: StepContext) -> Any:
        return (await ctx.engine.health()).status

    unseen = without_rules("cluster_healthy", "last_started_copy")
    with unseen, patch.object(rejoin, "_settled", settled), patch.object(host, "_none_alone", no_look):
        yield


@contextmanager
def full_spare_goes() -> Iterator[None]:
    """A spare that is no longer wanted is stopped and deleted with all that it holds."""

    async def end_spare(ctx: StepContext, one: Node) -> None:
        ctx.check_lease()
        await ctx.driver.stop(one, timeout_s=60)
        await spare._remove(ctx, one)

    with patch.object(spare, "end_spare", end_spare):
        yield


@contextmanager
def too_many_votes() -> Iterator[None]:
    """A batch holds all that can be elected of a zone, and nobody counts the votes that are left."""

    def all_of_them(_subject: object, there: Collection[str]) -> int:
        return len(there)

    async def enough(*_asked: object) -> str:
        return ""

    with (
        patch.object(order, "masters_at_once", all_of_them),
        patch.object(batches, "masters_at_once", all_of_them),
        patch.object(host, "_votes_short", enough),
        without_rules("master_quorum"),
    ):
        yield


@contextmanager
def masters_leave_before_the_extra_one_votes() -> Iterator[None]:
    """The extra master is started, and nobody waits until it is a member."""

    async def started(ctx: StepContext, one: Node) -> None:
        await ctx.driver.start(one)

    async def enough(*_asked: object) -> None:
        return None

    async def none_away(*_asked: object) -> list[str]:
        return []

    with (
        patch.object(spare, "_up", started),
        patch.object(spare, "votes_with", enough),
        patch.object(host, "_away", none_away),
    ):
        yield


@contextmanager
def extra_master_goes_with_its_vote() -> Iterator[None]:
    """It is stopped without having been excluded from voting."""

    async def stays_a_voter(_about: StepContext) -> None:
        return None

    with patch.object(spare, "_leave_votes", stays_a_voter):
        yield


MUTATIONS: Mapping[str, Switch] = {
    "last copy unguarded": last_copy_unguarded,
    "others away unguarded": no_last_look_and_no_rules,
    "no fence": no_fence,
    "change before ledger": change_before_ledger,
    "old snapshot is written back": old_snapshot_is_written_back,
    "voting exclusion forgotten": voting_exclusion_forgotten,
    "raised limit stays": raised_limit_stays,
    "their limit is overruled": their_limit_is_overruled,
    "whole list is deleted": whole_list_is_deleted,
    "restored on paper": restored_on_paper,
    "version unchecked": version_unchecked,
    "interrupted step is done": interrupted_step_is_done,
    "canary takes shards": canary_takes_shards,
    "abort in the middle": abort_in_the_middle,
    "old data goes early": old_data_goes_early,
    "nobody waits for shards": nobody_waits_for_shards,
    "full spare goes": full_spare_goes,
    "too many votes": too_many_votes,
    "masters leave first": masters_leave_before_the_extra_one_votes,
    "extra master keeps its vote": extra_master_goes_with_its_vote,
}
