"""What one seed stands for: a cluster, a request, and everything that is to go wrong. Drawn once, then only read."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from shardlift.model import AZ_MIGRATE, MULTI_AZ_CHANGE, Strategy

_MIB = 2**20
_ZONES = ("zone-a", "zone-b", "zone-c")
_STRATEGIES = (Strategy.DRAIN, Strategy.IN_PLACE, Strategy.AUTO)
# Two seeds of seven.
_SEVEN, _SURGE = 7, (3, 5)
# One seed of five, not drawn either: the others keep their meaning.
_FIVE, _RAISED = 5, 4
_RAISE_MAX = 4
# One seed of eleven is no upgrade but a move of dedicated masters to other zones, not drawn either.
_ELEVEN, _MOVED = 11, 10
_EXTRA_MASTER = "trial-spare-master"
_MOVES = (
    ("ess-master", MULTI_AZ_CHANGE, "zone-a,zone-b,zone-c"),
    ("ess-master", AZ_MIGRATE, "zone-d"),
    ("all", AZ_MIGRATE, "zone-d"),
)
# A node that has room, one that has none, and one that does not tell; the last two make the limit go back.
_LOADS = (0.1, 0.1, 1.0, 3.0, None)
_SMALL = 4  # data nodes; dedicated masters besides would make trials of bigger clusters slow
# Dynamic settings that operators really turn, with values that stop nothing.
_HARMLESS = (
    ("indices.recovery.max_bytes_per_sec", "80mb"),
    ("cluster.routing.allocation.cluster_concurrent_rebalance", "4"),
    ("cluster.routing.rebalance.enable", "replicas"),
    ("cluster.routing.allocation.node_concurrent_recoveries", "3"),
)

# What may happen, with how often it is drawn.
_KINDS = {
    "node dies": 2,
    "node hangs": 1,
    "node does not start": 2,
    "slow boot": 1,
    "disk full": 1,
    "cluster busy": 1,
    "frozen": 2,
    "clock jumps": 1,
    "setting changed": 2,
    "exclusion removed": 1,
    "index created": 2,
    "index deleted": 1,
    "snapshot": 1,
}
_OF_NODES = frozenset({"node dies", "node hangs", "node does not start", "slow boot", "disk full"})
_LENGTHS_S = {
    "node dies": (3.0, 90.0),
    "node hangs": (3.0, 90.0),
    "node does not start": (20.0, 200.0),
    "disk full": (20.0, 200.0),
    "cluster busy": (1.0, 25.0),
    "frozen": (2.0, 60.0),
    "snapshot": (5.0, 120.0),
}


@dataclass(frozen=True, slots=True)
class NodeDraw:
    """One node: its roles in the engine's words, its zone, and how long it takes from start to HTTP."""

    roles: tuple[str, ...]
    zone: str
    boot_s: float


@dataclass(frozen=True, slots=True)
class IndexDraw:
    """One index, with the bytes of each of its primaries."""

    name: str
    primaries: int
    replicas: int
    copy_bytes: int
    expand: str = "false"
    segments: bool = False


@dataclass(frozen=True, slots=True)
class MoveDraw:
    """A change of zones of the nodes of that type in zone-a, in the words of the API."""

    inst_type: str
    migrate_type: str
    target: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens at `at_s` after the request, for `for_s`. `where` names a node, a key or an index."""

    at_s: float
    kind: str
    where: str = ""
    value: str = ""
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rest:
    """How unreliable calls to cluster and hosts are: shares of all calls."""

    refused: float = 0.0
    lost_request: float = 0.0
    lost_answer: float = 0.0
    host_failure: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One trial. `kills[k]` is the point at which the k-th control plane dies.

    `raise_max`: how far it raises the limit of recoveries. `loads`: at how many seconds which node bears how much.
    `move`: what is asked for where that is no upgrade.
    """

    seed: int
    nodes: tuple[NodeDraw, ...]
    indices: tuple[IndexDraw, ...]
    strategy: Strategy
    canary: bool
    writes_every_s: float
    kills: tuple[int, ...]
    rest: Rest
    faults: tuple[Fault, ...]
    settings: tuple[tuple[str, str, str], ...]
    pause_at_s: float | None
    abort_at_s: float | None
    batch_size: int = 1
    raise_max: int = 1
    loads: tuple[tuple[float, str, float | None], ...] = ()
    move: MoveDraw | None = None

    def __str__(self) -> str:
        what = str(self.strategy) if self.move is None else f"{self.move.inst_type} from zone-a to {self.move.target}"
        head = f"seed {self.seed}: {what}{', canary' if self.canary else ''}, {len(self.nodes)} nodes"
        head += f" in batches of {self.batch_size}" if self.batch_size > 1 else ""
        lines = [f"{head}, a write to each shard every {self.writes_every_s:g} s"]
        for at, node in enumerate(self.nodes, 1):
            lines.append(f"  node {at}: {'+'.join(node.roles)}, {node.zone}, boots in {node.boot_s:g} s")
        for index in self.indices:
            more = f", expands {index.expand}" if index.expand != "false" else ""
            more += ", segment replication" if index.segments else ""
            size = index.copy_bytes // _MIB
            lines.append(f"  {index.name}: {index.primaries} x {index.replicas + 1} copies of {size} MiB{more}")
        lines += [f"  {layer} {key} = {value}" for layer, key, value in self.settings]
        lines += [f"  control plane {at} dies at its point {point}" for at, point in enumerate(self.kills, 1)]
        for fault in self.faults:
            length = f" for {fault.for_s:.0f} s" if fault.for_s else ""
            lines.append(f"  at {fault.at_s:.0f} s: {fault.kind} {fault.where} {fault.value}".rstrip() + length)
        if self.raise_max > 1:
            lines.append(f"  recoveries are let go up to {self.raise_max} times as fast")
        lines += [f"  at {at_s:.0f} s: the load of {name} is {load}" for at_s, name, load in self.loads]
        if self.rest != Rest():
            lines.append(f"  {self.rest}")
        if self.pause_at_s is not None:
            lines.append(f"  paused at {self.pause_at_s:.0f} s")
        if self.abort_at_s is not None:
            lines.append(f"  aborted at {self.abort_at_s:.0f} s")
        return "\n".join(lines)


def draw(seed: int) -> Scenario:
    """The scenario of a seed: always the same one."""
    dice = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    moves = seed % _ELEVEN == _MOVED
    nodes = _with_masters(_nodes(dice)) if moves else _nodes(dice)
    names = tuple(f"node-{at}" for at in range(1, len(nodes) + 1))
    data = sum("data" in node.roles for node in nodes)
    strategy = dice.choice(_STRATEGIES)
    indices = _indices(dice, strategy, data)
    calm = _chance(dice, 0.15)
    raised = seed % _FIVE == _RAISED
    drawn = Scenario(
        seed=seed,
        nodes=nodes,
        indices=indices,
        # Not drawn, so that seeds from before there was surge keep their meaning.
        strategy=Strategy.SURGE if seed % _SEVEN in _SURGE else strategy,
        canary=_chance(dice, 0.2),
        writes_every_s=dice.choice((0.5, 1.0, 2.0)),
        kills=tuple(_kill_point(dice) for _ in range(0 if calm else dice.choice((0, 1, 1, 1, 2, 3, 5)))),
        rest=Rest() if calm or _chance(dice, 0.5) else _rest(dice),
        faults=() if calm else _faults(dice, names, indices),
        settings=_settings(dice),
        pause_at_s=dice.uniform(1, 150) if _chance(dice, 0.15) else None,
        abort_at_s=dice.uniform(1, 200) if _chance(dice, 0.12) else None,
        batch_size=dice.choice((1, 1, 2, 3)),
        raise_max=_RAISE_MAX if raised else 1,
        loads=_loads(seed, names) if raised else (),
    )
    return _moved(drawn) if moves else drawn


def _with_masters(nodes: tuple[NodeDraw, ...]) -> tuple[NodeDraw, ...]:
    """Some of these as nodes without a vote, and three dedicated masters in one zone."""
    plain = [node for node in nodes if "data" in node.roles][:_SMALL]
    boot_s = nodes[0].boot_s
    data = [NodeDraw(("data", "ingest"), node.zone, boot_s) for node in plain]
    return (*data, *(NodeDraw(("cluster_manager",), _ZONES[0], boot_s) for _ in range(3)))


def _moved(scenario: Scenario) -> Scenario:
    """The same as a change of zones, in which the extra master may die. By dice of their own, as loads are."""
    dice = random.Random(scenario.seed ^ 0x20E5)  # noqa: S311  (repeatable on purpose)
    faults = scenario.faults
    if faults and _chance(dice, 0.5):
        dies = Fault(dice.uniform(5, 200), "node dies", _EXTRA_MASTER, for_s=dice.uniform(*_LENGTHS_S["node dies"]))
        faults = tuple(sorted((*faults, dies), key=lambda fault: fault.at_s))
    move = MoveDraw(*dice.choice(_MOVES))
    return replace(scenario, move=move, strategy=Strategy.DRAIN, canary=False, batch_size=1, faults=faults)


def _loads(seed: int, names: tuple[str, ...]) -> tuple[tuple[float, str, float | None], ...]:
    """By dice of their own, so that what else a seed stands for stays the same."""
    dice = random.Random(seed ^ 0x10AD)  # noqa: S311  (repeatable on purpose)
    drawn = [(dice.uniform(5, 200), dice.choice(names), dice.choice(_LOADS)) for _ in range(dice.choice((0, 2, 4, 8)))]
    return tuple(sorted(drawn, key=lambda one: one[0]))


def _kill_point(dice: random.Random) -> int:
    """Early ones more often than late ones: a process that lives long has met everything once."""
    return int(dice.triangular(1, 350, 20))


def _nodes(dice: random.Random) -> tuple[NodeDraw, ...]:
    zones = _ZONES[: dice.choice((1, 2, 3, 3))]
    count = dice.choice((3, 3, 3, 4, 5, 6))
    boot_s = dice.choice((4.0, 8.0, 15.0))
    dedicated = count <= _SMALL and _chance(dice, 0.2)
    roles = ("data", "ingest") if dedicated else ("cluster_manager", "data", "ingest")
    nodes = [NodeDraw(roles, zones[at % len(zones)], boot_s) for at in range(count)]
    if dedicated:
        nodes += [NodeDraw(("cluster_manager",), zones[at % len(zones)], boot_s) for at in range(3)]
    elif _chance(dice, 0.2):
        nodes.append(NodeDraw(("ingest",), zones[0], boot_s))
    return tuple(nodes)


def _indices(dice: random.Random, strategy: Strategy, data: int) -> tuple[IndexDraw, ...]:
    fewest = 1 if strategy is Strategy.IN_PLACE else 0
    drawn = [
        IndexDraw(
            name=f"index-{at}",
            primaries=dice.choice((1, 1, 2, 3)),
            replicas=min(dice.choice((fewest, 1, 1, 2)), data - 2),
            copy_bytes=int(dice.choice((1, 20, 200, 1000)) * _MIB * dice.uniform(0.5, 1.5)),
            segments=_chance(dice, 0.1),
        )
        for at in range(dice.choice((1, 2, 3, 5)))
    ]
    if _chance(dice, 0.2):
        drawn.append(IndexDraw(".everywhere", 1, data - 1, _MIB, expand="0-all"))
    return tuple(drawn)


def _rest(dice: random.Random) -> Rest:
    def share() -> float:
        return dice.choice((0.0, 0.01, 0.03))

    return Rest(share(), share(), share(), dice.choice((0.0, 0.0, 0.01)))


def _settings(dice: random.Random) -> tuple[tuple[str, str, str], ...]:
    """What stood in the cluster before us, in one layer or the other."""
    if _chance(dice, 0.5):
        return ()
    key, value = dice.choice(_HARMLESS)
    exclude = ("persistent", "cluster.routing.allocation.exclude._name", "long-gone")
    return ((dice.choice(("persistent", "transient")), key, value), *((exclude,) if _chance(dice, 0.3) else ()))


def _faults(dice: random.Random, names: tuple[str, ...], indices: tuple[IndexDraw, ...]) -> tuple[Fault, ...]:
    count = dice.choice((0, 1, 1, 2, 3))
    drawn = [_fault(dice, names, indices, number) for number in range(count)]
    return tuple(sorted(drawn, key=lambda fault: fault.at_s))


def _fault(dice: random.Random, names: tuple[str, ...], indices: tuple[IndexDraw, ...], number: int) -> Fault:
    at_s = dice.uniform(0.5, 200)
    kind = dice.choice([kind for kind, weight in _KINDS.items() for _ in range(weight)])
    key, setting = dice.choice(_HARMLESS)
    where = {"setting changed": key, "index created": f"new-{number}", "index deleted": dice.choice(indices).name}
    values = {
        "slow boot": ("30", "60", "120"),
        "clock jumps": ("-3600", "-5", "5", "60", "86400"),
        "setting changed": (setting,),
        "index created": ("0", "1", "1"),
    }
    least_s, most_s = _LENGTHS_S.get(kind, (0.0, 0.0))
    return Fault(
        at_s=0.0 if kind == "slow boot" else at_s,
        kind=kind,
        where=where.get(kind, dice.choice(names) if kind in _OF_NODES else ""),
        value=dice.choice(values.get(kind, ("",))),
        for_s=dice.uniform(least_s, most_s),
    )


def _chance(dice: random.Random, share: float) -> bool:
    return dice.random() < share
