"""The local driver with engines that are scripts: started once, found again, ended, and nothing else touched."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from shardlift.driver.addresses import allocate
from shardlift.driver.local import LocalDriver
from shardlift.errors import DriverError, UsageError
from tests.driver_fakes import BY_HAND, FAILS, PARENT, RUNS, STUBBORN, FakeHost, make_node, open_home

pytestmark = pytest.mark.walks


@contextlib.asynccontextmanager
async def host_with(script: str = RUNS) -> AsyncIterator[FakeHost]:
    """A host with one created node; its process dies with the test."""
    with open_home() as home:
        host = FakeHost(home, script=script)
        await host.create()
        try:
            yield host
        finally:
            await host.driver.delete(host.node)


async def console_has(host: FakeHost, text: str) -> tuple[str, ...]:
    """The console's lines once `text` is among them."""
    for pause_s in [0.01] * 20 + [0.1] * 100:
        lines = await host.driver.log_tail(host.node)
        if any(text in line for line in lines):
            return lines
        await asyncio.sleep(pause_s)
    raise AssertionError(f"{text!r} never came: {lines}")


def spawn(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)


def spawn_zombie() -> subprocess.Popen[bytes]:
    """A process that has ended and whose end nobody has asked for."""
    ended = spawn("true")
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    return ended


def reap(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def effects(host: FakeHost) -> list[str]:
    return [json.loads(line)["effect"] for line in (host.root / "host.log").read_text().splitlines()]


async def test_a_node_is_started_once_as_nobodys_child_with_a_clean_environment() -> None:
    async with host_with() as host:
        os.environ["SHARDLIFT_SECRET_LEAK"] = "no"
        try:
            seen = await host.driver.start(host.node, bootstrap=("n1", "n2"))
        finally:
            del os.environ["SHARDLIFT_SECRET_LEAK"]
        assert await host.driver.start(host.node) == seen
        assert await host.driver.process(host.node) == seen
        again = LocalDriver(host.settings, host.store)  # as after a restart of the control plane
        assert await again.process(host.node) == seen
        assert effects(host) == ["create", "start"]
        process = psutil.Process(seen.pid)
        assert process.ppid() != os.getpid()
        assert os.getsid(seen.pid) == seen.pid
        lines = await console_has(host, "SHARDLIFT_NODE=")
        assert any(line == "arguments: -Ecluster.initial_cluster_manager_nodes=n1,n2" for line in lines)
        assert f"OPENSEARCH_PATH_CONF={host.root / 'config'}" in lines
        assert f"OPENSEARCH_JAVA_HOME={host.home / 'java-17'}" in lines
        assert not any("LEAK" in line for line in lines)
        assert not any(line == "user: 0" for line in lines)


async def test_many_starters_at_once_start_one_engine() -> None:
    async with host_with() as host:
        drivers = [LocalDriver(host.settings, host.store) for _ in range(6)]
        seen = await asyncio.gather(*(driver.start(host.node) for driver in drivers))
        assert len(set(seen)) == 1
        assert effects(host).count("start") == 1


async def test_killing_the_starter_at_any_moment_never_starts_two() -> None:
    async with host_with() as host:
        code = (
            "import asyncio, sys; from tests.driver_fakes import *; from shardlift.settings import Settings;"
            f"s = Settings(home={str(host.home)!r}, java_homes={host.settings.java_homes!r});"
            "d = LocalDriver(s, ImageStore(s.images_path)); print('go', flush=True);"
            "asyncio.run(d.start(make_node()))"
        )
        for delay_s in (0.0, 0.01, 0.03, 0.06):
            starter = spawn(sys.executable, "-c", code)
            assert starter.stdout is not None
            assert starter.stdout.readline() == b"go\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                starter.wait(delay_s)
            reap(starter)
            await host.driver.start(host.node)
        assert effects(host).count("start") == 1


async def test_stop_waits_for_the_exit_and_says_when_there_was_nothing() -> None:
    async with host_with() as host:
        assert (await host.driver.stop(host.node, timeout_s=5)).already
        seen = await host.driver.start(host.node)
        stopped = await host.driver.stop(host.node, timeout_s=10)
        assert (stopped.already, stopped.killed) == (False, False)
        assert await host.driver.process(host.node) is None
        assert (await host.driver.stop(host.node, timeout_s=5)).already
        assert await host.driver.start(host.node) != seen
        assert effects(host) == ["create", "start", "stop", "start"]


async def test_an_engine_that_ignores_sigterm_is_killed_after_the_bound() -> None:
    async with host_with(STUBBORN) as host:
        await host.driver.start(host.node)
        await console_has(host, "ready")
        stopped = await host.driver.stop(host.node, timeout_s=0.3)
        assert stopped.killed
        assert await host.driver.process(host.node) is None
        assert "kill" in effects(host)


async def test_sigterm_is_sent_once_even_when_the_stopping_is_repeated() -> None:
    async with host_with(STUBBORN) as host:
        await host.driver.start(host.node)
        await console_has(host, "ready")
        stops = [asyncio.create_task(LocalDriver(host.settings, host.store).stop(host.node, timeout_s=1)) for _ in "ab"]
        await asyncio.gather(*stops)
        assert effects(host).count("stop") == 1


async def test_stop_ends_the_child_that_serves_as_well() -> None:
    async with host_with(PARENT) as host:
        await host.driver.start(host.node)
        lines = await console_has(host, "child")
        child = psutil.Process(int(lines[-1].split()[1]))
        await host.driver.stop(host.node, timeout_s=5)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_what_a_killed_parent_left_is_ended_before_the_next_start() -> None:
    async with host_with(PARENT) as host:
        seen = await host.driver.start(host.node)
        lines = await console_has(host, "child")
        child = psutil.Process(int(lines[-1].split()[1]))
        parent = psutil.Process(seen.pid)
        parent.kill()
        psutil.wait_procs([parent], timeout=10)
        assert await host.driver.process(host.node) is None
        await host.driver.start(host.node)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_another_process_with_the_recorded_pid_is_neither_found_nor_ended() -> None:
    async with host_with() as host:
        await host.driver.start(host.node)
        await host.driver.stop(host.node, timeout_s=10)
        other = spawn("sleep", "300")
        try:
            record = json.loads((host.root / "run" / "pid.json").read_text())
            (host.root / "run" / "pid.json").write_text(json.dumps(record | {"pid": other.pid}))
            assert await host.driver.process(host.node) is None
            assert (await host.driver.stop(host.node, timeout_s=1)).already
            await host.driver.delete(host.node)
            assert other.poll() is None
        finally:
            reap(other)


def start_by_hand(lock: Path) -> tuple[subprocess.Popen[bytes], psutil.Process, subprocess.Popen[bytes]]:
    """An engine in the session of a person's shell, with its lock held; its child; another process of that session."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    engine = subprocess.Popen([sys.executable, "-c", BY_HAND, str(lock)], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    return engine, psutil.Process(int(engine.stdout.readline())), subprocess.Popen(["sleep", "300"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells here who holds a lock")
@pytest.mark.parametrize("lock", ["nodes/0/node.lock", "node.lock"])
async def test_an_engine_that_a_person_has_started_is_found_left_alone_and_ended(lock: str) -> None:
    """Also when the one that we had started has left its note; and nothing else of the person's session is ended."""
    async with host_with() as host:
        await host.driver.start(host.node)
        await host.driver.stop(host.node, timeout_s=10)
        engine, child, other = start_by_hand(host.root / "data" / lock)
        try:
            seen = await host.driver.process(host.node)
            assert seen is not None
            assert (seen.pid, seen.started_at_s) == (engine.pid, psutil.Process(engine.pid).create_time())
            assert await host.driver.start(host.node) == seen, "it runs, so no second one is started"
            with pytest.raises(DriverError, match="still runs"):
                await host.driver.switch(host.node, host.target, key="t1", fresh_data=True)
            stopped = await host.driver.stop(host.node, timeout_s=10)
            assert (stopped.already, stopped.killed) == (False, False)
            assert engine.wait(timeout=10) == -signal.SIGTERM
            assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
            assert other.poll() is None
            assert await host.driver.process(host.node) is None
            assert (await host.driver.stop(host.node, timeout_s=1)).already
            assert effects(host) == ["create", "start", "stop", "stop"]
            assert (await host.driver.start(host.node)).pid != engine.pid
        finally:
            reap(other)
            reap(engine)
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells here who holds a lock")
async def test_a_holder_that_cannot_be_seen_counts_as_neither_up_nor_down() -> None:
    async with host_with() as host:
        lock = host.root / "data" / "node.lock"
        with lock.open("w") as held:
            # A lock of an open file has no owner, like one of a process in another container.
            fcntl.fcntl(held, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            with pytest.raises(DriverError, match="cannot be seen from here"):
                await host.driver.process(host.node)
            with pytest.raises(DriverError, match="cannot be seen from here"):
                await host.driver.switch(host.node, host.target, key="t1", fresh_data=True)
        assert await host.driver.process(host.node) is None


async def test_a_zombie_counts_as_dead() -> None:
    async with host_with() as host:
        zombie = spawn_zombie()
        await host.driver.start(host.node)
        await host.driver.stop(host.node, timeout_s=10)
        record = json.loads((host.root / "run" / "pid.json").read_text())
        ticks = proc(zombie.pid, "stat").rsplit(")", 1)[1].split()[19]
        mark = record["mark"].split(":")[0] + f":{ticks}"
        (host.root / "run" / "pid.json").write_text(json.dumps(record | {"pid": zombie.pid, "mark": mark}))
        assert await host.driver.process(host.node) is None
        reap(zombie)


async def test_an_engine_that_fails_at_once_leaves_its_words() -> None:
    async with host_with(FAILS) as host:
        await host.driver.start(host.node)
        assert (await console_has(host, "Unrecognized"))[-1] == "Unrecognized VM option UseMagicGC"
        for _ in range(200):
            if await host.driver.process(host.node) is None:
                break
            await asyncio.sleep(0.02)
        assert await host.driver.process(host.node) is None


async def test_delete_leaves_no_process_and_no_file() -> None:
    async with host_with() as host:
        seen = await host.driver.start(host.node)
        await host.driver.delete(host.node)
        assert not psutil.pid_exists(seen.pid) or psutil.Process(seen.pid).status() == psutil.STATUS_ZOMBIE
        assert list((host.home / "nodes").iterdir()) == []
        await host.driver.delete(host.node)


async def test_a_running_node_is_not_switched() -> None:
    async with host_with() as host:
        await host.driver.start(host.node)
        with pytest.raises(DriverError, match="still runs"):
            await host.driver.switch(host.node, host.target, key="t1", fresh_data=True)
        assert await host.driver.current_image(host.node) == "img-a"


async def test_what_is_missing_is_told() -> None:
    with open_home() as home:
        host = FakeHost(home)
        with pytest.raises(DriverError, match="no engine"):
            await host.driver.start(host.node)
        with pytest.raises(UsageError, match="cannot name a folder"):
            await host.driver.process(make_node("../../etc"))
        assert await host.driver.log_tail(host.node) == ()
        assert await host.driver.current_image(host.node) is None


async def test_nodes_files_belong_to_the_engines_user_and_locks_do_not() -> None:
    async with host_with() as host:
        seen = await host.driver.start(host.node)
        uid = psutil.Process(seen.pid).uids().real
        for name in ("config", "data", "logs", "run/tmp", "config/jvm.options"):
            assert (host.root / name).stat().st_uid == uid
        assert (host.root / "run" / "lock").stat().st_uid == os.geteuid()
        assert (os.geteuid() == 0) == (uid != 0 and uid != os.geteuid())


def test_addresses_are_distinct_free_and_not_taken(tmp_path: Path) -> None:
    first = allocate(tmp_path, 3, set())
    assert len({address for address, _, _ in first}) == 3
    assert all(
        address.startswith("127.") and ports == (9200, 9300) for address, *rest in first for ports in [tuple(rest)]
    )
    second = allocate(tmp_path, 3, {address for address, _, _ in first})
    assert not {address for address, _, _ in first} & {address for address, _, _ in second}


def test_the_signal_mask_and_handlers_of_the_starter_do_not_reach_the_engine() -> None:
    async def run() -> None:
        async with host_with() as host:
            seen = await host.driver.start(host.node)
            status = proc(seen.pid, "status")
            masks = dict(
                line.split(":\t") for line in status.splitlines() if line.startswith("Sig") and "/" not in line
            )
            assert int(masks["SigBlk"], 16) == 0
            assert not int(masks["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    thread.join()
