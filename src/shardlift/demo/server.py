"""`shardlift serve` as a process of its own, for as long as the demo needs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardlift.errors import DriverError

_START_S = 60.0
_STOP_S = 30.0
_LOG_LINES = 30


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[str]:
    """Runs the server on a free port of 127.0.0.1 and yields its URL; stops it on the way out.

    It gets a session of its own, so that Ctrl-C at the terminal reaches only us, who then stop it in order.
    Raises DriverError with the end of its log when it does not come up.
    """
    log = home / "serve.log"
    environment = {**os.environ, "SHARDLIFT_HOME": str(home)}
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shardlift", "serve", "--host", "127.0.0.1", "--port", "0"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield await _url(process, home)
    finally:
        await _stop(process)


def log_tail(home: Path) -> str:
    """The last lines that the server logged."""
    try:
        return "\n".join((home / "serve.log").read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])
    except OSError:
        return ""


async def _url(process: asyncio.subprocess.Process, home: Path) -> str:
    """Waits for the file in which the server says where it listens."""
    end = time.monotonic() + _START_S
    pause_s = 0.02
    while time.monotonic() < end and process.returncode is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads((home / "serve.json").read_text("utf-8"))
            if said["pid"] == process.pid:
                return str(said["url"])
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.5)
    ended = "is still silent" if process.returncode is None else f"ended with {process.returncode}"
    raise DriverError(f"`shardlift serve` {ended} after {_START_S:.0f} s at most; its log ends:\n{log_tail(home)}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
