"""Where a local node's files lie, and how small state files are written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardlift.driver.launch import host_log_line
from shardlift.errors import UsageError
from shardlift.model import Node

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def path_part(text: str, field: str) -> str:
    """The text when it is safe as one part of a path. Raises UsageError otherwise."""
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{field} {text!r} cannot name a folder",
            field=field,
            value=text,
            remedy="use letters, digits, dots, dashes and underscores, at most 128, beginning with a letter or digit",
        )
    return text


@dataclass(frozen=True, slots=True)
class NodePaths:
    """A node's folder. `engine` is a link to an image's folder; `rendered` keeps each image's untouched defaults."""

    root: Path

    @classmethod
    def of(cls, nodes_path: Path, node: Node) -> NodePaths:
        return cls(nodes_path / path_part(node.cluster_id, "cluster_id") / path_part(node.name, "node name"))

    @property
    def engine(self) -> Path:
        return self.root / "engine"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def console(self) -> Path:
        return self.logs / "console.log"

    @property
    def run(self) -> Path:
        """Locks and identity. Stays with the control plane's user; only `tmp` in it is the engine's."""
        return self.root / "run"

    @property
    def tmp(self) -> Path:
        return self.run / "tmp"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def rendered(self) -> Path:
        return self.root / "rendered"

    @property
    def host_log(self) -> Path:
        return self.root / "host.log"

    @property
    def state(self) -> Path:
        return self.root / "node.json"

    def aside(self, key: str, *, again: bool = False) -> Path:
        """Where `switch` with this key puts the old data. `again`: where `hand_over` puts what has come since."""
        return self.root / f"data.{path_part(key, 'key')}{'.again' if again else ''}"

    def log(self, effect: str, **facts: Any) -> None:
        """Appends one line to host.log, the proof of what was done on the host and how often."""
        with self.host_log.open("ab", buffering=0) as sink:
            sink.write(host_log_line(effect, facts))

    def logged(self, effect: str, **facts: Any) -> bool:
        """Whether host.log has such a line."""
        return any(
            line.get("effect") == effect and all(line.get(name) == value for name, value in facts.items())
            for line in self._log_lines()
        )

    def _log_lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self.host_log.read_text("utf-8", "replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut short by a crash or a full disk
                continue
            if isinstance(entry, dict):
                yield entry


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file, empty when there is no such file or it is damaged."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replaces the file in one step that survives a power cut."""
    fresh = path.with_name(f"{path.name}.tmp")
    with fresh.open("w", encoding="utf-8") as sink:
        json.dump(data, sink, indent=1)
        sink.flush()
        os.fsync(sink.fileno())
    fresh.replace(path)
