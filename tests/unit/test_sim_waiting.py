"""Nodes that wait for a master in the simulated world: for as long as nothing changes they cost nothing."""

from __future__ import annotations

import pytest

from shardlift.chaos.time import VirtualClock
from shardlift.sim import SimNode, World, build_world
from shardlift.sim.membership import clear_exclusions, exclude_from_voting
from tests.worlds import make_cluster

VIRTUAL_TIME = True


async def after(world: World, seconds: float) -> None:
    await world.clock.sleep(seconds)
    world.advance()


async def without_masters(data_nodes: int) -> tuple[World, list[SimNode], list[SimNode]]:
    """All have ended; the data nodes run again, and find no master."""
    world = build_world(make_cluster("p", data_nodes, ("a",), masters=("a", "a", "a")), VirtualClock(), indices=())
    masters = [node for node in world.nodes.values() if node.eligible]
    others = [node for node in world.nodes.values() if not node.eligible]
    for node in (*others, *masters):
        world.stop(node)
    for node in others:
        world.start(node)
    await after(world, 60)
    assert not any(node.up for node in others)
    return world, masters, others


async def test_a_cluster_that_nobody_can_join_may_stand_for_days() -> None:
    """A world that is looked at again catches up with all that was due: in an emulator at 2,000 times the speed sixty
    nodes that asked each second were more than a busy machine could catch up with, so that it never answered again."""
    world, masters, others = await without_masters(60)
    before = world.last_number
    await after(world, 3 * 86_400)
    assert world.last_number - before <= 60, "what is scheduled takes a number"
    for node in masters:
        world.start(node)
    await after(world, max(node.boot_s for node in masters) + 5)
    assert all(node.up for node in (*masters, *others))
    assert not world.due


@pytest.mark.parametrize("noticed", [False, True])
async def test_those_who_wait_join_once_a_node_that_hung_goes_on(*, noticed: bool) -> None:
    world = build_world(make_cluster("p", 2, ("a",), masters=("a", "a", "a")), VirtualClock(), indices=())
    second, third = [node for node in world.nodes.values() if node.eligible][1:]
    other = next(node for node in world.nodes.values() if not node.eligible)
    world.stop(third)
    world.stop(other)
    await after(world, 5)
    world.hang_node(second.name)
    world.start(other)
    await after(world, 100 if noticed else other.boot_s + 2)
    assert not other.up
    assert (world.elected is None) is noticed
    world.unhang_node(second.name)
    await after(world, 5)
    assert second.up
    assert other.up


@pytest.mark.parametrize("excluded", [0, 1])
async def test_those_who_wait_join_whatever_was_excluded_from_voting(excluded: int) -> None:
    world, masters, others = await without_masters(2)
    for node in masters[:excluded]:
        exclude_from_voting(world, node.name)
    for node in masters[:2]:
        world.start(node)
    await after(world, 100)
    assert all(node.up for node in (*masters[:2], *others))


async def test_with_all_who_vote_excluded_nobody_is_elected_until_that_is_taken_back() -> None:
    world, masters, others = await without_masters(2)
    for node in masters:
        exclude_from_voting(world, node.name)
        world.start(node)
    await after(world, 100)
    assert world.elected is None
    clear_exclusions(world)
    await after(world, 5)
    assert all(node.up for node in (*masters, *others))
