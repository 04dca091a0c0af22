"""Where a caller's way into the simulated world can be watched, cut or ended."""

from __future__ import annotations

from typing import Protocol


class Door(Protocol):
    """Every call to cluster or host passes it twice. `call` is the engine's method, or `host.` and the host's effect;
    `where` names what it is about; `effect` tells that the call changes something.

    Both may sleep, and may raise what real calls raise, or a BaseException that ends the caller like a kill. Before an
    effect nothing else sleeps, so between a caller's last look at its lease and its effect no time passes.
    """

    async def before(self, call: str, where: str, *, effect: bool) -> None:
        """Nothing has been read or changed yet."""

    async def after(self, call: str, where: str, *, effect: bool) -> None:
        """It has been done, and the caller does not know yet."""


class OpenDoor:
    """Lets everything pass."""

    async def before(self, call: str, where: str, *, effect: bool) -> None:
        """Nothing stands in the way."""

    async def after(self, call: str, where: str, *, effect: bool) -> None:
        """Nor here."""
