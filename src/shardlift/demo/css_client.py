"""A small CSS API client, signing with AK/SK: the demo goes through the same door as other people's automation."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from shardlift.api.signing import sign
from shardlift.errors import ShardliftError
from shardlift.service.requests import Credentials

_TIMEOUT_S = 120.0
UPGRADE_TYPES = ("same", "cross", "cross-engine")


class CssError(ShardliftError):
    """The API said no; the message has its code and text."""

    code = "css"


class CssClient:
    """One project's view of a CSS endpoint. Every method raises CssError on any answer but success."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        url: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """`url` overrides that of the credentials. `transport` lets a test answer without a network.

        `verify`: whom to trust when the URL is https; by default the system's authorities.
        """
        self._credentials = credentials
        self._base = f"{(url or credentials.url).rstrip('/')}/v1.0/{credentials.project_id}"
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, transport=transport, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def cluster(self, cluster_id: str) -> dict[str, Any]:
        return await self._call("GET", f"/clusters/{cluster_id}")

    async def images(self, cluster_id: str, upgrade_type: str) -> list[dict[str, Any]]:
        """Images that this kind of upgrade can go to."""
        answer = await self._call("GET", f"/clusters/{cluster_id}/target/{upgrade_type}/images", {"limit": 1000})
        return list(answer["imageInfoList"])

    async def upgrade_type_to(self, cluster_id: str, image_id: str) -> str:
        """The kind of upgrade that leads to the image. Raises CssError when none does."""
        for upgrade_type in UPGRADE_TYPES:
            if any(image["id"] == image_id for image in await self.images(cluster_id, upgrade_type)):
                return upgrade_type
        raise CssError(f"no upgrade of cluster {cluster_id} leads to image {image_id}")

    async def upgrade(self, cluster_id: str, image_id: str, upgrade_type: str) -> None:
        """Starts the upgrade of all nodes; when it returns, the task is there and RUNNING."""
        body = {
            "target_image_id": image_id,
            "upgrade_type": upgrade_type,
            "indices_backup_check": False,
            "cluster_load_check": False,
            "agency": "css_upgrade_agency",
        }
        await self._call("POST", f"/clusters/{cluster_id}/inst-type/all/image/upgrade", body=body)

    async def details(self, cluster_id: str, *, limit: int = 10) -> list[dict[str, Any]]:
        """The upgrade tasks, newest first."""
        answer = await self._call("GET", f"/clusters/{cluster_id}/upgrade/detail", {"start": 1, "limit": limit})
        return list(answer["detailList"])

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        url = self._base + path + (f"?{urlencode(query)}" if query else "")
        content = json.dumps(body).encode() if body is not None else b""
        headers = sign(
            method,
            url,
            ak=self._credentials.ak,
            sk=self._credentials.sk,
            now=datetime.now(UTC),
            headers={"Content-Type": "application/json"},
            body=content,
        )
        try:
            answer = await self._http.request(method, url, content=content, headers=headers)
        except httpx.TransportError as error:
            raise CssError(f"{method} {path}: no answer: {type(error).__name__} {error}".rstrip()) from error
        try:
            document = answer.json() if answer.content else {}
        except ValueError:
            raise CssError(f"{method} {path}: {answer.status_code} with a body that is not JSON") from None
        if not answer.is_success:
            raise CssError(f"{method} {path}: {answer.status_code} {document.get('externalMessage', document)}")
        return dict(document)
