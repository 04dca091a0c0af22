"""The least that a server can do: an ASGI app that answers each path with bytes of its own, and asks nobody who asks.

`bench_bare.py FOLDER` has a file for each cluster, named by its id: what is answered to a poll of its upgrade details,
whoever asks. It serves as `shardlift serve` does, and prints its port.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from shardlift.web import BoundedHttp, run, settle

_REQUEST_ID = b"0" * 32
_CLUSTER = 4  # /v1.0/PROJECT/clusters/CLUSTER/upgrade/detail


def app_of(folder: Path) -> Any:
    answers = {file.name: file.read_bytes() for file in folder.iterdir()}
    heads = {
        name: [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (b"x-request-id", _REQUEST_ID),
        ]
        for name, body in answers.items()
    }

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        name = scope["path"].split("/")[_CLUSTER]
        await send({"type": "http.response.start", "status": 200, "headers": heads[name]})
        await send({"type": "http.response.body", "body": answers[name]})

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
