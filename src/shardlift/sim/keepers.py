"""Where a world is kept while nobody looks at it: nowhere, or in a file that several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shardlift.sim.world import World


class Keeper(Protocol):
    """Whoever keeps a world is asked before it is looked at, and frames each change of it."""

    def refresh(self, world: World) -> None:
        """Takes over what another process has changed since."""

    def hold(self, world: World) -> AbstractContextManager[None]:
        """Within it nobody else changes the world; at its end the world is written down, also after an error."""


class Unkept:
    """A world that lives and dies with its process."""

    def refresh(self, world: World) -> None:
        """There is nobody else."""

    @contextmanager
    def hold(self, world: World) -> Iterator[None]:
        del world
        yield
