"""The simulated world by itself: deciders, recoveries, elections, and what can be lost in it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shardlift.chaos.time import VirtualClock
from shardlift.chaos.watch import Watch
from shardlift.errors import EngineError
from shardlift.model import CopyState, EngineKind, Health, Move, Version
from shardlift.sim import MIB, IndexSpec, OpenDoor, SimNode, World, build_world
from shardlift.sim.engine import SimEngine
from shardlift.sim.membership import clear_exclusions, exclude_from_voting
from tests.worlds import make_cluster

VIRTUAL_TIME = True
EXCLUDE = "cluster.routing.allocation.exclude._name"
REBALANCE = "cluster.routing.rebalance.enable"
NEW = Version(3, 4, 0)


def world_of(*specs: IndexSpec, nodes: int = 3, zones: tuple[str, ...] = ("a",)) -> World:
    return build_world(make_cluster("p", nodes, zones), VirtualClock(), indices=specs)


def names(world: World) -> list[str]:
    return list(world.nodes)


async def settled(world: World, timeout_s: float = 3600) -> bool:
    seen = await SimEngine(world).health(wait_settled=True, timeout_s=timeout_s)
    return not seen.timed_out


async def restart(world: World, node: SimNode, version: Version | None = None, *, fresh: bool = False) -> None:
    """Down, changed as asked, and back as a member."""
    world.stop(node)
    if fresh:
        node.disk, node.node_id = {}, f"{node.node_id}-fresh"
    node.version = version or node.version
    world.start(node)
    await world.clock.sleep(node.boot_s + 1)
    world.advance()
    assert node.up


async def test_bytes_flow_at_the_rate_of_the_setting_and_two_at_a_time() -> None:
    world = world_of(IndexSpec("big", primaries=4, replicas=0, copy_bytes=400 * MIB), nodes=2)
    world.put_cluster_setting("transient", REBALANCE, "none")
    leaving = names(world)[0]
    assert len(world.copies_on(leaving)) == 2
    begun_s = world.clock.elapsed_s()
    world.put_cluster_setting("transient", EXCLUDE, leaving)
    assert await settled(world)
    # Two primaries of 400 MiB from one node to the other, together at 40 MiB a second.
    assert world.clock.elapsed_s() - begun_s == pytest.approx(20, abs=1.5)
    assert [move.total_bytes for move in world.recovered] == [400 * MIB] * 2


async def test_a_node_that_returns_with_its_disk_copies_next_to_nothing() -> None:
    world = world_of(IndexSpec("books", primaries=3, copy_bytes=500 * MIB))
    world.write()
    node = world.nodes[names(world)[1]]
    world.put_cluster_setting("transient", "cluster.routing.allocation.enable", "primaries")
    world.stop(node)
    world.write()
    world.start(node)
    await world.clock.sleep(10)
    world.put_cluster_setting("transient", "cluster.routing.allocation.enable", None)
    assert await settled(world)
    assert sum(move.total_bytes for move in world.recovered) < MIB
    assert world.lost() == {}
    assert all(copy.documents == 2 for copy in world.copies)


async def test_without_the_hold_replicas_wait_a_minute_for_the_node() -> None:
    world = world_of(IndexSpec("books", primaries=2, copy_bytes=MIB))
    world.stop(world.nodes[names(world)[2]])
    await world.clock.sleep(50)
    assert any(copy.state is CopyState.UNASSIGNED for copy in (world.advance() or world.copies))
    await world.clock.sleep(15)
    assert await settled(world)
    assert all(copy.state is CopyState.STARTED for copy in world.copies)


@pytest.mark.parametrize(("rebalance", "stuck"), [("all", True), ("none", False)])
async def test_version_deadlock(rebalance: str, stuck: bool) -> None:
    """The naive drain: a new node that was rebalanced full of primaries keeps replicas from leaving the next."""
    world = world_of(*(IndexSpec(f"i{at}", primaries=2, copy_bytes=MIB) for at in range(10)))
    world.put_cluster_setting("transient", REBALANCE, rebalance)
    first, second, _ = names(world)
    for name in (first, second):
        world.put_cluster_setting("transient", EXCLUDE, name)
        await settled(world)
        if name == second:
            break
        await restart(world, world.nodes[name], NEW, fresh=True)
        world.put_cluster_setting("transient", EXCLUDE, None)
        await world.clock.sleep(120)
        await settled(world)
    left = world.copies_on(second)
    assert bool(left) is stuck
    assert all(not copy.primary for copy in left)


def pin(world: World) -> None:
    world.indices["books"].settings["index.routing.allocation.require._name"] = names(world)[0]


def limit(world: World) -> None:
    world.indices["books"].settings["index.routing.allocation.total_shards_per_node"] = "1"


def fill(world: World) -> None:
    for name in names(world)[1:]:
        world.fill_disk(name)


def forbid(world: World) -> None:
    world.put_cluster_setting("transient", "cluster.routing.allocation.enable", "none")


def force_zones(world: World) -> None:
    """Four copies over four zones of which only one has nodes: one copy a zone."""
    world.indices["books"].replicas = 3
    world.copies += [replace(copy, primary=False, node=names(world)[1]) for copy in world.copies[:1]]
    world.index_groups()
    world.put_cluster_setting("transient", "cluster.routing.allocation.awareness.attributes", "zone")
    world.put_cluster_setting("transient", "cluster.routing.allocation.awareness.force.zone.values", "a,b,c,d")


CASES = {
    "filter": pin,
    "shards_limit": limit,
    "disk_threshold": fill,
    "enable": forbid,
    "awareness": force_zones,
}


@pytest.mark.parametrize("case", sorted(CASES))
async def test_deciders_keep_a_copy_from_leaving_and_are_named(case: str) -> None:
    world = world_of(IndexSpec("books", primaries=3, replicas=0, copy_bytes=100 * MIB))
    first = names(world)[0]
    CASES[case](world)
    world.put_cluster_setting("transient", EXCLUDE, first)
    await world.clock.sleep(60)
    world.advance()
    assert world.copies_on(first)
    engine = SimEngine(world)
    seen = next(copy for copy in await engine.shards() if copy.node == first)
    why = await engine.explain(seen)
    assert why.can_move == "no"
    assert case in {decision.decider for decision in why.decisions if decision.verdict == "NO"}
    verdicts = await engine.try_moves((Move("books", seen.shard, first, names(world)[2]),))
    assert not verdicts[0].allowed


async def test_a_snapshot_throttles_and_passes() -> None:
    world = world_of(IndexSpec("books", replicas=0))
    holder = world.copies[0].node or ""
    world.start_snapshot()
    world.put_cluster_setting("transient", EXCLUDE, holder)
    seen = (await SimEngine(world).shards())[0]
    assert (await SimEngine(world).explain(seen)).can_move == "throttled"
    world.end_snapshot()
    assert await settled(world)
    assert world.copies_on(holder) == []


@pytest.mark.parametrize(("eligible", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)])
async def test_the_voting_configuration_is_odd(eligible: int, voters: int) -> None:
    assert len(world_of(IndexSpec("i", replicas=0), nodes=eligible).voters) == voters


async def test_quorum() -> None:
    world = world_of(IndexSpec("books"))
    first, second, third = (world.nodes[name] for name in names(world))
    engine = SimEngine(world)
    assert await engine.exclude_from_voting(first.name)
    assert len(world.voters) == 1, "two that are left have one vote"
    assert await engine.elected() is None
    await world.clock.sleep(2)
    assert await engine.elected() == second.name
    clear_exclusions(world)
    assert len(world.voters) == 3
    world.kill_node(second.name)
    with pytest.raises(EngineError, match="no elected master"):
        await engine.nodes()
    await world.clock.sleep(3)
    assert await engine.elected() == first.name
    assert len(world.voters) == 3, "a node that is away keeps its vote as long as there are three"
    assert not world.quorum_without({third.name})
    world.kill_node(third.name)
    await world.clock.sleep(60)
    world.stop(first)
    world.start(first)
    await world.clock.sleep(60)
    with pytest.raises(EngineError):
        await engine.nodes()
    world.start(third)
    await world.clock.sleep(60)
    assert await engine.elected() in {first.name, third.name}


@pytest.mark.parametrize(
    ("nodes", "leaving", "stands"),
    [(5, 2, True), (6, 2, True), (5, 3, False), (6, 3, False), (7, 3, True), (3, 1, True), (3, 2, False)],
)
async def test_those_that_leave_at_once_count_against_the_configuration_in_force(
    nodes: int, leaving: int, *, stands: bool
) -> None:
    """Of six five vote: two of them may leave at the same moment, three may not, though three others stay."""
    world = world_of(IndexSpec("books"), nodes=nodes)
    engine = SimEngine(world)
    gone = [world.nodes[name] for name in names(world)[1 : leaving + 1]]
    assert all(node.node_id in world.voters for node in gone)
    assert world.quorum_without([node.name for node in gone]) is stands
    for node in gone:
        world.stop(node)
    await world.clock.sleep(5)
    if stands:
        assert await engine.elected() == names(world)[0], "it has stayed"
        left = nodes - leaving
        assert len(world.voters) == (max(left - (left % 2 == 0), 3)), "it has shrunk, though not below three"
        return
    with pytest.raises(EngineError, match="no elected master"):
        await engine.nodes()
    for node in gone:
        world.start(node)
    await world.clock.sleep(30)
    assert len(await engine.nodes()) == nodes, "with their votes there is a master again"


async def test_those_that_leave_one_after_the_other_find_a_smaller_configuration() -> None:
    world = world_of(IndexSpec("books"), nodes=6)
    for name in names(world)[1:4]:
        world.stop(world.nodes[name])
        await world.clock.sleep(1)
    assert await SimEngine(world).elected() == names(world)[0]
    assert len(world.voters) == 3


async def test_the_vote_of_a_node_that_goes_on_elects_again() -> None:
    world = world_of(IndexSpec("books"))
    first, second, third = (world.nodes[name] for name in names(world))
    world.hang_node(second.name)
    world.stop(third)
    assert await SimEngine(world).elected() is None, f"{first.name} alone is no majority"
    await world.clock.sleep(5)
    world.unhang_node(second.name)
    await world.clock.sleep(2)
    assert await SimEngine(world).elected() == first.name


async def test_an_exclusion_of_all_leaves_the_master_alone() -> None:
    world = world_of(IndexSpec("books", replicas=0), nodes=1)
    exclude_from_voting(world, names(world)[0])
    assert world.elected == names(world)[0]


async def test_losses_are_seen() -> None:
    world = world_of(IndexSpec("books", replicas=1))
    world.write()
    assert world.lost() == {}
    holders = [copy.node or "" for copy in world.copies]
    for name in holders:
        world.stop(world.nodes[name])
    assert world.lost() == {}, "disks still have it"
    world.nodes[holders[0]].set_aside["t"], world.nodes[holders[0]].disk = world.nodes[holders[0]].disk, {}
    world.nodes[holders[1]].disk.clear()
    assert world.lost() == {}
    assert world.lost(without=holders[0]) == {("books", 0): 1}


async def test_a_stale_copy_never_becomes_primary() -> None:
    world = world_of(IndexSpec("books", replicas=1))
    primary, replica = (world.nodes[copy.node or ""] for copy in world.copies)
    world.write()
    world.stop(replica)
    world.write()
    world.stop(primary)
    world.start(replica)
    await world.clock.sleep(120)
    world.advance()
    assert world.primary(("books", 0)) is None, "it lacks an acknowledged write"
    assert (await SimEngine(world).health()).status is Health.RED
    world.start(primary)
    await world.clock.sleep(120)
    assert await settled(world)
    assert world.lost() == {}


async def test_a_hung_node_is_noticed_late_and_joins_again() -> None:
    world = world_of(IndexSpec("books"))
    last = names(world)[2]
    world.hang_node(last)
    await world.clock.sleep(20)
    engine = SimEngine(world)
    assert last in {node.name for node in await engine.nodes()}
    assert not await engine.answers(last)
    await world.clock.sleep(15)
    assert last not in {node.name for node in await engine.nodes()}
    world.unhang_node(last)
    await world.clock.sleep(5)
    assert last in {node.name for node in await engine.nodes()}


async def test_expanding_indices_follow_the_nodes() -> None:
    world = world_of(IndexSpec(".all", replicas=2, settings={"index.auto_expand_replicas": "0-all"}))
    first = names(world)[0]
    world.put_cluster_setting("transient", EXCLUDE, first)
    assert await settled(world)
    assert {copy.node for copy in world.copies} == set(names(world)[1:])
    world.put_cluster_setting("transient", EXCLUDE, None)
    assert await settled(world)
    assert len(world.copies) == 3


async def test_settings_are_refused_as_engines_do() -> None:
    world = world_of(IndexSpec("books"))
    engine = SimEngine(world)
    with pytest.raises(EngineError, match="unknown setting") as refused:
        await engine.put_setting("persistent", "no.such.setting", "1")
    assert refused.value.status == 400
    world.persistent["archived.old.key"] = "1"
    with pytest.raises(EngineError, match=r"archived\.old\.key"):
        await engine.put_setting("transient", REBALANCE, "none")
    await engine.put_setting("persistent", "archived.*", None)
    await engine.put_setting("transient", REBALANCE, "none")
    assert (world.persistent, world.transient) == ({}, {REBALANCE: "none"})


async def test_an_old_node_does_not_join_a_newer_cluster() -> None:
    world = world_of(IndexSpec("books"))
    late = world.nodes[names(world)[2]]
    world.stop(late)
    for name in names(world)[:2]:
        world.nodes[name].version = NEW
    world.start(late)
    await world.clock.sleep(60)
    world.advance()
    assert not late.up
    assert "refused to join" in late.log[-1]


async def test_engines_of_a_clock_that_runs_need_no_help() -> None:
    """Two readers at once see the same world, and a long poll ends with the event it waits for."""
    world = world_of(IndexSpec("books", replicas=0, copy_bytes=80 * MIB))
    world.put_cluster_setting("transient", EXCLUDE, world.copies[0].node)
    one, two = SimEngine(world), SimEngine(world)
    first, second = await asyncio.gather(
        one.health(wait_settled=True, timeout_s=100), two.health(wait_settled=True, timeout_s=0.5)
    )
    assert (first.timed_out, second.timed_out) == (False, True)
    assert world.nodes[names(world)[0]].engine is EngineKind.OPENSEARCH


async def test_the_watch_sees_old_data_that_is_still_needed(tmp_path: Path) -> None:
    world = world_of(IndexSpec("books", replicas=0))
    watch = Watch(world, VirtualClock(), tmp_path / "none.db", "3.4.0")
    node = world.nodes[world.copies[0].node or ""]
    world.write()
    world.stop(node)
    node.set_aside["task"], node.disk = node.disk, {}
    watch._may_discard(names(world)[-1])
    assert watch.violations == [], "another node's old data is not needed"
    watch._may_discard(node.name)
    assert "acknowledged writes are missing: 1 of books[0]" in watch.violations[0]


async def test_a_call_that_is_lost_is_no_answer() -> None:
    """As the protocol has it, `answers` never raises."""

    class Shut(OpenDoor):
        async def before(self, call: str, where: str, *, effect: bool) -> None:
            raise EngineError(f"{call} {where} is lost ({effect})")

    world = world_of(IndexSpec("books"))
    assert await SimEngine(world).answers(names(world)[0])
    assert not await SimEngine(world, Shut()).answers(names(world)[0])
