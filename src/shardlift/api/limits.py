"""How often a key may ask, and how often an address may be refused: token buckets in bounded memory."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.responses import JSONResponse

from shardlift.api.errors import ApiError, Row
from shardlift.settings import Settings

THROTTLED = Row(429, "APIGW.0308", "The throttling threshold has been reached.")

_ENTRIES_MAX = 4096
_IPV6_SITE_BITS = 64


class ThrottledError(ApiError):
    """429 with Retry-After: whole seconds, at least one."""

    def __init__(self, wait_s: float, what: str) -> None:
        self.retry_after_s = max(math.ceil(wait_s), 1)
        super().__init__(THROTTLED, f"{what} Retry after {self.retry_after_s} s.")

    def response(self) -> JSONResponse:
        response = super().response()
        response.headers["Retry-After"] = str(self.retry_after_s)
        return response


class Buckets:
    """One bucket a name, filled with `rate_per_s` up to `burst`. The names used longest ago are forgotten first.

    A forgotten bucket is a full one: forgetting can only let more through, never hinder anybody.
    """

    def __init__(
        self, rate_per_s: float, burst: int, elapsed_s: Callable[[], float], entries_max: int = _ENTRIES_MAX
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._elapsed_s = elapsed_s
        self._entries_max = entries_max
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """0 when there was room; else the seconds until there is. A rate of 0 limits nothing."""
        if self._rate_per_s == 0:
            return 0
        now_s = self._elapsed_s()
        level, at_s = self._levels.pop(name, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._rate_per_s)
        enough = level >= 1
        self._levels[name] = (level - 1 if enough else level, now_s)
        while len(self._levels) > self._entries_max:
            self._levels.popitem(last=False)
        return 0 if enough else (1 - level) / self._rate_per_s

    def __len__(self) -> int:
        return len(self._levels)


@dataclass(frozen=True, slots=True)
class Limits:
    """`keys`: requests by access key. `refused`: refused sign-ins by client address; `records`: those written down."""

    keys: Buckets
    refused: Buckets
    records: Buckets


def make_limits(settings: Settings, elapsed_s: Callable[[], float]) -> Limits:
    return Limits(
        Buckets(settings.key_rate_per_s, settings.key_rate_burst, elapsed_s),
        Buckets(settings.refused_rate_per_s, settings.refused_rate_burst, elapsed_s),
        # Over all addresses together: who has many of them shall not keep the disk busy either.
        Buckets(10, 200, elapsed_s),
    )


def site_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one, of which a client has all addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
    return str(parsed)
