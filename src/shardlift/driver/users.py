"""Which user engines run as, and whether that user can reach what they need."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from shardlift.errors import DriverError, UsageError


@dataclass(frozen=True, slots=True)
class NodeUser:
    """The user of engine processes. `drops`: we are root and become this user; else it is ourselves."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    drops: bool

    def own(self, *paths: Path) -> None:
        """Gives the paths, and all in them, to the user. Without effect when it is ourselves."""
        if not self.drops:
            return
        for path in paths:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    os.chown(Path(folder) / name, self.uid, self.gid, follow_symlinks=False)

    def blocked_at(self, path: Path) -> Path | None:
        """The first part of the resolved path that the user may not enter (the last part: not read), None if none."""
        resolved = path.resolve()
        for part in (*reversed(resolved.parents), resolved):
            entered = part.stat()
            needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
            if not self._allowed(entered, needed):
                return part
        return None

    def require(self, path: Path, what: str) -> None:
        """Raises DriverError that names the first folder on the way to `path` which the user may not enter."""
        blocked = self.blocked_at(path)
        if blocked is not None:
            raise DriverError(
                f"user {self.name} cannot reach {what} {path}: {blocked} is closed to it",
                remedy=f"`chmod o+x {blocked}`, or move SHARDLIFT_HOME, or choose another user by SHARDLIFT_NODE_USER",
            )

    def _allowed(self, entry: os.stat_result, other_bit: int) -> bool:
        if self.uid == 0:
            return True
        if entry.st_uid == self.uid:
            return bool(entry.st_mode & other_bit << 6)
        if entry.st_gid in self.groups:
            return bool(entry.st_mode & other_bit << 3)
        return bool(entry.st_mode & other_bit)


def node_user(name: str) -> NodeUser:
    """The user that nodes run as: the named one when we are root, else ourselves. Raises UsageError on a bad name."""
    if os.geteuid() != 0:
        uid = os.geteuid()
        return NodeUser(_name(uid), uid, os.getegid(), (*os.getgroups(), os.getegid()), drops=False)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = None
    if entry is None or entry.pw_uid == 0:
        raise UsageError(
            f"engines cannot run as {name!r}: " + ("that is root" if entry else "there is no such user"),
            field="SHARDLIFT_NODE_USER",
            value=name,
            remedy="name an existing user other than root",
        )
    groups = tuple({entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if name in group.gr_mem)})
    return NodeUser(name, entry.pw_uid, entry.pw_gid, groups, drops=True)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user without an entry
        return str(uid)
