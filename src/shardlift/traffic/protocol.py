"""What Shardlift asks of a load balancer."""

from __future__ import annotations

from typing import Protocol

from shardlift.model import Node


class Balancer(Protocol):
    """One cluster's balancer. Every call is bounded in time, may be made again, and raises HookError."""

    async def pools(self, node: Node) -> tuple[str, ...] | None:
        """Names of the pools that lead clients to the node now; None when the balancer cannot be asked."""

    async def remove(self, node: Node, pools: tuple[str, ...] | None) -> str:
        """From its return on no new request goes to the node by these pools (None: by any). What was done, in words."""

    async def put_back(self, node: Node, pools: tuple[str, ...] | None) -> str:
        """Returns once requests go to the node by these pools again."""

    async def sessions(self, node: Node) -> int | None:
        """Requests that the balancer still has open or queued for the node; None when it cannot be asked."""
