"""Two tenants with a cluster each behind the API, and a client that signs: the ground that the API's tests stand on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI

from shardlift.api import create_app
from shardlift.api.signing import sign
from shardlift.model import Cluster, Image
from shardlift.service.requests import Credentials
from shardlift.settings import Settings
from tests.fakes import FakeService, make_cluster, make_image

BASE = "http://shardlift.test"


@dataclass
class World:
    """`mine` asks; `other` is the tenant who must not be seen."""

    service: FakeService
    app: FastAPI
    mine: Credentials
    other: Credentials
    cluster: Cluster
    foreign: Cluster
    target: Image

    def path(self, rest: str = "") -> str:
        """A path below my cluster."""
        return f"/v1.0/{self.mine.project_id}/clusters/{self.cluster.id}{rest}"

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        body: object = None,
        raw: bytes | None = None,
        token: bool = False,
        who: Credentials | None = None,
    ) -> httpx.Response:
        """Sends a request as `who` (me by default), signed, or with the token; `raw` instead of a JSON `body`."""
        who = who or self.mine
        url = BASE + path + (f"?{urlencode(query)}" if query else "")
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if token:
            headers["X-Auth-Token"] = who.token
        else:
            headers = sign(method, url, ak=who.ak, sk=who.sk, now=datetime.now(UTC), headers=headers, body=content)
        return await self.send(method, url, headers, content)

    async def send(self, method: str, url: str, headers: Mapping[str, str], content: bytes = b"") -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, timeout=timedelta(seconds=60).seconds) as client:
            return await client.request(method, url, headers=dict(headers), content=content)


async def make_world(home: Path) -> World:
    service = FakeService(Settings(home=home))
    mine, other = await service.create_project("mine"), await service.create_project("other")
    current = make_image("2.19.4", priority=10)
    target = make_image("3.4.0", priority=30)
    for image in (current, make_image("2.19.9", priority=20), make_image("3.1.0", priority=15), target):
        service.catalogue[image.id] = image
    cluster = make_cluster(mine.project_id, current)
    foreign = make_cluster(other.project_id, current, name="css-foreign")
    service.kept_clusters = {cluster.id: cluster, foreign.id: foreign}
    return World(service, create_app(service), mine, other, cluster, foreign, target)  # type: ignore[arg-type]


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Every error has its status, its code, all four keys, a request id, and no traceback."""
    assert (response.status_code, response.json()["error_code"]) == (status, code), response.text
    body = response.json()
    assert body["errCode"] == code
    assert body["externalMessage"] == f"{code} : {body['error_msg']}"
    assert response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body
