"""What the rules look at."""

from __future__ import annotations

from dataclasses import dataclass

from shardlift.model import Cluster, Finding, Image, Node, Observation, PluginSeen, Severity, Strategy


@dataclass(frozen=True, slots=True)
class Subject:
    """One question: may `cluster`, seen as `seen`, go to `image` by `strategy`?

    `node` is set when the question is about taking that one node down now. `image_plugins` are those the image brings,
    `java_problem` says why no JVM for it is at hand (None: there is one). `backup_check` and `load_check` are wishes of
    the request. `own_tokens` are exclusions that the running task itself has set and that are no leftovers. `canary`: the first node is to wait for
    somebody's word, without shard copies, before the others follow.
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

    @property
    def taken(self) -> tuple[Node, ...]:
        """The nodes that the question is about: that one node, or all that do not run the image yet."""
        if self.node is not None:
            return (self.node,)
        return tuple(node for node in self.cluster.nodes if node.image_id != self.image.id)


def blocks(rule: str, subject: str, *, reason: str, evidence: str, remedy: str) -> Finding:
    return Finding(rule, Severity.BLOCK, subject, reason, evidence, remedy)


def warns(rule: str, subject: str, *, reason: str, evidence: str, remedy: str) -> Finding:
    return Finding(rule, Severity.WARN, subject, reason, evidence, remedy)
