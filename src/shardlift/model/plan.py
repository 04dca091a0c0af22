"""The plan: data, decided once, walked by the executor without further choices."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from shardlift.model.cluster import Strategy

AZ_MIGRATE, MULTI_AZ_CHANGE = "az_migrate", "multi_az_change"
AWARENESS = "cluster.routing.allocation.awareness."
AWARE_OF = f"{AWARENESS}attributes"
FORCED_ZONES = f"{AWARENESS}force.zone.values"
REBALANCE = "cluster.routing.rebalance.enable"


@dataclass(frozen=True, slots=True)
class SubStep:
    """One of the 13 sub-steps that each node goes through. Orders 0 and 12 carry the CSS names and texts."""

    order: int
    name: str
    desc: str


SUB_STEPS: tuple[SubStep, ...] = (
    SubStep(
        0,
        "Data migration",
        "Data is migrated from a node to other nodes in the cluster by running the exclude command.",
    ),
    SubStep(
        1,
        "Safety check",
        "Every rule is checked again on a fresh observation, just before harm becomes possible.",
    ),
    SubStep(2, "Master handover", "If the node is the elected master, another node is elected before it stops."),
    SubStep(3, "Traffic removal", "Clients are led away from the node, and requests in flight on it are waited for."),
    SubStep(4, "Allocation hold", "Replicas wait for the node to return instead of being rebuilt elsewhere."),
    SubStep(
        5,
        "Configuration backup",
        "Configuration, keystore, certificates and plugin list are copied off the node.",
    ),
    SubStep(6, "Node shutdown", "The engine process is asked to stop, and waited for."),
    SubStep(7, "Node replacement", "The node's engine is switched to the target image."),
    SubStep(8, "Configuration restoration", "The configuration is put back, translated to the target version."),
    SubStep(9, "Plugin installation", "Plugins of exactly the target version are put in place."),
    SubStep(10, "Node start", "The engine is started with the same name and address."),
    SubStep(11, "Cluster rejoin", "The node has joined with the target version, and its shards have settled."),
    SubStep(
        12,
        "Task status update",
        "The cluster task status is refreshed. If there are no nodes to be replaced, the task is marked as completed. "
        "Otherwise, another node starts to be replaced.",
    ),
)

# Those that the nodes of a batch go through at once: their processes end, and boot. These change no setting.
AT_ONCE = frozenset({6, 10})


@dataclass(frozen=True, slots=True)
class Leaving:
    """Copies that move from one node, and their bytes."""

    copies: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Settling:
    """What the engine moves by itself: bytes that the busiest node sends or takes, and in how many rounds, since it
    moves few copies at a time."""

    size_bytes: int
    rounds: int


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What happens to one node. `node_id` and `name` are Shardlift's, which stay through the upgrade.

    `drained`: all copies leave it before it stops; `rescued`: those that are started nowhere else. `fresh_data`: it
    comes back with an empty data path. `repair`: it was out of the cluster when the plan was made, so there is nothing
    to drain and nothing to hand over. `canary`: once it is back it takes no shard copy until somebody approves.
    `from_version` is empty when nobody knows it. `to_zone`: the zone that it comes back in, None for the one it is in.

    `spare`: the spare node that is to be a member before anything leaves this one, None where there is none. What
    leaves it then `fills` the node of that name: the spare, or the node before it, which is empty by then. The last
    node of those that share it ends it: it `takes_over` the data folder of the stopped spare; or else it comes back
    empty and `empties_spare`, so that the spare's copies move to it before the spare goes.

    `spare_zone`: where the spare is no home for copies but an extra master, the zone in which it votes while masters
    without data change zones. It joins before the first of them is stopped (the one that `fills` it, though nothing
    does) and goes when the last one, which `empties_spare`, is back.

    `leaving`: what moves away before it stops, by the dry run; only the time left goes by it. None where nobody has
    reckoned it, as in a plan of an older release.
    """

    node_id: str
    name: str
    from_version: str
    fresh_data: bool
    drained: bool = False
    rescued: bool = False
    repair: bool = False
    canary: bool = False
    to_zone: str | None = None
    spare: str | None = None
    fills: str | None = None
    takes_over: bool = False
    empties_spare: bool = False
    spare_zone: str | None = None
    leaving: Leaving | None = None

    @property
    def stands_in(self) -> bool:
        """Whether its spare is an extra master."""
        return self.spare_zone is not None

    @property
    def raises_spare(self) -> bool:
        """Whether its spare has to be made and started before anything leaves it: it is the first that fills it."""
        return self.spare is not None and self.fills == self.spare

    @property
    def away_too(self) -> frozenset[str]:
        """Names of those that are away when this node is, and are no nodes of the plan."""
        return frozenset({self.spare}) if self.takes_over and self.spare else frozenset()


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """A change of zones as it was asked for, in the words of CSS, and where the nodes of that type are at its end.

    `source` and `target` are zone names, joined by commas where there are several. `final` has (zone, node names).
    """

    inst_type: str
    migrate_type: str
    source: str
    target: str
    final: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def spreads(self) -> bool:
        """Whether nodes are dealt over several zones, not moved from one to another."""
        return self.migrate_type == MULTI_AZ_CHANGE and "," in self.target


@dataclass(frozen=True, slots=True)
class ForcedZones:
    """What a change of zones makes of the list of forced zones (`FORCED_ZONES`).

    A forced zone takes its share of places from all others, with or without data nodes in it. So the list is shortened
    before the first node goes, and extended after the last: at no moment does it name a zone of the change in which no
    data node is.

    `emptied`: forced zones that no data node is in at the end. `filled`: zones that data nodes are in then, were not
    before, and that are not forced. `configured`: the list as the nodes' own configuration has it, where no request
    has set one.
    """

    emptied: tuple[str, ...]
    filled: tuple[str, ...]
    configured: tuple[str, ...] = ()

    def during(self, forced: Iterable[str]) -> tuple[str, ...]:
        """That list while nodes are taken. It may be empty, which forces nothing: were its only zone kept in it, that
        one would still take its share of places from the others once its last node has left it."""
        return tuple(zone for zone in forced if zone not in self.emptied)

    def after(self, forced: Iterable[str], here: Collection[str]) -> tuple[str, ...]:
        """That list once all nodes have moved, with data nodes in the zones `here`. The same when asked of its own
        answer, so that it may be asked again after a crash."""
        kept = (zone for zone in forced if zone not in self.emptied or zone in here)
        new = (zone for zone in self.filled if zone in here)
        return tuple(dict.fromkeys((*kept, *new))) or tuple(sorted(here))


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches of nodes in the order they are taken, all to `image_id`. A batch holds nodes of one zone only.

    `forced`: what becomes of the forced zones, None where that is nothing. `aware`: once all nodes are done, copies are
    kept apart by zone, which they were not before.

    What only the time left goes by: `settling`, what moves after the last node, None where nobody has reckoned it;
    `settling_max_s`, for how long shards are waited for then at most, as the settings were when the task was made, None
    in a plan of an older release.
    """

    cluster_id: str
    strategy: Strategy
    image_id: str
    batches: tuple[tuple[NodePlan, ...], ...]
    zones: ZoneChange | None = None
    forced: ForcedZones | None = None
    aware: bool = False
    settling: Settling | None = None
    settling_max_s: float | None = None

    @property
    def nodes(self) -> tuple[NodePlan, ...]:
        return tuple(node for batch in self.batches for node in batch)

    @property
    def settles(self) -> bool:
        """Whether the engine has copies to move once all nodes are done. With spares alone it has none: the last node
        has the share of the first."""
        return self.aware or any(node.drained and node.spare is None for node in self.nodes)

    @property
    def stand_in(self) -> NodePlan | None:
        """The first of the masters that an extra one joins for; None where none does."""
        return next((node for node in self.nodes if node.stands_in), None)
