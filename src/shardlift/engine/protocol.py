"""What Shardlift asks of a cluster's REST API. The real one is `engine.rest`, the simulated one lives in `sim`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shardlift.model import (
    ClusterSettings,
    Explanation,
    Health,
    HealthSeen,
    Move,
    MoveVerdict,
    NodeSeen,
    Observation,
    Recovery,
    RetainedCopy,
    ShardCopy,
    VotingSeen,
)


class Engine(Protocol):
    """One cluster, reached through whichever of its nodes answers.

    Every method is bounded in time and raises EngineError when no node answers or the engine refuses. All of them may
    be called again without harm. Node names are the engine's `node.name`, which equal Shardlift's.
    """

    async def observe(self) -> Observation:
        """Everything the rules need, read once. About ten calls; not for polling."""

    async def nodes(self) -> tuple[NodeSeen, ...]:
        """The members as the elected master sees them, with versions from `/_nodes`; disk and load left None. Cheap."""

    async def nodes_with_load(self) -> tuple[NodeSeen, ...]:
        """The same with disk and load, which every node is asked for: four calls, not for fast polling."""

    async def elected(self) -> str | None:
        """Name of the elected master, None while there is none."""

    async def answers(self, node: str) -> bool:
        """Whether that very node answers HTTP now, asked of it alone, within 2 s. Never raises.

        A member without an address that is known here, as a spare node is, is asked through another one.
        """

    async def health(
        self,
        *,
        wait_settled: bool = False,
        wait_status: Health | None = None,
        timeout_s: float = 0,
    ) -> HealthSeen:
        """Cluster health, long-polled by the engine for up to `timeout_s`.

        `wait_settled`: until nothing relocates or initializes and no cluster-state work is queued (languid events).
        """

    async def shards(self) -> tuple[ShardCopy, ...]:
        """Every shard copy from the master's routing table, without sizes."""

    async def settings(self, *, defaults: bool = False) -> ClusterSettings:
        """Both layers of the cluster settings, flat. `defaults`: with the elected master's defaults as well."""

    async def configured(self, key: str) -> Mapping[str, str | None]:
        """By the name of each node that answers: what its configuration file says of a key of `indices.`."""

    async def put_setting(self, layer: str, key: str, value: str | None) -> None:
        """Sets one key in `persistent` or `transient`; None deletes it."""

    async def voting(self) -> VotingSeen | None:
        """Voting configuration and exclusions; None where the engine has none (6.8)."""

    async def exclude_from_voting(self, node: str) -> bool:
        """Takes the node out of the voting configuration, which makes an elected master hand over.

        False where the engine has no such call (6.8).
        """

    async def clear_voting_exclusions(self) -> None:
        """Ends all voting exclusions without waiting for the nodes to leave."""

    async def explain(self, copy: ShardCopy) -> Explanation:
        """Why this copy is where it is, and whether it can move."""

    async def try_moves(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        """What the engine would say to each move on its own (`_cluster/reroute?dry_run&explain`); nothing moves.

        At most 100 moves at once.
        """

    async def move(self, moves: tuple[Move, ...]) -> tuple[MoveVerdict, ...]:
        """Begins each move that the engine allows (`_cluster/reroute?explain`), and tells which it does not.

        At most 100 moves at once. Raises EngineError when a copy is not started on its source.
        """

    async def flush(self) -> None:
        """Flushes all indices (synced where the engine still has that), so that copies differ by few operations."""

    async def retained(self, node: str) -> tuple[RetainedCopy, ...]:
        """Of each copy on the node whose shard has others, and for which the engine keeps a lease: what it retains."""

    async def in_flight(self, node: str) -> int | None:
        """Data and search requests being worked on by the node now; None when unknown."""

    async def recoveries(self) -> tuple[Recovery, ...]:
        """Peer recoveries of the copies that exist now, with the bytes that each copied."""

    async def close(self) -> None:
        """Closes connections."""
