"""What the rules look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from shardlift.model import Cluster, Finding, Image, Node, Observation, PluginSeen, Severity, Strategy, TaskKind

_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """One question: may `cluster`, seen as `seen`, go to `image` by `strategy`?

    `node` is set when the question is about taking that one node down now. `batches` is set when it is about an order:
    the nodes of a batch are taken together, the batches one after the other. `budget`: how many nodes may be away at
    once. `image_plugins` are those the image brings, `java_problem` says why no JVM for it is at hand (None: there is
    one). `backup_check` and `load_check` are wishes of the request. `own_tokens` are exclusions that the running task
    itself has set and that are no leftovers. `canary`: the first node is to wait for somebody's word, without shard
    copies, before the others follow.

    `batch_size`: how many nodes may be taken together at most. `mates`: names of the nodes taken together with `node`.

    Of a task that is no upgrade (`kind`), `chosen` names the nodes it is about, `to_zones` tells which of them change
    to which zone, `spreads` that they are dealt over several, and `unsaved` that they come back with an empty disk
    although nothing has left them before.
    """

    seen: Observation
    cluster: Cluster
    image: Image
    strategy: Strategy
    node: Node | None = None
    image_plugins: tuple[PluginSeen, ...] | None = None
    java_problem: str | None = None
    backup_check: bool = False
    load_check: bool = False
    own_tokens: frozenset[str] = frozenset()
    canary: bool = False
    batches: tuple[tuple[Node, ...], ...] = ()
    budget: int = 1
    kind: TaskKind = TaskKind.UPGRADING
    chosen: frozenset[str] | None = None
    to_zones: Mapping[str, str] = field(default_factory=dict)
    unsaved: bool = False
    spreads: bool = False
    mates: frozenset[str] = frozenset()
    batch_size: int = 1

    @property
    def spares(self) -> frozenset[str]:
        """Names of the members that are spare nodes of ours, and no nodes of the cluster."""
        known = {node.name for node in self.cluster.nodes}
        prefix = spare_prefix(self.cluster)
        return frozenset(name for name in self.seen.members if name.startswith(prefix) and name not in known)

    @property
    def taken(self) -> tuple[Node, ...]:
        """The nodes that the question is about: that one node, or all that do not run the image yet."""
        return self.waiting if self.node is None else (self.node,)

    @property
    def waiting(self) -> tuple[Node, ...]:
        """The nodes that do not run the image yet, or that are chosen, whichever of them the question is about."""
        if self.chosen is not None:
            return tuple(node for node in self.cluster.nodes if node.name in self.chosen)
        return tuple(node for node in self.cluster.nodes if node.image_id != self.image.id)

    @property
    def keeps_copies(self) -> bool:
        """Whether what a node holds stays on it while it is away: nothing leaves it before."""
        return self.strategy is Strategy.IN_PLACE or self.unsaved

    @property
    def out(self) -> tuple[Node, ...]:
        """The nodes that should be members and are not."""
        return tuple(node for node in self.cluster.nodes if node.name not in self.seen.members)

    @property
    def repairs(self) -> tuple[Node, ...]:
        """The nodes out of the cluster that are to be taken anyway, and are taken first."""
        taken = {node.name for node in self.taken}
        return tuple(node for node in self.out if node.name in taken)

    @property
    def repairing(self) -> bool:
        """Whether the node in question is out of the cluster itself: to start it takes nothing away."""
        return self.node is not None and self.node.name not in self.seen.members


def spare_prefix(cluster: Cluster) -> str:
    """What the names of the cluster's spare nodes begin with."""
    return f"{cluster.name}-spare-"


def blocks(rule: str, subject: str, *, reason: str, evidence: str, remedy: str) -> Finding:
    return Finding(rule, Severity.BLOCK, subject, reason, evidence, remedy)


def warns(rule: str, subject: str, *, reason: str, evidence: str, remedy: str) -> Finding:
    return Finding(rule, Severity.WARN, subject, reason, evidence, remedy)


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(islice(names, _NAMED_MAX)) + more


def put_settings(layer: str, key: str, value: str | int | None) -> str:
    """The request that sets one cluster setting, as a remedy to copy; None deletes it."""
    return f"PUT _cluster/settings {json.dumps({layer: {key: value}})}"
