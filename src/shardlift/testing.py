"""For tests of automation that speaks CSS: a server with a simulated cluster and faults, gone when the test ends.

In a conftest: `from shardlift.testing import css_emulator`. Outside pytest: `with emulator() as css: ...`.
docs/emulator.md shows both at work.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from shardlift.emulator import IMAGE, Ready, Shape, emulating, temporary_home
from shardlift.errors import ShardliftError, UsageError
from shardlift.model import InstanceType, Simulation, Strategy
from shardlift.service.requests import NodeGroup
from shardlift.settings import Settings

try:
    import pytest
except ImportError:  # `emulator` works without it
    pytest = None  # type: ignore[assignment]  # only its absence is asked for

SPEED = 600.0
_START_S = 60.0
_STOP_S = 30.0
_CALL_S = 75.0
_CLUSTERS_MAX = 1000
# Tests poll as fast as they can, and try wrong keys as often as they like; a 429 is had by asking for it as a fault.
_UNLIMITED = {"key_rate_per_s": 0, "refused_rate_per_s": 0}


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running server. The fields are what clients are configured with."""

    url: str
    project_id: str
    ak: str
    sk: str
    token: str
    cluster_id: str
    cluster_name: str

    def add_fault(self, kind: str, *, cluster_id: str | None = None, **fields: object) -> str:
        """Lets something go wrong; docs/emulator.md has the kinds and their fields. Returns the fault's id.

        Raises UsageError when the server refuses it.
        """
        asked = {"cluster": cluster_id or self.cluster_id, "kind": kind, **fields}
        return str(self.call("POST", "/api/v1/faults", asked)["fault_id"])

    def faults(self, cluster_id: str | None = None) -> list[dict[str, Any]]:
        """Faults in force, and those that will strike yet."""
        found: list[dict[str, Any]] = self.call("GET", f"/api/v1/faults?{self._query(cluster_id)}")["faults"]
        return found

    def clear_faults(self, cluster_id: str | None = None) -> None:
        """Ends all faults of the cluster, and mends what they have broken."""
        self.call("DELETE", f"/api/v1/faults?{self._query(cluster_id)}")

    def wait_task(self, task_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """The task as the native API shows it, once it has ended. Raises ShardliftError after `timeout_s`."""
        path = f"/api/v1/tasks/{urllib.parse.quote(task_id)}"
        end_s = time.monotonic() + timeout_s
        task = self.call("GET", path)
        while task["status"] == "RUNNING":
            left_s = int(end_s - time.monotonic())
            if left_s <= 0:
                raise ShardliftError(f"task {task_id} still runs after {timeout_s:.0f} s: {task['blocked_by']}")
            task = self.call("GET", f"{path}?after_revision={task['revision']}&wait_s={min(left_s, 30)}")
        return task

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Any call of either API, with the token. Returns its JSON document. Raises UsageError for an error."""
        request = urllib.request.Request(  # noqa: S310  (its own loopback address)
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"X-Auth-Token": self.token, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_S) as response:  # noqa: S310  (the same)
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                told = json.load(error)
            raise UsageError(
                f"{method} {path.partition('?')[0]} answered {error.code}: {told.get('error_msg')}",
                field=told.get("field"),
                value=told.get("value"),
                remedy=told.get("remedy"),
            ) from None
        return answer

    def _query(self, cluster_id: str | None) -> str:
        return urllib.parse.urlencode({"cluster": cluster_id or self.cluster_id})


@contextmanager
def emulator(
    *,
    nodes: int = 3,
    zones: Sequence[str] = ("zone-a", "zone-b", "zone-c"),
    image: str = IMAGE,
    strategy: Strategy = Strategy.DRAIN,
    data_bytes: int = 2**28,
    speed: float = SPEED,
    **settings: object,
) -> Iterator[Emulator]:
    """A server on a free port of 127.0.0.1, in a thread with a loop of its own, with a green simulated cluster.

    `settings` are fields of `shardlift.settings.Settings`. Ends within bounds, and leaves nothing.
    Raises what the server's start raises.
    """
    shape = Shape(
        image=image,
        groups=(NodeGroup(InstanceType.ESS, nodes),),
        zones=tuple(zones),
        strategy=strategy,
        simulation=Simulation(data_bytes=data_bytes, speed=speed),
    )
    _quiet()
    with temporary_home() as home:
        given = {"clusters_max": _CLUSTERS_MAX, "project_clusters_max": _CLUSTERS_MAX, **_UNLIMITED, **settings}
        thread = _Thread(Settings(**{**given, "home": home, "host": "127.0.0.1", "port": 0}), shape)  # type: ignore[arg-type]
        ready = thread.begin()
        try:
            yield Emulator(
                ready.url, ready.project_id, ready.ak, ready.sk, ready.token, ready.cluster_id, ready.cluster_name
            )
        finally:
            thread.end()


def _quiet() -> None:
    """Unless somebody has chosen: warnings alone, and on standard error, whatever stands for that at the time."""
    if not structlog.is_configured():
        structlog.configure(
            # The usual exceptions show local variables, secrets among them, and take seconds to print.
            processors=[
                structlog.processors.add_log_level,
                structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        )


class _Thread:
    """The server's thread. It must end: a test run that hangs tells nobody why."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        self._settings = settings
        self._shape = shape
        self._told = threading.Event()
        self._ready: Ready | None = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="shardlift-emulator", daemon=True)

    def begin(self) -> Ready:
        self._thread.start()
        told = self._told.wait(_START_S)
        if self._error is not None:
            self._thread.join(_STOP_S)
            raise self._error
        if not told or self._ready is None:
            raise ShardliftError(f"the emulator did not start within {_START_S:.0f} s")
        return self._ready

    def end(self) -> None:
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            raise ShardliftError(f"the emulator did not end within {_STOP_S:.0f} s")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  (told to whoever started us)
            self._error = error
        finally:
            self._told.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with emulating(self._settings, self._shape) as (_, ready):
            self._ready = ready
            self._told.set()
            await self._over.wait()


if pytest is not None:

    @pytest.fixture
    def css_emulator() -> Iterator[Emulator]:
        """A fresh emulator for each test that asks for it: three nodes in three zones, 600 times as fast as time."""
        with emulator() as running:
            yield running
