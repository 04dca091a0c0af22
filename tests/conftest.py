"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fast_home() -> Iterator[Path]:
    """An empty home in memory where the platform has that: hundreds of journal writes, and no disk to wait for."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="shardlift-test-", dir=base))
    try:
        yield home
    finally:
        shutil.rmtree(home)
