"""Balancers behind hooks: a HAProxy that speaks its runtime API, a program, an HTTP server."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
import pytest

from shardlift.errors import HookError, UsageError
from shardlift.model import HookKind, TrafficAction, TrafficHook, filled, values_of
from shardlift.service.hooks import validated
from shardlift.store.hooks import HookStore
from shardlift.store.vault import Vault
from shardlift.traffic.command import CommandHook
from shardlift.traffic.haproxy import Haproxy
from shardlift.traffic.http import HttpHook
from tests.fakes import make_cluster, make_image
from tests.worlds import open_lab

NODES = make_cluster("p", make_image("2.19.4")).nodes
NODE = NODES[0]
HEAD = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord"
)


@dataclass
class FakeHaproxy:
    """By `backend/server`: (address, port, operational state, administrative state, sessions). As 2.6 answers."""

    servers: dict[str, list] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    denied: bool = False
    silent: bool = False
    checks: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.readline()).decode().strip()
        self.commands.append(command)
        if self.silent:
            with suppress(asyncio.CancelledError):
                await reader.read()
        else:
            writer.write(self.answer(command).encode())
            await writer.drain()
        writer.close()

    def answer(self, command: str) -> str:
        words = command.split()
        if words[:3] == ["show", "servers", "state"]:
            mine = {name: one for name, one in self.servers.items() if name.startswith(f"{words[3]}/")}
            if not mine:
                return "Can't find backend.\n\n"
            rows = [
                f"3 {name.split('/')[0]} 1 {name.split('/')[1]} {address} {op} {admin} 1 1 9 6 3 4 6 0 0 0 - {port} -"
                for name, (address, port, op, admin, _) in mine.items()
            ]
            return "1\n# " + "\n".join([HEAD, *rows]) + "\n\n"
        if words[:2] == ["show", "stat"]:
            rows = [f"{name.replace('/', ',')},0,0,{sessions},9" for name, (*_, sessions) in self.servers.items()]
            return "# pxname,svname,qcur,qmax,scur,smax\n" + "\n".join(rows) + "\n\n"
        if self.denied:
            return "Permission denied\n\n"
        server = self.servers[words[2]]
        server[3] = {"drain": 8, "ready": 0}[words[4]]
        server[2] = 2 if self.checks else 0
        return "\n"


@asynccontextmanager
async def haproxy(folder: Path, timeout_s: float = 5, **more: bool) -> AsyncIterator[tuple[FakeHaproxy, Haproxy]]:
    fake = FakeHaproxy(
        {f"nodes/s{at}": [node.address, node.http_port, 2, 0, 0] for at, node in enumerate(NODES, 1)}, **more
    )
    path = folder / "haproxy.sock"
    server = await asyncio.start_unix_server(fake.serve, path)
    try:
        yield fake, Haproxy(str(path), ("nodes",), timeout_s)
    finally:
        server.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)


async def test_haproxy_drains_and_readies_the_server_with_the_nodes_address(fast_home: Path) -> None:
    async with haproxy(fast_home) as (fake, balancer):
        assert await balancer.pools(NODE) == ("nodes",)
        assert "nodes/s1" in await balancer.remove(NODE, ("nodes",))
        assert [server[3] for server in fake.servers.values()] == [8, 0, 0]
        assert await balancer.pools(NODE) == ()
        await balancer.remove(NODE, ("nodes",))
        fake.servers["nodes/s1"][4], fake.servers["nodes/s2"][4] = 3, 4
        assert await balancer.sessions(NODE) == 3
        await balancer.put_back(NODE, ("nodes",))
        assert [server[3] for server in fake.servers.values()] == [0, 0, 0]


async def test_haproxy_finds_a_server_by_its_name_when_none_has_the_address(fast_home: Path) -> None:
    async with haproxy(fast_home) as (fake, balancer):
        fake.servers = {f"nodes/{node.name}": [f"es{at}.example", 0, 2, 0, 0] for at, node in enumerate(NODES)}
        await balancer.remove(NODE, ("nodes",))
        assert fake.servers[f"nodes/{NODE.name}"][3] == 8


async def test_haproxy_without_the_node_or_the_backend_is_an_error(fast_home: Path) -> None:
    async with haproxy(fast_home) as (fake, balancer):
        stranger = replace(NODE, address="10.0.0.9", name="stranger")
        with pytest.raises(HookError, match=r"has no server 10\.0\.0\.9:9200, nor one named stranger"):
            await balancer.remove(stranger, None)
        fake.servers.clear()
        with pytest.raises(HookError, match="does not show the servers of nodes: Can't find backend"):
            await balancer.pools(NODE)


async def test_haproxy_keeps_its_last_server(fast_home: Path) -> None:
    async with haproxy(fast_home) as (fake, balancer):
        fake.servers["nodes/s2"][2] = 0
        fake.servers["nodes/s3"][3] = 1
        with pytest.raises(HookError, match="is the last server that HAProxy's backend nodes leads clients to"):
            await balancer.remove(NODE, ("nodes",))
        assert fake.servers["nodes/s1"][3] == 0


async def test_haproxy_that_denies_is_silent_or_away(fast_home: Path) -> None:
    async with haproxy(fast_home, denied=True) as (_, balancer):
        with pytest.raises(HookError, match="Permission denied") as told:
            await balancer.remove(NODE, ("nodes",))
        assert "level admin" in str(told.value.remedy)
    async with haproxy(fast_home, timeout_s=0.2, silent=True) as (_, balancer):
        with pytest.raises(HookError, match=r"within 0\.2 s"):
            await balancer.pools(NODE)
    with pytest.raises(HookError, match="cannot be reached"):
        await Haproxy(str(fast_home / "none.sock"), ("nodes",), 1).pools(NODE)
    with pytest.raises(HookError, match="cannot be reached"):
        await Haproxy("127.0.0.1:1", ("nodes",), 1).pools(NODE)


async def test_haproxy_whose_check_fails_is_told(fast_home: Path) -> None:
    async with haproxy(fast_home, timeout_s=0.3, checks=False) as (_, balancer):
        with pytest.raises(HookError, match=r"leads no clients to .* its health check fails"):
            await balancer.put_back(NODE, ("nodes",))


# programs


def program(folder: Path, text: str) -> str:
    path = folder / "hook.py"
    path.write_text(f"#!{sys.executable} -S\nimport os, sys, time\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_program_gets_its_words_without_a_shell_and_none_of_our_settings(
    fast_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLIFT_DATABASE_URL", "postgresql://u:secret@h/d")
    out = fast_home / "out"
    path = program(fast_home, "open(sys.argv[1], 'a').write(repr((sys.argv[2:], sorted(os.environ))) + chr(10))")
    hook = CommandHook((path, str(out), "{action}", "{node};rm", "$HOME {address}:{port}", "{other}"), 20)
    assert "ended with code 0" in await hook.remove(NODE, None)
    await hook.put_back(NODE, None)
    lines = [eval(line) for line in out.read_text().splitlines()]
    address = f"$HOME {NODE.address}:{NODE.http_port}"
    assert [words for words, _ in lines] == [
        [action, f"{NODE.name};rm", address, "{other}"] for action in ("remove", "return")
    ]
    assert not [name for _, names in lines for name in names if name.startswith("SHARDLIFT_")]
    assert (await hook.pools(NODE), await hook.sessions(NODE)) == (None, None)


async def test_a_program_that_fails_is_told_with_the_end_of_what_it_said(fast_home: Path) -> None:
    path = program(fast_home, "print('x' * 1_000_000); print('no such pool'); sys.exit(3)")
    with pytest.raises(HookError, match=r"ended with code 3 when told to remove .*no such pool") as told:
        await CommandHook((path, "{action}", "{node}"), 20).remove(NODE, None)
    assert len(told.value.message) < 700
    with pytest.raises(HookError, match="cannot be run"):
        await CommandHook((str(fast_home / "none"),), 5).remove(NODE, None)


async def test_a_program_that_hangs_ends_with_all_that_it_has_begun(fast_home: Path) -> None:
    pids = fast_home / "pids"
    path = program(
        fast_home,
        "child = os.fork()\nopen(sys.argv[1], 'a').write(f'{os.getpid()}' + chr(10))\nprint('begun')\ntime.sleep(600)",
    )
    with pytest.raises(HookError, match="did not end within 1 s"):
        await CommandHook((path, str(pids)), 1).remove(NODE, None)
    assert alive([int(pid) for pid in pids.read_text().split()]) == []


def alive(pids: list[int]) -> list[int]:
    """Those that have not ended within ten seconds."""
    there = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    left = psutil.wait_procs(there, timeout=10)[1]
    return [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]


# HTTP

SECRETS = ("hush", "token-in-path", "s3cret")


def http_hook(answer: Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable], **more: float):
    hook = TrafficHook(
        HookKind.HTTP,
        url="https://user:hush@lb.example:8443/token-in-path/{node}?to={action}",
        headers=(("X-Auth", "s3cret"),),
        **more,
    )
    return HttpHook(hook, ssl.create_default_context(), httpx.MockTransport(answer))


async def test_http_sends_what_it_is_about_with_its_placeholders_encoded() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    odd = replace(NODE, name="a/b?c#d é")
    assert await http_hook(answer).remove(odd, None) == "POST https://lb.example:8443/... answered 204"
    assert asked[0].url.raw_path == b"/token-in-path/a%2Fb%3Fc%23d%20%C3%A9?to=remove"
    assert asked[0].headers["X-Auth"] == "s3cret"
    assert b'"action":"remove"' in asked[0].content.replace(b": ", b":")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: httpx.Response(500, text="hush"), "answered 500"),
        (lambda _: httpx.Response(302, headers={"Location": "https://evil.example"}), "redirects are not followed"),
    ],
)
async def test_http_that_does_not_say_yes_fails_without_a_secret(answer, told: str) -> None:
    with pytest.raises(HookError, match=told) as error:
        await http_hook(answer).put_back(NODE, None)
    assert not any(secret in f"{error.value.message} {error.value.remedy}" for secret in SECRETS)


async def test_http_that_cannot_be_reached_or_never_ends_fails_in_time_without_a_secret() -> None:
    def refused(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("token-in-path")

    async def hangs(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    for answer, told in ((refused, "could not be reached"), (hangs, r"within 0\.1 s")):
        with pytest.raises(HookError, match=told) as error:
            await http_hook(answer, timeout_s=0.1).remove(NODE, None)
        assert not any(secret in f"{error.value.message} {error.value.remedy}" for secret in SECRETS)


def test_nothing_that_is_shown_has_the_secrets() -> None:
    hook = TrafficHook(
        HookKind.HTTP,
        url="https://user:hush@lb.example:8443/token-in-path?k=s3cret",
        headers=(("X-Auth", "s3cret"),),
    )
    shown = f"{hook!r} {hook.document()} {hook.target}"
    assert not any(secret in shown for secret in SECRETS)
    assert "lb.example:8443" in shown
    assert "X-Auth" in shown


# what people give


@pytest.mark.parametrize(
    ("hook", "field"),
    [
        (TrafficHook(HookKind.COMMAND, argv=()), "command"),
        (TrafficHook(HookKind.COMMAND, argv=("/bin/true", "{action}")), "command"),
        (TrafficHook(HookKind.COMMAND, argv=("/bin/true", "{action}", "{nod}", "{node}")), "command"),
        (TrafficHook(HookKind.COMMAND, argv=("no-such-program", "{action}", "{node}")), "command"),
        (TrafficHook(HookKind.COMMAND, argv=("/etc/passwd", "{action}", "{node}")), "command"),
        (TrafficHook(HookKind.HTTP, url="ftp://h/x"), "url"),
        (TrafficHook(HookKind.HTTP, url="http://h:99999/x"), "url"),
        (TrafficHook(HookKind.HTTP, url="http://{node}/x"), "url"),
        (TrafficHook(HookKind.HTTP, url="http://h/{x}"), "url"),
        (TrafficHook(HookKind.HTTP, url="http://h/\n"), "url"),
        (TrafficHook(HookKind.HTTP, url="http://h/", method="DELETE"), "method"),
        (TrafficHook(HookKind.HTTP, url="http://h/", headers=(("A b", "c"),)), "header"),
        (TrafficHook(HookKind.HTTP, url="http://h/", headers=(("A", "c\r\nB: d"),)), "header"),
        (TrafficHook(HookKind.HAPROXY, socket="run.sock", backends=("n",)), "haproxy"),
        (TrafficHook(HookKind.HAPROXY, socket="h:0", backends=("n",)), "haproxy"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=()), "backend"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=("a b",)), "backend"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=("a;shutdown",)), "backend"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=("n",), timeout_s=0), "timeout"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=("n",), timeout_s=float("nan")), "timeout"),
        (TrafficHook(HookKind.HAPROXY, socket="/s", backends=("n",), in_flight_timeout_s=1e9), "in-flight-timeout"),
    ],
)
def test_a_hook_that_cannot_work_is_refused_by_its_field(hook: TrafficHook, field: str) -> None:
    with pytest.raises(UsageError) as told:
        validated(hook)
    assert told.value.field == field
    assert told.value.remedy


def test_a_program_is_found_on_the_path_once_and_for_all() -> None:
    found = validated(TrafficHook(HookKind.COMMAND, argv=("env", "{action}", "{address}")))
    assert Path(found.argv[0]).is_absolute()
    assert found.argv[1:] == ("{action}", "{address}")


def test_what_a_placeholder_brings_is_not_looked_at_again() -> None:
    values = values_of(replace(NODE, name="{action}"), TrafficAction.REMOVE)
    assert filled("{node} {action} {} {x}", values) == "{action} remove {} {x}"


async def test_hooks_are_sealed_and_outlive_a_rotation_of_the_master_key(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        hook = TrafficHook(HookKind.HTTP, url="http://lb/hush", headers=(("A", "hush"),))
        assert (await lab.service.set_hook(lab.cluster.id, hook)).tried
        old, new, _ = await lab.service.keys.rotate_master()
        assert old != new
        vault = Vault(lab.service.settings.master_key_path)
        assert await HookStore(lab.service.store.database, vault).read(lab.cluster.id) == hook
    files = contents(fast_home)
    assert any(b"lb" in content for content in files)
    assert not any(b"hush" in content for content in files)


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]
