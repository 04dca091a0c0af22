"""What Shardlift asks of the host of a node: files and processes. The real one for this machine is `driver.local`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shardlift.model import Image, Node, PluginSeen


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    """A living engine process. `(pid, started_at_s)` is its identity: pids are reused, start times are not."""

    pid: int
    started_at_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a process ended. `already`: it was not running; `killed`: SIGTERM was not enough within the bound."""

    already: bool
    killed: bool
    took_s: float


@dataclass(frozen=True, slots=True)
class Backup:
    """A configuration archive kept off the node. `digest` is sha256 over names and contents."""

    digest: str
    files: tuple[str, ...]
    plugins: tuple[PluginSeen, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back. `translated` has one line per setting renamed or dropped for the target; `kept` names changed
    files that were carried over instead of taking the target image's own; `already` when it had been done before."""

    already: bool
    translated: tuple[str, ...]
    kept: tuple[str, ...]


class Driver(Protocol):
    """The host side of one or more nodes.

    Each method is idempotent and looks first whether its work is done; `key` (a task id) ties repeated calls of one
    task together. All raise DriverError with a cause a person can act on, and leave nothing half done.
    """

    async def prepare(self, image: Image) -> None:
        """Makes the image ready on the host: fetched, digest verified, unpacked. Called before any node is stopped."""

    async def image_ready(self, image: Image) -> bool:
        """Whether `prepare` has been done."""

    async def java_problem(self, image: Image) -> str | None:
        """Why no JVM for the image is at hand on the host; None when there is one."""

    async def allocate(self, count: int, taken: frozenset[str]) -> tuple[tuple[str, int, int], ...]:
        """(address, HTTP port, transport port) for so many new nodes, none of whose addresses is in `taken`."""

    async def create(self, node: Node, image: Image, *, seeds: tuple[Node, ...], heap_mib: int) -> None:
        """Lays the node's files: config, data, logs, engine link. `seeds` are all nodes of its cluster."""

    async def process(self, node: Node) -> ProcessSeen | None:
        """The node's living process, or None: by pid file and start time, or else by the lock that an engine which a
        person started holds on the node's data."""

    async def start(self, node: Node, *, bootstrap: tuple[str, ...] = ()) -> ProcessSeen:
        """Starts the engine unless it runs; never twice, whatever crashes when. Does not wait for HTTP.

        `bootstrap`: names of the initial masters, only for a cluster's very first start.
        """

    async def stop(self, node: Node, *, timeout_s: float) -> Stopped:
        """SIGTERM, waits up to `timeout_s` for the exit, then SIGKILL and waits 10 s more."""

    async def backup(self, node: Node, *, key: str) -> Backup:
        """Copies configuration and plugin list off the node. Done once per key; later calls return the same.

        Except that a configuration which somebody has changed since, before `restore` has rebuilt it, takes its place.
        """

    async def current_image(self, node: Node) -> str | None:
        """Id of the image that the node's engine link names, None when it has none."""

    async def switch(self, node: Node, image: Image, *, key: str, fresh_data: bool) -> bool:
        """Points the stopped node at the image by one atomic rename; with `fresh_data` sets its data path aside.

        The old data is kept until `discard`. Returns False when all of it had been done before. Refuses while the
        node's process lives.
        """

    async def hand_over(self, source: Node, target: Node, *, key: str) -> bool:
        """Gives the data folder of stopped `source` to stopped `target`, which `switch` with `fresh_data` has emptied.

        One rename, once per key; False when it had been done before. `source` is left with an empty folder. Refuses
        while a process of either lives, and a `target` that `switch` has not emptied. What a start has put there since
        is set aside as well, until `discard`.
        """

    async def restore(self, node: Node, image: Image, *, key: str, zone: str | None = None) -> Restored:
        """Rebuilds the configuration for the image from the backup of this key, made anew if somebody has changed the
        configuration since, and the image's defaults.

        `zone`: where the node is from now on; None keeps what its configuration says.
        """

    async def plugins(self, node: Node) -> tuple[PluginSeen, ...]:
        """Plugins in the node's engine as it now stands, sorted by name."""

    async def image_plugins(self, image: Image) -> tuple[PluginSeen, ...]:
        """Plugins that a prepared image brings."""

    async def discard(self, node: Node, *, key: str) -> None:
        """Deletes the data that `switch` with this key set aside."""

    async def log_tail(self, node: Node, lines: int = 40) -> tuple[str, ...]:
        """The last lines of the engine's log and of what the process printed, oldest first; may be empty."""

    async def delete(self, node: Node) -> None:
        """Stops the process if it runs and removes every file of the node."""
