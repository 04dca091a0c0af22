"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from shardlift.chaos.time import VirtualLoop

# A busy machine is no failure.
settings.register_profile("shardlift", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shardlift")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The tests of a module that says `VIRTUAL_TIME = True` run in a loop in which waiting takes no time."""
    virtual = getattr(getattr(item, "module", None), "VIRTUAL_TIME", False)
    return {"virtual": VirtualLoop} if virtual else {"real": asyncio.new_event_loop}


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
