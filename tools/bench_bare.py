"""The least that a server can do: an ASGI app that answers each path with bytes of its own, and asks nobody who asks.

`bench_bare.py FOLDER` serves the files in it by name (`/NAME`), as `shardlift serve` serves, and prints its port.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from shardlift.web import BoundedHttp, run, settle

_REQUEST_ID = b"0" * 32


def app_of(folder: Path) -> Any:
    answers = {f"/{file.name}": file.read_bytes() for file in folder.iterdir()}
    heads = {
        path: [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (b"x-request-id", _REQUEST_ID),
        ]
        for path, body in answers.items()
    }

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        path = scope["path"]
        await send({"type": "http.response.start", "status": 200, "headers": heads[path]})
        await send({"type": "http.response.body", "body": answers[path]})

    return app


async def serve(folder: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app_of(folder), http=BoundedHttp, log_config=None, access_log=False, lifespan="off")
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    settle()
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    run(serve(Path(sys.argv[1])))
