"""How fast UpgradeDetail answers, from 10 to 100,000 tasks and from 1 to 1,000 nodes a task, beside a server that does
nothing but answer the same bytes, and beside moto's describe call.

Servers are real processes: `shardlift serve` on a home that was filled before, `bench_bare.py` with the same server
settings, and `moto_server` from a venv of its own. The load comes from other processes, on another core. All are asked
in another order each round, for a third of a second each: the machine's speed changes by a third within seconds, and so
what it does meets all of them alike. How a row compares with the first is told round by round, by the median of the
rounds' quotients. Beside requests a second stands the CPU time of the server for one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import bench_fill
import psutil
from bench_api_told import figures, report
from bench_fill import Filled

from shardlift.api.signing import sign

ROOT = Path(__file__).resolve().parent.parent
SIZES = (10, 1_000, 100_000)
NODES = (1, 10, 100, 1_000)
_START_S = 120
# A client's first request goes the long way; those of so many clients are through in a second, by far.
_LEARNT_PER_S = 100
_SAID_EVERY = 10
_MOTO_SCOPE = "mock/20261124/us-east-1/es/aws4_request"
_MOTO_HEADERS = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={_MOTO_SCOPE}, SignedHeaders=host, Signature=0",
    "Content-Type": "application/json",
}
_DOMAIN = "/2021-01-01/opensearch/domain"


@dataclass
class Server:
    """A server process, what is asked of it, and what was measured of it, round by round."""

    name: str
    port: int
    process: psutil.Process
    paths: Sequence[str]
    ak: str = ""
    sk: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    home: Path = Path()
    rows: list[dict[str, float]] = field(default_factory=list)
    load: subprocess.Popen[str] | None = None

    def measure(self, seconds: float) -> dict[str, float]:
        assert self.load is not None, "load_on() comes first"
        assert self.load.stdin is not None
        assert self.load.stdout is not None
        before = self._cpu_s()
        self.load.stdin.write(f"{seconds}\n")
        self.load.stdin.flush()
        row: dict[str, float] = json.loads(self.load.stdout.readline())
        row["cpu_us"] = (self._cpu_s() - before) / row["count"] * 1e6
        if row["failed"]:
            raise SystemExit(f"{self.name}: {row['failed']} of {row['count']} answers were no 200")
        self.rows.append(row)
        return row

    @contextmanager
    def load_on(self, connections: int) -> Iterator[None]:
        """A process that asks this server and no other, with all its requests signed, as long as this is open."""
        job = {
            "port": self.port,
            "paths": list(self.paths),
            "ak": self.ak,
            "sk": self.sk,
            "headers": self.headers,
            "connections": connections,
        }
        command = [sys.executable, str(ROOT / "tools/bench_load.py")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as self.load:
            _pin(self.load.pid, -1)
            assert self.load.stdin is not None
            assert self.load.stdout is not None
            self.load.stdin.write(json.dumps(job) + "\n")
            self.load.stdin.flush()
            if self.load.stdout.readline() != "ready\n":
                raise SystemExit(f"{self.name}: its load did not start")
            try:
                yield
            finally:
                self.load.stdin.close()

    def of_one(self, name: str) -> Server:
        """The same process, asked for its first path alone."""
        return Server(name, self.port, self.process, self.paths[:1], self.ak, self.sk, home=self.home)

    def middle(self, key: str) -> float:
        return statistics.median(row[key] for row in self.rows)

    def beside(self, other: Server) -> float:
        """How many times the other's requests a second, by the median of the rounds."""
        return statistics.median(mine["per_s"] / its["per_s"] for mine, its in zip(self.rows, other.rows, strict=True))

    def _cpu_s(self) -> float:
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in processes)


def _pin(pid: int, core: int) -> None:
    """A server on the first core and the load on the last: else the two now and then share one, or change places."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[core]})


@contextmanager
def _process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A child that ends with us, whatever happens."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    _pin(process.pid, 0)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def shardlift(filled: Filled, name: str) -> Iterator[Server]:
    # The rate is counted as ever, only not reached.
    limits = {"SHARDLIFT_KEY_RATE_PER_S": "1000000000", "SHARDLIFT_KEY_RATE_BURST": "1000000000"}
    command = [sys.executable, "-m", "shardlift", "serve", "--port", "0"]
    told = filled.home / "serve.json"
    with _process(command, SHARDLIFT_HOME=str(filled.home), **limits) as process:
        _until(lambda: told.exists() and _answers(json.loads(told.read_text())["url"] + "/docs"))
        port = int(json.loads(told.read_text())["url"].rsplit(":", 1)[1])
        who = filled.credentials
        paths = [f"/v1.0/{who.project_id}/clusters/{one}/upgrade/detail" for one in filled.clusters]
        yield Server(name, port, psutil.Process(process.pid), paths, who.ak, who.sk, home=filled.home)


@contextmanager
def bare(folder: Path) -> Iterator[Callable[[str, Server], Server]]:
    """Gives a maker of servers by name and by the server whose requests it is sent: all the same process.

    The same signed requests: to read a request from the wire is the HTTP server's work, here as there.
    """
    with _process([sys.executable, str(ROOT / "tools/bench_bare.py"), str(folder)]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        _until(lambda: _answers(f"http://127.0.0.1:{port}/v1.0/any/clusters/{next(folder.iterdir()).name}"))
        yield lambda name, like: Server(name, port, psutil.Process(process.pid), like.paths, like.ak, like.sk)


@contextmanager
def moto() -> Iterator[Server]:
    venv = _moto_venv()
    port = _free_port()
    with _process([str(venv / "bin/moto_server"), "-H", "127.0.0.1", "-p", str(port)]) as process:
        _until(lambda: _answers(f"http://127.0.0.1:{port}/moto-api/"))
        body = json.dumps({"DomainName": "bench", "EngineVersion": "OpenSearch_2.19"}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{_DOMAIN}", body, _MOTO_HEADERS)
        urllib.request.urlopen(request, timeout=30).read()  # noqa: S310  (our own server)
        yield Server(
            "moto, describe domain", port, psutil.Process(process.pid), [f"{_DOMAIN}/bench"], headers=_MOTO_HEADERS
        )


def _moto_venv() -> Path:
    """In .cache, from requirements/bench.txt, every archive held to its digest; made once."""
    venv, wanted = ROOT / ".cache/bench", ROOT / "requirements/bench.txt"
    stamp = venv / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        say("installing moto into .cache/bench")
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(wanted)], check=True)
        stamp.write_text(wanted.read_text())
    return venv


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (our own server)
            return True
    except OSError:
        return False


def _until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_S
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"a server did not start within {_START_S} s")
        time.sleep(0.1)


def say(text: str) -> None:
    print(f"== bench-api: {text}", file=sys.stderr, flush=True)


def page_of(server: Server, path: str = "") -> bytes:
    """One answer, signed as all are."""
    url = f"http://127.0.0.1:{server.port}{path or server.paths[0]}"
    headers = sign("GET", url, ak=server.ak, sk=server.sk, now=datetime.now(UTC))
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return bytes(answer.read())


def after_a_change(server: Server, home: Path, times: int) -> float:
    """Median ms of a poll that comes right after another process has changed a task on the page."""
    took = []
    with sqlite3.connect(home / "shardlift.db", isolation_level=None, timeout=10) as other:
        for _ in range(times):
            other.execute("UPDATE task SET revision = revision + 1 WHERE status = 'RUNNING'")
            began = time.perf_counter()
            page_of(server)
            took.append(time.perf_counter() - began)
    other.close()
    return statistics.median(took) * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="tasks in a home")
    parser.add_argument("--nodes", type=int, nargs="*", default=NODES, help="nodes a task, ten tasks a home")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="of load, each time: short, so that all have the same"
    )
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="one JSON document in place of tables")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="shardlift-bench-") as folder, ExitStack() as stack:
        run(options, Path(folder), stack)


def run(options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
    homes = {}
    for size in options.sizes:
        say(f"filling a home with {size:,} tasks")
        homes[f"{size:,} tasks"] = bench_fill.fill(folder / f"tasks-{size}", size)
    for nodes in options.nodes:
        say(f"filling a home with tasks of {nodes:,} nodes")
        homes[f"{nodes:,} nodes a task"] = bench_fill.fill(folder / f"nodes-{nodes}", 10, nodes)
    say("starting the servers")
    ours = {}
    for named, home in homes.items():
        server = stack.enter_context(shardlift(home, named))
        if len(server.paths) > 1:
            # Its largest alone, as in homes of one cluster: so it shows what the number of tasks costs, and what it
            # costs that so many different pages are asked for that no cache of the processor holds them.
            largest = server.of_one(f"{named}, largest cluster")
            ours[largest.name] = largest
            server.name = f"{named}, {len(server.paths):,} clusters"
        ours[server.name] = server
    answers = folder / "answers"
    answers.mkdir()
    sizes = {}
    for server in ours.values():
        say(f"the first poll of each of the {len(server.paths):,} clusters of {server.name}")
        for path in server.paths:
            (answers / path.split("/")[4]).write_bytes(page_of(server, path))
        sizes[server.name] = statistics.median((answers / path.split("/")[4]).stat().st_size for path in server.paths)
    make_bare = stack.enter_context(bare(answers))
    bares = {name: make_bare(f"bare, {name}", ours[name]) for name in ours}
    other = stack.enter_context(moto())
    everyone = [*(server for name in ours for server in (ours[name], bares[name])), other]
    for one in everyone:  # the first time everything is loaded, and each client has been seen
        stack.enter_context(one.load_on(options.connections))
        one.measure(1 + len(one.paths) / _LEARNT_PER_S)
        one.rows.clear()
    measure(everyone, options.rounds, options.seconds)
    changed = {name: after_a_change(server, server.home, 30) for name, server in ours.items()}
    report(figures(ours, bares, other, changed, sizes), [*bares.values(), other], as_json=options.json)


def measure(everyone: list[Server], rounds: int, seconds: float) -> None:
    """In another order each round: what comes right after a server that wears the caches out differs from the rest."""
    chance = random.Random(1)  # noqa: S311  (no secret)
    for at in range(rounds):
        if at % _SAID_EVERY == 0:
            say(f"round {at + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}")
        for one in chance.sample(everyone, len(everyone)):
            one.measure(seconds)


if __name__ == "__main__":
    main()
