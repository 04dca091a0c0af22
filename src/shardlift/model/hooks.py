"""How clients are led away from a node before it stops: the traffic hook of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from shardlift.model.cluster import InstanceType, Node

PLACEHOLDERS = ("node", "address", "port", "action")


class HookKind(StrEnum):
    """Who is told."""

    COMMAND = "command"
    HTTP = "http"
    HAPROXY = "haproxy"


class TrafficAction(StrEnum):
    """What a hook is asked for, and what `{action}` becomes."""

    REMOVE = "remove"
    RETURN = "return"


class Leftovers(StrEnum):
    """What becomes of the task when requests are still in flight after the bound."""

    FAIL = "fail"
    GO_ON = "go-on"


# Clients have no business with dedicated masters, so balancers do not know them.
USUAL_TYPES = (InstanceType.ESS, InstanceType.COLD, InstanceType.CLIENT)


@dataclass(frozen=True, slots=True)
class TrafficHook:
    """What to call, for nodes of which types, and for how long to wait.

    `timeout_s` bounds one call, `in_flight_timeout_s` the wait until the node works on no request.
    Of the rest each kind uses its own: `argv` for a command; `url`, `method` and `headers` for HTTP; `socket` (an
    absolute path, or HOST:PORT) and `backends` for HAProxy. URL and headers may hold secrets: they are in no repr, and
    `document` leaves them out.
    """

    kind: HookKind
    types: tuple[InstanceType, ...] = USUAL_TYPES
    timeout_s: float = 10.0
    in_flight_timeout_s: float = 60.0
    leftovers: Leftovers = Leftovers.FAIL
    argv: tuple[str, ...] = ()
    url: str = field(default="", repr=False)
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    socket: str = ""
    backends: tuple[str, ...] = ()

    def leads_to(self, node: Node) -> bool:
        """Whether clients may be led to the node at all."""
        return node.instance_type in self.types

    @property
    def target(self) -> str:
        """Who is called, without what may be secret."""
        if self.kind is HookKind.COMMAND:
            return " ".join(self.argv)
        if self.kind is HookKind.HAPROXY:
            return f"{self.socket}, backend {', '.join(self.backends)}"
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
        return f"{self.method} {parts.scheme}://{shown}{port}/..."

    def document(self) -> dict[str, object]:
        """JSON-ready, and safe to show: of a URL scheme, host and port, of headers their names."""
        own: dict[HookKind, dict[str, object]] = {
            HookKind.COMMAND: {"command": list(self.argv)},
            HookKind.HTTP: {"url": self.target, "headers": [name for name, _ in self.headers]},
            HookKind.HAPROXY: {"socket": self.socket, "backends": list(self.backends)},
        }
        return {
            "kind": str(self.kind),
            **own[self.kind],
            "types": [str(one) for one in self.types],
            "timeout_s": self.timeout_s,
            "in_flight_timeout_s": self.in_flight_timeout_s,
            "leftovers": str(self.leftovers),
        }


def values_of(node: Node, action: TrafficAction) -> dict[str, str]:
    """What each placeholder stands for."""
    return {"node": node.name, "address": node.address, "port": str(node.http_port), "action": str(action)}


def filled(template: str, values: dict[str, str], encode: Callable[[str], str] = str) -> str:
    """The template with `{node}` and so on replaced, each once: what a value brings is not looked at again."""
    out, rest = "", template
    while rest:
        at = min((found for name in values if (found := rest.find(f"{{{name}}}")) >= 0), default=-1)
        if at < 0:
            return out + rest
        name, _, behind = rest[at + 1 :].partition("}")
        out, rest = out + rest[:at] + encode(values[name]), behind
    return out
