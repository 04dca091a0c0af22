"""A hook that is an HTTP call."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from shardlift.errors import HookError
from shardlift.model import Node, TrafficAction, TrafficHook, filled, values_of


class HttpHook:
    """Sends a small JSON document to the hook's URL. A 2xx answer is success; redirects are not followed.

    Neither the URL's path and query nor headers are in any message, since they may be secrets; nor is the answer.
    """

    def __init__(
        self, hook: TrafficHook, verify: ssl.SSLContext, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`transport` lets a test answer without a network."""
        self._hook = hook
        self._verify = verify
        self._transport = transport

    async def pools(self, node: Node) -> tuple[str, ...] | None:
        del node
        return None

    async def remove(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        return await self._send(node, TrafficAction.REMOVE)

    async def put_back(self, node: Node, pools: tuple[str, ...] | None) -> str:
        del pools
        return await self._send(node, TrafficAction.RETURN)

    async def sessions(self, node: Node) -> int | None:
        del node
        return None

    async def _send(self, node: Node, action: TrafficAction) -> str:
        hook = self._hook
        values = values_of(node, action)
        url = filled(hook.url, values, lambda value: quote(value, safe=""))
        told = f"the traffic hook {hook.target}, told to {action} {node.name},"
        options: dict[str, Any] = {
            "trust_env": False,
            "follow_redirects": False,
            "verify": self._verify,
            "transport": self._transport,
        }
        try:
            # The library's limit is one of each wait; ours is the whole. The answer is closed unread, however long.
            async with (
                asyncio.timeout(hook.timeout_s),
                httpx.AsyncClient(timeout=hook.timeout_s, **options) as client,
                client.stream(hook.method, url, json=values, headers=dict(hook.headers)) as answer,
            ):
                status = answer.status_code
        except (TimeoutError, httpx.TimeoutException):
            raise HookError(
                f"{told} did not answer within {hook.timeout_s:g} s", remedy="see whether it works, then retry"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise HookError(
                f"{told} could not be reached: {type(error).__name__}",
                remedy=f"see whether {urlsplit(hook.url).hostname} answers from this machine, then retry",
            ) from None
        if not httpx.codes.is_success(status):
            more = ", and redirects are not followed" if httpx.codes.is_redirect(status) else ""
            raise HookError(f"{told} answered {status}{more}", remedy="see its log for the cause, then retry")
        return f"{hook.target} answered {status}"
