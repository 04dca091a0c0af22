"""The check of what may be committed, on a folder that breaks it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "check_tree.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("check_tree", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_registry_hosts_and_heavy_files_are_objected_to(tmp_path):
    tool = load_tool()
    host = "py" + "pi.org"
    (tmp_path / "named.txt").write_text(f"see https://{host}/simple")
    (tmp_path / "heavy.bin").write_bytes(b"0" * (tool.SIZE_MAX_BYTES + 1))
    (tmp_path / "fine.txt").write_text("nothing of the kind")
    found = tool.problems(tmp_path, tool.tracked(tmp_path))
    assert len(found) == 2
    assert any("named.txt" in line and host in line for line in found)
    assert any("heavy.bin" in line for line in found)
