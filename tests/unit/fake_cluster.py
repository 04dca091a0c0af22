"""A tiny cluster over HTTP, a few lines of the engine's REST API, which can be told to betray its clients."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit


@dataclass
class Faults:
    """`lose_every`: each such write is acknowledged and forgotten. `double_every`: kept twice. `alter_every`: garbled.

    `refuse_writes`: nodes (by number) that answer writes with 500. `hang_up`: nodes that close the connection.
    `apply_then_hang_up`: nodes that keep the document, and close the connection without an answer.
    `partial_searches`: nodes whose searches miss a shard.
    """

    lose_every: int = 0
    double_every: int = 0
    alter_every: int = 0
    refuse_writes: frozenset[int] = frozenset()
    hang_up: frozenset[int] = frozenset()
    apply_then_hang_up: frozenset[int] = frozenset()
    partial_searches: frozenset[int] = frozenset()


@dataclass
class FakeCluster:
    """`nodes` HTTP servers over one store; use as a context manager. `reached` is set at the write number `enough`."""

    nodes: int = 3
    faults: Faults = field(default_factory=Faults)
    docs: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    enough: int = 60
    puts: int = 0
    writes: int = 0
    reached: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler(n)) for n in range(self.nodes)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{server.server_port}" for server in self._servers]

    def count_put(self) -> None:
        with self._lock:
            self.puts += 1
            if self.puts >= self.enough:
                self.reached.set()

    def put(self, index: str, doc_id: str, doc: dict, *, create: bool) -> int:
        with self._lock:
            if create and (index, doc_id) in self.docs:
                return 409
            self.writes += 1
            faults, n = self.faults, self.writes
            if faults.lose_every and n % faults.lose_every == 0:
                return 201
            if faults.alter_every and n % faults.alter_every == 0:
                doc = {**doc, "number": -1}
            copies = 2 if faults.double_every and n % faults.double_every == 0 else 1
            self.docs[index, doc_id] = [doc] * copies
            return 201

    def _handler(self, node: int) -> type[Handler]:
        return type("NodeHandler", (Handler,), {"cluster": self, "node": node})

    def search(self, node: int, _index: str, _body: dict) -> dict:
        missed = int(node in self.faults.partial_searches)
        shards = {"total": 2, "successful": 2 - missed, "failed": missed}
        return {"timed_out": False, "_shards": shards, "hits": {"hits": []}}

    def mget(self, _node: int, index: str, body: dict) -> dict:
        found = {doc_id: self.docs.get((index, doc_id)) for doc_id in body["ids"]}
        return {
            "docs": [
                {"_id": i, "found": True, "_source": d[0]} if d else {"_id": i, "found": False}
                for i, d in found.items()
            ]
        }

    def count(self, _node: int, index: str, _body: dict) -> dict:
        total = sum(len(copies) for (name, _), copies in self.docs.items() if name == index)
        return {"count": total, "_shards": {"total": 2, "failed": 0}}

    def refresh(self, _node: int, _index: str, _body: dict) -> dict:
        return {"_shards": {"total": 2, "failed": 0}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: FakeCluster
    node: int

    def log_message(self, *_: object) -> None:
        """Silent."""

    def answer(self, status: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def body(self) -> dict:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return json.loads(raw) if raw else {}

    def hangs_up(self, faults: frozenset[int]) -> bool:
        if self.node in faults:
            self.close_connection = True
        return self.node in faults

    def do_PUT(self) -> None:
        parts, doc = urlsplit(self.path), self.body()
        _, index, _, doc_id = parts.path.split("/")
        self.cluster.count_put()
        faults = self.cluster.faults
        if self.hangs_up(faults.hang_up):
            return
        if self.node in faults.refuse_writes:
            self.answer(500, {"error": "told to"})
            return
        status = self.cluster.put(index, doc_id, doc, create=parse_qs(parts.query).get("op_type") == ["create"])
        if not self.hangs_up(faults.apply_then_hang_up):
            self.answer(status, {"result": "created" if status == 201 else "conflict"})

    def do_POST(self) -> None:
        body = self.body()
        _, index, what = urlsplit(self.path).path.split("/")
        acts = {
            "_search": self.cluster.search,
            "_mget": self.cluster.mget,
            "_count": self.cluster.count,
            "_refresh": self.cluster.refresh,
        }
        if not self.hangs_up(self.cluster.faults.hang_up):
            self.answer(200, acts[what](self.node, index, body))
