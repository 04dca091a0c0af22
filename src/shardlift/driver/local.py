"""Nodes on this very machine: folders under HOME/nodes, processes that outlive the control plane."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shardlift.driver import addresses, config, jvm, launch, process
from shardlift.driver.config import ConfigTarget
from shardlift.driver.layout import NodePaths, read_json, write_json
from shardlift.driver.protocol import Backup, ProcessSeen, Restored, Stopped
from shardlift.driver.render import bootstrap_arguments
from shardlift.driver.users import NodeUser, node_user
from shardlift.errors import DriverError
from shardlift.images import ImageStore, UnpackedImage, open_folder
from shardlift.model import EngineKind, Image, Node, PluginSeen
from shardlift.settings import Settings

T = TypeVar("T")

_LAUNCH_TIMEOUT_S = 60
_ORPHAN_TIMEOUT_S = 10
_DELETE_STOP_TIMEOUT_S = 30
_TAIL_BYTES = 128 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DESCRIPTOR_LINE = re.compile(r"^(name|version)=(.*)$", re.MULTILINE)


class LocalDriver:
    """`driver.protocol.Driver` for this machine.

    All work is done in threads, one at a time per node: a call that was cancelled may still be at it when the next
    comes. What the operating system refuses becomes a DriverError that names the file.
    """

    def __init__(self, settings: Settings, store: ImageStore) -> None:
        self._settings = settings
        self._store = store
        self._home = settings.home.absolute()
        self._nodes = settings.nodes_path.absolute()
        self._turns: defaultdict[NodePaths, threading.Lock] = defaultdict(threading.Lock)

    # ---- the machine -------------------------------------------------------------------------------------------

    async def allocate(self, count: int, taken: frozenset[str]) -> tuple[addresses.Endpoint, ...]:
        """Endpoints (address, HTTP port, transport port) for new nodes; see `addresses.allocate`."""
        return await asyncio.to_thread(addresses.allocate, self._home, count, taken)

    async def java_problem(self, image: Image) -> str | None:
        return await asyncio.to_thread(lambda: jvm.java_for(image, jvm.find(self._settings)))

    async def prepare(self, image: Image) -> None:
        def work() -> None:
            self._java(image, node_user(self._settings.node_user))  # first: it says no without a download
            self._store.pull(image)
            self._store.unpack(image)

        await self._told(work)

    async def image_ready(self, image: Image) -> bool:
        return await self._told(lambda: self._store.is_unpacked(image))

    async def image_plugins(self, image: Image) -> tuple[PluginSeen, ...]:
        return await self._told(lambda: _plugins(self._store.unpacked(image.id).path))

    # ---- the life of a node --------------------------------------------------------------------------------------

    async def create(self, node: Node, image: Image, *, seeds: tuple[Node, ...], heap_mib: int) -> None:
        def work(paths: NodePaths) -> None:
            user = node_user(self._settings.node_user)
            target = self._target(image.id, heap_mib, user)
            open_folder(paths.run)
            user.require(paths.root, "the node's folder")
            if not paths.state.exists():
                write_json(paths.state, {"heap_mib": heap_mib, "node_id": node.id})
            for folder in (paths.data, paths.logs, paths.tmp):
                folder.mkdir(mode=0o750, exist_ok=True)
                user.own(folder)
            config.lay(paths, node, seeds, target)
            if _current(paths) is None:
                _point(paths, target.image.path)
                paths.log("create", image=image.id)

        await self._on(node, work)

    async def process(self, node: Node) -> ProcessSeen | None:
        return await self._on(node, process.find)

    async def start(self, node: Node, *, bootstrap: tuple[str, ...] = ()) -> ProcessSeen:
        def work(paths: NodePaths) -> ProcessSeen:
            running = process.find(paths)
            if running is not None:
                return running
            process.end_orphans(paths, _ORPHAN_TIMEOUT_S)
            user = node_user(self._settings.node_user)
            image = self._engine(paths)
            java = self._java(image, user)
            for path, what in (
                (image.path / "bin" / str(image.engine), "the engine"),
                (paths.config, "its configuration"),
                (paths.data, "its data"),
            ):
                user.require(path, what)
            return _launch(paths, image, java, user, bootstrap)

        return await self._on(node, work)

    async def stop(self, node: Node, *, timeout_s: float) -> Stopped:
        return await self._on(node, lambda paths: process.end(paths, timeout_s))

    async def delete(self, node: Node) -> None:
        def work(paths: NodePaths) -> None:
            if not paths.root.exists():
                return
            process.end(paths, _DELETE_STOP_TIMEOUT_S)
            shutil.rmtree(paths.root)
            if not any(paths.root.parent.iterdir()):
                paths.root.parent.rmdir()

        await self._on(node, work)

    # ---- the steps of an upgrade -----------------------------------------------------------------------------------

    async def backup(self, node: Node, *, key: str) -> Backup:
        return await self._on(node, lambda paths: config.save(paths, key, _plugins(paths.engine)))

    async def current_image(self, node: Node) -> str | None:
        return await self._on(node, _current)

    async def switch(self, node: Node, image: Image, *, key: str, fresh_data: bool) -> bool:
        def work(paths: NodePaths) -> bool:
            self._require_stopped(paths, "its engine can be switched")
            user = node_user(self._settings.node_user)
            engine = self._store.unpacked(image.id).path.absolute()
            changed = fresh_data and _set_aside(paths, key, user)
            if _current(paths) != image.id:
                _point(paths, engine)
                changed = True
            if changed:
                paths.log("switch", key=key, image=image.id, fresh_data=fresh_data)
            return changed

        return await self._on(node, work)

    async def hand_over(self, source: Node, target: Node, *, key: str) -> bool:
        giver = NodePaths.of(self._nodes, source)

        def work(paths: NodePaths) -> bool:
            self._require_stopped(paths, "it takes over another's data")
            with self._turns[giver]:
                self._require_stopped(giver, "its data is handed over")
                user = node_user(self._settings.node_user)
                taken = _take_over(giver, paths, key)
                giver.data.mkdir(mode=0o750, exist_ok=True)
                user.own(giver.data)
            if taken:
                paths.log("hand over", key=key, source=source.name)
            return taken

        return await self._on(target, work)

    async def restore(self, node: Node, image: Image, *, key: str, zone: str | None = None) -> Restored:
        def work(paths: NodePaths) -> Restored:
            self._require_stopped(paths, "its configuration is rebuilt")
            user = node_user(self._settings.node_user)
            heap_mib = int(read_json(paths.state).get("heap_mib", self._settings.heap_mib))
            return config.rebuild(paths, key, self._target(image.id, heap_mib, user), zone)

        return await self._on(node, work)

    async def plugins(self, node: Node) -> tuple[PluginSeen, ...]:
        return await self._on(node, lambda paths: _plugins(paths.engine))

    async def discard(self, node: Node, *, key: str) -> None:
        def work(paths: NodePaths) -> None:
            kept = [one for one in (paths.aside(key), paths.aside(key, again=True)) if one.exists()]
            for one in kept:
                shutil.rmtree(one)
            if kept:
                paths.log("discard", key=key)

        await self._on(node, work)

    async def log_tail(self, node: Node, lines: int = 40) -> tuple[str, ...]:
        def work(paths: NodePaths) -> tuple[str, ...]:
            # Engines print their log as well, so the console has both; the log file alone when nothing was printed.
            return _tail(paths.console, lines) or _tail(paths.logs / f"{node.cluster_id}.log", lines)

        return await self._on(node, work)

    # ---- inside ------------------------------------------------------------------------------------------------------

    async def _on(self, node: Node, work: Callable[[NodePaths], T]) -> T:
        paths = NodePaths.of(self._nodes, node)

        def alone() -> T:
            with self._turns[paths]:
                return work(paths)

        return await self._told(alone, node.name)

    async def _told(self, work: Callable[[], T], subject: str = "this machine") -> T:
        """Runs the work in a thread; what the system refuses is told as a DriverError."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            raise DriverError(
                f"{subject}: {error.strerror or error}{where}",
                remedy="look at disk space, owner and permissions there, then retry",
            ) from error

    def _java(self, image: jvm.NeedsJava, user: NodeUser) -> jvm.Jvm:
        chosen = jvm.choose(image, jvm.find(self._settings))
        return jvm.reachable(chosen, user, self._home / "jvms")

    def _target(self, image_id: str, heap_mib: int, user: NodeUser) -> ConfigTarget:
        image = self._store.unpacked(image_id)
        return ConfigTarget(image, self._java(image, user), heap_mib, user)

    def _engine(self, paths: NodePaths) -> UnpackedImage:
        image_id = _current(paths)
        if image_id is None:
            raise DriverError(
                f"{paths.root.name} has no engine at {paths.engine}", remedy="was it created on this machine?"
            )
        return self._store.unpacked(image_id)

    def _require_stopped(self, paths: NodePaths, what: str) -> None:
        running = process.find(paths)
        if running is not None:
            raise DriverError(
                f"{paths.root.name} still runs as process {running.pid}", remedy=f"it must stop before {what}"
            )


def _current(paths: NodePaths) -> str | None:
    try:
        return paths.engine.readlink().name
    except FileNotFoundError:
        return None


def _point(paths: NodePaths, engine: Path) -> None:
    """Switches the engine link in one rename: there is never none, and never half of one."""
    fresh = paths.root / "engine.tmp"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(engine.absolute())
    fresh.replace(paths.engine)


def _set_aside(paths: NodePaths, key: str, user: NodeUser) -> bool:
    """Moves the data away and makes an empty folder, once per key: the state file says when both are done."""
    state = read_json(paths.state)
    if state.get("fresh_data_for") == key:
        return False
    aside = paths.aside(key)
    if not aside.exists() and paths.data.exists():  # a node whose disk was lost has none to keep
        paths.data.rename(aside)
    paths.data.mkdir(mode=0o750, exist_ok=True)
    user.own(paths.data)
    write_json(paths.state, state | {"fresh_data_for": key})
    return True


def _take_over(giver: NodePaths, paths: NodePaths, key: str) -> bool:
    """Moves the giver's data into the place of the empty folder, once per key.

    The state file says so when it is done; cut short before that, it is told by the giver's folder being gone.
    """
    state = read_json(paths.state)
    if state.get("data_taken_for") == key:
        return False
    if giver.data.exists():
        if paths.data.exists() and state.get("fresh_data_for") == key and any(paths.data.iterdir()):
            paths.data.rename(paths.aside(key, again=True))  # the node was started by somebody since it got this folder
        elif paths.data.exists():
            paths.data.rmdir()  # refuses unless it is empty
        giver.data.rename(paths.data)
    elif not paths.data.exists():
        raise DriverError(f"{giver.root.name} has no data at {giver.data}", remedy="see where it has gone, then retry")
    write_json(paths.state, state | {"data_taken_for": key})
    return True


def _launch(
    paths: NodePaths, image: UnpackedImage, java: jvm.Jvm, user: NodeUser, bootstrap: tuple[str, ...]
) -> ProcessSeen:
    """Runs the launcher and reads its answer. Whoever kills us meanwhile, it finishes its work."""
    order = {
        "run": str(paths.run),
        "console": str(paths.console),
        "host_log": str(paths.host_log),
        "image": image.id,
        "argv": [
            str(image.path.absolute() / "bin" / str(image.engine)),
            *bootstrap_arguments(image.engine, image.version, bootstrap),
        ],
        "env": _environment(paths, image, java),
        "cwd": str(paths.tmp),
        "uid": user.uid if user.drops else None,
        "gid": user.gid,
        "groups": list(user.groups),
    }
    try:
        answer = subprocess.run(  # noqa: S603  # our own launcher
            [sys.executable, "-I", "-S", launch.__file__],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
            timeout=_LAUNCH_TIMEOUT_S,
            start_new_session=True,
        )
        said = json.loads(answer.stdout) if answer.returncode == 0 else {"failure": answer.stderr.strip()[-2000:]}
    except subprocess.TimeoutExpired:
        said = {"failure": f"no answer within {_LAUNCH_TIMEOUT_S} s"}
    if said.get("failure") is not None:
        raise DriverError(f"{paths.root.name} could not be started: {said['failure']}", remedy="see the cause, retry")
    identity = read_json(paths.run / "pid.json")
    if said.get("already") and process.find(paths) is None:
        raise DriverError(
            f"{paths.root.name} was not started: {paths.run / 'lock'} is still held by a process that process"
            f" {identity.get('pid')} left behind",
            remedy="`fuser` on that file names it; end it and retry",
        )
    return ProcessSeen(int(identity["pid"]), float(identity["started_at_s"]))


def _environment(paths: NodePaths, image: UnpackedImage, java: jvm.Jvm) -> dict[str, str]:
    """All that the engine sees: nothing of our own environment leaks into it."""
    home = str(java.home)
    env = {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": str(paths.tmp),
        "TMPDIR": str(paths.tmp),
        process.NODE_VARIABLE: str(paths.root),
    }
    if image.engine is EngineKind.OPENSEARCH:
        env |= {"OPENSEARCH_PATH_CONF": str(paths.config), "OPENSEARCH_TMPDIR": str(paths.tmp)}
        return env | {"JAVA_HOME" if image.version.major == 1 else "OPENSEARCH_JAVA_HOME": home}
    env |= {"ES_PATH_CONF": str(paths.config), "ES_TMPDIR": str(paths.tmp)}
    knows_own = (image.version.major, image.version.minor) >= (7, 12)
    return env | {"ES_JAVA_HOME" if knows_own else "JAVA_HOME": home}


def _plugins(engine: Path) -> tuple[PluginSeen, ...]:
    found = []
    for descriptor in (engine / "plugins").glob("*/plugin-descriptor.properties"):
        facts = dict(_DESCRIPTOR_LINE.findall(descriptor.read_text("utf-8")))
        found.append(PluginSeen(facts.get("name", descriptor.parent.name), facts.get("version", "")))
    return tuple(sorted(found, key=lambda plugin: plugin.name))


def _tail(path: Path, lines: int) -> tuple[str, ...]:
    try:
        with path.open("rb") as source:
            source.seek(max(0, source.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = source.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-lines:])
