"""The small program between the control plane and an engine: starts it once, as nobody's child, as another user.

Run by path with a JSON order on stdin; answers one JSON line. Standard library only, so that it is quick.

Why an engine can never be started twice: its process holds an exclusive lock on `run/lock` from before its identity is
written until it dies, because the lock's file descriptor passes through fork and exec and the kernel lets go of it only
with the last process that holds it. Why an identity is never missing: `run/pid.json` is written under the turn lock,
by the engine's own process before it becomes the engine. Whoever finds `run/lock` held while he has the turn therefore
finds the identity too, whatever crashed when.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TURN_TIMEOUT_S = 30
_CONSOLE_MAX_BYTES = 8 * 1024**2
_STAT_STATE = 0  # in /proc/PID/stat, counted from behind the command's closing parenthesis
_STAT_START_TICKS = 19


def start_mark(pid: int) -> str | None:
    """What tells this process from a later one of the same pid; None when it is gone or a zombie.

    On Linux the boot and the clock tick of its start: unlike a date, neither moves when the clock is set.
    """
    if sys.platform != "linux":
        words = subprocess.run(  # noqa: S603  # fixed words and a number
            ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
        ).stdout.split()
        return None if not words or words[0].startswith("Z") else " ".join(words[1:])
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 1 :].split()
    if fields[_STAT_STATE] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}:{fields[_STAT_START_TICKS]}"


def host_log_line(effect: str, facts: dict[str, Any]) -> bytes:
    """One line of a node's host.log."""
    return json.dumps({"time": datetime.now(UTC).isoformat(), "effect": effect, **facts}).encode() + b"\n"


def main() -> int:
    order = json.load(sys.stdin)
    run = Path(order["run"])
    signal.alarm(_TURN_TIMEOUT_S)  # bounds the wait for our turn; ends us, not the engine
    turn = os.open(run / "turn.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(turn, fcntl.LOCK_EX)
    signal.alarm(0)
    held = os.open(run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _answer({"already": True})
        return 0
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_engine(order, run, held, send)
    os.close(send)
    with os.fdopen(receive) as pipe:
        failure = pipe.read()  # ends at exec, which closes the other end, or with the words of a failure
    if failure:
        os.waitpid(pid, 0)
    _answer({"failure": failure} if failure else {"already": False})
    return 0


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


def _become_engine(order: dict[str, Any], run: Path, held: int, send: int) -> None:
    """Never returns: turns this process into the engine, or tells `send` why not and ends."""
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _redirect(Path(order["console"]), order["image"])
        log = os.open(order["host_log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        identity = _write_identity(run, order["image"])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.umask(0o027)
        if order["uid"] is not None:
            os.setgroups(order["groups"])
            os.setgid(order["gid"])
            os.setuid(order["uid"])
        os.chdir(order["cwd"])
        if not os.access(order["argv"][0], os.X_OK):
            raise PermissionError(f"{order['argv'][0]} cannot be run by user id {os.geteuid()}")  # noqa: TRY301
        os.set_inheritable(held, True)
        os.write(log, host_log_line("start", identity))
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606  # no shell is the point
    except BaseException as error:  # noqa: BLE001  # a forked child must not return into its parent's code
        os.write(send, f"{type(error).__name__}: {error}".encode())
    os._exit(1)


def _redirect(console: Path, image: str) -> None:
    """Nothing in, everything out to the console log, which is set aside once when it has grown large."""
    if console.exists() and console.stat().st_size > _CONSOLE_MAX_BYTES:
        console.replace(console.with_suffix(".1.log"))
    out = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.write(1, f"--- start of {image} as pid {os.getpid()} at {datetime.now(UTC).isoformat()}\n".encode())


def _write_identity(run: Path, image: str) -> dict[str, Any]:
    identity = {"pid": os.getpid(), "started_at_s": time.time(), "mark": start_mark(os.getpid()), "image": image}
    fresh = run / "pid.json.tmp"
    with fresh.open("w", encoding="utf-8") as sink:
        json.dump(identity, sink)
        sink.flush()
        os.fsync(sink.fileno())
    fresh.replace(run / "pid.json")
    return identity


if __name__ == "__main__":
    sys.exit(main())
