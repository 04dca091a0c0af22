"""Who is a member, who votes, and who is elected.

Voting configurations are resized as `Reconfigurator` does it: an odd number of live voters, not fewer than three once
there were three. Whatever the elected master publishes needs a majority of the configuration in force: that nodes have
left, and then the smaller configuration. So those that leave at the same moment all count against the old one, and a
master that is left without a majority of it steps down. Times are round figures of what real nodes showed: a broken
connection is noticed in half a second, a node that hangs after three failed checks of ten seconds, and an election
takes about one.

Engines that wait for a master ask for one each second. Here they ask when something has changed that may let them in:
a cluster that nobody can join may stand for days, and what it did meanwhile is caught up with at the next look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shardlift.sim import movement
from shardlift.sim.parts import Due, SimNode

if TYPE_CHECKING:
    from shardlift.sim.world import World

_NOTICED_DEAD_S = 0.5
_NOTICED_HUNG_S = 30.0
_ELECTION_S = 0.8
# From a node's leaving to the configuration without it: two publications, the node's list and the configuration.
_RECONFIGURED_S = 0.3
_JOIN_AGAIN_S = 1.0
_START_FAILS_S = 1.0
_FEWEST_VOTERS = 3
_ASK = "ask"


def begin(world: World, node: SimNode) -> None:
    node.pid = world.new_number() + 1000
    node.ephemeral_id = f"e{world.new_number()}"
    node.hung = False
    node.started_at_ms = world.wall_ms(world.now_s)
    node.writes = 0
    node.cold = True
    pid = node.pid
    if node.starts:
        world.later(node.boot_s * node.slowness, "booted", node.name, pid)
    else:
        world.later(_START_FAILS_S, "start_failed", node.name, pid)


def end(world: World, node: SimNode) -> None:
    """The process is gone. What it served stays on its disk; the others do not know yet."""
    node.pid, node.serving, node.hung, node.booted = None, False, False, False
    world.keep(node)


def notice(world: World, node: SimNode) -> None:
    """After a while the others take a node that does not answer off their list."""
    hung_pid = (node.pid or 0) if node.hung else 0
    world.later(_NOTICED_HUNG_S if node.hung else _NOTICED_DEAD_S, "gone", node.name, hung_pid)


def wake(world: World, node: SimNode) -> None:
    """A node that hung goes on; if it has been taken off the list it joins again, with its data."""
    if not node.hung:
        return
    node.hung = False
    if node.up and world.elected is None:
        world.later(_ELECTION_S, "elect")  # its vote may be the one that was missing
    _ask_again(world)


def leave(world: World, node: SimNode) -> None:
    if not node.up:
        return
    world.keep(node)
    node.up = False
    movement.node_left(world, node)
    if world.elected == node.name or not _can_publish(world):
        world.elected = None
    if world.elected is None:
        world.later(_ELECTION_S, "elect")
    else:
        world.later(_RECONFIGURED_S, "reconfigure")
    world.changed()


def exclude_from_voting(world: World, name: str) -> None:
    world.voting_excluded.add(name)
    reconfigure(world)
    if world.elected == name and any(_able(world, node) for node in world.nodes.values()):
        world.elected = None
        world.later(_ELECTION_S, "elect")


def clear_exclusions(world: World) -> None:
    world.voting_excluded.clear()
    reconfigure(world)


def reconfigure(world: World) -> None:
    """The elected master adapts the voting configuration to who is there, if a majority of the present one answers.

    Either way something has changed for those that wait: they may be what the majority lacks.
    """
    _ask_again(world)
    if world.elected is None or not _can_publish(world):
        return
    by_id = {node.node_id: node for node in world.nodes.values() if node.eligible}
    kept = [one for one in world.voters if one not in by_id or by_id[one].name not in world.voting_excluded]
    live = [
        node for node in world.nodes.values() if node.up and node.eligible and node.name not in world.voting_excluded
    ]
    size = max(_odd(len(live)), min(_FEWEST_VOTERS, _odd(len(kept))))
    ids = [node.node_id for node in live]
    first = [one for one in ids if one == world.nodes[world.elected].node_id]
    order = [*first, *(one for one in kept if one in ids), *ids, *kept]
    wanted = list(dict.fromkeys(order))[:size]
    # A new configuration stands only when a majority of it is alive: otherwise the old one stays.
    if wanted and 2 * sum(one in ids for one in wanted) > len(wanted):
        world.voters = tuple(wanted)


def _can_publish(world: World) -> bool:
    """Whether members that answer are a majority of the configuration in force."""
    return world.quorum_without(())


def _odd(count: int) -> int:
    return count if count % 2 else max(count - 1, 0)


def _able(world: World, node: SimNode) -> bool:
    return node.awake and node.node_id in world.voters and node.name not in world.voting_excluded


def _elect(world: World) -> str:
    if world.elected is not None:
        return ""
    votes = sum(node.awake and node.node_id in world.voters for node in world.nodes.values())
    able = [node for node in world.nodes.values() if _able(world, node)]
    if 2 * votes <= len(world.voters) or not able:
        return ""
    # A member before one that has only just booted: it has the newer cluster state.
    elected = min(able, key=lambda node: not node.up)
    world.elected = elected.name
    elected.up = elected.serving = True
    reconfigure(world)
    world.changed()
    return f"{world.elected} is elected master"


def _reconfigured(world: World) -> str:
    reconfigure(world)
    return ""


def _gone(world: World, name: str, hung_pid: int) -> str:
    """`hung_pid`: the process that hung, which may have gone on since, or be another one by now; 0 if it had ended."""
    node = world.nodes[name]
    if not node.up or (hung_pid and not (node.hung and node.pid == hung_pid)):
        return ""
    leave(world, node)
    return f"{name} has left the cluster"


def _booted(world: World, name: str, pid: int) -> str:
    node = world.nodes[name]
    if node.pid != pid:
        return ""
    node.booted = True
    return "" if node.hung else _joins(world, name, pid)


def _joins(world: World, name: str, pid: int) -> str:
    """HTTP opens after the join; without a master, or one that nobody follows, the node waits.

    A node without which no majority answers was never taken off the committed list of members, however long it was
    away: it is no newcomer to a cluster that is newer.
    """
    node = world.nodes[name]
    if node.pid != pid or node.up or node.hung:
        return ""
    if world.elected is None:
        # Its vote may be the one that was missing.
        _elect(world)
    if world.elected is None or not world.quorum_with(node):
        return ""
    others = [one for one in world.nodes.values() if one.up and one is not node]
    if others and _can_publish(world) and all(_past(one, node) for one in others):
        node.log.append(f"refused to join: all other nodes are newer than {node.version}")
        return f"{node.name} is refused: the cluster is newer"
    node.up = node.serving = True
    reconfigure(world)
    movement.node_joined(world, node)
    world.changed()
    return f"{node.name} has joined as {node.engine} {node.version}"


def _ask_again(world: World) -> None:
    """Whoever waits for a master, or for one that has a majority, asks once more."""
    if not any(_waits(node) for node in world.nodes.values()):
        return
    if not any(isinstance(event, Due) and event.name == _ASK for _, _, event in world.due):
        world.later(_JOIN_AGAIN_S, _ASK)


def _asked(world: World) -> str:
    waiting = [(node.name, node.pid or 0) for node in world.nodes.values() if _waits(node)]
    return "; ".join(line for name, pid in waiting if (line := _joins(world, name, pid)))


def _waits(node: SimNode) -> bool:
    return node.awake and not node.up


def _start_failed(world: World, name: str, pid: int) -> str:
    node = world.nodes[name]
    if node.pid != pid:
        return ""
    node.pid = None
    node.log.append("Unrecognized VM option 'Nonsense'")
    return f"{node.name} does not start"


# By the names under which they are scheduled: these stand in files, so they stay.
EVENTS: dict[str, Callable[..., str]] = {
    "booted": _booted,
    "start_failed": _start_failed,
    "gone": _gone,
    "joins": _joins,  # due only in files of a release in which each node that waits asked by itself
    _ASK: _asked,
    "elect": _elect,
    "reconfigure": _reconfigured,
}


def _past(one: SimNode, node: SimNode) -> bool:
    """Whether it is of a later major: of OpenSearch all are, to a node of Elasticsearch."""
    return (one.release[0], one.version.major) > (node.release[0], node.version.major)
