"""A data folder whose lock cannot be looked at: nobody says that its node is down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shardlift.driver.holder import holder
from shardlift.errors import DriverError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells here who holds a lock")


@pytest.mark.parametrize("part", ["node.lock", "nodes", "nodes/0", "nodes/0/node.lock"])
def test_what_cannot_be_read_is_told(tmp_path: Path, part: str) -> None:
    """A link to itself cannot be followed by root either, whom a mode would not keep out."""
    endless = tmp_path / part
    endless.parent.mkdir(parents=True, exist_ok=True)
    endless.symlink_to(endless.name)
    with pytest.raises(DriverError) as told:
        holder(tmp_path)
    assert str(endless) in told.value.message
    assert "read the node's data folder" in (told.value.remedy or "")


def test_folders_without_a_lock_have_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "none") is None
    (tmp_path / "nodes" / "0").mkdir(parents=True)
    (tmp_path / "nodes" / "1").touch()
    assert holder(tmp_path) is None
    (tmp_path / "nodes" / "0" / "node.lock").touch()
    assert holder(tmp_path) is None
