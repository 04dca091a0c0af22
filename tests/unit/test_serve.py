"""`serve` as a process: one a home, and secrets in one file only."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.walks


@contextmanager
def serving(home: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A server on any free port, killed at the end whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shardlift", "serve", "--port", "0"],
        env={**os.environ, "SHARDLIFT_HOME": str(home)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "docs=" in line:
                break
        yield process, json.loads((home / "serve.json").read_text())
    finally:
        process.kill()
        process.wait(10)


def test_one_server_a_home(fast_home: Path) -> None:
    with serving(fast_home) as (first, told):
        assert httpx.get(f"{told['url']}/docs").status_code == 200
        second = subprocess.run(
            [sys.executable, "-m", "shardlift", "serve", "--port", "0"],
            env={**os.environ, "SHARDLIFT_HOME": str(fast_home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 5
        assert f"process {first.pid}" in second.stderr
        assert told["url"] in second.stderr
        assert "Traceback" not in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
        assert not (fast_home / "serve.json").exists()


def test_killed_server_leaves_the_home_free(fast_home: Path) -> None:
    with serving(fast_home) as (first, told):
        credentials = fast_home / "credentials.toml"
        kept = tomllib.loads(credentials.read_text())["default"]
        assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
        assert kept["url"] == told["url"]
        first.kill()
        first.wait(10)
    with serving(fast_home) as (_, again):
        now = tomllib.loads((fast_home / "credentials.toml").read_text())["default"]
        assert now["url"] == again["url"], "the profile follows the server"
        assert {key: now[key] for key in ("ak", "sk", "token")} == {key: kept[key] for key in ("ak", "sk", "token")}
        listed = httpx.get(f"{again['url']}/v1.0/{now['project_id']}/clusters", headers={"X-Auth-Token": now["token"]})
        assert listed.json() == {"totalSize": 0, "clusters": []}
