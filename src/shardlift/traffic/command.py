"""A hook that is a program. It is run without a shell, as the server's user, in a process group of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from shardlift.errors import HookError
from shardlift.model import Node, TrafficAction, filled, values_of

_KEPT_BYTES = 2000
_CHUNK_BYTES = 16_384


class CommandHook:
    """Runs `argv` with its placeholders replaced. Success is exit code 0 within `timeout_s`."""

    def __init__(self, argv: tuple[str, ...], timeout_s: float) -> None:
        self._argv = argv
        self._timeout_s = timeout_s

    async def pools(self, node: Node) -> tuple[str, ...] | None:
        del node
        return None

    async def remove(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        return await self._run(node, TrafficAction.REMOVE)

    async def put_back(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        return await self._run(node, TrafficAction.RETURN)

    async def sessions(self, node: Node) -> int | None:
        del node
        return None

    async def _run(self, node: Node, action: TrafficAction) -> str:
        values = values_of(node, action)
        argv = [filled(part, values) for part in self._argv]
        # Our own settings may hold secrets (the database's URL), and are no business of the program.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHARDLIFT_")}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise HookError(
                f"the traffic hook {argv[0]} cannot be run: {error.strerror or error}",
                remedy="make it executable for the user that `shardlift serve` runs as, then retry",
            ) from None
        tail = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                await _read(process, tail)
                code = await process.wait()
        except TimeoutError:
            raise HookError(
                f"the traffic hook {argv[0]} did not end within {self._timeout_s:g} s of being told to {action} "
                f"{node.name}{_said(tail)}",
                remedy="see why it hangs, or give it more time with --timeout, then retry",
            ) from None
        finally:
            await _ended(process)
        if code:
            raise HookError(
                f"the traffic hook {argv[0]} ended with code {code} when told to {action} {node.name}{_said(tail)}",
                remedy="run it by hand with the same arguments, mend it, then retry",
            )
        return f"{argv[0]} ended with code 0"


async def _read(process: asyncio.subprocess.Process, tail: bytearray) -> None:
    """Reads to the end, however much it is, and keeps the last of it."""
    assert process.stdout is not None, "it was asked for"
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        tail += chunk
        del tail[:-_KEPT_BYTES]


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Nothing that the program has begun outlives the call: its whole process group goes."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


def _said(tail: bytearray) -> str:
    text = " ".join(tail.decode("utf-8", "replace").split())[-300:]
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"; it said: {printable}" if printable else ""
