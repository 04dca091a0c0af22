"""Load for `make bench-api`, in a process of its own: so many connections, each with one request under way at a time.

Reads a job as JSON, a line of standard input, and then seconds, a line for each run; writes what it measured, a line of
JSON for each. Signing is done before the clock starts.
Each request is another one: their dates lie around now, so that nothing can be answered because it was seen before.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shardlift.api.signing import sign

_REQUESTS = 6000
_SPREAD_S = 200
_FRESH_S = 300.0  # within the skew that servers allow, with the spread
_WAIT_S = 10.0
_BUFFER_BYTES = 1 << 20


@dataclass
class _Connection:
    """`left`: bytes of the answer that are still to come; None before its head is read."""

    socket: socket.socket
    began_ns: int = 0
    left: int | None = None
    closes: bool = False
    status: bytes = b""


class Load:
    """Closed loop: a connection asks again as soon as its answer is whole."""

    def __init__(self, port: int, requests: Sequence[bytes], connections: int) -> None:
        self._address = ("127.0.0.1", port)
        self._requests = requests
        self._next = 0
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._buffer = bytearray(_BUFFER_BYTES)
        self._count = connections
        self.latencies_ns: list[int] = []
        self.failed = 0

    def run(self, seconds: float) -> float:
        """Seconds that it took."""
        for _ in range(self._count):
            self._connect()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for number, _ in self._poll.poll(_WAIT_S):
                self._read(self._open[number])
        took = time.perf_counter() - began
        for one in self._open.values():
            one.socket.close()
        return took

    def _connect(self) -> None:
        connection = _Connection(socket.create_connection(self._address, timeout=_WAIT_S))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connection.socket.fileno()
        self._open[number] = connection
        self._poll.register(number, select.EPOLLIN)
        self._ask(connection)

    def _ask(self, one: _Connection) -> None:
        one.left, one.began_ns = None, time.perf_counter_ns()
        one.socket.sendall(self._requests[self._next])
        self._next = (self._next + 1) % len(self._requests)

    def _read(self, one: _Connection) -> None:
        size = one.socket.recv_into(self._buffer)
        if not size:
            raise SystemExit("the server closed a connection in the middle of an answer")
        if one.left is None:
            size = self._read_head(one, size)
        assert one.left is not None
        one.left -= size
        if one.left > 0:
            return
        self.latencies_ns.append(time.perf_counter_ns() - one.began_ns)
        self.failed += one.status != b"200"
        if one.closes:
            self._poll.unregister(one.socket.fileno())
            del self._open[one.socket.fileno()]
            one.socket.close()
            self._connect()
        else:
            self._ask(one)

    def _read_head(self, one: _Connection, size: int) -> int:
        """How much of what was received belongs to the body. Heads are small, and come in one piece."""
        end = self._buffer.find(b"\r\n\r\n", 0, size)
        head = bytes(self._buffer[:end]).lower()
        one.status = head[9:12]
        one.closes = head.startswith(b"http/1.0") or b"connection: close" in head
        at = head.index(b"content-length:") + len(b"content-length:")
        one.left = int(head[at:].split(b"\r\n", 1)[0])
        return size - end - 4


def signed_requests(port: int, paths: Sequence[str], ak: str, sk: str) -> list[bytes]:
    """As the Python SDK sends and signs them, in a random order."""
    chance = random.Random(1)  # noqa: S311  (no secret)
    now = datetime.now(UTC)
    out = []
    for at in range(_REQUESTS):
        path = paths[at % len(paths)]
        when = now + timedelta(seconds=chance.randrange(-_SPREAD_S, _SPREAD_S))
        headers = {"Content-Type": "application/json", "User-Agent": "bench", "X-Project-Id": path.split("/")[2]}
        made = sign("GET", f"http://127.0.0.1:{port}{path}", ak=ak, sk=sk, now=when, headers=headers)
        out.append(raw_request(path, made))
    chance.shuffle(out)
    return out


def raw_request(path: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def prepared(job: dict[str, Any]) -> list[bytes]:
    if job.get("sk"):
        return signed_requests(job["port"], job["paths"], job["ak"], job["sk"])
    return [raw_request(path, {"Host": f"127.0.0.1:{job['port']}", **job["headers"]}) for path in job["paths"]]


def main() -> None:
    job = json.loads(sys.stdin.readline())
    requests, made_s = prepared(job), time.monotonic()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if time.monotonic() - made_s > _FRESH_S:
            requests, made_s = prepared(job), time.monotonic()
        load = Load(job["port"], requests, job["connections"])
        took_s = load.run(float(line))
        found = sorted(load.latencies_ns)
        if not found:
            raise SystemExit(f"no answer within {took_s:.1f} s from port {job['port']}")
        row = {
            "per_s": len(found) / took_s,
            "count": len(found),
            "failed": load.failed,
            "p50_ms": found[len(found) // 2] / 1e6,
            "p99_ms": found[len(found) * 99 // 100] / 1e6,
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
