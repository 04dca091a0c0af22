"""One process of `shardlift serve`: the API, and the runner beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvicorn
from filelock import FileLock, Timeout

from shardlift import tls, web
from shardlift.api import create_app
from shardlift.errors import BusyError, ShardliftError, UsageError
from shardlift.executor import Event
from shardlift.runner import Runner
from shardlift.service import Service, open_service
from shardlift.service.requests import Credentials
from shardlift.settings import Settings

_log = structlog.get_logger(__name__)
_FIRST_PROJECT = "default"
_GRACE_S = 2


Readied = Callable[[Service, str], Awaitable[None]]


async def _nothing(_service: Service, _url: str) -> None:
    return None


def run(
    settings: Settings, observer: Callable[[Event], None] = lambda _event: None, *, readied: Readied = _nothing
) -> int:
    """Serves until SIGINT or SIGTERM, then returns 0. Raises BusyError, naming the holder, when the home is served.

    `readied` is awaited with the service and its URL while it is being served; what it raises ends the server.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(_holder(settings.home), remedy="use that server, or stop it first") from None
    try:
        web.run(_serve(settings, observer, readied))
    finally:
        (settings.home / "serve.json").unlink(missing_ok=True)
        lock.release()
    return 0


class _Server(uvicorn.Server):
    """uvicorn, but it does not raise the signal again when it has shut down: the runner is still to be stopped then."""

    def __init__(self, config: uvicorn.Config, files: tls.TlsFiles | None, host: str) -> None:
        super().__init__(config)
        self._files = files
        self._host = host

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._files is not None:
            numbers.append(signal.SIGHUP)
            loop.add_signal_handler(signal.SIGHUP, self._renew)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _renew(self) -> None:
        """New connections get the certificate that is in the files now; with unusable ones all stays as it is."""
        assert self._files is not None
        assert self.config.ssl is not None, "uvicorn makes it before it listens"
        try:
            doubts = tls.reload(self.config.ssl, self._files, self._host, datetime.now(UTC))
        except (UsageError, OSError) as error:
            _log.error("certificate_not_renewed", message=str(error))
            return
        _log.info("certificate_renewed", file=str(self._files.cert))
        _warn(doubts)


async def _serve(settings: Settings, observer: Callable[[Event], None], readied: Readied) -> None:
    files = tls.server_files(settings)
    if files is not None:
        _warn(tls.check_files(files, settings.host, datetime.now(UTC)))
    listener = _listen(settings)
    url = f"{'https' if files else 'http'}://{settings.host}:{listener.getsockname()[1]}"
    async with open_service(settings, role="serve") as service:
        await service.keys.check()  # a wrong master key ends the start, and not each request
        await service.audit.prune()
        await service.leases.reap("serve:")
        await _first_project(service, url)
        app = create_app(service)
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=web.http_of(app),
                # Long polls may be open for a minute; a server that is asked to end does not wait for them.
                timeout_graceful_shutdown=_GRACE_S,
                ssl_certfile=files.cert if files else None,
                ssl_keyfile=files.key if files else None,
            ),
            files,
            settings.host,
        )
        runner = Runner(
            service.store,
            service.leases,
            backend=service.backend,
            settings=settings,
            clock=service.clock,
            observer=observer,
        )
        running = asyncio.create_task(runner.run())
        leading = asyncio.create_task(service.routes.run())
        readying = asyncio.create_task(_readied(server, readied(service, url)))
        web.settle()
        _announce(settings.home, url)
        _log.info("serving", url=url, docs=f"{url}/docs", home=str(settings.home))
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in (running, leading, readying):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            _log.info("stopped; unfinished tasks go on at the next start")


def _warn(doubts: tuple[str, ...]) -> None:
    for doubt in doubts:
        _log.warning("certificate", doubt=doubt)


async def _readied(server: uvicorn.Server, work: Awaitable[None]) -> None:
    try:
        await work
    except ShardliftError:
        server.should_exit = True
        raise


def _listen(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            field="--port",
            value=settings.port,
            remedy="choose another port, 0 for any free one",
        ) from None


def _holder(home: Path) -> str:
    try:
        held = json.loads((home / "serve.json").read_text())
    except (OSError, ValueError):
        return f"{home} is being served by another process"
    return f"{home} is served by process {held['pid']} on {held['host']} since {held['since']}, at {held['url']}"


def _announce(home: Path, url: str) -> None:
    told = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": url,
    }
    new = home / "serve.json.new"
    new.write_text(json.dumps(told))
    new.replace(home / "serve.json")


async def _first_project(service: Service, url: str) -> None:
    """On the very first start: a project with keys, and the credentials file of the command line's profile."""
    path = service.settings.credentials_path
    if not await service.projects():
        write_credentials(path, replace(await service.create_project(_FIRST_PROJECT), url=url))
        return
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = read_credentials(path)
        if known.url != url:
            write_credentials(path, replace(known, url=url))


def read_credentials(path: Path) -> Credentials:
    """Raises OSError when there is no file, ValueError, KeyError or TypeError when it is none of ours."""
    return Credentials(**tomllib.loads(path.read_text())["default"])


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Atomically, and readable by the owner alone from the first byte on."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in asdict(credentials).items()]
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(["[default]", *lines, ""]))
    new.replace(path)
