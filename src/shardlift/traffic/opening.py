"""From a hook's definition to the balancer behind it."""

from __future__ import annotations

from shardlift.model import HookKind, TrafficHook
from shardlift.settings import Settings
from shardlift.tls import client_context
from shardlift.traffic.command import CommandHook
from shardlift.traffic.haproxy import Haproxy
from shardlift.traffic.http import HttpHook
from shardlift.traffic.protocol import Balancer


def open_balancer(hook: TrafficHook, settings: Settings) -> Balancer:
    """Nothing is called yet."""
    if hook.kind is HookKind.HAPROXY:
        return Haproxy(hook.socket, hook.backends, hook.timeout_s)
    if hook.kind is HookKind.COMMAND:
        return CommandHook(hook.argv, hook.timeout_s)
    return HttpHook(hook, client_context(settings))
