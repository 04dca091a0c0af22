"""What the HTTP server itself bounds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request

from shardlift.web import HEAD_MAX_BYTES
from tests.served import served

_PATIENCE_S = 30
CHUNK = b"400\r\n" + b"x" * 1024 + b"\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def size(request: Request) -> int:
        return len(await request.body())

    with served(app) as url:
        yield url


def answer(url: str, sent: bytes) -> bytes:
    """All that comes back until the server has nothing more to say."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE_S) as connection:
        try:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b"HTTP/1.1 400 reset"  # it closed while we were still sending


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 2 * HEAD_MAX_BYTES,
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"a" * 2 * HEAD_MAX_BYTES,
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * HEAD_MAX_BYTES,
        POST + b"transfer-encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n" + b"a: b\r\n" * HEAD_MAX_BYTES,
        POST + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 2 * HEAD_MAX_BYTES,
    ],
    ids=["path", "header", "headers", "trailers", "chunk extension"],
)
def test_no_end_of_headers_in_sight(url: str, endless: bytes) -> None:
    assert answer(url, endless).startswith(b"HTTP/1.1 400 ")


def test_bodies_and_many_requests_on_a_connection_are_not_headers(url: str) -> None:
    body = b"content-length: 300000\r\n\r\n" + b"x" * 300_000
    chunked = b"transfer-encoding: chunked\r\n\r\n" + CHUNK * 200 + b"0\r\n\r\n"
    many = answer(url, POST + body + POST + chunked + POST + b"connection: close\r\n" + chunked)
    assert many.count(b"HTTP/1.1 200 OK") == 3
    assert (many.count(b"\r\n\r\n300000"), many.count(b"\r\n\r\n204800")) == (1, 2)
