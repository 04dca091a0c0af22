"""A client that signs, calls and waits as the Terraform provider does, and holds each answer to the contract."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from shardlift.model import Cluster
from shardlift.service.requests import Credentials
from tests.clients import check_cluster, check_details, until


@dataclass
class Terraform:
    """Signs four headers, sends the project as a fifth, and calls everything JSON, also where there is no body."""

    url: str
    who: Credentials
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.url, timeout=60)

    def call(self, method: str, path: str, body: object = None, *, data_source: bool = False) -> httpx.Response:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": "terraform"}
        if data_source:
            headers["x-language"] = "en-us"
        headers["x-sdk-date"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers["authorization"] = self._signature(method, path, headers, content)
        headers["x-project-id"] = self.who.project_id
        answer = self._client.request(method, path, headers=headers, content=content)
        self.calls.append(f"{method} {path.removeprefix(f'/v1.0/{self.who.project_id}')} {answer.status_code}")
        assert answer.headers["x-request-id"]
        return answer

    def _signature(self, method: str, path: str, headers: dict[str, str], content: bytes) -> str:
        path, _, query = path.partition("?")
        signed = ";".join(sorted(headers))
        lines = [method, f"{path}/", query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", signed]
        canonical = "\n".join([*lines, hashlib.sha256(content).hexdigest()])
        text = f"SDK-HMAC-SHA256\n{headers['x-sdk-date']}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self.who.sk.encode(), text.encode(), hashlib.sha256).hexdigest()
        return f"SDK-HMAC-SHA256 Access={self.who.ak}, SignedHeaders={signed}, Signature={signature}"

    # what the provider does with the answers

    def cluster_path(self, cluster: Cluster, rest: str = "") -> str:
        return f"/v1.0/{self.who.project_id}/clusters/{cluster.id}{rest}"

    def images(self, cluster: Cluster) -> list[str]:
        answer = self.call("GET", self.cluster_path(cluster, "/target/same/images"), data_source=True)
        return [image["id"] for image in answer.raise_for_status().json()["imageInfoList"]]

    def idle(self, cluster: Cluster) -> bool:
        shown = check_cluster(self.call("GET", self.cluster_path(cluster)).raise_for_status().json())
        nodes = shown["instances"]
        return shown["status"] == "200" and not shown["actions"] and all(node["status"] == "200" for node in nodes)

    def wait_idle(self, cluster: Cluster) -> None:
        until(lambda: self.idle(cluster), lambda idle: idle)

    def begin(self, cluster: Cluster, path: str, body: dict[str, object], query: str = "") -> dict[str, Any]:
        """POSTs, then at once reads the details once, and must find the task RUNNING on the default page."""
        self.wait_idle(cluster)
        answer = self.call("POST", self.cluster_path(cluster, path), body)
        assert (answer.status_code, answer.content) == (200, b"")
        task = self.details(cluster, query)[0]
        assert task["status"] == "RUNNING"
        return task

    def details(self, cluster: Cluster, query: str = "") -> list[dict[str, Any]]:
        answer = self.call("GET", self.cluster_path(cluster, f"/upgrade/detail{query}")).raise_for_status()
        return check_details(answer.json(), moves=bool(query))

    def task(self, cluster: Cluster, task_id: str, query: str = "") -> dict[str, Any]:
        """By id, on the default page."""
        return next(one for one in self.details(cluster, query) if one["id"] == task_id)

    def wait(self, cluster: Cluster, task_id: str, query: str = "") -> str:
        read = lambda: self.task(cluster, task_id, query)["status"]  # noqa: E731  (asked again and again)
        return until(read, lambda status: status != "RUNNING")

    def abort(self, cluster: Cluster, task_id: str) -> httpx.Response:
        path = self.cluster_path(cluster, f"/upgrade/{task_id}/retry")
        return self.call("PUT", path, {"retry_mode": "abort"})
