"""Addresses for local nodes: one of its own in 127/8 for each, or, where a platform has no such aliases, ports."""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from shardlift.errors import DriverError

HTTP_PORT = 9200
TRANSPORT_PORT = 9300
_TRIES_MAX = 5000

Endpoint = tuple[str, int, int]
"""Address, HTTP port, transport port."""


def allocate(home: Path, count: int, taken: frozenset[str]) -> tuple[Endpoint, ...]:
    """`count` free endpoints. `taken` has what nodes own that may be down now: addresses, or `address:port`.

    The first address comes from the home's path, so that two homes on one machine rarely meet; each is tried by
    binding both ports. Raises DriverError when nothing is left.
    """
    found: list[Endpoint] = []
    for address in _candidates(home):
        if len(found) == count:
            return tuple(found)
        if address in taken:
            continue
        free = _bindable(address)
        if free is None:
            return _on_one_address(count, taken)
        if free:
            found.append((address, HTTP_PORT, TRANSPORT_PORT))
    raise DriverError(f"only {len(found)} of {count} addresses in 127/8 are free", remedy="delete clusters not in use")


def _candidates(home: Path) -> Iterator[str]:
    seed = hashlib.sha256(str(home.resolve()).encode()).digest()
    second, start = 1 + seed[0] % 254, int.from_bytes(seed[1:3])
    for step in range(_TRIES_MAX):
        third, fourth = divmod((start + step) % 65_536, 256)
        if fourth not in (0, 255):
            yield f"127.{second}.{third}.{fourth}"


def _bindable(address: str) -> bool | None:
    """Whether both ports are free there; None when the machine has no such address."""
    with ExitStack() as stack:
        for port in (HTTP_PORT, TRANSPORT_PORT):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                return None if error.errno == errno.EADDRNOTAVAIL else False
    return True


def _on_one_address(count: int, taken: frozenset[str]) -> tuple[Endpoint, ...]:
    """Free ports of 127.0.0.1. All probes stay open until the end, so that no port is given twice."""
    ports: list[int] = []
    with ExitStack() as stack:
        for _ in range(_TRIES_MAX):
            if len(ports) == 2 * count:
                break
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if f"127.0.0.1:{port}" not in taken:
                ports.append(port)
    return tuple(("127.0.0.1", http, transport) for http, transport in zip(ports[::2], ports[1::2], strict=True))
