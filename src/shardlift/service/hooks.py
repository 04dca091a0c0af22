"""Traffic hooks as people give them: held to bounds, tried where that changes nothing, and stored."""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from shardlift.backend import Backend
from shardlift.errors import UsageError
from shardlift.model import PLACEHOLDERS, Cluster, HookKind, TrafficHook
from shardlift.settings import Settings
from shardlift.store import Store
from shardlift.store.hooks import HookStore

_TIMEOUT_MAX_S = 600.0
_IN_FLIGHT_MAX_S = 24 * 3600.0
_TEXT_MAX = 2000
_PARTS_MAX = 50
_PORT_MAX = 65_535
_METHODS = ("POST", "PUT", "PATCH")
_BACKEND = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~A-Za-z0-9-]{1,128}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class HookSet:
    """The cluster with its new hook. `out`: nodes that an earlier hook has left out of its balancer.

    `tried`: the balancer was asked about every node, and knows it.
    """

    cluster: Cluster
    out: tuple[str, ...]
    tried: bool


class Hooks:
    """Sets hooks of clusters."""

    def __init__(self, hooks: HookStore, store: Store, backend: Backend, settings: Settings) -> None:
        self._hooks = hooks
        self._store = store
        self._backend = backend
        self._settings = settings

    async def set(self, cluster: Cluster, hook: TrafficHook | None) -> HookSet:
        """Raises UsageError for a hook that cannot work, HookError when HAProxy does not know a node it is for."""
        tried = False
        if hook is not None:
            hook = validated(hook)
            tried = await self._try(cluster, hook)
        out = await self._hooks.write(cluster.id, hook)
        return HookSet(await self._store.cluster(cluster.id), out, tried)

    async def _try(self, cluster: Cluster, hook: TrafficHook) -> bool:
        """Asks what can be asked without changing anything. False for hooks that can only be told."""
        nodes = [node for node in cluster.nodes if hook.leads_to(node)]
        if not nodes:
            raise UsageError(
                f"cluster {cluster.name} has no nodes of these types",
                field="types",
                value=",".join(hook.types),
                remedy="name types that it has",
            )
        balancer = self._backend.balancer(cluster, hook, self._settings)
        return None not in [await balancer.pools(node) for node in nodes]


def validated(hook: TrafficHook) -> TrafficHook:
    """The hook, with the program of a command found on the path. Raises UsageError naming the field that is wrong."""
    _within("timeout", hook.timeout_s, _TIMEOUT_MAX_S)
    _within("in-flight-timeout", hook.in_flight_timeout_s, _IN_FLIGHT_MAX_S)
    if hook.kind is HookKind.COMMAND:
        return _command(hook)
    return _http(hook) if hook.kind is HookKind.HTTP else _haproxy(hook)


def _command(hook: TrafficHook) -> TrafficHook:
    told = " ".join(hook.argv)
    if not hook.argv or len(hook.argv) > _PARTS_MAX or len(told) > _TEXT_MAX or "\0" in told:
        raise UsageError(
            f"a command has 1 to {_PARTS_MAX} words and {_TEXT_MAX} characters",
            field="command",
            value=told[:100],
            remedy="put more into a script and name that",
        )
    names = _placeholders(told, "command", told)
    if "action" not in names or not names & {"node", "address"}:
        raise UsageError(
            "a command must be told what to do and with which node",
            field="command",
            value=told,
            remedy="give it {action} and one of {node} and {address}, as in '/usr/local/bin/lb {action} {address}'",
        )
    program = shutil.which(hook.argv[0])
    if program is None:
        raise UsageError(
            f"there is no program {hook.argv[0]!r} that can be run here",
            field="command",
            value=told,
            remedy="name it by its absolute path, and make it executable",
        )
    return replace(hook, argv=(os.path.abspath(program), *hook.argv[1:]))  # noqa: PTH100  (keeps links as they are)


def _http(hook: TrafficHook) -> TrafficHook:
    shown = f"{hook.url.partition('?')[0][:16]}..."
    try:
        parts = urlsplit(hook.url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or len(hook.url) > _TEXT_MAX or not hook.url.isascii() or not hook.url.isprintable():
        raise UsageError(
            "this is no URL to call", field="url", value=shown, remedy="give http://HOST:PORT/PATH or https://..."
        )
    if "{" in parts.netloc:
        raise UsageError(
            "a placeholder may not choose the host", field="url", value=shown, remedy="put it into path or query"
        )
    _placeholders(hook.url, "url", shown)
    if hook.method not in _METHODS:
        known = ", ".join(_METHODS)
        raise UsageError(
            f"no method {hook.method!r}", field="method", value=hook.method, remedy=f"choose one of: {known}"
        )
    if len(hook.headers) > _PARTS_MAX:
        raise UsageError(
            f"a hook has at most {_PARTS_MAX} headers", field="header", value=len(hook.headers), remedy="leave some out"
        )
    for name, value in hook.headers:
        if not _HEADER.fullmatch(name) or len(value) > _TEXT_MAX or not value.isascii() or not value.isprintable():
            raise UsageError(
                "a header is not usable", field="header", value=name[:30], remedy="give it as 'Name: value', in ASCII"
            )
    return hook


def _haproxy(hook: TrafficHook) -> TrafficHook:
    host, _, port = hook.socket.rpartition(":")
    tcp = bool(host) and port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _PORT_MAX
    if not (hook.socket.startswith("/") or tcp) or len(hook.socket) > _TEXT_MAX or not hook.socket.isprintable():
        raise UsageError(
            "this is no runtime socket",
            field="haproxy",
            value=hook.socket[:100],
            remedy="give its absolute path, or HOST:PORT, as HAProxy's `stats socket` has it",
        )
    named = 0 < len(hook.backends) <= _PARTS_MAX and all(_BACKEND.fullmatch(one) for one in hook.backends)
    if not named:
        raise UsageError(
            "this names no backend of HAProxy",
            field="backend",
            value=",".join(hook.backends)[:100],
            remedy="give the name behind `backend` or `listen` in its configuration; repeat --backend for several",
        )
    return hook


def _placeholders(text: str, field: str, shown: str) -> set[str]:
    names = set(_PLACEHOLDER.findall(text))
    unknown = sorted(names - set(PLACEHOLDERS))
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UsageError(
            f"nothing is put in for {{{unknown[0][:30]}}}", field=field, value=shown, remedy=f"placeholders are {known}"
        )
    return names


def _within(field: str, value_s: float, most_s: float) -> None:
    if not math.isfinite(value_s) or not 0 < value_s <= most_s:
        raise UsageError(
            f"this is more than 0 and at most {most_s:.0f} seconds", field=field, value=value_s, remedy="give that"
        )
